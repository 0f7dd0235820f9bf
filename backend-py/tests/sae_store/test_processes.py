"""Several processes, and those that are killed: a layer is whole or absent."""

from __future__ import annotations

import multiprocessing
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from qscope.sae import formats, store
from qscope.sae.store.sources import locate

LAYERS = range(6)


@pytest.fixture(scope="module")
def processes():
    """Processes of their own that start in milliseconds: forked off one that has only imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["qscope.sae.store"])
    return context


def wait_for(condition) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, "waited for a minute"
        time.sleep(0.001)


def whole(source: Path) -> None:
    """Every layer the manifest names is there byte for byte; nothing else is."""
    group = store._group(locate(source), torch.bfloat16)
    manifest, damage = group.read()
    assert damage == ""
    for layer, record in manifest.layers.items():
        assert group.fault(layer, record, verify=True) == ""


def complete(source: Path) -> None:
    with store.open_store(source, verify=True) as saes:
        for layer, sae in formats.load(source).items():
            assert torch.equal(saes.sae(layer).W_dec_FD, sae.W_dec_FD.bfloat16().float())
        names = sorted(path.name.split("-")[0] for path in Path(saes.folder).iterdir())
    assert names == [".lock", *sorted(f"layer{layer}" for layer in LAYERS), "manifest.json"]


@pytest.mark.slow
def test_killed_at_any_moment(tmp_path, put, processes):
    source = put(tmp_path, LAYERS, "qwen_scope", d_in=256, d_sae=8192)
    folder = store._group(locate(source), torch.bfloat16).folder
    generator, killed = random.Random(0), 0
    for attempt in range(5):
        process = processes.Process(target=store.open_store, args=(source,))
        process.start()
        # From the first temporary file on it is at work; the delays spread over three layers or so.
        wait_for(lambda process=process: list(folder.glob(".layer*.tmp")) or not process.is_alive())
        time.sleep(generator.uniform(0, 0.02))
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        whole(source)
        if attempt == 0:
            assert store.plan(source).pending, "killed before the end"
    assert killed >= 1
    (folder / ".layer0-ffff.safetensors.1.tmp").write_bytes(b"left by a kill")
    next(folder.glob("layer0-*.safetensors"), folder / "layer0-x.safetensors").unlink(missing_ok=True)
    complete(source)


def test_two_at_once(tmp_path, put, processes):
    source = put(tmp_path, LAYERS, d_in=64, d_sae=2048)
    both = [processes.Process(target=store.open_store, args=(source,)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    complete(source)

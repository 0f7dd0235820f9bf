"""Checkpoints come back bit for bit, and damage costs one checkpoint, never the run."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from qscope.errors import UserError
from qscope.runs import Checkpoints

_FILES = ["tensors.safetensors", "state.json", "manifest.json"]


def _tensors(step: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return {
        "w": torch.randn(7, 5, generator=generator),
        "half": torch.randn(4, generator=generator).bfloat16(),
        "random": generator.get_state(),
        "count": torch.tensor(step),
    }


def _same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def two(tmp_path: Path, warnings: list[str]) -> Checkpoints:
    """Checkpoints of steps 10 and 20."""
    checkpoints = Checkpoints(tmp_path, on_warning=warnings.append)
    checkpoints.save(10, _tensors(10), {"cursor": [1, "a"]})
    checkpoints.save(20, _tensors(20), {"cursor": [2, "b"], "rate": 0.1})
    return checkpoints


def test_what_is_saved_comes_back(two, warnings):
    loaded = two.load_newest()
    assert loaded is not None
    assert (loaded.step, loaded.state) == (20, {"cursor": [2, "b"], "rate": 0.1})
    assert _same(loaded.tensors, _tensors(20))
    assert loaded.tensors["half"].dtype == torch.bfloat16
    assert warnings == []


def test_an_empty_folder_has_none(tmp_path):
    assert Checkpoints(tmp_path / "new").load_newest() is None


def test_views_and_shared_storage_are_saved_whole(tmp_path):
    base = torch.arange(12.0).view(3, 4)
    tensors = {"rows": base[1:], "columns": base.T, "all": base, "again": base, "parameter": torch.nn.Parameter(base)}
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, tensors, {})
    loaded = checkpoints.load_newest()
    assert loaded is not None
    assert _same(loaded.tensors, {name: tensor.detach() for name, tensor in tensors.items()})


def test_only_the_newest_are_kept(tmp_path):
    saved: list[int] = []
    checkpoints = Checkpoints(tmp_path, keep=2, on_saved=lambda path, step, size: saved.append(step))
    for step in (5, 999_999_999, 7_000_000_000):
        checkpoints.save(step, _tensors(1), {})
    assert saved == [5, 999_999_999, 7_000_000_000]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-7000000000", "step-999999999"]
    assert checkpoints.load_newest().step == 7_000_000_000


def test_the_same_step_can_be_saved_again(two):
    two.save(20, _tensors(21), {"again": True})
    loaded = two.load_newest()
    assert loaded.state == {"again": True}
    assert _same(loaded.tensors, _tensors(21))


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def _empty(path: Path) -> None:
    os.truncate(path, 0)


def _grow(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"x")


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


@pytest.mark.parametrize("name", _FILES)
@pytest.mark.parametrize("damage", [_truncate, _empty, _grow, _flip, Path.unlink])
def test_a_damaged_checkpoint_is_passed_over(two, warnings, name, damage):
    damage(two.folder / "step-000000020" / name)
    loaded = two.load_newest()
    assert loaded is not None
    assert loaded.step == 10
    assert _same(loaded.tensors, _tensors(10))
    assert len(warnings) == 1
    assert "step-000000020" in warnings[0]
    # The next save must not count the damaged one among those it keeps.
    two.save(15, _tensors(15), {})
    assert sorted(path.name for path in two.folder.iterdir()) == ["step-000000010", "step-000000015"]


def test_every_flipped_bit_of_the_tensors_is_noticed(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"w": torch.arange(4.0)}, {"a": 1})
    file = tmp_path / "step-000000001" / "tensors.safetensors"
    whole = file.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        file.write_bytes(damaged)
        assert checkpoints.load_newest() is None, position
        (tmp_path / "damaged-step-000000001").rename(tmp_path / "step-000000001")
    file.write_bytes(whole)
    assert checkpoints.load_newest().step == 1


def test_a_renamed_checkpoint_is_not_taken_for_another_step(two):
    (two.folder / "step-000000020").rename(two.folder / "step-000000030")
    assert two.load_newest().step == 10


def test_all_damaged_means_none(two, warnings):
    for step in ("step-000000010", "step-000000020"):
        (two.folder / step / "state.json").unlink()
    assert two.load_newest() is None
    assert len(warnings) == 2


def test_leftovers_of_a_killed_write_are_cleared(two):
    (two.folder / ".new-step-000000030").mkdir()
    (two.folder / "step-000000020").rename(two.folder / ".old-step-000000020")
    reopened = Checkpoints(two.folder)
    assert sorted(path.name for path in two.folder.iterdir()) == ["step-000000010", "step-000000020"]
    assert reopened.load_newest().step == 20


def test_state_that_json_cannot_hold_is_a_bug_and_costs_nothing(two):
    with pytest.raises(TypeError):
        two.save(30, _tensors(30), {"tensor": torch.zeros(1)})
    assert two.load_newest().step == 20


def test_a_full_disk_leaves_the_checkpoint_before(two):
    # A limit on file size fails with an error of its own kind, but on the same path as a full disk.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(UserError) as caught:
            two.save(30, {"w": torch.zeros(100_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.reason == "DISK_FULL"
    assert sorted(path.name for path in two.folder.iterdir()) == ["step-000000010", "step-000000020"]
    assert two.load_newest().step == 20


_KILLED = """
import os, signal, sys, threading, time, torch
from pathlib import Path
from qscope.runs import Checkpoints
checkpoints = Checkpoints(Path(sys.argv[1]))
newest = checkpoints.load_newest()
step = newest.step if newest else 0
assert newest is None or newest.tensors["w"][0] == step
threading.Thread(target=lambda: (time.sleep(float(sys.argv[2])), os.kill(os.getpid(), signal.SIGKILL))).start()
while True:
    step += 1
    checkpoints.save(step, {"w": torch.full((50_000,), float(step))}, {"step": step})
"""


@pytest.mark.slow
def test_killed_while_saving_again_and_again(tmp_path):
    steps = []
    for delay in (0.07, 0.19):
        child = subprocess.run(
            [sys.executable, "-c", _KILLED, str(tmp_path), str(delay)], capture_output=True, text=True, check=False
        )
        assert child.returncode == -9, child.stderr
        loaded = Checkpoints(tmp_path).load_newest()
        assert loaded is not None
        assert loaded.state == {"step": loaded.step}
        assert torch.equal(loaded.tensors["w"], torch.full((50_000,), float(loaded.step)))
        steps.append(loaded.step)
    assert steps == sorted(set(steps)), "every attempt went on from the one before"

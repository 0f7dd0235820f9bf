"""The SAE store at the size of the release: plan, convert, read features; times and memory as JSON.

    python benchmarks/sae_store.py [--layers 2] [--d-in 2048] [--d-sae 32768] [--reads 500] [--folder DIR]

Makes a group of random SAEs in Qwen-Scope's names and shapes (1.07 GB for two layers, and half of that converted) in a
temporary folder, which is removed at the end. Each stage runs in a fresh process, so its memory is its own. "extra" is
resident memory beyond what the process had after its imports; "private" leaves out mapped files, which the system takes
back on demand. "cold" reads come from the disk: the file's pages were dropped from the system's cache just before.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy
import torch
from safetensors import safe_open

from qscope.sae import formats, store
from qscope.sae.store.layer_file import Shape

MB = 1e6


def resident(kind: str = "VmRSS") -> float:
    """A line of this process's memory in /proc, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1]) * 1024 / MB
    raise KeyError(kind)


class Peak:
    """Highest resident and private memory while a block runs, sampled every two milliseconds; MB beyond the start."""

    def __enter__(self) -> Peak:
        self._start = {kind: resident(kind) for kind in ("VmRSS", "RssAnon")}
        self.extra = dict.fromkeys(self._start, 0.0)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.002):
            for kind, start in self._start.items():
                self.extra[kind] = max(self.extra[kind], resident(kind) - start)

    def report(self) -> dict:
        return {"peak_extra_mb": round(self.extra["VmRSS"]), "peak_private_mb": round(self.extra["RssAnon"])}


def make(folder: Path, given: argparse.Namespace) -> None:
    """The made-up group."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    for layer in range(given.layers):
        tensors = {
            "W_enc": torch.randn(given.d_sae, given.d_in, generator=generator),
            "W_dec": torch.randn(given.d_in, given.d_sae, generator=generator),
            "b_enc": torch.randn(given.d_sae, generator=generator),
            "b_dec": torch.randn(given.d_in, generator=generator),
        }
        torch.save(tensors, folder / f"layer{layer}.sae.pt")


def stage_plan(source: str, given: argparse.Namespace) -> dict:
    start = time.perf_counter()
    planned = store.plan(source)
    return {"seconds": round(time.perf_counter() - start, 3), "facts": dict(planned.facts())}


def stage_load(source: str, given: argparse.Namespace) -> dict:
    """What a layer costs without the store."""
    with Peak() as peak:
        start = time.perf_counter()
        formats.load(source, layers=[0])
        seconds = time.perf_counter() - start
    return {"seconds": round(seconds, 3)} | peak.report()


def stage_convert(source: str, given: argparse.Namespace) -> dict:
    with Peak() as peak:
        start = time.perf_counter()
        store.open_store(source).close()
        seconds = time.perf_counter() - start
    return {"seconds_per_layer": round(seconds / given.layers, 2)} | peak.report()


def stage_read(source: str, given: argparse.Namespace) -> dict:
    """One feature at a time, as steering reads them."""
    before = resident()
    start = time.perf_counter()
    with store.open_store(source) as saes:
        opened = time.perf_counter() - start
        first, times = _reads(lambda feature: saes.directions(0, [feature]), given)
        after_one = resident() - before
        start = time.perf_counter()
        saes.directions(0, random.Random(1).sample(range(given.d_sae), min(1000, given.d_sae)))
        many = time.perf_counter() - start
    return {
        "open_ms": round(opened * 1e3, 2),
        "first_ms": round(first * 1e3, 3),
        "next": _summary(times),
        "extra_mb": round(after_one, 1),
        "1000_features_ms": round(many * 1e3, 2),
    }


def stage_whole(source: str, given: argparse.Namespace) -> dict:
    """A whole layer, its sums checked, in both number formats."""
    result = {}
    with store.open_store(source) as saes:
        for dtype in (torch.bfloat16, torch.float32):
            start = time.perf_counter()
            saes.encoder(0, dtype=dtype)
            result[f"encoder_{str(dtype).removeprefix('torch.')}_seconds"] = round(time.perf_counter() - start, 3)
        start = time.perf_counter()
        store.open_store(source, verify=True).close()
        result["verify_seconds_per_layer"] = round((time.perf_counter() - start) / given.layers, 3)
    return result


def _way(way: Callable[[Path, Shape], Callable[[int], object]]) -> Callable[[str, argparse.Namespace], dict]:
    def stage(source: str, given: argparse.Namespace) -> dict:
        with store.open_store(source) as saes:
            folder, shape = Path(saes.folder), Shape(0, given.d_in, given.d_sae, 50, saes.dtype)
        before = resident()
        first, times = _reads(way(next(folder.glob("layer0-*")), shape), given)
        return {
            "first_ms": round(first * 1e3, 3),
            "next": _summary(times),
            "extra_mb": round(resident() - before, 1),
        }

    return stage


def _pread(path: Path, shape: Shape) -> Callable[[int], object]:
    file, width = os.open(path, os.O_RDONLY), shape.d_in * 2

    def read(feature: int) -> torch.Tensor:
        row_D = torch.empty(shape.d_in, dtype=torch.bfloat16)
        os.preadv(file, [row_D.view(torch.uint8).numpy()], shape.offset("W_dec") + feature * width)
        return row_D.float()

    return read


def _memmap(path: Path, shape: Shape) -> Callable[[int], object]:
    size = (shape.d_sae, shape.d_in)
    rows = numpy.memmap(path, dtype=numpy.int16, mode="r", offset=shape.offset("W_dec"), shape=size)
    return lambda feature: torch.from_numpy(numpy.array(rows[feature])).view(torch.bfloat16).float()


def _safe_open(path: Path, shape: Shape) -> Callable[[int], object]:
    rows = safe_open(path, framework="pt").get_slice("W_dec")
    return lambda feature: rows[feature : feature + 1].float()


def _reads(read: Callable[[int], object], given: argparse.Namespace) -> tuple[float, list[float]]:
    features = random.Random(0).choices(range(given.d_sae), k=given.reads + 1)
    times = []
    for feature in features:
        start = time.perf_counter()
        read(feature)
        times.append(time.perf_counter() - start)
    return times[0], times[1:]


def _summary(times: list[float]) -> dict:
    low, middle, high = statistics.quantiles(times, n=4)
    return {
        "n": len(times),
        "median_us": round(middle * 1e6, 1),
        "quartiles_us": [round(low * 1e6, 1), round(high * 1e6, 1)],
    }


STAGES: dict[str, Callable[[str, argparse.Namespace], dict]] = {
    "load_without_store": stage_load,
    "plan": stage_plan,
    "convert": stage_convert,
    "plan_converted": stage_plan,
    "read_feature_cold": stage_read,
    "read_feature": stage_read,
    "whole_layer": stage_whole,
    "row_by_pread": _way(_pread),
    "row_by_memmap": _way(_memmap),
    "row_by_safe_open": _way(_safe_open),
}


def _drop_from_cache(folder: Path) -> None:
    for path in folder.rglob("*.safetensors"):
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--d-in", type=int, default=2048)
    parser.add_argument("--d-sae", type=int, default=32768)
    parser.add_argument("--reads", type=int, default=500)
    parser.add_argument("--folder", type=Path, default=None, help="where the temporary folder is made")
    parser.add_argument("--only", nargs="+", choices=STAGES, default=list(STAGES), help="stages, in their order")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--source", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.stage:
        print(json.dumps(STAGES[given.stage](given.source, given)))
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as made:
        source = Path(made) / f"SAE-Res-Qwen3-1.7B-Base-W{given.d_sae // 1024}K-L0_50"
        make(source, given)
        results: dict[str, dict] = {
            "d_in": given.d_in,
            "d_sae": given.d_sae,
            "layers": given.layers,
            "threads": torch.get_num_threads(),
            "stages": {},
        }
        for stage in (stage for stage in STAGES if stage in given.only):
            if stage.endswith("_cold"):
                _drop_from_cache(Path(made))
            command = [sys.executable, __file__, *sys.argv[1:], "--stage", stage, "--source", str(source)]
            environment = os.environ | {"QSCOPE_CACHE": f"{made}/cache"}
            done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
            results["stages"][stage] = json.loads(done.stdout)
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()

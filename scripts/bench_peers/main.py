"""Trains the same SAEs with qscope, SAELens, sparsify and dictionary_learning in turn; compares speed, memory and FVU.

    scripts/bench-peers                                   # embedded model and text, the issue's settings
    scripts/bench-peers --model Qwen/Qwen3-0.6B-Base --text corpus.jsonl.zst --layers 7,14 --repeats 5

Every competitor runs in a process and an environment of its own, with the same number of threads; a round is one run of
each, and rounds follow each other. Standard library only: this process stays small, as its size counts in theirs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import report
import venvs
from settings import Settings

HERE = Path(__file__).resolve().parent
COMPETITORS = ("qscope", *venvs.PEERS)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench-peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="embedded", help="embedded, or a folder in Hugging Face layout")
    parser.add_argument("--text", default="embedded", help="embedded, or a file of documents")
    parser.add_argument("--heldout", default="embedded-heldout", help="embedded-heldout, or a file of documents")
    parser.add_argument("--layers", default="all", help="decoder blocks from 0, for example 0,3,5")
    parser.add_argument("--d-sae", type=int, default=4096)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--batch-tokens", type=int, default=4096, help="a multiple of --context")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument(
        "--learning-rates", default="", help="own rates where the same one does not suit all: qscope=3e-3,saelens=1e-3"
    )
    parser.add_argument(
        "--tune",
        action="store_true",
        help="first walk each competitor's rate by factors of two to its lowest FVU, then time with that",
    )
    parser.add_argument("--model-batch-tokens", type=int, default=8192)
    parser.add_argument("--buffer-tokens", type=int, default=0, help="0 takes 16 batches")
    parser.add_argument("--aux-k", type=float, default=0.0, help="weight of AuxK for all; 0 is off for all")
    parser.add_argument("--dead-after-tokens", type=int, default=0, help="0 takes 20 batches")
    parser.add_argument("--heldout-tokens", type=int, default=50_000)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=3, help="rounds")
    parser.add_argument("--only", default=",".join(COMPETITORS), help="competitors, in the order of a round")
    parser.add_argument("--venvs", type=Path, default=venvs.default_folder(), help="folder of the peers' environments")
    parser.add_argument(
        "--output", type=Path, default=Path("bench-peers.json"), help="the table goes beside it, as .md"
    )
    parser.add_argument("--setup", action="store_true", help="make the environments and stop")
    given = parser.parse_args(arguments)
    given.only = given.only.split(",")
    unknown = set(given.only) - set(COMPETITORS)
    if unknown:
        parser.error(f"unknown competitor {', '.join(sorted(unknown))}; there are {', '.join(COMPETITORS)}")
    try:
        own = dict(item.split("=") for item in given.learning_rates.split(",") if item)
        given.learning_rates = {name: float(own.pop(name, given.learning_rate)) for name in COMPETITORS}
    except ValueError:
        parser.error("--learning-rates must look like qscope=3e-3,saelens=1e-3")
    if own:
        parser.error(f"--learning-rates names {', '.join(own)}; there are {', '.join(COMPETITORS)}")
    given.buffer_tokens = given.buffer_tokens or 16 * given.batch_tokens
    if given.steps * given.batch_tokens < 4 * given.buffer_tokens:
        parser.error("--steps are too few: the buffer must be refilled several times before its cost shows")
    if given.batch_tokens % given.context:
        parser.error("--batch-tokens must be a multiple of --context: sparsify counts its batches in sequences")
    return given


def main() -> None:
    given = parse()
    pythons = {
        name: venvs.QSCOPE_PYTHON if name == "qscope" else venvs.ensure(name, given.venvs) for name in given.only
    }
    if given.setup:
        return
    with tempfile.TemporaryDirectory(prefix="qscope-bench-") as temporary:
        folder = Path(temporary)
        model, settings = prepare(given, folder)
        tuning: dict[str, dict[str, float]] = {}
        if given.tune:
            for name in given.only:
                tried = tune(name, pythons[name], replace(settings, learning_rate=given.learning_rates[name]), folder)
                given.learning_rates[name] = min(tried, key=tried.__getitem__)
                tuning[name] = {f"{rate:g}": fvu for rate, fvu in sorted(tried.items())}
        rounds, heldout_tokens = [], 0
        for number in range(given.repeats):
            results = {}
            for competitor in given.only:
                output = folder / f"round{number}" / competitor
                output.mkdir(parents=True)
                job = replace(settings, output=str(output), learning_rate=given.learning_rates[competitor])
                results[competitor] = compete(competitor, pythons[competitor], job)
                rate = settings.tokens_in_all / results[competitor]["steady_seconds"]
                say(f"round {number + 1} of {given.repeats}, {competitor}: {rate:,.0f} tokens/s steady")
            heldout_tokens = measure(settings, results, folder)
            rounds.append(results)
    finished = {
        "settings": {key: value for key, value in asdict(settings).items() if key not in ("tokens", "output")},
        "model": {"name": given.model, **model},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}.",
        "repeats": given.repeats,
        "tuning": tuning,
        "heldout_tokens": heldout_tokens,
        "rounds": rounds,
        "summary": report.summarise(rounds, settings.tokens_in_all),
    }
    given.output.write_text(json.dumps(finished, indent=1))
    table = report.markdown(finished)
    given.output.with_suffix(".md").write_text(table)
    print(table)


def tune(name: str, python: Path, settings: Settings, folder: Path) -> dict[float, float]:
    """Mean FVU of a competitor at every rate tried, from that of ``settings`` on.

    Raises:
        SystemExit: it succeeded with none of them.
    """

    def fvu_at(rate: float) -> float:
        output = folder / "tuning" / name / f"{rate:g}"
        output.mkdir(parents=True)
        try:
            results = {name: compete(name, python, replace(settings, output=str(output), learning_rate=rate))}
        except SystemExit as failure:
            say(f"tuning, {name} at {rate:g}: {failure}")
            return float("inf")
        measure(settings, results, folder)
        say(f"tuning, {name} at {rate:g}: FVU {results[name]['mean_fvu']:.4f}")
        return results[name]["mean_fvu"]

    tried = walk(fvu_at, settings.learning_rate)
    if min(tried.values()) == float("inf"):
        raise SystemExit(f"bench-peers: {name} succeeded with no rate.")
    return tried


def walk(loss_at: Callable[[float], float], start: float, most: int = 8) -> dict[float, float]:
    """Halves or doubles a rate as long as the loss falls, so that the best one has a worse neighbour on either side.

    A run that fails or diverges counts as infinitely bad.

    Args:
        loss_at: trains with a rate and returns what came of it.
        start: the first rate.
        most: rates tried at most.

    Returns:
        Every rate tried and its loss.
    """
    tried: dict[float, float] = {}

    def loss(rate: float) -> float:
        if rate not in tried:
            value = loss_at(rate)
            tried[rate] = value if value == value else float("inf")
        return tried[rate]

    best = start
    loss(best)
    while len(tried) < most:
        better = [rate for rate in (best * 2, best / 2) if loss(rate) < tried[best]]
        if not better:
            break
        best = min(better, key=tried.__getitem__)
    return tried


def prepare(given: argparse.Namespace, folder: Path) -> tuple[dict, Settings]:
    """Tokenises, and fills in what depends on the model."""
    buffer = given.buffer_tokens
    # Mixing buffers read ahead of what they serve, and first tokens are dropped.
    tokens = int(given.steps * given.batch_tokens * 1.05) + 2 * buffer + given.model_batch_tokens
    request = {
        "model": given.model,
        "train": given.text,
        "heldout": given.heldout,
        "context": given.context,
        "train_sequences": -(-tokens // (given.context - 1)),
        "heldout_sequences": -(-given.heldout_tokens // given.context),
        "output": str(folder),
    }
    model = ask("prepare.py", request, folder)
    layers = list(range(model["n_layers"])) if given.layers == "all" else [int(n) for n in given.layers.split(",")]
    settings = Settings(
        model=model.pop("folder"),
        text=given.text,
        tokens=str(folder / "train.npy"),
        layers=layers,
        d_in=model["d_in"],
        d_sae=given.d_sae,
        k=given.k,
        context=given.context,
        batch_tokens=given.batch_tokens,
        steps=given.steps,
        learning_rate=given.learning_rate,
        warmup_steps=max(1, given.steps // 20),
        decay_steps=max(1, given.steps // 5),
        model_batch_tokens=given.model_batch_tokens,
        buffer_tokens=buffer,
        aux_k=given.aux_k,
        dead_after_tokens=given.dead_after_tokens or 20 * given.batch_tokens,
        threads=given.threads,
        seed=given.seed,
        output=str(folder),
    )
    return model, settings


def compete(name: str, python: Path, settings: Settings) -> dict:
    """Runs one competitor to its end; wall time and peak memory are those of its whole process."""
    output = Path(settings.output)
    settings.write(output / "settings.json")
    with open(output / "log", "w") as log:
        start = time.perf_counter()
        process = subprocess.Popen(
            [python, str(HERE / f"{name}_driver.py"), str(output / "settings.json")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=output,
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0 or not (output / "result.json").exists():
        sys.stderr.write((output / "log").read_text()[-4000:])
        raise SystemExit(f"bench-peers: {name} failed (exit code {process.returncode}); its last lines are above.")
    result = json.loads((output / "result.json").read_text())
    return {**result, "wall_seconds": wall, "peak_rss_bytes": usage.ru_maxrss * 1024, "saes": str(output / "saes")}


def measure(settings: Settings, results: dict[str, dict], folder: Path) -> int:
    """Adds the FVU of every competitor; returns the number of held-out tokens."""
    request = {
        "model": settings.model,
        "tokens": str(folder / "heldout.npy"),
        "threads": settings.threads,
        "saes": {name: {"folder": result.pop("saes"), "k": settings.k} for name, result in results.items()},
    }
    answer = ask("evaluate.py", request, folder)
    for name, layers in answer["saes"].items():
        results[name]["layers"] = layers
        results[name]["mean_fvu"] = sum(row["fvu"] for row in layers.values()) / len(layers)
    return answer["tokens"]


def ask(script: str, request: dict, folder: Path) -> dict:
    """Runs a helper in qscope's environment; its last line of output is the answer."""
    path = folder / "request.json"
    path.write_text(json.dumps(request))
    done = subprocess.run(
        [venvs.QSCOPE_PYTHON, str(HERE / script), str(path)], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"bench-peers: {script} failed; the lines above say why.")
    return json.loads(done.stdout.splitlines()[-1])


def say(text: str) -> None:
    print(f"bench-peers: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

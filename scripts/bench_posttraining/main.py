"""What a step of `qscope sft` and `qscope rl` costs over TRL's own trainer with the same settings: time and memory.

    scripts/bench-posttraining sft --sae RUN/artifacts/sae --features RUN [--rounds 3] [--steps 75] [--threads 2]
    scripts/bench-posttraining rl  --sae RUN/artifacts/sae --feature 3/1640 [--rounds 3] [--steps 12]

The same model, rows, tokens, batches, optimiser and threads, in float32 on a CPU. Every arm runs in a process of its
own, the arms in turn, in several rounds. A step is from one optimiser step to the next, the first fifth left out. TRL's
sft reads the rows as qscope tokenised them, one pass over all of them by default, so both see the same tokens; its rl
writes rollouts of its own with `generate`, and its reward is computed by the same functions inside its process.
Standard library only: this process stays small, as its size counts in theirs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CONFIGS = ROOT / "configs" / "embedded"
#: Arm to what is set in the experiment; TRL's takes the same experiment.
ARMS = {
    "sft": {
        "trl": {},
        "qscope, plain": {"sft.arm": "plain"},
        "qscope, SAE loss": {"sft.arm": "sae"},
    },
    "rl": {
        "trl": {},
        "qscope, plain": {"rl.sae_penalty.mode": "none"},
        "qscope, rare negatives": {"rl.sae_penalty.mode": "rare_negative"},
    },
}


def main() -> None:
    """Runs the rounds and prints a table."""
    given = _parse()
    with tempfile.TemporaryDirectory(prefix="qscope-bench-") as folder:
        arms = {name: _experiment(given, sets, Path(folder)) for name, sets in ARMS[given.verb].items()}
        results: dict[str, list[dict]] = {name: [] for name in arms}
        for number in range(given.rounds):
            names = list(arms)
            # Each arm is first, second and last in turn.
            for name in names[number % len(names) :] + names[: number % len(names)]:
                results[name].append(_run(given, name, arms[name], Path(folder)))
                print(
                    f"bench-posttraining: round {number + 1} of {given.rounds}, {name}",
                    file=sys.stderr,
                )
    if given.json:
        print(json.dumps({"settings": vars(given), "results": results}, default=str, indent=1))
    else:
        _print(given, results)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=tuple(ARMS))
    parser.add_argument("--sae", required=True, help="folder of SAEs")
    parser.add_argument(
        "--features",
        default="",
        help="sft: run of features language, or its features.json",
    )
    parser.add_argument("--feature", default="", help="rl: feature that is steered, as LAYER/FEATURE")
    parser.add_argument(
        "--strength",
        type=float,
        default=1.0,
        help="rl: of steering; nothing is calibrated",
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--steps",
        type=int,
        default=0,
        help="optimiser steps (default: 75 for sft, 12 for rl)",
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    given.steps = given.steps or {"sft": 75, "rl": 12}[given.verb]
    if given.verb == "sft" and not given.features:
        parser.error("sft needs --features")
    if given.verb == "rl" and not given.feature:
        parser.error("rl needs --feature")
    return given


def _experiment(given: argparse.Namespace, sets: dict[str, str], folder: Path) -> str:
    """The frozen experiment of an arm, as the command line freezes it."""
    verb = given.verb
    common = {
        "compute.device": "cpu",
        "compute.threads": given.threads,
        "model_options.precision": "float32",
        f"{verb}.steps": given.steps,
        f"{verb}.metrics.every_steps": 1,
        f"{verb}.checkpoint.every_steps": 0,
    }
    if verb == "sft":
        common |= {
            "sft.sae_loss.sae": given.sae,
            "sft.sae_loss.features": given.features,
            "sft.held_out.source": '""',
        }
    else:
        rare = "rl.sae_penalty.rare_negative"
        common |= {
            "rl.sae_penalty.sae": given.sae,
            f"{rare}.features": f"[{given.feature}]",
            f"{rare}.feature_set": '""',
            f"{rare}.strength": given.strength,
            "rl.evaluate.prompts.source": '""',
        }
    options = [f"{name}={value}" for name, value in (common | sets).items()]
    command = ["node", HERE / "freeze.mjs", CONFIGS / f"{verb}.yaml", *options]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"bench-posttraining: {done.stderr or done.stdout}")
    path = folder / f"{len(list(folder.glob('*.json')))}.json"
    path.write_text(done.stdout)
    return str(path)


def _run(given: argparse.Namespace, name: str, experiment: str, folder: Path) -> dict:
    """One process of one arm."""
    driver = "trl_driver.py" if name == "trl" else "qscope_driver.py"
    output = folder / "result"
    output.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(given.threads),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    command = [sys.executable, str(HERE / driver), given.verb, experiment, str(output)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode or not output.exists():
        raise SystemExit(f"bench-posttraining: {name} failed:\n{done.stderr[-3000:]}")
    return json.loads(output.read_text())


def _print(given: argparse.Namespace, results: dict[str, list[dict]]) -> None:
    first = results["trl"][0]
    print(
        f"{given.verb}: {given.rounds} rounds of {given.steps} steps, {given.threads} threads; TRL {first['trl']}, "
        f"transformers {first['transformers']}, torch {first['torch']}"
    )
    print(f"{'':<24}{'ms a step':>10}  {'over TRL':<20}{'tokens/s':>9}{'peak MiB':>10}  where the time goes")
    base = [statistics.median(one["seconds"]) for one in results["trl"]]
    for name, rounds in results.items():
        steps = [statistics.median(one["seconds"]) for one in rounds]
        over = [mine / theirs for mine, theirs in zip(steps, base, strict=True)]
        rate = statistics.median(one["tokens"] / sum(one["seconds"]) for one in rounds)
        peak = statistics.median(one["peak"] for one in rounds) / 2**20
        parts = ", ".join(
            f"{part} {statistics.median(one['parts'][part] for one in rounds):.0%}" for part in rounds[0]["parts"]
        )
        spread = "" if name == "trl" else f"{statistics.median(over):.2f} ({min(over):.2f}-{max(over):.2f})"
        print(f"{name:<24}{1e3 * statistics.median(steps):>10.1f}  {spread:<20}{rate:>9.0f}{peak:>10.0f}  {parts}")


if __name__ == "__main__":
    main()

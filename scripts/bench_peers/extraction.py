"""What every layer's codes cost over a bare forward pass: qscope, TransformerLens with SAELens, and nnsight.

The same model, token ids, SAEs (as qscope wrote them, in each tool's layout), float32 and threads. Each tool runs in a
process of its own, the tools in turn, in several rounds; within a process bare and extracting passes alternate. Codes
must agree with qscope's before anything is timed.

    scripts/bench-extraction --sae RUN/artifacts/sae [--rounds 3] [--threads 2]
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

import numpy as np
from venvs import HERE, QSCOPE_PYTHON, default_folder, ensure

from qscope.data import TokenStream, open_text
from qscope.embedded import model_path
from qscope.models import load_model
from qscope.sae import formats
from qscope.v1.model_pb2 import PRECISION_FLOAT32, ModelOptions
from qscope.v1.text_pb2 import TextSource

TOOLS = {"qscope": None, "TransformerLens + SAELens": "saelens", "nnsight": "nnsight"}
#: Largest difference of a code from qscope's, relative to the largest code of the batch.
TOLERANCE = 1e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sae", type=Path, required=True, help="folder of SAEs in any layout")
    parser.add_argument("--model", default="", help="model folder (default: the embedded one)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--passes",
        type=int,
        default=6,
        help="passes of each kind in a process, after one to warm up",
    )
    parser.add_argument("--rows", type=int, default=16, help="sequences of a pass")
    parser.add_argument("--context", type=int, default=256, help="tokens of a sequence")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--venvs", type=Path, default=default_folder())
    given = parser.parse_args()
    pythons = {tool: QSCOPE_PYTHON if venv is None else ensure(venv, given.venvs) for tool, venv in TOOLS.items()}
    with tempfile.TemporaryDirectory() as folder:
        settings = _prepare(given, Path(folder))
        results: dict[str, list[dict]] = {tool: [] for tool in TOOLS}
        for round_ in range(given.rounds):
            order = list(TOOLS)[round_ % len(TOOLS) :] + list(TOOLS)[: round_ % len(TOOLS)]
            for tool in order:
                results[tool].append(_run(tool, pythons[tool], settings))
                print(
                    f"bench-extraction: round {round_ + 1} of {given.rounds}, {tool}",
                    file=sys.stderr,
                )
        _check(Path(folder))
    _print(given, results, settings)


def _prepare(given: argparse.Namespace, folder: Path) -> dict:
    """Token ids and SAEs, in files that every tool reads."""
    loaded = load_model(given.model or "embedded", ModelOptions(precision=PRECISION_FLOAT32))
    source = TextSource(
        source="embedded-heldout",
        field="text",
        split="train",
        context=given.context,
        pack=True,
    )
    reader = open_text(source, at="text", seed=0)
    stream = TokenStream(reader, loaded.tokenizer, context=given.context, pack=True, repeat=True)
    batch = stream.next_batch(given.rows)
    assert batch is not None, "the text repeats"
    np.save(folder / "ids.npy", batch.input_ids_BT.numpy())
    saes = formats.load(given.sae)
    formats.save(saes, folder / "sae", ["native", "saelens"], {"model": loaded.facts.as_dict()})
    sae = next(iter(saes.values()))
    return {
        "folder": str(folder),
        "model": given.model or str(model_path()),
        "layers": sorted(saes),
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "k": sae.k,
        "threads": given.threads,
        "passes": given.passes,
    }


def _run(tool: str, python: Path, settings: dict) -> dict:
    name = {"qscope": "qscope", "nnsight": "nnsight"}.get(tool, "saelens")
    output = Path(settings["folder"]) / f"{name}.json"
    settings_file = Path(settings["folder"]) / "settings.json"
    settings_file.write_text(json.dumps(settings | {"output": str(output), "codes": f"{output}.npz"}))
    threads = str(settings["threads"])
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": threads,
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    script = HERE / f"extraction_{name}.py"
    done = subprocess.run(
        [str(python), str(script), str(settings_file)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"bench-extraction: {tool} failed:\n{done.stderr[-3000:]}")
    return json.loads(output.read_text())


def _check(folder: Path) -> None:
    """Codes of every tool, dense, against qscope's."""
    mine = np.load(folder / "qscope.json.npz")
    for name in ("saelens", "nnsight"):
        theirs = np.load(folder / f"{name}.json.npz")
        for layer in mine.files:
            scale = np.abs(mine[layer]).max()
            # Where two pre-activations are equal to the last bit but one, the k-th place may go to either.
            different = np.abs(mine[layer] - theirs[layer]).max(axis=-1) > TOLERANCE * scale
            if different.mean() > 1e-3:
                raise SystemExit(
                    f"bench-extraction: codes of {name} at {layer} differ on {different.mean():.1%} of tokens"
                )


def _print(given: argparse.Namespace, results: dict[str, list[dict]], settings: dict) -> None:
    tokens = given.rows * given.context
    print(
        f"{len(settings['layers'])} layers, d_in {settings['d_in']}, d_sae {settings['d_sae']}, k {settings['k']}, "
        f"{tokens:,} tokens a pass, {settings['threads']} threads; {given.rounds} rounds of {given.passes} passes"
    )
    print("; ".join(f"{tool} {rounds[0]['version']}" for tool, rounds in results.items()))
    print(f"{'':<28}{'bare ms':>9}{'codes ms':>10}  {'codes / bare':<22}{'qscope is faster by':<22}")
    mine = [statistics.median(result["codes"]) for result in results["qscope"]]
    for tool, rounds in results.items():
        bare = [statistics.median(result["bare"]) for result in rounds]
        codes = [statistics.median(result["codes"]) for result in rounds]
        over = [one / other for one, other in zip(codes, bare, strict=True)]
        faster = [one / other for one, other in zip(codes, mine, strict=True)]
        print(
            f"{tool:<28}"
            + f"{1e3 * statistics.median(bare):>9.1f}{1e3 * statistics.median(codes):>10.1f}  "
            + f"{_spread(over):<22}{_spread(faster) if tool != 'qscope' else '':<22}".rstrip()
        )


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


if __name__ == "__main__":
    main()

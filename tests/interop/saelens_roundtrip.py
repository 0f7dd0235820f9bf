"""Shows that SAELens reads what qscope writes, and qscope what SAELens trains.

    backend-py/.venv/bin/python tests/interop/saelens_roundtrip.py [--saes FOLDER --model MODEL]

1. SAELens loads layer0.sae.pt at the size of a released SAE (32,768 x 2,048) by release name: its qwen_scope loader.
2. SAELens loads qscope's SAELens layout with `SAE.load_from_disk`.
3. SAELens trains TopK SAEs under each of its conventions; qscope loads them, finished and as checkpoints.

Each time the codes and reconstructions of both sides are compared. With --saes and --model, steps 1 and 2 also run on
SAEs that qscope trained, with activations of that model on held-out text. Exit code 1 when a difference exceeds
--tolerance.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "bench_peers"))
sys.path.insert(0, str(ROOT / "backend-py"))

import venvs  # noqa: E402
from qscope.sae import formats  # noqa: E402
from qscope.sae.topk import TopKSae, dense_codes  # noqa: E402

RELEASE = ("qwen-scope-3-1.7b-base-w32k-l50", formats.find_release("Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50"))
CONVENTIONS = {
    "defaults": {},
    "plain": {"apply_b_dec_to_input": False, "rescale_acts_by_decoder_norm": False},
    "subtracts b_dec": {"apply_b_dec_to_input": True, "rescale_acts_by_decoder_norm": False},
    "scaled input": {"normalize_activations": "expected_average_only_in"},
    "whitened input": {"normalize_activations": "covariance_whitening"},
}


@dataclass
class Agreement:
    """Largest differences of one SAE, and the tokens left out because rounding alone decides their k-th feature."""

    name: str
    codes: float
    x_hat: float
    largest_code: float
    tokens: int
    ties: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venvs", type=Path, default=venvs.default_folder(), help="folder of the peers' environments")
    parser.add_argument("--saes", help="SAEs trained by qscope: a folder of any layout")
    parser.add_argument("--model", help="the model of --saes: embedded, a folder or a hub id")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="largest difference allowed")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if bool(arguments.saes) != bool(arguments.model):
        parser.error("--saes and --model belong together")
    torch.set_num_threads(arguments.threads)
    python = venvs.ensure("saelens", arguments.venvs)
    with tempfile.TemporaryDirectory(prefix="qscope-interop-") as name:
        agreements = run(Path(name), python, arguments)
    print(f"{'case':52} {'tokens':>7} {'ties':>5} {'max |codes|':>12} {'codes differ':>13} {'x_hat differs':>14}")
    worst = 0.0
    for item in agreements:
        worst = max(worst, item.codes, item.x_hat)
        numbers = f"{item.largest_code:12.4f} {item.codes:13.2e} {item.x_hat:14.2e}"
        print(f"{item.name:52} {item.tokens:7} {item.ties:5} {numbers}")
    ok = worst <= arguments.tolerance
    print(f"largest difference {worst:.2e}, allowed {arguments.tolerance:.0e}: {'agree' if ok else 'DO NOT AGREE'}")
    return 0 if ok else 1


def run(folder: Path, python: Path, arguments: argparse.Namespace) -> list[Agreement]:
    """Writes what SAELens reads, lets it work, and compares."""
    generator = torch.Generator().manual_seed(0)
    job = {"threads": arguments.threads, "qwen_scope": [], "saelens": [], "train": []}
    ours: list[tuple[str, TopKSae, torch.Tensor, Path]] = []

    def add(name: str, saes: dict[int, TopKSae], inputs: dict[str, torch.Tensor], repository: str, release: str | None):
        save_file({key: tensor.contiguous() for key, tensor in inputs.items()}, folder / f"{name}.inputs.safetensors")
        formats.save(saes, folder / name, ["qwen_scope", "saelens"], {"experiment": {"model": "interop"}})
        files = [str(folder / name / "qwen_scope" / f"layer{layer}.sae.pt") for layer in saes]
        common = {"name": name, "inputs": f"{name}.inputs.safetensors"}
        first = next(iter(saes.values()))
        parsed = formats.parse_name(repository.removeprefix("Qwen/"))
        qwen = {"files": files, "repository": repository, "release": release, "model": parsed.model, "d_in": first.d_in}
        job["qwen_scope"].append({**common, **qwen})
        job["saelens"].append({**common, "folders": [str(folder / name / "saelens" / f"layer{n}") for n in saes]})
        for layer, sae in saes.items():
            for path, label in ((f"layer{layer}.sae.pt", "Qwen-Scope loader"), (f"layer{layer}", "own layout")):
                theirs = folder / f"{name}-{path}.theirs.safetensors"
                ours.append((f"ours in SAELens, {label}, {name} {layer}", sae, inputs[f"layer{layer}"], theirs))

    release_name, release = RELEASE
    full = random_sae(release.d_in, release.d_sae, release.k, generator)
    add(
        "full size",
        {0: full},
        {"layer0": hidden_states(256, release.d_in, generator)},
        release.repository,
        release_name,
    )
    if arguments.saes:
        saes, inputs = trained(arguments.saes, arguments.model)
        first = next(iter(saes.values()))
        if first.d_sae % 1024:
            raise SystemExit("The release's names give widths in units of 1,024; these SAEs have another width.")
        repository = f"Qwen/SAE-Res-{Path(arguments.model).name}-W{first.d_sae // 1024}K-L0_{first.k}"
        add("trained", saes, inputs, repository, None)

    data = hidden_states(2048, 48, generator)
    save_file({"layer0": data}, folder / "data.safetensors")
    for name, options in CONVENTIONS.items():
        common = {"inputs": "data.safetensors", "d_sae": 384, "k": 8, "layer": 3, "steps": 60}
        job["train"].append({"name": name, "options": options, **common})

    (folder / "job.json").write_text(json.dumps(job))
    with open(folder / "log", "w") as log:
        done = subprocess.run(
            [python, str(ROOT / "tests/interop/saelens_side.py"), str(folder)], stdout=log, stderr=log, check=False
        )
    if done.returncode != 0:
        sys.stderr.write((folder / "log").read_text()[-4000:])
        raise SystemExit("The SAELens side failed; its last lines are above.")

    agreements = [compare(name, sae, x_BD, load_file(path)) for name, sae, x_BD, path in ours]
    for name in CONVENTIONS:
        sae = formats.load(folder / name)[3]
        agreements.append(
            compare(f"SAELens' in ours, {name}", sae, data, load_file(folder / f"{name}.theirs.safetensors"))
        )
        if name == "whitened input":
            # Unfinished, it is not a TopK SAE of the raw input without the whitening file; qscope refuses it.
            continue
        for facts in sorted(folder.glob(f"{name}-checkpoint*.theirs.json")):
            place = json.loads(facts.read_text())["folder"]
            sae = formats.load(place)[3]
            agreements.append(
                compare(
                    f"SAELens' in ours, {name}, checkpoint", sae, data, load_file(facts.with_suffix(".safetensors"))
                )
            )
    return agreements


def random_sae(d_in: int, d_sae: int, k: int, generator: torch.Generator) -> TopKSae:
    """Unit decoder rows, an encoder near their copy, biases of both kinds: the shape of a trained SAE."""
    W_dec_FD = torch.randn(d_sae, d_in, generator=generator)
    W_dec_FD /= W_dec_FD.norm(dim=1, keepdim=True)
    W_enc_FD = W_dec_FD + 0.1 / d_in**0.5 * torch.randn(d_sae, d_in, generator=generator)
    b_enc_F = 0.1 * torch.randn(d_sae, generator=generator)
    return TopKSae(W_enc_FD, b_enc_F, W_dec_FD, torch.randn(d_in, generator=generator), k=k)


def hidden_states(tokens: int, d_in: int, generator: torch.Generator) -> torch.Tensor:
    """Correlated vectors with a mean, as a residual stream has."""
    mixing_DD = torch.randn(d_in, d_in, generator=generator) / d_in**0.5
    mean_D = torch.randn(d_in, generator=generator)
    return torch.randn(tokens, d_in, generator=generator) @ mixing_DD + mean_D


def trained(saes_at: str, model: str) -> tuple[dict[int, TopKSae], dict[str, torch.Tensor]]:
    """Trained SAEs, and activations of their model on the embedded held-out text (first tokens left out)."""
    from qscope.data import TokenStream, open_text
    from qscope.models import capture_residuals, load_model
    from qscope.v1 import model_pb2, text_pb2

    saes = formats.load(saes_at)
    loaded = load_model(model, model_pb2.ModelOptions())
    formats.refuse_if_foreign(saes, loaded.facts)
    source = text_pb2.TextSource(source="embedded-heldout")
    stream = TokenStream(open_text(source), loaded.tokenizer, context=128, pack=True, repeat=False)
    residuals = capture_residuals(loaded, list(saes), stream.next_batch(8).input_ids_BT)
    return saes, {f"layer{layer}": residuals[layer][:, 1:].flatten(0, 1).float() for layer in saes}


@torch.no_grad()
def compare(name: str, sae: TopKSae, x_BD: torch.Tensor, theirs: dict[str, torch.Tensor]) -> Agreement:
    """Our codes and reconstruction against theirs.

    Where the k-th and the next pre-activation are closer than float32 resolves, either choice is right; such tokens are
    counted and left out.
    """
    values_BK, indices_BK = sae.encode(x_BD)
    codes_BF = dense_codes(values_BK, indices_BK, sae.d_sae)
    x_hat_BD = sae.decode(values_BK, indices_BK)
    wide = sae.to(dtype=torch.float64)
    scores_BK = torch.relu(wide.pre_activations(x_BD.double())).topk(min(sae.k + 1, sae.d_sae), dim=1).values
    tie_B = scores_BK[:, -2] - scores_BK[:, -1] < 1e-5 * scores_BK[:, 0]
    keep_B = ~tie_B
    return Agreement(
        name,
        codes=float((codes_BF - theirs["codes_BF"])[keep_B].abs().max()),
        x_hat=float((x_hat_BD - theirs["x_hat_BD"])[keep_B].abs().max()),
        largest_code=float(codes_BF.max()),
        tokens=len(x_BD),
        ties=int(tie_B.sum()),
    )


if __name__ == "__main__":
    sys.exit(main())

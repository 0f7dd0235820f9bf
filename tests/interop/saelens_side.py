"""The half of the interop check that runs in SAELens' own environment; see saelens_roundtrip.py.

Everything here is SAELens' code, with two things replaced, as nothing is to be downloaded: the download of a Qwen-Scope
file hands out the local one, and the table of backbones learns the name of a model that is in no release.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", type=Path, help="folder with job.json, written by saelens_roundtrip.py")
    folder = parser.parse_args().job
    job = json.loads((folder / "job.json").read_text())
    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    for case in job["qwen_scope"]:
        read_qwen_scope(folder, case)
    for case in job["saelens"]:
        read_own_layout(folder, case)
    for case in job["train"]:
        train(folder, case)


@torch.no_grad()
def record(sae, inputs: torch.Tensor, path: Path) -> None:
    """Writes feature activations (dense) and reconstruction."""
    acts = torch.cat([sae.encode(part) for part in inputs.split(256)])
    save_file({"codes_BF": acts.contiguous(), "x_hat_BD": sae.decode(acts).contiguous()}, path)


def read_qwen_scope(folder: Path, case: dict) -> None:
    """`SAE.from_pretrained` through the qwen_scope loader of SAELens (their pull request 677)."""
    from sae_lens import SAE
    from sae_lens.loading import pretrained_sae_loaders as loaders

    local = {Path(file).name: file for file in case["files"]}
    download = loaders.hf_hub_download
    loaders.hf_hub_download = lambda repo_id, filename, **_: local[filename]
    if case["release"] is None:
        loaders.QWEN_SCOPE_MODEL_INFO[case["model"]] = (f"local/{case['model']}", case["d_in"])
    try:
        for name in local:
            if case["release"] is None:
                # A repository id that is in no release goes through the same loader when it is named.
                sae = SAE.from_pretrained(
                    case["repository"], name, converter=loaders.NAMED_PRETRAINED_SAE_LOADERS["qwen_scope"]
                )
            else:
                sae = SAE.from_pretrained(case["release"], name.removesuffix(".sae.pt"))
            assert (sae.cfg.architecture(), sae.cfg.apply_b_dec_to_input) == ("topk", False)
            assert sae.cfg.rescale_acts_by_decoder_norm is False
            inputs = load_file(folder / case["inputs"])[name.removesuffix(".sae.pt")]
            record(sae, inputs, folder / f"{case['name']}-{name}.theirs.safetensors")
    finally:
        loaders.hf_hub_download = download


def read_own_layout(folder: Path, case: dict) -> None:
    """`SAE.load_from_disk` on the SAELens layout that qscope wrote."""
    from sae_lens import SAE

    for place in case["folders"]:
        sae = SAE.load_from_disk(place)
        inputs = load_file(folder / case["inputs"])[Path(place).name]
        record(sae, inputs, folder / f"{case['name']}-{Path(place).name}.theirs.safetensors")


def batches(inputs: torch.Tensor, size: int) -> Iterator[torch.Tensor]:
    while True:
        yield inputs[torch.randint(len(inputs), (size,))]


def train(folder: Path, case: dict) -> None:
    """SAELens trains a TopK SAE with its own trainer, saves it, and says what its codes are."""
    from sae_lens import SAE
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer

    inputs = load_file(folder / case["inputs"])["layer0"]
    config = TopKTrainingSAEConfig(d_in=inputs.shape[1], d_sae=case["d_sae"], k=case["k"], **case["options"])
    sae = TopKTrainingSAE(config)
    sae.cfg.metadata.hook_name = f"blocks.{case['layer']}.hook_resid_post"
    trainer = SAETrainer(
        cfg=SAETrainerConfig(
            total_training_samples=case["steps"] * 128,
            train_batch_size_samples=128,
            lr=1e-3,
            lr_end=1e-4,
            n_batches_for_norm_estimate=20,
            n_checkpoints=1,
            checkpoint_path=str(folder / f"{case['name']}-checkpoints"),
            logger=LoggingConfig(log_to_wandb=False),
        ),
        sae=sae,
        data_provider=batches(inputs, 128),
    )
    sae = trainer.fit()
    output = folder / case["name"]
    sae.save_inference_model(output)
    record(SAE.load_from_disk(output), inputs, folder / f"{case['name']}.theirs.safetensors")

    # A checkpoint before the end is a training SAE: nothing folded, the input scale in a file beside it.
    for number, place in enumerate(sorted((folder / f"{case['name']}-checkpoints").rglob("cfg.json"))):
        unfinished = TopKTrainingSAE.load_from_disk(place.parent)
        scale = json.loads((place.parent / "activation_scaler.json").read_text())["scaling_factor"] or 1.0
        with torch.no_grad():
            acts = unfinished.encode(inputs * scale)
            x_hat = unfinished.decode(acts) / scale
        path = folder / f"{case['name']}-checkpoint{number}.theirs.safetensors"
        save_file({"codes_BF": acts.contiguous(), "x_hat_BD": x_hat.contiguous()}, path)
        path.with_suffix(".json").write_text(json.dumps({"folder": str(place.parent), "scale": scale}))


if __name__ == "__main__":
    main()

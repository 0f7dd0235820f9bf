"""EleutherAI sparsify: all layers hooked in one pass, an SAE step inside every pass, no shuffle buffer."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from settings import read_settings, write_result

settings = read_settings()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from clock import StepClock  # noqa: E402
from datasets import Dataset  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from sparsify import SparseCoderConfig, TrainConfig, Trainer  # noqa: E402
from transformers import AutoModel  # noqa: E402

torch.set_num_threads(settings.threads)
sequences = settings.batch_tokens // settings.context
tokens = np.load(settings.tokens)[: sequences * settings.steps]
dataset = Dataset.from_dict({"input_ids": tokens}).with_format("torch")
model = AutoModel.from_pretrained(settings.model, dtype=torch.float32)
config = TrainConfig(
    SparseCoderConfig(num_latents=settings.d_sae, k=settings.k),
    batch_size=sequences,
    optimizer="adam",
    lr=settings.learning_rate,
    lr_warmup_steps=settings.warmup_steps,
    auxk_alpha=settings.aux_k,
    dead_feature_threshold=settings.dead_after_tokens,
    layers=settings.layers,
    init_seeds=[settings.seed],
    save_every=10**9,
    save_dir=f"{settings.output}/sparsify",
    run_name="bench",
    log_to_wandb=False,
)
trainer = Trainer(config, dataset, model)
clock = StepClock()
with clock.segment():
    trainer.fit()
Path(settings.output, "saes").mkdir(exist_ok=True)
for hook, sae in trainer.saes.items():
    weights = {
        "W_enc": sae.encoder.weight,
        "b_enc": sae.encoder.bias,
        "W_dec": sae.W_dec,
        "b_dec": sae.b_dec,
    }
    layer = hook.rpartition(".")[2]
    save_file(
        {name: tensor.detach().contiguous() for name, tensor in weights.items()},
        f"{settings.output}/saes/layer{layer}.safetensors",
    )
write_result(
    settings,
    steady_seconds=clock.steady_seconds(),
    versions={"eai-sparsify": version("eai-sparsify"), "torch": torch.__version__},
    notes={
        "first token": "kept (it can leave out token ids only)",
        "decay": "linear over the whole run",
        "buffer": "none",
    },
)

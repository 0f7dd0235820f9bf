"""dictionary_learning: an nnsight buffer and a TopK trainer, one layer after the other as it has no other way."""

from __future__ import annotations

import itertools
from importlib.metadata import version
from pathlib import Path

from settings import read_settings, write_result

settings = read_settings()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from clock import StepClock  # noqa: E402
from dictionary_learning import ActivationBuffer  # noqa: E402
from dictionary_learning.trainers import TopKTrainer  # noqa: E402
from dictionary_learning.training import trainSAE  # noqa: E402
from nnsight import LanguageModel  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from transformers import BatchEncoding  # noqa: E402

torch.set_num_threads(settings.threads)
tokens = np.load(settings.tokens)
model = LanguageModel(settings.model, device_map="cpu", dispatch=True, torch_dtype=torch.float32)
clock = StepClock()
Path(settings.output, "saes").mkdir(exist_ok=True)


class PackedBuffer(ActivationBuffer):
    """Their buffer on token ids that are ready, which spares it the tokenising."""

    def text_batch(self, batch_size: int | None = None) -> BatchEncoding:
        ids = np.stack([next(self.data) for _ in range(batch_size or self.refresh_batch_size)])
        return BatchEncoding(
            {"input_ids": torch.from_numpy(ids).long(), "attention_mask": torch.ones(ids.shape, dtype=torch.long)}
        )


for layer in settings.layers:
    buffer = PackedBuffer(
        itertools.cycle(tokens),
        model,
        model.model.layers[layer],
        d_submodule=settings.d_in,
        n_ctxs=max(1, settings.buffer_tokens // settings.context),
        ctx_len=settings.context,
        refresh_batch_size=settings.model_batch_sequences,
        out_batch_size=settings.batch_tokens,
        device="cpu",
        remove_bos=True,
    )
    trainer = {
        "trainer": TopKTrainer,
        "steps": settings.steps,
        "activation_dim": settings.d_in,
        "dict_size": settings.d_sae,
        "k": settings.k,
        "layer": layer,
        "lm_name": settings.model,
        "lr": settings.learning_rate,
        "auxk_alpha": settings.aux_k,
        "warmup_steps": settings.warmup_steps,
        "decay_start": settings.steps - settings.decay_steps,
        "seed": settings.seed,
        "device": "cpu",
    }
    place = Path(settings.output, "dictionary_learning", f"layer{layer}")
    with clock.segment():
        trainSAE(buffer, [trainer], settings.steps, save_dir=str(place), device="cpu")
    state = torch.load(place / "trainer_0" / "ae.pt", weights_only=True)
    weights = {
        "W_enc": state["encoder.weight"],
        "b_enc": state["encoder.bias"],
        "W_dec": state["decoder.weight"].T,
        "b_dec": state["b_dec"],
    }
    save_file(
        {name: tensor.contiguous() for name, tensor in weights.items()},
        f"{settings.output}/saes/layer{layer}.safetensors",
    )
write_result(
    settings,
    steady_seconds=clock.steady_seconds(),
    versions={
        "dictionary-learning": version("dictionary-learning"),
        "nnsight": version("nnsight"),
        "torch": torch.__version__,
    },
    notes={"first token": "left out", "layers": "one after the other", "dead after": "10,000,000 tokens, fixed"},
)

"""SAELens: its runner for several SAEs of one model pass, or for a single one."""

from __future__ import annotations

from importlib.metadata import version

from settings import read_settings, write_result

settings = read_settings()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from clock import StepClock  # noqa: E402
from datasets import Dataset  # noqa: E402
from sae_lens import (  # noqa: E402
    LanguageModelSAERunnerConfig,
    LanguageModelSAETrainingRunner,
    LoggingConfig,
    TopKTrainingSAEConfig,
)
from sae_lens.multi_sae_training_runner import (  # noqa: E402
    MultiSAETrainingRunner,
    MultiSAETrainingRunnerConfig,
)

torch.set_num_threads(settings.threads)
torch.manual_seed(settings.seed)
# Dead features are counted in steps here; without AuxK none must be dead, as its loss would be computed and dropped.
dead_steps = max(1, settings.dead_after_tokens // settings.batch_tokens) if settings.aux_k else 10**9


def sae() -> TopKTrainingSAEConfig:
    return TopKTrainingSAEConfig(
        d_in=settings.d_in, d_sae=settings.d_sae, k=settings.k, aux_loss_coefficient=settings.aux_k
    )


common = {
    "model_name": settings.model,
    "model_class_name": "AutoModelForCausalLM",
    "streaming": False,
    "context_size": settings.context,
    # The first token of a sequence is an attention sink; every competitor that can leaves it out.
    "seqpos_slice": (1, None),
    "prepend_bos": False,
    "sequence_separator_token": None,
    "training_tokens": settings.tokens_in_all,
    "train_batch_size_tokens": settings.batch_tokens,
    "store_batch_size_prompts": settings.model_batch_sequences,
    # Its mixing buffer counts in sequences.
    "n_batches_in_buffer": -(-settings.buffer_tokens // (settings.context - 1)),
    "lr": settings.learning_rate,
    "lr_warm_up_steps": settings.warmup_steps,
    "lr_decay_steps": settings.decay_steps,
    "dead_feature_window": dead_steps,
    "feature_sampling_window": 10**9,
    "seed": settings.seed,
    "checkpoint_path": None,
    "output_path": None,
    "logger": LoggingConfig(log_to_wandb=False),
}
dataset = Dataset.from_dict({"input_ids": np.load(settings.tokens)})
hooks = {f"layer{layer}": f"model.layers.{layer}" for layer in settings.layers}
clock = StepClock()
if len(hooks) > 1:
    config = MultiSAETrainingRunnerConfig(saes={name: sae() for name in hooks}, hook_names=hooks, **common)
    runner = MultiSAETrainingRunner(config, override_dataset=dataset)
    with clock.segment():
        saes = runner.run()
else:
    ((name, hook),) = hooks.items()
    config = LanguageModelSAERunnerConfig(sae=sae(), hook_name=hook, verbose=False, **common)
    runner = LanguageModelSAETrainingRunner(config, override_dataset=dataset)
    with clock.segment():
        saes = {name: runner.run()}
for name, trained in saes.items():
    trained.save_inference_model(f"{settings.output}/saes/{name}")
write_result(
    settings,
    steady_seconds=clock.steady_seconds(),
    versions={"sae-lens": version("sae-lens"), "torch": torch.__version__},
    notes={
        "runner": type(runner).__name__,
        "first token": "left out",
        "rescale_acts_by_decoder_norm": True,
        "apply_b_dec_to_input": True,
        "AuxK": "unnormalised" if settings.aux_k else "off",
    },
)

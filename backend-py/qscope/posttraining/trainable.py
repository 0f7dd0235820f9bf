"""What of a model is trained: all of it, some of its decoder blocks, or low-rank adapters beside it.

The number formats are those in which small steps are not lost: bfloat16 keeps three digits, and an update of 5e-5 of a
weight vanishes in it, so weights that are trained are float32 and their products are bfloat16 on a GPU (autocast).
Weights that are only read, beside adapters, stay bfloat16 there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from qscope.errors import UserError
from qscope.models import LoadedModel
from qscope.models.architectures import Decoder
from qscope.models.resolve import quiet
from qscope.v1.model_pb2 import PRECISION_AUTO, PRECISION_BFLOAT16, PRECISION_FLOAT32, ModelOptions
from qscope.v1.posttraining_pb2 import TRAIN_METHOD_LORA, Lora, Trainable


@dataclass(frozen=True)
class Formats:
    """Number formats of a training.

    Attributes:
        weights: as the model is loaded.
        autocast: whether products are computed in bfloat16.
    """

    weights: int
    autocast: bool


def formats_of(precision: int, device: torch.device, method: int) -> Formats:
    """The number formats; one that the experiment names is taken for everything.

    ======================  ==========================  ==========================
    precision               a GPU                       a CPU
    ======================  ==========================  ==========================
    auto, full              float32, bfloat16 products  float32
    auto, lora              bfloat16, float32 adapters  float32
    float32                 float32                     float32
    bfloat16                bfloat16                    bfloat16
    ======================  ==========================  ==========================
    """
    if precision not in (PRECISION_AUTO, 0) or device.type == "cpu":
        weights = PRECISION_FLOAT32 if precision in (PRECISION_AUTO, 0) else precision
        return Formats(weights, device.type != "cpu" and weights == PRECISION_BFLOAT16)
    lora = method == TRAIN_METHOD_LORA
    return Formats(PRECISION_BFLOAT16 if lora else PRECISION_FLOAT32, True)


def with_format(options: ModelOptions, formats: Formats) -> ModelOptions:
    """The options of a model with the number format its training needs."""
    chosen = ModelOptions()
    chosen.CopyFrom(options)
    chosen.precision = formats.weights
    return chosen


def prepare(loaded: LoadedModel, trainable: Trainable, *, seed: int, at: str) -> nn.Module:
    """Freezes what is not trained, and puts adapters in where they are asked for.

    Args:
        loaded: frozen, as :func:`qscope.models.load_model` returns it; changed in place.
        trainable: what is trained.
        seed: of the adapters' first weights.
        at: experiment field of ``trainable``, for errors.

    Returns:
        The model to train: a PEFT model around it with adapters, else itself.

    Raises:
        UserError: a layer that the model does not have (LAYER_OUT_OF_RANGE), or adapters for linear layers that no
            decoder block has (LORA_TARGETS).
    """
    refuse_layers(trainable, loaded.facts.n_layers, at=at)
    if trainable.method == TRAIN_METHOD_LORA:
        return _with_adapters(loaded, trainable, seed=seed, at=at)
    parts: Iterable[nn.Module] = [loaded.model]
    if trainable.layers:
        parts = [loaded.decoder.blocks[layer] for layer in trainable.layers]
    for part in parts:
        part.requires_grad_(True)
    return loaded.model


def refuse_layers(trainable: Trainable, n_layers: int, *, at: str) -> None:
    """Refuses layers that the model does not have.

    Raises:
        UserError: LAYER_OUT_OF_RANGE.
    """
    for index, layer in enumerate(trainable.layers):
        if layer >= n_layers:
            raise UserError(
                f"Layer {layer} does not exist: the model has {n_layers} layers, numbered 0 to {n_layers - 1}.",
                remedy=f"Name layers from 0 to {n_layers - 1}, or none for all of them.",
                reason="LAYER_OUT_OF_RANGE",
                field=f"{at}.layers[{index}]",
            )


def _with_adapters(loaded: LoadedModel, trainable: Trainable, *, seed: int, at: str) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    names = linear_names(loaded.decoder)
    targets = lora_targets(trainable.lora, names, at=f"{at}.lora.targets")
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=trainable.lora.rank,
        lora_alpha=trainable.lora.alpha,
        lora_dropout=trainable.lora.dropout,
        target_modules=targets,
        layers_to_transform=list(trainable.layers) or None,
    )
    # A generator of its own: the adapters are the same whatever else drew before.
    with torch.random.fork_rng(devices=[loaded.device] if loaded.device.type == "cuda" else []):
        torch.manual_seed(seed)
        return get_peft_model(loaded.model, config)


def linear_names(decoder: Decoder) -> list[str]:
    """Names of the linear layers of decoder blocks, inside the block, each once."""
    return sorted(
        {name for block in decoder.blocks for name, module in block.named_modules() if isinstance(module, nn.Linear)}
    )


def lora_targets(lora: Lora, names: list[str], *, at: str) -> list[str]:
    """The linear layers that get an adapter, by the end of their names.

    Raises:
        UserError: a name that no linear layer ends in (LORA_TARGETS).
    """
    ends = sorted({name.rpartition(".")[2] for name in names})
    for index, target in enumerate(lora.targets):
        if not any(name == target or name.endswith(f".{target}") for name in names):
            raise UserError(
                f"No linear layer of a decoder block is called {target!r}.",
                remedy=f"Name some of {', '.join(ends)}, or none for all of them.",
                reason="LORA_TARGETS",
                field=f"{at}[{index}]",
            )
    return list(lora.targets) or ends


@dataclass(frozen=True)
class Counts:
    """Parameters: all of them, and those that are trained."""

    total: int
    trained: int


def count_parameters(model: nn.Module) -> Counts:
    """Parameters of a model as it is trained; tied ones once."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return Counts(sum(size for size, _ in sizes), sum(size for size, trained in sizes if trained))


@dataclass(frozen=True)
class Output:
    """How a trained model is written, as the model was before the training touched it.

    Attributes:
        dtype: number format of the model's own files.
        config, generation: its settings; trainers change end and padding tokens in them.
    """

    dtype: torch.dtype
    config: Any
    generation: Any

    @classmethod
    def of(cls, model: nn.Module, dtype: torch.dtype) -> Output:
        """Taken before a trainer sees the model."""
        import copy

        return cls(dtype, copy.deepcopy(model.config), copy.deepcopy(getattr(model, "generation_config", None)))


def save_model(model: nn.Module, tokenizer: Any, folder: Path, output: Output, *, merge: bool) -> None:
    """Writes what ``transformers.AutoModelForCausalLM.from_pretrained(folder)`` loads; or the adapter alone.

    Args:
        model: as it was trained; adapters are added to its weights in place where they are merged.
        tokenizer: saved beside it.
        folder: made anew.
        output: how it was before.
        merge: of adapters: whether they are added to the weights.
    """
    import shutil

    temporary = folder.with_name(f".new-{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    adapters = hasattr(model, "peft_config")
    if adapters and not merge:
        # No embedding is changed, and "auto" would ask the hub whether one was.
        model.save_pretrained(temporary, safe_serialization=True, save_embedding_layers=False)
        # PEFT writes a card with blanks to fill in.
        (temporary / "README.md").unlink(missing_ok=True)
    else:
        whole = model.merge_and_unload() if adapters else model
        whole.config, whole.generation_config = output.config, output.generation
        whole.config.dtype = output.dtype
        with quiet():
            whole.to(output.dtype).save_pretrained(temporary, safe_serialization=True)
    tokenizer.save_pretrained(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)

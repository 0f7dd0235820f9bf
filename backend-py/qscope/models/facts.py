"""What is known about a model: its shape from the config alone, its identity once loaded."""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from qscope.errors import UserError
from qscope.models.device import choose_dtype
from qscope.models.resolve import brief, load_config, quiet, resolve
from qscope.v1.model_pb2 import ModelOptions


@dataclass(frozen=True)
class ModelShape:
    """Size of a model, known without its weights.

    Attributes:
        name: the name the user gave.
        commit: commit on the hub; empty for folders.
        architecture: model class.
        n_layers: decoder blocks.
        d_model: width of the residual stream.
        vocab_size: rows of the embedding.
        parameters: all parameters, tied ones once.
        block_parameters: parameters of all decoder blocks.
        active_block_parameters: those a token passes through (all but the experts not routed to).
        bytes_per_parameter: 2 for bfloat16, 4 for float32.
        context_length: tokens the model was made for, prompt and continuation together; 0 when its config does not say.
    """

    name: str
    commit: str
    architecture: str
    n_layers: int
    d_model: int
    vocab_size: int
    parameters: int
    block_parameters: int
    active_block_parameters: int
    bytes_per_parameter: int
    context_length: int = 0

    @property
    def weight_bytes(self) -> int:
        """Memory of the loaded weights, in bytes."""
        return self.parameters * self.bytes_per_parameter


@dataclass(frozen=True)
class ModelFacts:
    """Identity of a loaded model, recorded in every artifact made from it.

    Attributes:
        name: the name the user gave.
        commit: commit on the hub; empty for folders.
        architecture: model class.
        model_type: the config's name of the text model.
        n_layers: decoder blocks.
        d_model: width of the residual stream.
        vocab_size: rows of the embedding.
        dtype: number format of the weights, for example ``bfloat16``.
        parameters: all parameters, tied ones once.
        tuning: ``base``, ``instruct`` or ``unknown``, guessed from the name.
        fingerprint: digest of a fixed sample of the weights in ``dtype``.
        base: the model that an adapter was added to, where ``name`` is one; empty for any other.
    """

    name: str
    commit: str
    architecture: str
    model_type: str
    n_layers: int
    d_model: int
    vocab_size: int
    dtype: str
    parameters: int
    tuning: str
    fingerprint: str
    base: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def describe_model(name: str, options: ModelOptions, device: torch.device | str = "cpu") -> ModelShape:
    """Shape of a model from its config; parameters are counted on the meta device, no weights are read.

    Raises:
        UserError: the model cannot be found, or its architecture is unknown.
    """
    import transformers

    source = resolve(name, options)
    config = load_config(source)
    text = config.get_text_config()
    try:
        with quiet(), torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(config)
    except Exception as error:  # whatever a damaged config makes a model class raise
        raise cannot_build(name, error) from error
    from qscope.models.architectures import find_decoder

    blocks = find_decoder(model, text.num_hidden_layers).blocks
    total = sum(p.numel() for p in blocks.parameters())
    experts = sum(p.numel() for path, p in blocks.named_parameters() if ".experts." in f".{path}")
    routed = getattr(text, "num_experts_per_tok", None) or 1
    available = getattr(text, "num_experts", None) or getattr(text, "num_local_experts", None) or routed
    return ModelShape(
        name=name,
        commit=source.commit,
        architecture=type(model).__name__,
        n_layers=text.num_hidden_layers,
        d_model=text.hidden_size,
        vocab_size=text.vocab_size,
        parameters=sum(p.numel() for p in model.parameters()),
        block_parameters=total,
        active_block_parameters=total - experts + experts * routed // available,
        bytes_per_parameter=choose_dtype(options.precision, torch.device(device)).itemsize,
        context_length=int(getattr(text, "max_position_embeddings", 0) or 0),
    )


def cannot_build(name: str, error: Exception) -> UserError:
    """The error for a config that yields no causal language model."""
    return UserError(
        f"{name}: its config describes no causal language model that can be built ({brief(error)}).",
        remedy="Name a decoder such as Qwen3 or Qwen3.5, or save the model again.",
        reason="UNKNOWN_ARCHITECTURE",
        field="model",
    )


_BASE = re.compile(r"(?<![a-z])base(?![a-z])|pretrain|[-_]pt\b", re.IGNORECASE)
_INSTRUCT = re.compile(r"instruct|chat|thinking|[-_]it\b|[-_]sft\b", re.IGNORECASE)


def guess_tuning(name: str, model_type: str) -> str:
    """``base`` or ``instruct`` from a model's name, ``unknown`` when it does not say.

    Qwen3 and Qwen3.5 mark the base model with ``-Base`` and leave the post-trained one unmarked. A chat template tells
    nothing: Qwen's base models ship one too.
    """
    if name == "embedded":
        return "base"
    short = Path(name).name
    if _BASE.search(short):
        return "base"
    if _INSTRUCT.search(short):
        return "instruct"
    return "instruct" if model_type.startswith("qwen3") and re.match(r"Qwen3(\.5)?-", short) else "unknown"


_SAMPLES = 4096


def fingerprint(model: nn.Module) -> str:
    """Digest of names, shapes and up to 4,096 evenly spaced values of every parameter.

    Reading every byte of a large model would take longer than loading it; a sample tells checkpoints apart.
    """
    state = hashlib.blake2b(digest_size=16)
    for name, parameter in sorted(model.named_parameters()):
        flat = parameter.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // _SAMPLES)]
        state.update(f"{name}\0{tuple(parameter.shape)}\0{parameter.dtype}\0".encode())
        state.update(sample.contiguous().cpu().view(torch.uint8).numpy().tobytes())
    return state.hexdigest()

"""Loading a language model for hooked inference."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from qscope.errors import UserError
from qscope.models.adapters import merge_adapter
from qscope.models.architectures import Decoder, find_decoder
from qscope.models.device import choose_dtype
from qscope.models.facts import ModelFacts, cannot_build, fingerprint, guess_tuning
from qscope.models.resolve import ModelSource, brief, load_config, quiet, require_files, resolve
from qscope.v1.model_pb2 import ModelOptions


@dataclass(frozen=True)
class LoadedModel:
    """A language model ready for hooks: eval mode, no gradients.

    Attributes:
        model: the Hugging Face model.
        tokenizer: its tokenizer.
        decoder: its decoder blocks and final norm.
        facts: its identity.
    """

    model: nn.Module
    tokenizer: Any
    decoder: Decoder
    facts: ModelFacts

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype


def load_model(name: str, options: ModelOptions, device: torch.device | str = "cpu") -> LoadedModel:
    """Loads a model and its tokenizer.

    Args:
        name: ``embedded``, a folder in Hugging Face layout or of an adapter (PEFT), or a hub id.
        options: revision, precision, offline.
        device: where the weights go.

    Raises:
        UserError: one sentence and a remedy for everything the user can mend: missing or incomplete model, unknown
            architecture, no tokenizer, hub out of reach, too little memory.
    """
    device = torch.device(device)
    source = resolve(name, options)
    require_files(source)
    config = load_config(source)
    tokenizer = _load_tokenizer(source)
    model = _load_weights(source, config, choose_dtype(options.precision, device), device)
    if source.adapter:
        with quiet():
            model = merge_adapter(model, Path(source.adapter), name)
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise UserError(
            f"{name}: its tokenizer knows {len(tokenizer):,} tokens, but the model only {rows:,}.",
            remedy="Put the tokenizer the model was trained with into the folder.",
            reason="TOKENIZER_MISMATCH",
            field="model",
        )
    return wrap_model(model, tokenizer, name=name, commit=source.commit, base=source.base)


def load_tokenizer(name: str, options: ModelOptions) -> Any:
    """The tokenizer of a model alone, for plans and for what reads text before the model is there.

    Raises:
        UserError: as :func:`load_model`.
    """
    return _load_tokenizer(resolve(name, options))


def wrap_model(model: nn.Module, tokenizer: Any, *, name: str, commit: str = "", base: str = "") -> LoadedModel:
    """A model already in memory, prepared as ``load_model`` does.

    Raises:
        UserError: its decoder blocks cannot be found (UNKNOWN_ARCHITECTURE).
    """
    text = model.config.get_text_config()
    model.eval().requires_grad_(False)
    facts = ModelFacts(
        name=name,
        commit=commit,
        architecture=type(model).__name__,
        model_type=text.model_type,
        n_layers=text.num_hidden_layers,
        d_model=text.hidden_size,
        vocab_size=text.vocab_size,
        dtype=str(next(model.parameters()).dtype).removeprefix("torch."),
        parameters=sum(p.numel() for p in model.parameters()),
        tuning=guess_tuning(base or name, text.model_type),
        fingerprint=fingerprint(model),
        base=base,
    )
    return LoadedModel(model, tokenizer, find_decoder(model, text.num_hidden_layers), facts)


def _load_tokenizer(source: ModelSource) -> Any:
    import transformers

    place, arguments = source.location, source.arguments
    if source.adapter and (Path(source.adapter) / "tokenizer_config.json").is_file():
        # What an adapter was trained with comes with it.
        place, arguments = source.adapter, {"local_files_only": True, "trust_remote_code": False}
    try:
        with quiet():
            return transformers.AutoTokenizer.from_pretrained(place, **arguments)
    except Exception as error:  # the libraries below raise their own bare Exception on damaged files
        raise UserError(
            f"{source.name}: its tokenizer cannot be loaded ({brief(error)}).",
            remedy="Save it beside the model: tokenizer.save_pretrained(folder).",
            reason="TOKENIZER_MISSING",
            field="model",
        ) from error


def _load_weights(source: ModelSource, config: Any, dtype: torch.dtype, device: torch.device) -> nn.Module:
    import transformers
    from safetensors import SafetensorError

    # On a GPU shards go straight to the device; a second copy in host memory would be the size of the model.
    placement = {"device_map": {"": device}} if device.type != "cpu" else {}
    try:
        with quiet():
            model, report = transformers.AutoModelForCausalLM.from_pretrained(
                source.location,
                config=config,
                dtype=dtype,
                output_loading_info=True,
                **placement,
                **source.arguments,
            )
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"{source.name}: the model does not fit into the memory of {device}.",
            remedy="Use a smaller model or precision: bfloat16; `qscope plan` states what is needed.",
            reason="OUT_OF_MEMORY",
            field="model",
        ) from error
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UserError(
            f"{source.name}: its weights cannot be loaded ({brief(error)}).",
            remedy="Download or save the model again.",
            reason="MODEL_INCOMPLETE",
            field="model",
        ) from error
    except Exception as error:  # whatever a damaged config makes a model class raise
        raise cannot_build(source.name, error) from error
    missing = sorted(report["missing_keys"])
    if missing:
        # transformers fills these with random numbers and only warns.
        raise UserError(
            f"{source.name}: {len(missing)} of its weights are missing, for example {missing[0]}.",
            remedy="Download or save the model again.",
            reason="MODEL_INCOMPLETE",
            field="model",
        )
    return model

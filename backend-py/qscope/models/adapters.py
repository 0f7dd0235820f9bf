"""Low-rank adapters (PEFT) as models: where their base is, and adding them to its weights.

An adapter is loaded as what it makes of its base: every verb then has a plain model, with blocks and hooks as usual.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from torch import nn

from qscope.errors import UserError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model of its own."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def base_of(folder: Path, name: str) -> tuple[str, str]:
    """The model an adapter was trained on, and its revision (or nothing), as the adapter names them.

    Args:
        folder: of the adapter.
        name: what the user called it, for errors.

    Raises:
        UserError: MODEL_INCOMPLETE, or another kind of adapter than LoRA (ADAPTER_KIND).
    """
    try:
        config: Any = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        kind, base = config["peft_type"], config["base_model_name_or_path"]
        revision = config.get("revision") or ""
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _incomplete(f"{name}: {CONFIG} does not say which model the adapter is of.") from error
    if not (isinstance(base, str) and base and isinstance(revision, str)):
        raise _incomplete(f"{name}: {CONFIG} does not say which model the adapter is of.")
    if kind != "LORA":
        raise UserError(
            f"{name}: an adapter of the kind {kind}, which cannot be added to the weights of a model.",
            remedy="Name a LoRA adapter, or a model that the adapter is merged into.",
            reason="ADAPTER_KIND",
            field="model",
        )
    if not (folder / WEIGHTS).is_file():
        raise _incomplete(f"{name}: the adapter has no weights ({WEIGHTS}).")
    from qscope import embedded

    # PEFT writes where the model lay.
    return ("embedded" if Path(base) == Path(embedded.model_path()) else base), revision


def merge_adapter(model: nn.Module, folder: Path, name: str) -> nn.Module:
    """Adds an adapter to the weights of its base, in place.

    Args:
        model: the base.
        folder: of the adapter.
        name: what the user called it, for errors.

    Returns:
        The model, of the class it had.

    Raises:
        UserError: MODEL_INCOMPLETE for damaged weights or those of another model.
    """
    from peft import PeftModel
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            given = set(file.keys())
        with warnings.catch_warnings(action="ignore"):
            adapted = PeftModel.from_pretrained(model, str(folder), local_files_only=True)
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError) as error:
        raise _incomplete(f"{name}: the adapter does not fit the model it names ({_first_line(error)}).") from error
    # PEFT only warns of weights that no layer takes, and of layers that get none: they are refused here.
    taken = {parameter.replace(".default", "") for parameter, _ in adapted.named_parameters() if "lora_" in parameter}
    if wrong := sorted(given ^ taken):
        what = "has no weights for" if wrong[0] in taken else "has weights that the model does not take:"
        raise _incomplete(f"{name}: the adapter {what} {wrong[0]}.")
    return adapted.merge_and_unload()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".:")


def _incomplete(message: str) -> UserError:
    return UserError(
        message, remedy="Save the adapter again, beside the right model.", reason="MODEL_INCOMPLETE", field="model"
    )

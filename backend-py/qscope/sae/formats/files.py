"""What every layout needs: atomic files, bounded JSON, and tensors that are what their header claims."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from qscope.errors import UserError
from qscope.runs import files
from qscope.runs.files import replacing

_MAX_JSON_BYTES = 64 << 20
_VALUES_AT_ONCE = 1 << 24


def refusal(path: Path, what: str, remedy: str, reason: str = "SAE_FILE_DAMAGED") -> UserError:
    """A UserError that names the file first."""
    return UserError(f"{path}: {what}.", remedy=remedy, reason=reason)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replaces `path` by an indented JSON object; numbers that JSON lacks (NaN, infinity) become null."""
    files.write_json(path, value)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`.

    Raises:
        UserError: the file is missing, larger than 64 MiB, or holds no JSON object.
    """
    remedy = "Export the SAE again, or fetch the file again."
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise refusal(path, "is too large to be the description of an SAE", remedy)
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise refusal(path, "is missing", remedy, "SAE_FILE_MISSING") from None
    except OSError as error:
        raise refusal(path, f"cannot be read ({error.strerror})", remedy) from None
    except (ValueError, RecursionError):
        raise refusal(path, "is not valid JSON", remedy) from None
    if not isinstance(value, dict):
        raise refusal(path, "holds no JSON object", remedy)
    return value


def read_number(path: Path, document: Mapping[str, Any], key: str, *, at_least: int = 1) -> int:
    """A whole number of a JSON object."""
    value = document.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not at_least <= value < 1 << 31:
        raise refusal(path, f"'{key}' must be a whole number of at least {at_least}", "Export the SAE again.")
    return value


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Replaces `path` by a safetensors file."""
    with replacing(path) as temporary:
        save_file(dict(tensors), temporary, metadata={"format": "pt"})


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file, mapped from disk where possible."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise refusal(path, "is missing", "Name the folder that holds the SAE.", "SAE_FILE_MISSING") from None
    except (SafetensorError, OSError, ValueError, MemoryError) as error:
        raise refusal(path, f"is not a readable safetensors file ({error})", "Export the SAE again.") from None


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes by name from the header of a safetensors file; no weights are read."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise refusal(path, "is missing", "Name the folder that holds the SAE.", "SAE_FILE_MISSING") from None
    except (SafetensorError, OSError, ValueError, MemoryError) as error:
        raise refusal(path, f"is not a readable safetensors file ({error})", "Export the SAE again.") from None


def own_float32(tensor: Tensor) -> Tensor:
    """The tensor as contiguous float32 on the CPU whose storage holds nothing else.

    A slice of a stack of layers would otherwise be written with the whole stack behind it.
    """
    plain = tensor.detach().to(device="cpu", dtype=torch.float32).contiguous()
    return plain if plain.untyped_storage().nbytes() == plain.numel() * plain.element_size() else plain.clone()


def check_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    dtypes: tuple[torch.dtype, ...] = (torch.float32,),
) -> None:
    """Refuses tensors with other names, shapes or number formats than promised, and values that are not finite."""
    remedy = "Export the SAE again, or fetch the file again."
    if set(tensors) != set(shapes):
        found = ", ".join(sorted(map(str, tensors))[:8]) or "nothing"
        raise refusal(path, f"must hold {', '.join(sorted(shapes))}, and holds {found}", remedy)
    for name, shape in shapes.items():
        tensor = tensors[name]
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
            raise refusal(path, f"{name} is no dense tensor", remedy)
        if tensor.dtype not in dtypes:
            wanted = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
            raise refusal(path, f"{name} is {str(tensor.dtype).removeprefix('torch.')} instead of {wanted}", remedy)
        if tuple(tensor.shape) != shape:
            raise refusal(path, f"{name} has shape {list(tensor.shape)} instead of {list(shape)}", remedy)
        if not tensor.is_contiguous():
            raise refusal(path, f"{name} is not stored contiguously", remedy)
    for name, tensor in tensors.items():
        if not all(bool(torch.isfinite(part).all()) for part in tensor.reshape(-1).split(_VALUES_AT_ONCE)):
            raise refusal(path, f"{name} holds values that are not finite", "Its training diverged; use another SAE.")


def matrix_shape(path: Path, tensors: Mapping[str, Tensor], name: str) -> tuple[int, int]:
    """Both sides of the matrix `name`."""
    tensor = tensors.get(name)
    if not isinstance(tensor, Tensor) or tensor.ndim != 2 or 0 in tensor.shape:
        raise refusal(path, f"holds no matrix {name}", "Export the SAE again, or fetch the file again.")
    return tensor.shape[0], tensor.shape[1]


def check_k(path: Path, k: int, d_sae: int) -> None:
    """Refuses a k that no SAE of this width can have."""
    if not 1 <= k <= d_sae:
        raise refusal(path, f"k is {k}, but the SAE has {d_sae:,} features", "Give the k it was trained with.")

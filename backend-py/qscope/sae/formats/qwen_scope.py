"""The Qwen-Scope layout: ``layer{n}.sae.pt``, and a sidecar ``layer{n}.sae.json`` that its other readers ignore.

One ``torch.save`` dict of four float32 tensors in ``nn.Linear`` orientation: W_enc [d_sae, d_in], W_dec [d_in, d_sae],
b_enc [d_sae], b_dec [d_in]. The encoder subtracts no b_dec. This is the only pickle qscope reads, so it is read with
suspicion: an uncompressed archive no larger than its file, a pickle that asks for tensors and nothing else, and
``weights_only=True`` behind both.
"""

from __future__ import annotations

import pickletools
import re
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from qscope.errors import UserError
from qscope.runs.files import replacing
from qscope.sae.formats.describe import Description, describe, read_description
from qscope.sae.formats.files import (
    check_k,
    check_tensors,
    matrix_shape,
    own_float32,
    refusal,
    write_json,
)
from qscope.sae.formats.releases import ReleaseName, model_behind, parse_name
from qscope.sae.topk import TopKSae

NAME = "qwen_scope"

_FILE = re.compile(r"layer(0|[1-9]\d{0,5})\.sae\.pt")
# The pickle of four tensors has about 600 bytes and the archive nine records; more is no SAE.
_MAX_PICKLE_BYTES = 1 << 16
_MAX_RECORDS = 64
_ALLOWED_GLOBALS = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_(tensor_v2|parameter)"
    r"|torch (Float|Double|Half|BFloat16|Byte|Char|Short|Int|Long|Bool)Storage"
)
_ALLOWED_OPCODES = frozenset(
    {
        *("PROTO", "STOP", "MARK", "GLOBAL", "REDUCE", "BUILD", "BINPERSID"),
        *("BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
        *("BINUNICODE", "SHORT_BINSTRING", "BININT", "BININT1", "BININT2", "LONG1", "NEWTRUE", "NEWFALSE", "NONE"),
        *("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_TUPLE", "EMPTY_DICT", "SETITEM", "SETITEMS"),
    }
)
_FETCH_AGAIN = "Fetch the file again, or export the SAE again."


def find(path: Path) -> dict[int, Path]:
    """Files by layer: `path` itself, or the files in it."""
    candidates = [path] if path.is_file() else sorted(path.iterdir()) if path.is_dir() else []
    matches = [(_FILE.fullmatch(item.name), item) for item in candidates]
    return {int(match[1]): item for match, item in matches if match and item.is_file()}


def write(sae: TopKSae, folder: Path, recipe: Mapping[str, Any]) -> Path:
    """Writes one SAE and its sidecar under `folder` and returns the ``.pt`` file."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"layer{sae.layer}.sae.pt"
    # A sidecar of an earlier export must not give its k to new weights if we are stopped in between.
    _sidecar(place).unlink(missing_ok=True)
    # Through a file object: torch would write the temporary name of a path into the archive.
    with replacing(place) as temporary, open(temporary, "wb") as file:
        torch.save(
            {
                "W_enc": own_float32(sae.W_enc_FD),
                "W_dec": own_float32(sae.W_dec_FD.t()),
                "b_enc": own_float32(sae.b_enc_F),
                "b_dec": own_float32(sae.b_dec_D),
            },
            file,
        )
    write_json(_sidecar(place), describe(sae, recipe))
    return place


def files(place: Path) -> list[Path]:
    """The files one SAE consists of: the sidecar is optional."""
    return [place, _sidecar(place)] if _sidecar(place).is_file() else [place]


def peek(place: Path, layer: int) -> Description:
    """Facts of the SAE in one file, from its sidecar, else from its folder's name and the shapes in the archive."""
    if _sidecar(place).is_file():
        return _described(place, layer)
    named = _named(place)
    d_sae, d_in = matrix_shape(place, _load_tensors(place), "W_enc")
    return Description(layer, d_in, d_sae, named.k, model_behind(named))


def read(place: Path, layer: int) -> TopKSae:
    """The SAE in one file; the encoder stays mapped to it, the decoder is turned feature-major.

    k comes from the sidecar, or else from a folder named after the release's rule.
    """
    sae = view(place, layer)
    return replace(sae, W_dec_FD=sae.W_dec_FD.contiguous())


def view(place: Path, layer: int) -> TopKSae:
    """The SAE in one file, checked and mapped, nothing copied: its decoder is the transposed view of the file's."""
    k, promised = _facts(place, layer)
    tensors = _load_tensors(place)
    d_sae, d_in = matrix_shape(place, tensors, "W_enc")
    shapes = {"W_enc": (d_sae, d_in), "W_dec": (d_in, d_sae), "b_enc": (d_sae,), "b_dec": (d_in,)}
    check_tensors(place, tensors, shapes)
    for name, value in (("d_in", d_in), ("d_sae", d_sae)):
        if promised.get(name, value) != value:
            raise refusal(place, f"has {name} {value}, and {promised[name]} was promised by its name", _FETCH_AGAIN)
    check_k(place, k, d_sae)
    return TopKSae(tensors["W_enc"], tensors["b_enc"], tensors["W_dec"].t(), tensors["b_dec"], k=k, layer=layer)


def _sidecar(place: Path) -> Path:
    return place.with_suffix(".json")


def _facts(place: Path, layer: int) -> tuple[int, dict[str, int]]:
    """k, and the sizes that sidecar and folder name promise."""
    if _sidecar(place).is_file():
        description = _described(place, layer)
        return description.k, {"d_in": description.d_in, "d_sae": description.d_sae}
    named = _named(place)
    return named.k, {"d_sae": named.d_sae}


def _described(place: Path, layer: int) -> Description:
    sidecar = _sidecar(place)
    description = read_description(sidecar)
    if description.layer != layer:
        raise refusal(sidecar, f"describes layer {description.layer}, not {layer}", "Give the file its old name.")
    return description


def _named(place: Path) -> ReleaseName:
    """What the nearest folder named by the release's rule says."""
    for folder in place.absolute().parents:
        # The hub's cache keeps models--Qwen--SAE-Res-.../snapshots/REVISION/layer0.sae.pt.
        named = parse_name(folder.name.rpartition("--")[2])
        if named is not None:
            return named
    raise refusal(
        place,
        "does not say its k, and has no sidecar",
        f"Put {_sidecar(place).name} beside it, or name its folder as the release does (SAE-Res-MODEL-W32K-L0_50).",
        "SAE_K_UNKNOWN",
    )


def _load_tensors(place: Path) -> dict[str, Any]:
    _check_archive(place)
    try:
        loaded = torch.load(place, map_location="cpu", weights_only=True, mmap=True)
    # A hostile archive can raise anything from KeyError to RuntimeError inside torch; each means the same to a person.
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise refusal(place, f"cannot be read as a Qwen-Scope SAE ({reason[0][:120]})", _FETCH_AGAIN) from None
    if not isinstance(loaded, dict):
        raise refusal(place, "holds no dict of tensors", _FETCH_AGAIN)
    return loaded


def _check_archive(place: Path) -> None:
    """Refuses everything but an uncompressed archive whose pickle asks for tensors only; executes nothing."""
    try:
        size = place.stat().st_size
        with zipfile.ZipFile(place) as archive:
            records = archive.infolist()
            pickles = [record for record in records if record.filename.endswith("/data.pkl")]
            if len(records) > _MAX_RECORDS or len(pickles) != 1:
                raise refusal(place, "is not an archive of one SAE", _FETCH_AGAIN)
            if any(record.compress_type != zipfile.ZIP_STORED for record in records):
                raise refusal(place, "is compressed, which torch.save never does", _FETCH_AGAIN, "SAE_FILE_HOSTILE")
            if sum(record.file_size for record in records) > size or pickles[0].file_size > _MAX_PICKLE_BYTES:
                raise refusal(place, "claims more data than it holds", _FETCH_AGAIN, "SAE_FILE_HOSTILE")
            content = archive.read(pickles[0])
    except FileNotFoundError:
        raise refusal(place, "is missing", "Name a file that exists.", "SAE_FILE_MISSING") from None
    except OSError as error:
        raise refusal(place, f"cannot be read ({error.strerror})", _FETCH_AGAIN) from None
    except UserError:
        raise
    # zipfile raises BadZipFile, NotImplementedError, struct.error, RuntimeError, ... on damaged archives.
    except Exception:
        raise refusal(place, "is not an archive written by torch.save", _FETCH_AGAIN) from None
    _check_pickle(place, content)


def _check_pickle(place: Path, content: bytes) -> None:
    try:
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name == "GLOBAL" and not _ALLOWED_GLOBALS.fullmatch(str(argument)):
                what = (
                    f"asks Python to import {str(argument).replace(' ', '.')[:80]}, which no SAE needs; nothing was run"
                )
                raise refusal(place, what, "Do not use this file.", "SAE_FILE_HOSTILE")
            if opcode.name not in _ALLOWED_OPCODES:
                what = f"holds more than tensors (pickle instruction {opcode.name}); nothing was run"
                raise refusal(place, what, "Do not use this file.", "SAE_FILE_HOSTILE")
    except UserError:
        raise
    except Exception:
        raise refusal(place, "holds a damaged pickle; nothing was run", _FETCH_AGAIN) from None

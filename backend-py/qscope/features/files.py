"""The file features.json: a FeatureSet in protobuf's JSON form, which later commands take."""

from __future__ import annotations

import math
from pathlib import Path

from google.protobuf import json_format

from qscope.errors import UserError
from qscope.runs.files import write_message
from qscope.v1.explain_pb2 import ExplanationSet
from qscope.v1.features_pb2 import FeatureEntry, FeatureSet

NAME = "features.json"
EXPLANATIONS = "explanations.json"


def save_features(features: FeatureSet, folder: Path) -> Path:
    """Writes ``features.json`` into a folder, in one step."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    write_message(path, features)
    return path


def load_features(path: Path | str, *, field: str = "") -> FeatureSet:
    """Reads a feature file, or the one of a run folder.

    Args:
        path: the file, a folder that holds it, or a run folder.
        field: experiment field that named it, for errors.

    Raises:
        UserError: it is not there (FEATURES_NOT_FOUND), or is no whole feature file (FEATURES_DAMAGED).
    """
    given = Path(path).expanduser()
    for place in (given, given / NAME, given / "artifacts" / NAME):
        if place.is_file():
            return _checked(place, field)
    raise UserError(
        f"{path}: there is no {NAME}.",
        remedy="Name a run of `qscope features contrast`, `language` or `repetition` or of `qscope classify`, or its "
        "features.json.",
        reason="FEATURES_NOT_FOUND",
        field=field,
    )


def load_explanations(path: Path | str, *, field: str = "") -> ExplanationSet:
    """Reads what a run of `qscope features explain` wrote.

    Args:
        path: the file, a folder that holds it, or a run folder.
        field: experiment field that named it, for errors.

    Raises:
        UserError: it is not there (EXPLANATIONS_NOT_FOUND), or is no whole file of explanations (FEATURES_DAMAGED).
    """
    given = Path(path).expanduser()
    places = (given, given / EXPLANATIONS, given / "artifacts" / EXPLANATIONS)
    place = next((one for one in places if one.is_file()), None)
    if place is None:
        raise UserError(
            f"{path}: there is no {EXPLANATIONS}.",
            remedy=f"Name a run of `qscope features explain`, or its {EXPLANATIONS}.",
            reason="EXPLANATIONS_NOT_FOUND",
            field=field,
        )
    try:
        found = json_format.Parse(place.read_bytes(), ExplanationSet())
    except (OSError, ValueError, RecursionError, json_format.ParseError) as error:
        raise _damaged(place, _first_line(error), field) from error
    widths = {record.layer: record.d_sae for record in found.sae_records}
    for index, one in enumerate(found.explanations):
        if one.feature >= widths.get(one.layer, 0):
            raise _damaged(place, f"entry {index} names feature {one.layer}/{one.feature}, which no SAE has", field)
    return found


def refuse_other_sae(
    found: FeatureSet | ExplanationSet, layer: int, fingerprint: str, *, path: str, field: str
) -> None:
    """Refuses saved features beside another SAE: ids mean nothing in one, be it trained alike on the same model.

    Args:
        found: the saved features.
        layer: of the SAE in use.
        fingerprint: of the SAE in use; empty where it is not known, and then nothing is refused.
        path: what the user called the features.
        field: experiment field that named them, for errors.

    Raises:
        UserError: they belong to another SAE (FEATURES_OF_ANOTHER_SAE).
    """
    known = next((record.fingerprint for record in found.sae_records if record.layer == layer), "")
    if known and fingerprint and known != fingerprint:
        raise UserError(
            f"{path}: its features belong to another SAE of layer {layer} than the one in use.",
            remedy=f"Take the SAEs they were found in ({found.sae}), or find features in these.",
            reason="FEATURES_OF_ANOTHER_SAE",
            field=field,
        )


def group_of(entry: FeatureEntry) -> str:
    """The class an entry was found for, a language for one; files of older versions have it in the label."""
    return entry.group or entry.label


def _checked(place: Path, field: str) -> FeatureSet:
    try:
        features = json_format.Parse(place.read_bytes(), FeatureSet())
    except (OSError, ValueError, RecursionError, json_format.ParseError) as error:
        raise _damaged(place, _first_line(error), field) from error
    if not features.kind or not features.model:
        raise _damaged(place, "it names no kind or no model", field)
    widths = {record.layer: record.d_sae for record in features.sae_records}
    for index, entry in enumerate(features.entries):
        width = widths.get(entry.layer)
        if width is None or entry.feature >= width:
            raise _damaged(place, f"entry {index} names feature {entry.layer}/{entry.feature}, which no SAE has", field)
        if not all(map(math.isfinite, _numbers(entry))):
            raise _damaged(place, f"entry {index} holds a number that is not finite", field)
    return features


def _numbers(entry: FeatureEntry) -> list[float]:
    doubles = [field for field in entry.DESCRIPTOR.fields if field.cpp_type == field.CPPTYPE_DOUBLE]
    single = [getattr(entry, field.name) for field in doubles if not field.is_repeated]
    return [*single, *entry.curve, *entry.class_means.values(), *entry.class_alphas.values()]


def _damaged(place: Path, why: str, field: str) -> UserError:
    return UserError(
        f"{place}: not a whole feature file ({why}).",
        remedy="Find the features again, or name another file.",
        reason="FEATURES_DAMAGED",
        field=field,
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")

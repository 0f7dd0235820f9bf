"""The file classifier.json: a :class:`Classifier` in protobuf's JSON form."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from urllib.parse import quote

from google.protobuf import json_format

from qscope.errors import UserError
from qscope.runs.files import write_message
from qscope.v1.classify_pb2 import Classifier, OperatingPoint

NAME = "classifier.json"


def place_of(language: str) -> str:
    """Where among the artifacts the classifier of a language is; that of all texts (empty) is the main one.

    A language is whatever a column holds, so it is made a file name of its own first.
    """
    if not language:
        return NAME
    name = quote(language, safe="")
    # Names of files end at 255 bytes.
    if len(name) > 100:
        name = hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
    return f"classifiers/{name}.json"


def save_classifier(classifier: Classifier, path: Path) -> None:
    """Writes a classifier, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_message(path, classifier)


def load_classifier(path: Path | str, *, field: str = "") -> Classifier:
    """Reads a classifier file, or the one of a run folder.

    Args:
        path: the file, a folder that holds it, or a run folder.
        field: experiment field that named it, for errors.

    Raises:
        UserError: it is not there (CLASSIFIER_NOT_FOUND), or is no whole classifier (CLASSIFIER_DAMAGED).
    """
    given = Path(path).expanduser()
    for place in (given, given / NAME, given / "artifacts" / NAME):
        if place.is_file():
            return _checked(place, field)
    raise UserError(
        f"{path}: there is no {NAME}.",
        remedy="Name a run of `qscope classify`, or its classifier.json.",
        reason="CLASSIFIER_NOT_FOUND",
        field=field,
    )


def point_at(classifier: Classifier, rate: float, *, field: str = "") -> OperatingPoint:
    """Where a classifier decides to hold a rate of false positives; 0 is any firing.

    Raises:
        UserError: the classifier knows no such rate (RATE_UNKNOWN).
    """
    for point in classifier.points:
        if math.isclose(point.false_positive_rate, rate, rel_tol=1e-6, abs_tol=1e-12):
            return point
    known = ", ".join(f"{point.false_positive_rate:g}" for point in classifier.points)
    raise UserError(
        f"The classifier has no threshold for a false-positive rate of {rate:g}.",
        remedy=f"It knows {known}; classify.false_positive_rates says for which thresholds are chosen.",
        reason="RATE_UNKNOWN",
        field=field,
    )


def _checked(place: Path, field: str) -> Classifier:
    try:
        classifier = json_format.Parse(place.read_bytes(), Classifier())
    except (OSError, ValueError, RecursionError, json_format.ParseError) as error:
        raise _damaged(
            place, (str(error).strip() or type(error).__name__).splitlines()[0].rstrip("."), field
        ) from error
    if not classifier.attribute or not classifier.features or not classifier.points or not classifier.context:
        raise _damaged(place, "it names no attribute, no feature, no threshold or no context", field)
    widths = {sae.layer: sae.d_sae for sae in classifier.saes}
    for one in classifier.features:
        if one.feature >= widths.get(one.layer, 0):
            raise _damaged(place, f"it names feature {one.layer}/{one.feature}, which no SAE has", field)
    for point in classifier.points:
        if len(point.thresholds) != len(classifier.features) or not all(
            math.isfinite(value) and value >= 0 for value in point.thresholds
        ):
            raise _damaged(place, "its thresholds do not fit its features", field)
    return classifier


def _damaged(place: Path, why: str, field: str) -> UserError:
    return UserError(
        f"{place}: not a whole classifier ({why}).",
        remedy="Run `qscope classify` again, or name another file.",
        reason="CLASSIFIER_DAMAGED",
        field=field,
    )

"""``qscope classify apply``: texts stream through a saved classifier, in order; memory does not grow with them."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from qscope.classification.apply import Answer, answers
from qscope.classification.files import point_at
from qscope.classification.pooled import Pooler
from qscope.data.records import Fault
from qscope.data.row_texts import TextRow
from qscope.data.template import shown
from qscope.errors import UserError
from qscope.features.encoders import model_record, sae_record
from qscope.recipes.admission import admit
from qscope.recipes.classify_parts import APPLY as AT
from qscope.recipes.classify_parts import ToOpen, classifier_at, place_of_classifier, source_of
from qscope.recipes.classify_report import percent
from qscope.recipes.extract_features import reading_record
from qscope.recipes.feature_parts import Opened, as_json, open_model, warn_not_finite
from qscope.recipes.shared import pin_revision, pinned
from qscope.runs import RunContext
from qscope.runs.files import plain, write_json
from qscope.runs.ledger import key_of
from qscope.runs.stream import GrowingFiles
from qscope.v1 import report_pb2 as pb
from qscope.v1.classify_pb2 import ApplyClassifier, Classifier, OperatingPoint

ANSWERS, FAULTS, NOTE = "answers.jsonl", "faults.csv", "progress.json"


def run(context: RunContext) -> None:
    """Classifies piece by piece; a resumed run goes on after the last whole piece, to the same bytes."""
    admit(context)
    task: ApplyClassifier = context.experiment.apply_classifier
    place = pinned(context, f"{AT}.classifier", lambda: place_of_classifier(task, context.folder.parent))
    classifier = classifier_at(place)
    point = point_at(classifier, task.false_positive_rate, field=f"{AT}.false_positive_rate")
    pin_revision(context, task, AT)
    source = source_of(task)
    opened = _open(context, task, classifier)
    pooler = Pooler(
        opened.loaded,
        opened.saes,
        context=classifier.context,
        rendering=classifier.rendering,
        masks=classifier.masks,
        batch_tokens=task.model_batch_tokens,
        at=AT,
    )
    key = key_of(
        {
            "source": source.identity(),
            "classifier": as_json(classifier),
            "task": as_json(task),
            **reading_record(opened.loaded, classifier.rendering),
        }
    )
    files = GrowingFiles(context.artifacts, (ANSWERS, FAULTS), note=NOTE)
    counts = _counts(files, key)
    rows = itertools.islice(source.rows(), counts["rows"], None)
    for piece in _pieces(rows, task, counts["texts"]):
        given = [row for row in piece if isinstance(row, TextRow)]
        faults = [row for row in piece if isinstance(row, Fault)]
        before = pooler.cut, pooler.silent, pooler.not_finite
        pooled = pooler.pool([row.text for row in given], should_stop=lambda: context.stop_requested)
        if pooled is None:
            context.stop(counts["texts"])
        said = answers(classifier, point, pooled) if given else []
        head = b"place,why\r\n" if not counts["rows"] else b""
        counts["rows"] += len(piece)
        counts["texts"] += len(given)
        counts["faults"] += len(faults)
        counts["positive"] += sum(one.positive for one in said)
        counts["cut"] += pooler.cut - before[0]
        counts["silent"] += pooler.silent - before[1]
        counts["tokens_not_finite"] += pooler.not_finite - before[2]
        files.append(
            {ANSWERS: _lines(zip(given, said, strict=True), classifier, task.keep), FAULTS: head + _csv(faults)},
            counts,
        )
        context.progress("classifying", counts["texts"], task.limit or counts["texts"], "texts")
    if not counts["texts"]:
        raise UserError(
            f"'{task.source}' holds no text that can be used ({counts['faults']:,} rows left out).",
            remedy="Check 'source', 'text' and 'where'.",
            reason="DATA_EMPTY",
            field=f"{AT}.source",
        )
    _finish(context, classifier, point, counts)


def _open(context: RunContext, task: ApplyClassifier, classifier: Classifier) -> Opened:
    opened = open_model(context, ToOpen(task, classifier), at=AT)
    refuse_other_saes(classifier, opened, field=f"{AT}.sae" if task.sae else f"{AT}.classifier")
    if model_record(opened.loaded.facts).fingerprint != classifier.model.fingerprint:
        context.warning(
            f"The classifier was found with other weights or another number format ({classifier.model.name}, "
            f"{classifier.model.dtype}): its rates and thresholds may not hold."
        )
    return opened


def refuse_other_saes(classifier: Classifier, opened: Opened, *, field: str) -> None:
    """Refuses SAEs that are not those a classifier was found in, feature for feature.

    Raises:
        UserError: another encoder, or another k, by which other features fire (CLASSIFIER_OF_ANOTHER_SAE).
    """
    for known in classifier.saes:
        there = sae_record(opened.saes[known.layer])
        if (there.fingerprint, there.k) != (known.fingerprint, known.k):
            raise UserError(
                f"The SAE of layer {known.layer} at {opened.place} is not the one the classifier was found in.",
                remedy=f"It was found in those of {classifier.sae}; say in '{AT}.sae' where they are now.",
                reason="CLASSIFIER_OF_ANOTHER_SAE",
                field=field,
            )


def _counts(files: GrowingFiles, key: str) -> dict[str, Any]:
    fresh = {
        "key": key,
        "rows": 0,
        "texts": 0,
        "faults": 0,
        "positive": 0,
        "cut": 0,
        "silent": 0,
        "tokens_not_finite": 0,
    }
    if files.state is None:
        return fresh
    if files.state["key"] != key:
        raise UserError(
            "Texts or classifier have changed since the run began.",
            remedy="Restore them, or start a new run.",
            reason="EXTRACT_CHANGED",
        )
    return dict(files.state)


def _pieces(rows: Iterator[TextRow | Fault], task: ApplyClassifier, texts: int) -> Iterator[list[TextRow | Fault]]:
    """Rows in pieces of ``shard_texts``, the last of them ending with the text that the limit allows."""
    while not task.limit or texts < task.limit:
        piece = []
        for row in itertools.islice(rows, task.shard_texts):
            piece.append(row)
            texts += isinstance(row, TextRow)
            if task.limit and texts == task.limit:
                break
        if not piece:
            return
        yield piece


def _lines(said: Iterable[tuple[TextRow, Answer]], classifier: Classifier, keep: Sequence[str]) -> bytes:
    lines = []
    for row, one in said:
        line: dict[str, Any] = {
            "row": row.number,
            "place": row.place,
            "label": classifier.attribute if one.positive else f"not-{classifier.attribute}",
            "positive": one.positive,
            "fired": [
                {"layer": layer, "feature": feature, "activation": _short(value)} for layer, feature, value in one.fired
            ],
        }
        if keep:
            line["kept"] = {name: row.values.get(name) for name in keep}
        # Escaped to ASCII: a kept column may hold half a character, which no UTF-8 file does.
        lines.append(json.dumps(plain(line), default=shown, allow_nan=False) + "\n")
    return "".join(lines).encode()


def _short(value: float) -> float:
    # Six digits are what a float32 carries.
    return float(f"{value:.6g}")


def _csv(faults: Sequence[Fault]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows((fault.place, fault.why) for fault in faults)
    return text.getvalue().encode("utf-8", "surrogatepass")


def _finish(context: RunContext, classifier: Classifier, point: OperatingPoint, counts: dict[str, Any]) -> None:
    share = counts["positive"] / counts["texts"]
    rate = point.false_positive_rate
    how = f"threshold for {percent(rate)} false positives" if rate else "any firing decides"
    for name, what in (("cut", f"were cut at {classifier.context} tokens"), ("silent", "have no token that counts")):
        if counts[name]:
            context.warning(f"{counts[name]:,} of {counts['texts']:,} texts {what}.")
    warn_not_finite(context, counts["tokens_not_finite"])
    if counts["faults"]:
        context.warning(f"{counts['faults']:,} rows left out, listed in artifacts/{FAULTS}.")
    summary = {name: value for name, value in counts.items() if name != "key"}
    path = context.artifacts / "summary.json"
    write_json(path, {"attribute": classifier.attribute, "false_positive_rate": rate, "share": share, **summary})
    context.artifact(path, kind="summary", description=f"{counts['texts']:,} texts")
    context.artifact(context.artifacts / ANSWERS, kind="answers", description=f"{counts['texts']:,} texts in order")
    context.artifact(context.artifacts / FAULTS, kind="table", description=f"{counts['faults']:,} rows left out")
    context.info(f"{counts['positive']:,} of {counts['texts']:,} texts ({share:.1%}) are {classifier.attribute}; {how}")
    context.report(
        pb.Report(
            title=context.experiment.name,
            subtitle=f"{counts['positive']:,} of {counts['texts']:,} texts are {classifier.attribute}; {how}.",
            sections=[
                pb.ReportSection(
                    heading="Texts",
                    facts=pb.Facts(
                        facts=[pb.Fact(name=name, value=f"{value:,}") for name, value in summary.items()],
                    ),
                )
            ],
        )
    )

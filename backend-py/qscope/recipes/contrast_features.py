"""``qscope features contrast``: features that tell positive documents from negative ones, checked on held-out ones."""

from __future__ import annotations

from qscope.errors import UserError
from qscope.features.contrast import Question, find_features
from qscope.features.documents import Document, DocumentReader, Split, split
from qscope.recipes.admission import admit
from qscope.recipes.feature_parts import (
    open_documents,
    open_model,
    report_layers,
    warn_of_bare_layers,
    watch,
    write_features,
)
from qscope.runs import RunContext
from qscope.v1.features_pb2 import ContrastFeatures, ContrastScore, ContrastUnit

AT = "contrast_features"
SIDES = ("positives", "negatives")
#: Two documents to rank by and two to check with, on each side.
FEWEST = 4


def run(context: RunContext) -> None:
    """Reads both sides, ranks every feature of every layer on one half, checks the best on the other."""
    admit(context)
    task: ContrastFeatures = context.experiment.contrast_features
    opened = open_model(context, task, at=AT)
    readers = {
        side: open_documents(context, task, getattr(task, side), opened.loaded, at=AT, name=side) for side in SIDES
    }
    documents = [reader.require(task.documents) for reader in readers.values()]
    overlap = _refuse_same(*documents)
    if overlap:
        context.warning(f"{overlap:,} texts stand on both sides; they count on both.")
    halves = [_halves(context, task, side, given) for side, given in zip(SIDES, documents, strict=True)]
    ranking = [document.in_group(group) for group, half in enumerate(halves) for document in half.ranking]
    held_out = [document.in_group(group) for group, half in enumerate(halves) for document in half.held_out]
    on_progress, should_stop = watch(context, "reading", len(ranking) + len(held_out))
    found = find_features(
        opened.loaded,
        opened.saes,
        ranking,
        held_out,
        Question(SIDES, [0], task.score, task.unit, task.top, task.ambient_share),
        batch_tokens=task.model_batch_tokens,
        on_progress=on_progress,
        should_stop=should_stop,
    )
    if found is None:
        context.stop(0)
    for entry in found.entries:
        entry.label = task.label
    report_layers(context, found, found.entries)
    warn_of_bare_layers(context, opened, found.entries, "favours the positives")
    report = {
        "sides": {
            side: _side(reader, half, group, found)
            for group, (side, reader, half) in enumerate(zip(SIDES, readers.values(), halves, strict=True))
        },
        "on_both_sides": overlap,
        "not_finite_tokens": found.not_finite,
        "ambient": {str(layer): features for layer, features in found.ambient.items()},
        "median_residual_norm": {str(layer): norm for layer, norm in found.median_norms.items()},
    }
    write_features(context, task, opened, found.entries, kind="contrast", score=score_text(task), report=report)


def score_text(task: ContrastFeatures) -> str:
    """What the ranking ranks by, in words."""
    score = ContrastScore.Name(task.score).removeprefix("CONTRAST_SCORE_").lower()
    unit = ContrastUnit.Name(task.unit).removeprefix("CONTRAST_UNIT_").lower()
    return f"{score} per {unit}"


def _halves(context: RunContext, task: ContrastFeatures, side: str, documents: list[Document]) -> Split:
    halves = split(documents, task.held_out_share, context.seed_for("held-out"))
    if min(len(halves.ranking), len(halves.held_out)) < FEWEST // 2:
        raise UserError(
            f"{side}: {len(halves.ranking) + len(halves.held_out)} different documents are too few"
            " to rank by some and check with others.",
            remedy=f"Give at least {FEWEST} on each side.",
            reason="TOO_FEW_DOCUMENTS",
            field=f"{AT}.{side}.source",
        )
    return halves


def _refuse_same(positives: list[Document], negatives: list[Document]) -> int:
    one, other = ({document.digest for document in side} for side in (positives, negatives))
    overlap = len(one & other)
    if overlap == min(len(one), len(other)):
        raise UserError(
            "Every text of one side stands on the other side too, so nothing tells them apart.",
            remedy="Name another text, or choose its rows, for example where: language!=de.",
            reason="SIDES_ALIKE",
            field=f"{AT}.negatives.source",
        )
    return overlap


def _side(reader: DocumentReader, half: Split, group: int, found) -> dict:
    return {
        "source": reader.identity(),
        "documents": reader.read,
        "documents_ranking": found.documents[0][group],
        "documents_held_out": found.documents[1][group],
        "duplicates_left_out": half.duplicates,
        "empty_left_out": reader.empty,
        "cut_at_context": reader.cut,
        "tokens": found.tokens[group],
    }

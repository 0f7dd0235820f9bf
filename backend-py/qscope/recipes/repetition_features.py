"""``qscope features repetition``: features that rise from the first to the last repetition of a loop."""

from __future__ import annotations

from qscope.errors import UserError
from qscope.features.contrast import Question, find_features
from qscope.features.documents import Document, split
from qscope.features.loops import by_repetition, continued, find_loop, made_loop
from qscope.recipes.feature_parts import Opened, open_documents, open_model, report_layers, watch, write_features
from qscope.runs import RunContext
from qscope.v1.features_pb2 import (
    CONTRAST_SCORE_MEAN_DIFFERENCE,
    CONTRAST_UNIT_TOKEN,
    LOOP_ORIGIN_GENERATED,
    LOOP_ORIGIN_GIVEN,
    LOOP_ORIGIN_MADE,
    LoopOrigin,
    RepetitionFeatures,
)

AT = "repetition_features"
#: Two loops to rank by and two to check with.
FEWEST = 4


def run(context: RunContext) -> None:
    """Gets loops, ranks by the mean rise from first to last repetition on one half, checks on the other."""
    task: RepetitionFeatures = context.experiment.repetition_features
    opened = open_model(context, task, at=AT)
    reader = open_documents(context, task, task.text, opened.loaded, at=AT, name="text")
    documents = reader.require(task.documents)
    looped = _loops(context, task, opened, documents)
    context.info(
        f"{len(looped):,} of {len(documents):,} documents have a loop of {task.repetitions} repetitions or more"
    )
    if len(looped) < FEWEST:
        raise UserError(
            f"Only {len(looped)} of {len(documents)} documents have a loop: too few to rank and to check.",
            remedy="Give more documents or new_tokens, or take loops: made.",
            reason="TOO_FEW_LOOPS",
            field=f"{AT}.loops",
        )
    halves = split(looped, task.held_out_share, context.seed_for("held-out"))
    classes = [f"repetition {number + 1}" for number in range(task.repetitions - 1)] + ["last repetition"]
    on_progress, should_stop = watch(context, "reading", len(halves.ranking) + len(halves.held_out))
    found = find_features(
        opened.loaded,
        opened.saes,
        halves.ranking,
        halves.held_out,
        Question(
            classes,
            [len(classes) - 1],
            CONTRAST_SCORE_MEAN_DIFFERENCE,
            CONTRAST_UNIT_TOKEN,
            task.top,
            task.ambient_share,
            against=[0],
        ),
        batch_tokens=task.model_batch_tokens,
        on_progress=on_progress,
        should_stop=should_stop,
    )
    if found is None:
        context.stop(0)
    for entry in found.entries:
        entry.label = "repetition"
        entry.curve.extend(entry.class_means[name] for name in classes)
        entry.class_means.clear()
    report_layers(context, found, found.entries)
    report = {
        "source": reader.identity(),
        "loops": LoopOrigin.Name(task.loops).removeprefix("LOOP_ORIGIN_").lower(),
        "documents": len(documents),
        "documents_looping": len(looped),
        "duplicates_left_out": halves.duplicates,
        "documents_ranking": len(halves.ranking),
        "documents_held_out": len(halves.held_out),
        "repetitions": task.repetitions,
        "tokens_by_repetition": dict(zip(classes, found.tokens, strict=True)),
        "not_finite_tokens": found.not_finite,
        "ambient": {str(layer): features for layer, features in found.ambient.items()},
        "median_residual_norm": {str(layer): norm for layer, norm in found.median_norms.items()},
    }
    score = "mean activation in the last repetition minus the first, per token"
    write_features(context, task, opened, found.entries, kind="repetition", score=score, report=report)


def _loops(context: RunContext, task: RepetitionFeatures, opened: Opened, documents: list[Document]) -> list[Document]:
    """Documents with a loop, their tokens classed by repetition."""
    if task.loops == LOOP_ORIGIN_MADE:
        made = [made_loop(document, task.prefix_tokens, task.period_tokens, task.repetitions) for document in documents]
        return [document for document in made if document is not None and (document.group_T >= 0).any()]
    if task.loops == LOOP_ORIGIN_GENERATED:
        on_progress, should_stop = watch(context, "generating", len(documents))
        written = continued(
            opened.loaded,
            documents,
            task.prefix_tokens,
            task.new_tokens,
            batch_tokens=task.model_batch_tokens,
            on_progress=on_progress,
            should_stop=should_stop,
        )
        if written is None:
            context.stop(0)
        documents = written
    given = task.loops == LOOP_ORIGIN_GIVEN
    found = [(document, find_loop(document.ids_T, task.repetitions, anywhere=given)) for document in documents]
    return [by_repetition(document, loop, task.repetitions) for document, loop in found if loop is not None]

"""``qscope features repetition``: features that rise from the first to the last repetition of a loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qscope.errors import UserError
from qscope.features.contrast import Found, Question, find_features
from qscope.features.documents import Document, digest_of, split, think_tags
from qscope.features.loops import Looped, by_repetition, continued, made_loop
from qscope.features.onset import Aligned, matched_features, onset_curves
from qscope.recipes.admission import admit
from qscope.recipes.feature_parts import (
    Opened,
    open_documents,
    open_model,
    report_layers,
    warn_of_bare_layers,
    watch,
    write_features,
)
from qscope.recipes.repetition_report import LayerOnset, onset_lines, repetition_report
from qscope.runs import RunContext
from qscope.text.loops import find_loop
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
#: The window of an onset curve, in tokens; the shortest loop fills what lies behind the onset.
BEFORE, AFTER = 16, 64


@dataclass(frozen=True)
class Ordinary:
    """A document without a loop, and the digest of the looped document made from it (its own where none is)."""

    document: Document
    origin: bytes


def run(context: RunContext) -> None:
    """Gets loops, ranks by the mean rise from first to last repetition on one half, checks on the other.

    Of the best feature of every layer the curve around the onset is measured, on the half it was not ranked on.
    """
    admit(context)
    task: RepetitionFeatures = context.experiment.repetition_features
    opened = open_model(context, task, at=AT)
    reader = open_documents(context, task, task.text, opened.loaded, at=AT, name="text")
    documents = reader.require(task.documents)
    looped, candidates = _loops(context, task, opened, documents)
    context.info(
        f"{len(looped):,} of {len(documents):,} documents have a loop of {task.repetitions} repetitions or more"
    )
    _refuse_too_few(task, looped, len(documents))
    by_number = {one.document.number: one for one in looped}
    classed = [by_repetition(one.document, one.loop, task.repetitions) for one in looped]
    halves = split(classed, task.held_out_share, context.seed_for("held-out"))
    ordinary = _apart(candidates, halves.held_out)
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
    warn_of_bare_layers(context, opened, found.entries, "rises with repetition")
    onsets = _onsets(context, task, opened, found, [by_number[one.number] for one in halves.held_out], ordinary)
    if onsets:
        context.info("\n".join(onset_lines(onsets)))
    context.report(repetition_report(context.experiment.name, found.entries, onsets, classes))
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
        "documents_ordinary": len(ordinary),
        "ordinary_left_out": len(candidates) - len(ordinary),
        "onset": [onset.as_dict() for onset in onsets],
    }
    score = "mean activation in the last repetition minus the first, per token"
    write_features(context, task, opened, found.entries, kind="repetition", score=score, report=report)


def _onsets(
    context: RunContext,
    task: RepetitionFeatures,
    opened: Opened,
    found: Found,
    looped: Sequence[Looped],
    ordinary: Sequence[Document],
) -> list[LayerOnset]:
    """The best feature of every layer around the onset, beside ordinary text and a feature of like activity.

    Empty where no feature rises at any layer.
    """
    best: dict[int, int] = {}
    taken: dict[int, list[int]] = {}
    for entry in found.entries:
        best.setdefault(entry.layer, entry.feature)
        taken.setdefault(entry.layer, []).append(entry.feature)
    if not best:
        return []
    loops = [Aligned(one.document, one.onset) for one in looped]
    # Ordinary text is looked at where loops begin elsewhere: at the same depth into a document.
    plain = [
        Aligned(document, loops[index % len(loops)].onset)
        for index, document in enumerate(ordinary)
        if len(document.ids_T) > loops[index % len(loops)].onset
    ]
    on_progress, should_stop = watch(context, "onset", len(loops) + len(plain))
    matched = matched_features(
        opened.loaded,
        opened.saes,
        [aligned.document for aligned in plain],
        best,
        taken,
        batch_tokens=task.model_batch_tokens,
        should_stop=should_stop,
    )
    if matched is None:
        context.stop(0)
    features = {layer: [feature, *([matched[layer]] if layer in matched else [])] for layer, feature in best.items()}
    curves = onset_curves(
        opened.loaded,
        opened.saes,
        [*loops, *plain],
        features,
        before=BEFORE,
        after=AFTER,
        batch_tokens=task.model_batch_tokens,
        groups=[0] * len(loops) + [1] * len(plain),
        on_progress=on_progress,
        should_stop=should_stop,
    )
    if curves is None:
        context.stop(0)
    return [
        LayerOnset.of(layer, chosen, [curves.get((group, layer, feature)) for feature in chosen for group in (0, 1)])
        for layer, chosen in sorted(features.items())
    ]


def _loops(
    context: RunContext, task: RepetitionFeatures, opened: Opened, documents: list[Document]
) -> tuple[list[Looped], list[Ordinary]]:
    """Documents with a loop, and comparable ones without."""
    if task.loops == LOOP_ORIGIN_MADE:
        made = [
            (document, made_loop(document, task.prefix_tokens, task.period_tokens, task.repetitions))
            for document in documents
        ]
        whole = [
            (document, one)
            for document, one in made
            if one is not None and (by_repetition(one.document, one.loop, task.repetitions).group_T >= 0).any()
        ]
        return [one for _, one in whole], [Ordinary(document, one.document.digest) for document, one in whole]
    if task.loops == LOOP_ORIGIN_GENERATED:
        on_progress, should_stop = watch(context, "generating", len(documents))
        written = continued(
            opened.loaded,
            documents,
            task.prefix_tokens,
            task.new_tokens,
            batch_tokens=task.model_batch_tokens,
            think=think_tags(opened.loaded.tokenizer, at=f"{AT}.masks.skip_thinking")
            if task.masks.skip_thinking
            else None,
            on_progress=on_progress,
            should_stop=should_stop,
        )
        if written is None:
            context.stop(0)
        documents = written
    given = task.loops == LOOP_ORIGIN_GIVEN
    found = [(document, find_loop(document.ids_T, task.repetitions, anywhere=given)) for document in documents]
    looped = [
        Looped(document, loop)
        for document, loop in found
        # A loop may lie in what is left out, in thinking above all.
        if loop is not None and (by_repetition(document, loop, task.repetitions).group_T >= 0).any()
    ]
    return looped, [Ordinary(document, document.digest) for document, loop in found if loop is None]


def _apart(candidates: Sequence[Ordinary], held_out: Sequence[Document]) -> list[Document]:
    """Ordinary documents that are no held-out loop's, each once: both sides of an onset are different documents."""
    taken = {document.digest for document in held_out}
    unique = {digest_of(one.document.ids_T): one.document for one in reversed(candidates) if one.origin not in taken}
    return list(reversed(unique.values()))


def _refuse_too_few(task: RepetitionFeatures, looped: Sequence[Looped], documents: int) -> None:
    different = len({one.document.digest for one in looped})
    if different >= FEWEST:
        return
    what = f"Only {len(looped)} of {documents} documents have a loop"
    remedy = "Give more documents or new_tokens, or take loops: made."
    if task.loops == LOOP_ORIGIN_MADE:
        needed = task.prefix_tokens + task.period_tokens
        what = f"Only {len(looped)} of {documents} documents have prefix_tokens + period_tokens = {needed} tokens"
        remedy = "Raise text.context, lower prefix_tokens or period_tokens, or give longer or more documents."
    if different < len(looped):
        what += f", and {different} of these differ"
    raise UserError(
        f"{what}: too few to rank and to check.",
        remedy=remedy,
        reason="TOO_FEW_LOOPS",
        field=f"{AT}.loops",
    )

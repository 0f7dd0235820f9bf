"""What the tasks of ``qscope classify`` name, as the library takes it: for the recipes and for their plans."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from qscope.classification.files import NAME, load_classifier
from qscope.classification.labelled import GUESS, Labelled, LabelRule, Use, read_labelled
from qscope.data.row_texts import RowSource
from qscope.errors import UserError
from qscope.recipes.feature_parts import OfLayers
from qscope.recipes.shared import run_or_path
from qscope.v1.classify_pb2 import ApplyClassifier, Classifier, Classify, LabelledSource, SplitUse
from qscope.v1.redundancy_pb2 import BAD_ROWS_REFUSE

#: Fields of the experiment that hold the tasks.
CLASSIFY, APPLY = "classify", "apply_classifier"
#: Name of the generator that divides the texts.
DIVISION = "division"


def read_data(task: Classify, seed: int) -> Labelled:
    """The texts of a task, divided; ``seed`` is that of the division."""

    def sources() -> Iterator[tuple[RowSource, LabelRule]]:
        for index, one in enumerate(task.data):
            at = f"{CLASSIFY}.data[{index}]"
            source = RowSource(
                one.source,
                text=one.text,
                config=one.config,
                split=one.split,
                revision=one.revision,
                columns=list(one.columns),
                inside=one.records,
                where=one.where,
                form=one.format,
                refuse_faults=task.bad_rows == BAD_ROWS_REFUSE,
                at=at,
            )
            yield source, _rule(one, at)

    return read_labelled(
        sources(),
        evaluation=task.evaluation_share,
        calibration=task.calibration_share,
        seed=seed,
        balance=task.balance,
        per_class=task.per_class,
        languages_of=_languages if any(one.language == GUESS for one in task.data) else None,
    )


def _rule(source: LabelledSource, at: str) -> LabelRule:
    # White space around a label is no part of it, here as in the rows.
    positive, negative = (frozenset(map(str.strip, labels)) for labels in (source.positive, source.negative))
    if both := sorted(positive & negative):
        raise UserError(
            f"The label '{both[0]}' is both among the positive and among the negative ones.",
            remedy="Name it in one of the two lists.",
            reason="LABEL_TWICE",
            field=f"{at}.negative",
        )
    return LabelRule(
        column=source.label,
        positive=positive,
        negative=negative,
        language=source.language,
        use=Use(SplitUse.Name(source.use).removeprefix("SPLIT_USE_").lower()),
        limit=source.limit,
        at=at,
    )


def _languages(texts: Sequence[str]) -> list[str]:
    from qscope.text.languages import languages

    return languages(texts)


def spread(layers: Sequence[int], count: int) -> list[int]:
    """``count`` of some layers, spread evenly, the last among them; all for 0."""
    if not count or count >= len(layers):
        return list(layers)
    return [layers[math.ceil((index + 1) * len(layers) / count) - 1] for index in range(count)]


def place_of_classifier(task: ApplyClassifier, runs: Path) -> Path:
    """Where the classifier is that a task names; ``latest`` may be another a minute later."""
    return run_or_path(task.classifier, runs, NAME)


def classifier_at(place: Path | str) -> Classifier:
    """The classifier a task names, see :func:`place_of_classifier`."""
    return load_classifier(place, field=f"{APPLY}.classifier")


def source_of(task: ApplyClassifier) -> RowSource:
    """The rows a task names."""
    return RowSource(
        task.source,
        text=task.text,
        config=task.config,
        split=task.split,
        revision=task.revision,
        columns=list(task.columns),
        inside=task.records,
        where=task.where,
        form=task.format,
        refuse_faults=task.bad_rows == BAD_ROWS_REFUSE,
        at=APPLY,
    )


class ToOpen(OfLayers):
    """What of a classifier decides the model and SAEs to load, as a task says it."""

    def __init__(self, task: ApplyClassifier, classifier: Classifier) -> None:
        self.sae, self.layers = task.sae or classifier.sae, [sae.layer for sae in classifier.saes]
        self.rendering, self.masks = classifier.rendering, classifier.masks
        self.model_batch_tokens = task.model_batch_tokens

"""What a study of an attribute is told, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from qscope.classification.rule import Tail
from qscope.classification.scores import Measured
from qscope.features.intervals import Interval

#: All texts, whatever their language.
ALL = ""
#: Features whose sets are compared between languages (Qwen-Scope, section 5).
COMPARED = 10
#: Names of the baselines.
SAE_PROBE, RESIDUAL_PROBE, MEANS, WORDS = "probe, SAE features", "probe, residuals", "diff-in-means", "TF-IDF words"


@dataclass(frozen=True)
class Settings:
    """What is tried.

    Attributes:
        counts: K of the rules of one layer, ascending.
        compose: layers of the composed rules, ascending.
        rates: rates of false positives to hold.
        curve: shares of the discovery texts.
        draws: random subsets of a share.
        bootstrap: resamples of an interval.
        probe_layers: layers the probes choose from.
        seed: seed of a named generator.
    """

    counts: Sequence[int]
    compose: Sequence[int]
    rates: Sequence[float]
    curve: Sequence[float]
    draws: int
    bootstrap: int
    probe_layers: Sequence[int]
    seed: Callable[[str], int]


@dataclass(frozen=True)
class RuleFeature:
    """A feature of a rule; rates and tail are of the discovery texts."""

    layer: int
    feature: int
    rate_positive: float
    rate_negative: float
    tail: Tail

    @property
    def delta(self) -> float:
        return self.rate_positive - self.rate_negative


@dataclass(frozen=True)
class Candidate:
    """One of the best features of a layer, whether it came to stand in a rule or not.

    Attributes:
        layer, feature: which one.
        delta: difference of its firing rates on the discovery texts, what features are ranked by.
        held_out_delta: the same on the evaluation texts.
        auc: of its largest activation, on the evaluation texts.
        largest: activation over all texts.
    """

    layer: int
    feature: int
    delta: float
    held_out_delta: float
    auc: Interval
    largest: float


@dataclass(frozen=True)
class LayerRow:
    """One layer in one group.

    Attributes:
        layer: decoder block, from 0.
        top1_diff: largest delta: what layers are chosen by.
        feature: the feature that has it; None where no feature favours the attribute.
        f1: on the evaluation texts by K. For looking at, never for choosing.
    """

    layer: int
    top1_diff: float
    feature: int | None
    f1: dict[int, float]


@dataclass
class Method:
    """One way of telling, measured.

    Attributes:
        name: in tables.
        kind: ``rule``, ``composed`` or ``baseline``.
        layers: the layers it looks at.
        features: of a rule.
        detail: what else was chosen, in words.
        converged: whether the fit of a baseline came to its end.
        measured: on the evaluation texts of its group.
        calibration: balanced accuracy on the calibration texts, what rules are chosen by.
        scores_N: of all texts that are not for discovery, and what it decides on them.
        points: threshold and rate on the calibration texts, for 0 and every rate.
        gap: its F1 minus that of the chosen rule, on the same texts.
    """

    name: str
    kind: str
    layers: list[int]
    measured: Measured
    scores_N: np.ndarray
    predicted_N: np.ndarray
    features: list[RuleFeature] = field(default_factory=list)
    detail: str = ""
    converged: bool = True
    calibration: float = 0.0
    points: list[tuple[float, float, float]] = field(default_factory=list)
    gap: Interval | None = None


@dataclass(frozen=True)
class CurvePoint:
    """A share of the discovery texts.

    Attributes:
        share: of the discovery texts.
        texts: how many these are.
        rule: F1 of the rule with the chosen K, layer and features found anew, by draw.
        probe: F1 of the residual probe, by draw.
        layers: layer the rule chose, by draw.
        overlap: Jaccard index of its COMPARED best features and those of all discovery texts, same layer, by draw.
    """

    share: float
    texts: int
    rule: list[float]
    probe: list[float]
    layers: list[int]
    overlap: list[float]


@dataclass
class GroupResult:
    """What was found in one language, or in all together.

    Attributes:
        name: the language; ALL for all.
        counts: texts by side and class.
        layers: every layer.
        layer: chosen by top1-diff.
        count: K with the best balanced accuracy on the calibration texts, at that layer.
        methods: every way of telling.
        chosen: name of the rule with the best balanced accuracy on the calibration texts: the one that is saved.
            F1 would often choose a rule that calls nearly every text positive.
        curve: data efficiency.
        always: F1 of calling every evaluation text positive.
    """

    name: str
    counts: dict[str, tuple[int, int]]
    layers: list[LayerRow]
    layer: int
    count: int
    methods: list[Method]
    chosen: str
    curve: list[CurvePoint]
    always: float

    def method(self, name: str) -> Method:
        """One of the methods."""
        return next(one for one in self.methods if one.name == name)

    def winner(self, measure: Callable[[Method], float]) -> Method:
        """The method for which a measure is largest; of equal ones the earlier."""
        return max(self.methods, key=lambda one: measure(one))


@dataclass
class Found:
    """What a study found.

    Attributes:
        groups: all texts first, then every language with enough of them.
        candidates: the COMPARED best features of every layer on all texts, by layer and falling delta.
        too_few: languages without.
        transfer: what one language chose, on the evaluation texts of another, for the chosen rule and the residual
            probe: ``{method: {found in: {measured on: numbers}}}``.
        overlap: Jaccard of the COMPARED best features of two languages, by layer.
    """

    groups: list[GroupResult]
    candidates: list[Candidate]
    too_few: list[str]
    transfer: dict[str, dict[str, dict[str, Measured]]]
    overlap: dict[int, dict[str, dict[str, float]]]

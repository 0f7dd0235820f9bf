"""One attribute, studied: the rules that features give, by language and layer, beside the baselines.

Layers come one after the other (:meth:`Study.add_layer`), so that the codes of one are held at a time; what a layer
leaves behind is its best features and what these say of the texts that are not for discovery. :meth:`Study.finish` then
chooses layers and rules on discovery and calibration texts, and measures on the evaluation texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import sparse

from qscope.classification.baselines import (
    Baseline,
    Sides,
    difference_of_means,
    feature_inputs,
    logistic,
    probe,
    residual_inputs,
    tuned,
    word_inputs,
)
from qscope.classification.labelled import LabelledText, Side
from qscope.classification.pooled import PooledLayer, Pools
from qscope.classification.rule import Tail, best_features, firing_rates, jaccard, rule_scores, tails, threshold_at
from qscope.classification.scores import Interval, Measured, balanced_accuracy, f1_difference, f1_score, measure

#: All texts, whatever their language.
ALL = ""
#: Texts of each class a language needs on every side to be studied by itself.
FEWEST_OF_LANGUAGE = 5
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
        overlap: share of the features with those of all discovery texts, same layer, by draw.
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
        too_few: languages without.
        transfer: F1 on the evaluation texts of one language of what another one chose, for the chosen rule and the
            residual probe: ``{method: {found in: {measured on: F1}}}``.
        overlap: Jaccard of the COMPARED best features of two languages, by layer.
    """

    groups: list[GroupResult]
    too_few: list[str]
    transfer: dict[str, dict[str, dict[str, Interval]]]
    overlap: dict[int, dict[str, dict[str, float]]]


@dataclass
class _LayerFinding:
    features_K: np.ndarray
    rates: list[tuple[float, float]]
    tails_K: list[Tail]
    codes_NK: np.ndarray

    @property
    def top1_diff(self) -> float:
        return self.rates[0][0] - self.rates[0][1] if self.rates else 0.0

    def rule(self, layer: int, count: int) -> list[RuleFeature]:
        return [
            RuleFeature(layer, int(feature), *rates, tail)
            for feature, rates, tail in zip(
                self.features_K[:count], self.rates[:count], self.tails_K[:count], strict=True
            )
        ]

    def scores(self, count: int) -> np.ndarray:
        return rule_scores(self.codes_NK[:, :count], self.tails_K[:count])


@dataclass
class _Subset:
    share: float
    rows_R: np.ndarray
    # By layer: top1-diff, F1 by K, overlap with the set of all discovery texts.
    layers: dict[int, tuple[float, dict[int, float], float]] = field(default_factory=dict)


@dataclass
class _Group:
    name: str
    sides: Sides
    findings: dict[int, _LayerFinding] = field(default_factory=dict)
    best: dict[str, Baseline] = field(default_factory=dict)
    subsets: list[_Subset] = field(default_factory=list)


class Study:
    """Studies one attribute.

    Args:
        texts: every text once.
        settings: what is tried.
    """

    def __init__(self, texts: Sequence[LabelledText], settings: Settings) -> None:
        self._texts, self._settings = texts, settings
        self._positive_N = np.array([text.positive for text in texts])
        side_N = np.array([text.side.value for text in texts])
        self._language_N = np.array([text.language for text in texts])
        # What is kept of a layer is what it says of these.
        self._kept_R = np.nonzero(side_N != Side.DISCOVERY)[0]
        names = sorted({*self._language_N} - {""})
        self._groups, self.too_few = [self._group(ALL, side_N)], []
        for name in names if len(names) > 1 else ():
            group = self._group(name, side_N)
            rows = (group.sides.discovery_R, group.sides.calibration_R, group.sides.evaluation_R)
            few = min(min(int(mask.sum()), int((~mask).sum())) for mask in (self._positive_N[row] for row in rows))
            if few < FEWEST_OF_LANGUAGE:
                self.too_few.append(name)
            else:
                self._groups.append(group)
        self._width = max(*settings.counts, COMPARED)

    def _group(self, name: str, side_N: np.ndarray) -> _Group:
        here_N = np.ones(len(side_N), bool) if name == ALL else self._language_N == name
        rows = [
            np.nonzero(here_N & (side_N == side))[0] for side in (Side.DISCOVERY, Side.CALIBRATION, Side.EVALUATION)
        ]
        group = _Group(name, Sides(*rows, self._positive_N))
        for share in sorted(self._settings.curve):
            for draw in range(self._settings.draws if share < 1 else 1):
                seed = self._settings.seed(f"curve/{name}/{share}/{draw}")
                group.subsets.append(_Subset(share, _drawn(rows[0], self._positive_N, share, seed)))
        return group

    def add_layer(self, layer: int, pooled: PooledLayer, d_sae: int) -> None:
        """Looks at one layer; the order of layers does not matter.

        Args:
            layer: decoder block.
            pooled: what it says of every text.
            d_sae: features of its SAE.
        """
        codes_NF = pooled.matrix(d_sae)
        kept_MF = codes_NF[self._kept_R]
        for group in self._groups:
            finding = self._finding(codes_NF, kept_MF, group.sides.discovery_R)
            group.findings[layer] = finding
            self._add_subsets(group, layer, codes_NF, finding)
            if pooled.mean_ND is not None:
                self._add_baselines(group, layer, codes_NF, pooled.mean_ND)

    def _finding(self, codes_NF: sparse.csr_matrix, kept_MF: sparse.csr_matrix, rows_R: np.ndarray) -> _LayerFinding:
        rates = firing_rates(codes_NF, rows_R, self._positive_N)
        features_K = best_features(rates.delta_F, self._width)
        # A feature that favours the other class has no place in a rule, even where too few favour this one.
        features_K = features_K[rates.delta_F[features_K] > 0]
        return _LayerFinding(
            features_K,
            [(float(rates.positive_F[one]), float(rates.negative_F[one])) for one in features_K],
            tails(codes_NF, rows_R, self._positive_N, features_K),
            kept_MF[:, features_K].toarray(),
        )

    def _add_subsets(self, group: _Group, layer: int, codes_NF: sparse.csr_matrix, whole: _LayerFinding) -> None:
        evaluated_EF = codes_NF[group.sides.evaluation_R]
        truth_E = self._positive_N[group.sides.evaluation_R]
        for subset in group.subsets:
            delta_F = firing_rates(codes_NF, subset.rows_R, self._positive_N).delta_F
            features_K = best_features(delta_F, self._width)
            features_K = features_K[delta_F[features_K] > 0]
            fires_EK = evaluated_EF[:, features_K].toarray() > 0
            subset.layers[layer] = (
                float(delta_F[features_K[0]]) if len(features_K) else 0.0,
                {count: f1_score(fires_EK[:, :count].any(1), truth_E) for count in self._settings.counts},
                jaccard(features_K[:COMPARED].tolist(), whole.features_K[:COMPARED].tolist()),
            )

    def _add_baselines(self, group: _Group, layer: int, codes_NF: sparse.csr_matrix, mean_ND: np.ndarray) -> None:
        sides = group.sides
        for name, fit in (
            (SAE_PROBE, lambda: probe(feature_inputs(codes_NF, sides), sides, layer)),
            (RESIDUAL_PROBE, lambda: probe(residual_inputs(mean_ND, sides), sides, layer)),
            (MEANS, lambda: difference_of_means(mean_ND, sides, layer)),
        ):
            one = fit()
            if name not in group.best or one.quality > group.best[name].quality:
                group.best[name] = one

    def finish(
        self,
        pools: Pools,
        d_sae: dict[int, int],
        on_progress: Callable[[int, int], None] = lambda done, groups: None,
    ) -> Found:
        """Chooses, and measures on the evaluation texts.

        Args:
            pools: the texts again, for the layers the probes have chosen.
            d_sae: features of every layer's SAE.
            on_progress: called with the groups done, and how many there are.
        """
        results = []
        for done, group in enumerate(self._groups):
            on_progress(done, len(self._groups))
            results.append(self._result(group, pools, d_sae))
        on_progress(len(results), len(self._groups))
        languages = [group for group in self._groups if group.name != ALL]
        by_name = {result.name: result for result in results}
        return Found(results, self.too_few, self._transfer(languages, by_name), self._overlap(languages))

    def _result(self, group: _Group, pools: Pools, d_sae: dict[int, int]) -> GroupResult:
        layers = sorted(group.findings)
        layer = max(layers, key=lambda one: (group.findings[one].top1_diff, -one))
        methods = self._rules(group, layers, layer)
        singles = [one for one in methods if one.kind == "rule"]
        best = max(singles, key=lambda one: one.calibration)
        count = self._settings.counts[singles.index(best)]
        chosen = max(methods, key=lambda one: (one.calibration, -len(one.features)))
        methods += self._baselines(group, pools, d_sae)
        truth_E = self._positive_N[group.sides.evaluation_R]
        where_E = np.searchsorted(self._kept_R, group.sides.evaluation_R)
        for one in methods:
            one.gap = f1_difference(
                one.predicted_N[where_E],
                chosen.predicted_N[where_E],
                truth_E,
                draws=self._settings.bootstrap,
                seed=self._settings.seed(f"gap/{group.name}/{one.name}"),
            )
        sides = group.sides
        return GroupResult(
            name=group.name,
            counts={
                side.value: (int(self._positive_N[rows].sum()), int((~self._positive_N[rows]).sum()))
                for side, rows in zip(Side, (sides.discovery_R, sides.calibration_R, sides.evaluation_R), strict=True)
            },
            layers=[self._layer_row(group, one, where_E, truth_E) for one in layers],
            layer=layer,
            count=count,
            methods=methods,
            chosen=chosen.name,
            curve=self._curve(group, count, pools),
            always=f1_score(np.ones(len(truth_E), bool), truth_E),
        )

    def _rules(self, group: _Group, layers: Sequence[int], layer: int) -> list[Method]:
        finding = group.findings[layer]
        methods = [
            self._method(
                group,
                f"OR-rule, K={count}",
                "rule",
                [layer],
                finding.scores(count),
                finding.scores(count) > 0,
                lowest=0.0,
                features=finding.rule(layer, count),
            )
            for count in self._settings.counts
        ]
        ranked = sorted(layers, key=lambda one: (-group.findings[one].top1_diff, one))
        for count in self._settings.compose:
            if count > len(layers):
                continue
            parts = [one for one in ranked[:count] if len(group.findings[one].features_K)]
            scores_M = np.max([group.findings[one].scores(1) for one in parts or [layer]], axis=0)
            methods.append(
                self._method(
                    group,
                    f"OR over {count} layers",
                    "composed",
                    sorted(parts),
                    scores_M,
                    scores_M > 0,
                    lowest=0.0,
                    features=[feature for one in parts for feature in group.findings[one].rule(one, 1)],
                )
            )
        return methods

    def _baselines(self, group: _Group, pools: Pools, d_sae: dict[int, int]) -> list[Method]:
        sides, made = group.sides, dict(group.best)
        if SAE_PROBE in made:
            one = made[SAE_PROBE]
            made[SAE_PROBE] = tuned(
                lambda: feature_inputs(pools.layer(one.layer).matrix(d_sae[one.layer]), sides), one, sides, one.layer
            )
            other = made[RESIDUAL_PROBE]
            made[RESIDUAL_PROBE] = tuned(
                lambda: residual_inputs(pools.layer(other.layer).mean_ND, sides), other, sides, other.layer
            )
        made[WORDS] = self._words(sides)
        group.best = made
        return [
            self._method(
                group,
                name,
                "baseline",
                [] if one.layer is None else [one.layer],
                one.scores_N[self._kept_R],
                one.scores_N[self._kept_R] > 0,
                detail="" if one.strength is None else f"C {one.strength:g}",
            )
            for name, one in made.items()
        ]

    def _words(self, sides: Sides) -> Baseline:
        # Of the group's own texts alone: to count the n-grams of all texts for every language takes minutes.
        rows_R = np.concatenate([sides.discovery_R, sides.calibration_R, sides.evaluation_R])
        ends = np.cumsum([len(sides.discovery_R), len(sides.calibration_R), len(sides.evaluation_R)])
        own = Sides(*np.split(np.arange(len(rows_R)), ends[:-1]), self._positive_N[rows_R])
        texts = [self._texts[row].text for row in rows_R]
        one = tuned(lambda: word_inputs(texts, own.discovery_R), None, own, None)
        scores_N = np.full(len(self._texts), np.nan)
        scores_N[rows_R] = one.scores_N
        return replace(one, scores_N=scores_N)

    def _method(
        self,
        group: _Group,
        name: str,
        kind: str,
        layers: list[int],
        scores_M: np.ndarray,
        predicted_M: np.ndarray,
        *,
        lowest: float = -np.inf,
        **more,
    ) -> Method:
        """Measures one way of telling; scores and decisions are of the texts that are not for discovery."""
        evaluated_E = np.searchsorted(self._kept_R, group.sides.evaluation_R)
        calibrated_C = np.searchsorted(self._kept_R, group.sides.calibration_R)
        truth_C = self._positive_N[group.sides.calibration_R]
        negatives_M = scores_M[calibrated_C][~truth_C]
        measured = measure(
            scores_M[evaluated_E],
            predicted_M[evaluated_E],
            self._positive_N[group.sides.evaluation_R],
            negatives_M,
            self._settings.rates,
            lowest=lowest,
            draws=self._settings.bootstrap,
            seed=self._settings.seed(f"f1/{group.name}/{name}"),
        )
        points = [(0.0, max(lowest, 0.0), float((negatives_M > max(lowest, 0.0)).mean()))]
        for rate in self._settings.rates:
            threshold = threshold_at(negatives_M, rate, lowest)
            points.append((rate, threshold, float((negatives_M > threshold).mean())))
        return Method(
            name,
            kind,
            layers,
            measured,
            scores_M,
            predicted_M,
            calibration=balanced_accuracy(predicted_M[calibrated_C], truth_C),
            points=points,
            **more,
        )

    def _layer_row(self, group: _Group, layer: int, where_E: np.ndarray, truth_E: np.ndarray) -> LayerRow:
        finding = group.findings[layer]
        fires_EK = finding.codes_NK[where_E] > 0
        return LayerRow(
            layer,
            finding.top1_diff,
            int(finding.features_K[0]) if len(finding.features_K) else None,
            {count: f1_score(fires_EK[:, :count].any(1), truth_E) for count in self._settings.counts},
        )

    def _curve(self, group: _Group, count: int, pools: Pools) -> list[CurvePoint]:
        best = group.best.get(RESIDUAL_PROBE)
        mean_ND = pools.layer(best.layer).mean_ND if best and group.subsets else None
        truth_E = self._positive_N[group.sides.evaluation_R]
        points: dict[float, CurvePoint] = {}
        for subset in group.subsets:
            layer = max(subset.layers, key=lambda one: (subset.layers[one][0], -one))
            _, f1, overlap = subset.layers[layer]
            point = points.setdefault(subset.share, CurvePoint(subset.share, len(subset.rows_R), [], [], [], []))
            point.rule.append(f1[count])
            point.layers.append(layer)
            point.overlap.append(overlap)
            if mean_ND is not None:
                inputs = residual_inputs(mean_ND, group.sides, subset.rows_R)
                scores_N = logistic(inputs, group.sides, best.strength, subset.rows_R)
                point.probe.append(f1_score(scores_N[group.sides.evaluation_R] > 0, truth_E))
        return list(points.values())

    def _transfer(
        self, languages: Sequence[_Group], results: dict[str, GroupResult]
    ) -> dict[str, dict[str, dict[str, Interval]]]:
        found: dict[str, dict[str, dict[str, Interval]]] = {}
        for label, name_of in (("rule", lambda one: one.chosen), (RESIDUAL_PROBE, lambda one: RESIDUAL_PROBE)):
            if any(
                name_of(results[group.name]) not in {m.name for m in results[group.name].methods} for group in languages
            ):
                continue
            found[label] = {}
            for source in languages:
                method = results[source.name].method(name_of(results[source.name]))
                found[label][source.name] = {}
                for target in languages:
                    where_E = np.searchsorted(self._kept_R, target.sides.evaluation_R)
                    found[label][source.name][target.name] = measure(
                        method.scores_N[where_E],
                        method.predicted_N[where_E],
                        self._positive_N[target.sides.evaluation_R],
                        np.zeros(1),
                        (),
                        draws=self._settings.bootstrap,
                        seed=self._settings.seed(f"transfer/{label}/{source.name}/{target.name}"),
                    ).f1
        return found

    def _overlap(self, languages: Sequence[_Group]) -> dict[int, dict[str, dict[str, float]]]:
        return {
            layer: {
                one.name: {
                    other.name: jaccard(
                        one.findings[layer].features_K[:COMPARED].tolist(),
                        other.findings[layer].features_K[:COMPARED].tolist(),
                    )
                    for other in languages
                }
                for one in languages
            }
            for layer in (sorted(languages[0].findings) if languages else ())
        }


def _drawn(rows_R: np.ndarray, positive_N: np.ndarray, share: float, seed: int) -> np.ndarray:
    """A random share of the rows of each class, one of each at least, in order."""
    random = np.random.default_rng(seed)
    parts = []
    for wanted in (True, False):
        of_class = rows_R[positive_N[rows_R] == wanted]
        count = max(1, round(share * len(of_class)))
        parts.append(random.choice(of_class, count, replace=False) if count < len(of_class) else of_class)
    return np.sort(np.concatenate(parts))

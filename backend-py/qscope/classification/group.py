"""The texts of one language, or all: what every layer leaves behind of them once its codes are put away."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import sparse

from qscope.classification.baselines import (
    Baseline,
    Sides,
    difference_of_means,
    feature_inputs,
    probe,
    residual_inputs,
)
from qscope.classification.results import COMPARED, MEANS, RESIDUAL_PROBE, SAE_PROBE, RuleFeature, Settings
from qscope.classification.rule import Tail, best_features, firing_rates, jaccard, rule_scores, tails
from qscope.classification.scores import f1_score


@dataclass
class LayerFinding:
    """The best features of a layer, on the discovery texts of a group.

    Attributes:
        features_K: by falling delta; all favour the attribute.
        rates: with the attribute, and without.
        tails_K: how strongly each fires where it should not.
        codes_NK: largest activations in the texts that are not for discovery, of all languages.
        largest_K: over all texts.
    """

    features_K: np.ndarray
    rates: list[tuple[float, float]]
    tails_K: list[Tail]
    codes_NK: np.ndarray
    largest_K: np.ndarray

    @property
    def top1_diff(self) -> float:
        """The largest delta; 0 where no feature favours the attribute."""
        return self.rates[0][0] - self.rates[0][1] if self.rates else 0.0

    def rule(self, layer: int, count: int) -> list[RuleFeature]:
        """The features of the OR-rule."""
        return [
            RuleFeature(layer, int(feature), *rates, tail)
            for feature, rates, tail in zip(
                self.features_K[:count], self.rates[:count], self.tails_K[:count], strict=True
            )
        ]

    def scores(self, count: int) -> np.ndarray:
        """What the OR-rule says of the texts that are not for discovery."""
        return rule_scores(self.codes_NK[:, :count], self.tails_K[:count])


@dataclass
class Subset:
    """A random part of the discovery texts.

    Attributes:
        share: of the discovery texts.
        rows_R: the texts.
        layers: top1-diff, F1 by K, and overlap with the features of all discovery texts, by layer.
    """

    share: float
    rows_R: np.ndarray
    layers: dict[int, tuple[float, dict[int, float], float]] = field(default_factory=dict)


class Group:
    """Texts that are studied together.

    Args:
        name: the language; ALL for all.
        sides: their rows.
        kept_R: rows of all texts that are not for discovery, whatever their language.
        settings: what is tried.

    Attributes:
        evaluated_E, calibrated_C: places of the group's texts of either side among ``kept_R``.
        findings: by layer.
        best: the best baseline of each name so far, on the calibration texts.
        subsets: of the discovery texts.
    """

    def __init__(self, name: str, sides: Sides, kept_R: np.ndarray, settings: Settings) -> None:
        self.name, self.sides, self.kept_R, self._settings = name, sides, kept_R, settings
        self.findings: dict[int, LayerFinding] = {}
        self.best: dict[str, Baseline] = {}
        self.subsets: list[Subset] = []
        self.evaluated_E = np.searchsorted(kept_R, sides.evaluation_R)
        self.calibrated_C = np.searchsorted(kept_R, sides.calibration_R)
        self._width = max(*settings.counts, COMPARED)
        for share in sorted(settings.curve):
            for draw in range(settings.draws if share < 1 else 1):
                seed = settings.seed(f"curve/{name}/{share}/{draw}")
                self.subsets.append(Subset(share, _drawn(sides.discovery_R, sides.positive_N, share, seed)))

    @property
    def truth_E(self) -> np.ndarray:
        """Which evaluation texts have the attribute."""
        return self.sides.positive_N[self.sides.evaluation_R]

    @property
    def truth_C(self) -> np.ndarray:
        """Which calibration texts have it."""
        return self.sides.positive_N[self.sides.calibration_R]

    def smallest_class(self) -> int:
        """Texts of the rarer class on the side that has fewest of one."""
        sides = self.sides
        masks = [sides.positive_N[rows_R] for rows_R in (sides.discovery_R, sides.calibration_R, sides.evaluation_R)]
        return min(min(int(mask.sum()), int((~mask).sum())) for mask in masks)

    def add(
        self, layer: int, codes_NF: sparse.csr_matrix, kept_MF: sparse.csr_matrix, mean_ND: np.ndarray | None
    ) -> None:
        """Looks at one layer.

        Args:
            layer: decoder block.
            codes_NF: largest activations in all texts.
            kept_MF: those of the texts that are not for discovery.
            mean_ND: mean residuals of all texts; None at a layer that no probe looks at.
        """
        finding = self._finding(codes_NF, kept_MF)
        self.findings[layer] = finding
        self._add_subsets(layer, codes_NF, finding)
        if mean_ND is not None:
            self._add_baselines(layer, codes_NF, mean_ND)

    def _finding(self, codes_NF: sparse.csr_matrix, kept_MF: sparse.csr_matrix) -> LayerFinding:
        rows_R, positive_N = self.sides.discovery_R, self.sides.positive_N
        rates = firing_rates(codes_NF, rows_R, positive_N)
        features_K = best_features(rates.delta_F, self._width)
        # A feature that favours the other class has no place in a rule, even where too few favour this one.
        features_K = features_K[rates.delta_F[features_K] > 0]
        return LayerFinding(
            features_K,
            [(float(rates.positive_F[one]), float(rates.negative_F[one])) for one in features_K],
            tails(codes_NF, rows_R, positive_N, features_K),
            kept_MF[:, features_K].toarray(),
            codes_NF[:, features_K].max(0).toarray().ravel(),
        )

    def _add_subsets(self, layer: int, codes_NF: sparse.csr_matrix, whole: LayerFinding) -> None:
        evaluated_EF, truth_E = codes_NF[self.sides.evaluation_R], self.truth_E
        for subset in self.subsets:
            delta_F = firing_rates(codes_NF, subset.rows_R, self.sides.positive_N).delta_F
            features_K = best_features(delta_F, self._width)
            features_K = features_K[delta_F[features_K] > 0]
            fires_EK = evaluated_EF[:, features_K].toarray() > 0
            subset.layers[layer] = (
                float(delta_F[features_K[0]]) if len(features_K) else 0.0,
                {count: f1_score(fires_EK[:, :count].any(1), truth_E) for count in self._settings.counts},
                jaccard(features_K[:COMPARED].tolist(), whole.features_K[:COMPARED].tolist()),
            )

    def _add_baselines(self, layer: int, codes_NF: sparse.csr_matrix, mean_ND: np.ndarray) -> None:
        sides = self.sides
        for name, fit in (
            (SAE_PROBE, lambda: probe(feature_inputs(codes_NF, sides), sides, layer)),
            (RESIDUAL_PROBE, lambda: probe(residual_inputs(mean_ND, sides), sides, layer)),
            (MEANS, lambda: difference_of_means(mean_ND, sides, layer)),
        ):
            one = fit()
            if name not in self.best or one.quality > self.best[name].quality:
                self.best[name] = one


def _drawn(rows_R: np.ndarray, positive_N: np.ndarray, share: float, seed: int) -> np.ndarray:
    """A random share of the rows of each class, one of each at least, in order."""
    random = np.random.default_rng(seed)
    parts = []
    for wanted in (True, False):
        of_class = rows_R[positive_N[rows_R] == wanted]
        count = max(1, round(share * len(of_class)))
        parts.append(random.choice(of_class, count, replace=False) if count < len(of_class) else of_class)
    return np.sort(np.concatenate(parts))

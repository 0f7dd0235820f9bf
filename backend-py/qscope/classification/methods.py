"""Every way of telling of a group, measured on its evaluation texts: rules, composed rules and baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from qscope.classification.baselines import Baseline, Sides, feature_inputs, residual_inputs, tuned, word_inputs
from qscope.classification.group import Group
from qscope.classification.labelled import LabelledText
from qscope.classification.pooled import Pools
from qscope.classification.results import RESIDUAL_PROBE, SAE_PROBE, WORDS, Method, Settings
from qscope.classification.rule import threshold_at
from qscope.classification.scores import balanced_accuracy, measure


def rules(group: Group, settings: Settings, layer: int) -> list[Method]:
    """The OR-rules of one layer, then those composed of several layers.

    Args:
        group: with every layer added.
        settings: K, and how many layers to compose.
        layer: of the former.
    """
    finding = group.findings[layer]
    methods = [
        _method(
            group,
            settings,
            f"OR-rule, K={count}",
            "rule",
            [layer],
            finding.scores(count),
            finding.scores(count) > 0,
            lowest=0.0,
            features=finding.rule(layer, count),
        )
        for count in settings.counts
    ]
    ranked = sorted(group.findings, key=lambda one: (-group.findings[one].top1_diff, one))
    for count in settings.compose:
        if count > len(ranked):
            continue
        parts = [one for one in ranked[:count] if len(group.findings[one].features_K)]
        scores_M = np.max([group.findings[one].scores(1) for one in parts or [layer]], axis=0)
        methods.append(
            _method(
                group,
                settings,
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


def baselines(
    group: Group, settings: Settings, pools: Pools, d_sae: dict[int, int], texts: Sequence[LabelledText]
) -> list[Method]:
    """What the rules have to be compared with; the group's best baselines are tuned.

    Args:
        group: with every layer added.
        settings: what is tried.
        pools: the texts again, for the layers that the probes have chosen.
        d_sae: features of every layer's SAE.
        texts: all texts, whatever their language.
    """
    sides, kept_R, made = group.sides, group.kept_R, dict(group.best)
    if SAE_PROBE in made:
        one = made[SAE_PROBE]
        made[SAE_PROBE] = tuned(
            lambda: feature_inputs(pools.layer(one.layer).matrix(d_sae[one.layer]), sides), one, sides, one.layer
        )
        other = made[RESIDUAL_PROBE]
        made[RESIDUAL_PROBE] = tuned(
            lambda: residual_inputs(pools.layer(other.layer).mean_ND, sides), other, sides, other.layer
        )
    made[WORDS] = _words(sides, texts)
    group.best = made
    return [
        _method(
            group,
            settings,
            name,
            "baseline",
            [] if one.layer is None else [one.layer],
            one.scores_N[kept_R],
            one.scores_N[kept_R] > 0,
            detail="" if one.strength is None else f"C {one.strength:g}",
            converged=one.converged,
        )
        for name, one in made.items()
    ]


def _words(sides: Sides, texts: Sequence[LabelledText]) -> Baseline:
    # Of the group's own texts alone: to count the n-grams of all texts for every language takes minutes.
    rows_R = np.concatenate([sides.discovery_R, sides.calibration_R, sides.evaluation_R])
    ends = np.cumsum([len(sides.discovery_R), len(sides.calibration_R), len(sides.evaluation_R)])
    own = Sides(*np.split(np.arange(len(rows_R)), ends[:-1]), sides.positive_N[rows_R])
    own_texts = [texts[row].text for row in rows_R]
    one = tuned(lambda: word_inputs(own_texts, own.discovery_R), None, own, None)
    scores_N = np.full(len(texts), np.nan)
    scores_N[rows_R] = one.scores_N
    return replace(one, scores_N=scores_N)


def _method(
    group: Group,
    settings: Settings,
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
    negatives_M = scores_M[group.calibrated_C][~group.truth_C]
    measured = measure(
        scores_M[group.evaluated_E],
        predicted_M[group.evaluated_E],
        group.truth_E,
        negatives_M,
        settings.rates,
        lowest=lowest,
        draws=settings.bootstrap,
        seed=settings.seed(f"f1/{group.name}/{name}"),
    )
    points = [(0.0, max(lowest, 0.0), float((negatives_M > max(lowest, 0.0)).mean()))]
    for rate in settings.rates:
        threshold = threshold_at(negatives_M, rate, lowest)
        points.append((rate, threshold, float((negatives_M > threshold).mean())))
    return Method(
        name,
        kind,
        layers,
        measured,
        scores_M,
        predicted_M,
        calibration=balanced_accuracy(predicted_M[group.calibrated_C], group.truth_C),
        points=points,
        **more,
    )

"""One attribute, studied: the rules that features give, by language and layer, beside the baselines.

Layers come one after the other (:meth:`Study.add_layer`), so that the codes of one are held at a time; what a layer
leaves behind is its best features and what these say of the texts that are not for discovery. :meth:`Study.finish` then
chooses layers and rules on discovery and calibration texts, and measures on the evaluation texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from qscope.classification.baselines import Sides, logistic, residual_inputs
from qscope.classification.between import overlap, transfer
from qscope.classification.group import Group
from qscope.classification.labelled import LabelledText, Side
from qscope.classification.methods import baselines, rules
from qscope.classification.pooled import PooledLayer, Pools
from qscope.classification.results import (
    ALL,
    COMPARED,
    RESIDUAL_PROBE,
    Candidate,
    CurvePoint,
    Found,
    GroupResult,
    LayerRow,
    Settings,
)
from qscope.classification.scores import f1_difference, f1_score
from qscope.features.auc import auc
from qscope.features.intervals import Interval

#: Texts of each class a language needs on every side to be studied by itself.
FEWEST_OF_LANGUAGE = 5


class Study:
    """Studies one attribute.

    Args:
        texts: every text once.
        settings: what is tried.

    Attributes:
        too_few: languages with too few texts to be studied by themselves.
    """

    def __init__(self, texts: Sequence[LabelledText], settings: Settings) -> None:
        self._texts, self._settings = texts, settings
        # What is kept of a layer is what it says of these.
        self._kept_R = np.array([row for row, text in enumerate(texts) if text.side != Side.DISCOVERY])
        names = sorted({text.language for text in texts} - {""})
        self._groups, self.too_few = [self._group(ALL)], []
        for name in names if len(names) > 1 else ():
            group = self._group(name)
            if group.smallest_class() < FEWEST_OF_LANGUAGE:
                self.too_few.append(name)
            else:
                self._groups.append(group)

    def _group(self, name: str) -> Group:
        rows = [
            np.array(
                [row for row, text in enumerate(self._texts) if text.side == side and name in (ALL, text.language)],
                dtype=np.int64,
            )
            for side in (Side.DISCOVERY, Side.CALIBRATION, Side.EVALUATION)
        ]
        sides = Sides(*rows, np.array([text.positive for text in self._texts]))
        return Group(name, sides, self._kept_R, self._settings)

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
            group.add(layer, codes_NF, kept_MF, pooled.mean_ND)

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
        together, *languages = self._groups
        by_name = {result.name: result for result in results}
        return Found(
            groups=results,
            candidates=_candidates(together),
            too_few=self.too_few,
            transfer=transfer(languages, by_name, self._settings),
            overlap=overlap(languages),
        )

    def _result(self, group: Group, pools: Pools, d_sae: dict[int, int]) -> GroupResult:
        layers = sorted(group.findings)
        layer = max(layers, key=lambda one: (group.findings[one].top1_diff, -one))
        methods = rules(group, self._settings, layer)
        singles = [one for one in methods if one.kind == "rule"]
        best = max(singles, key=lambda one: one.calibration)
        count = self._settings.counts[singles.index(best)]
        chosen = max(methods, key=lambda one: (one.calibration, -len(one.features)))
        methods += baselines(group, self._settings, pools, d_sae, self._texts)
        truth_E = group.truth_E
        for one in methods:
            one.gap = f1_difference(
                one.predicted_N[group.evaluated_E],
                chosen.predicted_N[group.evaluated_E],
                truth_E,
                draws=self._settings.bootstrap,
                seed=self._settings.seed(f"gap/{group.name}/{one.name}"),
            )
        sides, positive_N = group.sides, group.sides.positive_N
        return GroupResult(
            name=group.name,
            counts={
                side.value: (int(positive_N[rows].sum()), int((~positive_N[rows]).sum()))
                for side, rows in zip(Side, (sides.discovery_R, sides.calibration_R, sides.evaluation_R), strict=True)
            },
            layers=[self._layer_row(group, one) for one in layers],
            layer=layer,
            count=count,
            methods=methods,
            chosen=chosen.name,
            curve=self._curve(group, count, pools),
            always=f1_score(np.ones(len(truth_E), bool), truth_E),
        )

    def _layer_row(self, group: Group, layer: int) -> LayerRow:
        finding = group.findings[layer]
        fires_EK = finding.codes_NK[group.evaluated_E] > 0
        return LayerRow(
            layer,
            finding.top1_diff,
            int(finding.features_K[0]) if len(finding.features_K) else None,
            {count: f1_score(fires_EK[:, :count].any(1), group.truth_E) for count in self._settings.counts},
        )

    def _curve(self, group: Group, count: int, pools: Pools) -> list[CurvePoint]:
        best = group.best.get(RESIDUAL_PROBE)
        mean_ND = pools.layer(best.layer).mean_ND if best and group.subsets else None
        points: dict[float, CurvePoint] = {}
        for subset in group.subsets:
            layer = max(subset.layers, key=lambda one: (subset.layers[one][0], -one))
            _, f1, shared = subset.layers[layer]
            point = points.setdefault(subset.share, CurvePoint(subset.share, len(subset.rows_R), [], [], [], []))
            point.rule.append(f1[count])
            point.layers.append(layer)
            point.overlap.append(shared)
            if mean_ND is not None:
                inputs = residual_inputs(mean_ND, group.sides, subset.rows_R)
                scores_N, _ = logistic(inputs, group.sides, best.strength, subset.rows_R)
                point.probe.append(f1_score(scores_N[group.sides.evaluation_R] > 0, group.truth_E))
        return list(points.values())


def _candidates(group: Group) -> list[Candidate]:
    """The best features of every layer, with what the evaluation texts say of each."""
    found = []
    truth_E = group.truth_E
    for layer, finding in sorted(group.findings.items()):
        if not len(finding.features_K):
            continue
        codes_EK = finding.codes_NK[group.evaluated_E][:, :COMPARED]
        areas = auc(torch.from_numpy(codes_EK.astype(np.float64)), torch.from_numpy(truth_E))
        for rank, (area, low, high) in enumerate(zip(*(part.tolist() for part in areas), strict=True)):
            fires_E = codes_EK[:, rank] > 0
            positive, negative = finding.rates[rank]
            found.append(
                Candidate(
                    layer,
                    int(finding.features_K[rank]),
                    positive - negative,
                    float(fires_E[truth_E].mean() - fires_E[~truth_E].mean()),
                    Interval(area, low, high, len(truth_E)),
                    float(finding.largest_K[rank]),
                )
            )
    return found

"""From one language to another: what one found, measured on the texts of another, and the features both share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qscope.classification.group import Group
from qscope.classification.results import COMPARED, RESIDUAL_PROBE, GroupResult, Settings
from qscope.classification.rule import jaccard
from qscope.classification.scores import Measured, measure


def transfer(
    languages: Sequence[Group], results: dict[str, GroupResult], settings: Settings
) -> dict[str, dict[str, dict[str, Measured]]]:
    """The chosen rule and the residual probe of every language, on the evaluation texts of every language.

    Args:
        languages: every language that is studied by itself.
        results: what was found in each.
        settings: of the intervals.
    """
    found: dict[str, dict[str, dict[str, Measured]]] = {}
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
                found[label][source.name][target.name] = measure(
                    method.scores_N[target.evaluated_E],
                    method.predicted_N[target.evaluated_E],
                    target.truth_E,
                    np.zeros(1),
                    (),
                    draws=settings.bootstrap,
                    seed=settings.seed(f"transfer/{label}/{source.name}/{target.name}"),
                )
    return found


def overlap(languages: Sequence[Group]) -> dict[int, dict[str, dict[str, float]]]:
    """Jaccard index of the COMPARED best features of two languages, by layer."""
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

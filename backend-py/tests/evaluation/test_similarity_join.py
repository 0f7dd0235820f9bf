"""The join by prefixes against every pair compared in full."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qscope.evaluation import similarity_join as module
from qscope.evaluation.similarity_join import TOLERANCE, similar_pairs, weights_by_rarity
from qscope.features.footprints import Footprints

ROWS = st.lists(st.sets(st.integers(0, 9), max_size=7), min_size=1, max_size=12)


def every_pair(rows, weights, threshold, least_shared=0.0) -> dict[tuple[int, int], float]:
    """By the definition, in float64."""
    found = {}
    for j, other in enumerate(rows):
        for i, one in enumerate(rows[:j]):
            shared, union = (sum(weights[f] for f in some) for some in (one & other, one | other))
            if union > 0 and shared / union >= threshold - TOLERANCE and shared >= least_shared - TOLERANCE:
                found[i, j] = shared / union
    return found


def joined(footprints, weights, threshold, least_shared=0.0) -> dict[tuple[int, int], float]:
    found = [
        ((int(i), int(j)), float(value))
        for block in similar_pairs(footprints, weights, threshold, least_shared=least_shared)
        for i, j, value in zip(*block, strict=True)
    ]
    assert len(found) == len(dict(found)), "a pair comes once"
    return dict(found)


@given(
    ROWS,
    st.lists(st.sampled_from([0.0, 0.3, 1.0, 2.5]), min_size=10, max_size=10),
    st.sampled_from([0.05, 0.25, 1 / 3, 0.5, 0.6, 0.8, 1.0]),
    st.sampled_from([0.0, 1.0, 2.8]),
)
@settings(max_examples=400, deadline=None)
def test_the_join_finds_what_every_pair_shows(rows, weights, threshold, least_shared):
    footprints = Footprints.of([sorted(row) for row in rows])
    weight_U = np.array([weights[f] for f in footprints.features_U])
    expected = every_pair(rows, weights, threshold, least_shared)
    found = joined(footprints, weight_U, threshold, least_shared)
    assert found.keys() == expected.keys()
    assert found == pytest.approx(expected)


def test_blocks_change_nothing(monkeypatch):
    random = np.random.default_rng(3)
    seeds = [random.choice(200, 20, replace=False) for _ in range(30)]
    rows = [set(seeds[n % 30].tolist()) ^ set(random.choice(200, 2).tolist()) for n in range(150)]
    footprints = Footprints.of([sorted(row) for row in rows])
    weight_U = weights_by_rarity(footprints)
    whole = joined(footprints, weight_U, 0.7)
    assert len(whole) > 100
    by_feature = dict(zip(footprints.features_U.tolist(), weight_U.tolist(), strict=True))
    assert whole == pytest.approx(every_pair(rows, by_feature, 0.7))
    monkeypatch.setattr(module, "_POSTINGS", 50)
    monkeypatch.setattr(module, "_COMPARED", 3)
    assert joined(footprints, weight_U, 0.7) == pytest.approx(whole)


def test_few_pairs_are_candidates():
    """Sets with a rare feature of their own and many in common: the bounds, not the comparison, keep them apart."""
    footprints = Footprints.of([[*range(10), 100 + n, 1000 + n] for n in range(300)])
    weight_U = weights_by_rarity(footprints)
    assert weight_U.min() == 0, "what all have weighs nothing"
    compared = []
    real = module.sp.csr_matrix.multiply

    def counted(self, other):
        compared.append(self.shape[0])
        return real(self, other)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.sp.csr_matrix, "multiply", counted)
        assert joined(footprints, weight_U, 0.8) == {}
    assert sum(compared) == 0


def test_nothing_to_join():
    assert joined(Footprints.of([[], []]), np.zeros(0), 0.5) == {}
    # What every item has weighs nothing, so equal sets of it are no pair.
    same = Footprints.of([[1], [1]])
    assert joined(same, weights_by_rarity(same), 0.5) == {}

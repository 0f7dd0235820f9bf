"""Every pair of sets whose weighted Jaccard index reaches a threshold: exact, without looking at every pair.

With a weight w_f >= 0 for each feature and W(x) the weight of a set,

    J(x, y) = W(x n y) / W(x u y)

Three bounds keep most pairs from being looked at (AllPairs, Bayardo et al. 2007; PPJoin, Xiao et al. 2008), here by
weight instead of by count. From J >= t follow W(x n y) >= t W(x) and t W(y), so

* length: t W(x) <= W(y) <= W(x) / t;
* prefix: order the features of every set alike, heaviest first, and cut where what remains weighs less than t W(x).
  The first feature that two such sets share lies in the prefix of both: behind it nothing could make up for it.

An inverted index over the prefixes gives the candidates; those are compared as they are. Memory is bounded by the
active pairs and a block of candidates.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp

from qscope.features.footprints import Footprints

#: Below what is asked for by less than this, a quotient of sums counts as there: 0.8 is no sum of tenths.
TOLERANCE = 1e-9
#: Entries of the inverted index looked at in one go.
_POSTINGS = 2_000_000
#: Candidates compared in one go.
_COMPARED = 20_000


def weights_by_rarity(footprints: Footprints) -> np.ndarray:
    """ln(N / m_j) of each feature of the union, N items with a feature: what every item has says nothing."""
    present = int((np.diff(footprints.offset_N) > 0).sum())
    return np.log(present / footprints.count_U)


def similar_pairs(
    footprints: Footprints, weight_U: np.ndarray, threshold: float, *, least_shared: float = 0.0
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pairs of items with J >= threshold, in blocks: first and second item (first < second) and J of each.

    Sets without weight are in no pair.

    Args:
        footprints: the sets.
        weight_U: weight of each feature of the union, not negative.
        threshold: above 0, at most 1.
        least_shared: weight that the two have to share at least.
    """
    assert 0 < threshold <= 1, "without a threshold every pair is one"
    whole_NU = sp.csr_matrix(
        (
            np.ones(len(footprints.feature_P)),
            np.searchsorted(footprints.features_U, footprints.feature_P),
            footprints.offset_N,
        ),
        shape=(footprints.items, len(footprints.features_U)),
    )
    weight_N = whole_NU @ weight_U
    # Lightest first, so that partners of a set by the length bound are its neighbours.
    kept = np.flatnonzero((weight_N > 0) & (weight_N >= least_shared - TOLERANCE))
    order_M = kept[np.argsort(weight_N[kept], kind="stable")]
    if not len(order_M):
        return
    whole_MU, weight_M = whole_NU[order_M], weight_N[order_M]
    prefix_MU = _prefixes(whole_MU, weight_U, weight_M, threshold)
    postings_M = prefix_MU @ np.asarray(prefix_MU.sum(0)).ravel()
    block_M = np.cumsum(postings_M) // _POSTINGS
    starts = np.flatnonzero(np.concatenate([[True], block_M[1:] != block_M[:-1]]))
    for start, end in zip(starts, [*starts[1:], len(order_M)], strict=True):
        heaviest = np.searchsorted(weight_M, (weight_M[end - 1] + TOLERANCE) / threshold, side="right")
        found = (prefix_MU[start:end] @ prefix_MU[start:heaviest].T).tocoo()
        one, other = found.row.astype(np.int64) + start, found.col.astype(np.int64) + start
        near = (one < other) & (threshold * weight_M[other] <= weight_M[one] + TOLERANCE)
        one, other = one[near], other[near]
        for begin in range(0, len(one), _COMPARED):
            i, j = one[begin : begin + _COMPARED], other[begin : begin + _COMPARED]
            shared_C = whole_MU[i].multiply(whole_MU[j]) @ weight_U
            jaccard_C = shared_C / (weight_M[i] + weight_M[j] - shared_C)
            alike = (jaccard_C >= threshold - TOLERANCE) & (shared_C >= least_shared - TOLERANCE)
            if alike.any():
                first, second = order_M[i[alike]], order_M[j[alike]]
                yield np.minimum(first, second), np.maximum(first, second), np.minimum(jaccard_C[alike], 1.0)


def _prefixes(whole_MU: sp.csr_matrix, weight_U: np.ndarray, weight_M: np.ndarray, threshold: float) -> sp.csr_matrix:
    """The heaviest features of every set, down to where the rest weighs less than ``threshold`` of it."""
    rank_U = np.empty(len(weight_U), dtype=np.int64)
    rank_U[np.argsort(-weight_U, kind="stable")] = np.arange(len(weight_U))
    row_P = np.repeat(np.arange(whole_MU.shape[0]), np.diff(whole_MU.indptr))
    order_P = np.lexsort((rank_U[whole_MU.indices], row_P))
    feature_P = whole_MU.indices[order_P]
    passed_P = np.concatenate([[0.0], np.cumsum(weight_U[feature_P])[:-1]])
    before_P = passed_P - passed_P[whole_MU.indptr[:-1]][row_P]
    # Running sums lose their last digits: a feature too many costs time, one too few a pair.
    inside_P = weight_M[row_P] - before_P >= threshold * weight_M[row_P] - 1e-6
    kept_M = np.bincount(row_P[inside_P], minlength=whole_MU.shape[0])
    return sp.csr_matrix(
        (
            np.ones(int(inside_P.sum()), dtype=np.int32),
            feature_P[inside_P],
            np.concatenate([[0], np.cumsum(kept_M)]),
        ),
        shape=whole_MU.shape,
    )

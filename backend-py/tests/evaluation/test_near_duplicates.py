"""What is there twice: by hand, and against every pair of items."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qscope.data.same_text import text_key
from qscope.evaluation.near_duplicates import _Listed, near_duplicates
from qscope.features.footprints import Footprints

FAR = [[100 + n] for n in range(40)]


def found_in(benchmarks, texts=None, *, threshold=0.8, limit=10**6):
    """Of lists of rows; texts differ unless given."""
    texts = texts or [[f"{b} {n}" for n in range(len(rows))] for b, rows in enumerate(benchmarks)]
    return near_duplicates(
        {f"b{n}": Footprints.of(rows) for n, rows in enumerate(benchmarks)},
        [[text_key(text) for text in some] for some in texts],
        threshold=threshold,
        limit=limit,
    )


def test_by_hand():
    one = [*range(8)]
    found = found_in([[one, one, [*range(7), 20], *FAR], [one, [50, 51, 52]]], threshold=0.7)
    assert (found.alike_within, found.alike_elsewhere) == ((2, 0), (3, 1))
    assert (found.same_text_within, found.same_text_elsewhere) == ((0, 0), (0, 0))
    # 45 items; features 0 to 6 are in four of them, 7 in three, 20 in one.
    weights = {4: math.log(45 / 4), 3: math.log(45 / 3), 1: math.log(45)}
    near = 7 * weights[4] / (7 * weights[4] + weights[3] + weights[1])
    assert [(pair.first, pair.second, pair.jaccard) for pair in found.pairs] == [
        ((0, 0), (0, 1), 1.0),
        ((0, 0), (1, 0), 1.0),
        ((0, 0), (0, 2), pytest.approx(near)),
        ((0, 2), (1, 0), pytest.approx(near)),
    ]
    assert found.found == 4


def test_what_thousands_of_items_have_says_little():
    ending = [[0, 1, 2, 3, 4, 5, 1000 + n] for n in range(200)]
    assert found_in([ending], threshold=0.8).pairs == ()
    # By their number alone six of eight features are shared.
    assert len(found_in([[[0, 1, 2, 3, 4, 5, 7], [0, 1, 2, 3, 4, 5, 8], *FAR]], threshold=0.6).pairs) == 1


def test_short_footprints_coincide_by_chance():
    half = [[0] if n % 2 else [1] for n in range(100)]
    assert found_in([half], threshold=0.5).found == 0
    # Together they single out one item of a hundred.
    pair = found_in([[[7, 8], [7, 8], *FAR]], threshold=0.5)
    assert (pair.found, pair.alike_within) == (1, (1,))


def test_same_words_are_duplicates_whatever_the_features():
    texts = [["What is 1 + 1?", "what  is 1 + 1?\n", "other"], ["WHAT IS 1 + 1?"]]
    found = found_in([[[1], [2], []], [[]]], texts)
    assert (found.same_text_within, found.same_text_elsewhere) == ((1, 0), (2, 1))
    assert [(pair.first, pair.second, pair.same_text) for pair in found.pairs] == [
        ((0, 0), (0, 1), True),
        ((0, 0), (1, 0), True),
    ]
    assert (found.alike_within, found.alike_elsewhere) == ((0, 0), (0, 0))


def test_a_pair_of_both_kinds_is_listed_once_and_comes_first():
    rows = [[[1, 2, 3], [1, 2, 3], [1, 2, 3], *FAR]]
    found = found_in(rows, [["same", "another", "same", *map(str, range(40))]])
    assert [(pair.second, pair.same_text) for pair in found.pairs] == [((0, 2), True), ((0, 1), False)]
    assert found.pairs[0].jaccard == 1.0
    assert (found.found, found.alike_within, found.same_text_within) == (2, (2,), (1,))


def test_a_list_that_is_cut_keeps_the_closest_and_counts_all():
    rows = [[*range(20 * n, 20 * n + 20)] for n in range(60)]
    near = [[*row[: 20 - n % 4], *range(5000 + 4 * n, 5000 + 4 * n + n % 4)] for n, row in enumerate(rows)]
    whole, cut = (found_in([rows, near], threshold=0.5, limit=limit) for limit in (100, 7))
    assert (whole.found, len(whole.pairs)) == (60, 60)
    assert (cut.found, cut.pairs) == (60, whole.pairs[:7])
    assert [pair.jaccard for pair in whole.pairs[:15]] == [1.0] * 15
    assert cut.alike_elsewhere == (60, 60)


def test_a_list_that_is_cut_on_the_way_keeps_the_closest_of_all():
    listed, jaccard = _Listed(3), np.random.default_rng(0).permutation(250_000) / 250_000
    first = np.arange(len(jaccard))
    for begin in range(0, len(first), 50_000):
        part = slice(begin, begin + 50_000)
        listed.add(first[part], first[part] + 1, jaccard[part])
    best = np.argsort(-jaccard)[:3]
    assert [one.tolist() for one in listed.best()] == [best.tolist(), (best + 1).tolist(), jaccard[best].tolist()]
    assert listed.found == len(first)
    assert listed._held < len(first), "it was cut on the way"


@given(
    st.lists(st.lists(st.sets(st.integers(0, 7), max_size=6), min_size=1, max_size=6), min_size=1, max_size=3),
    st.sampled_from([0.3, 0.5, 0.8, 1.0]),
    st.data(),
)
@settings(max_examples=300, deadline=None)
def test_counts_and_pairs_are_those_of_every_two_items(benchmarks, threshold, data):
    texts = [[data.draw(st.sampled_from("abcdefghij")) for _ in rows] for rows in benchmarks]
    items = [(b, n, row, texts[b][n]) for b, rows in enumerate(benchmarks) for n, row in enumerate(rows)]
    present = max(1, sum(bool(row) for _, _, row, _ in items))
    weight = {f: math.log(present / max(1, sum(f in row for _, _, row, _ in items))) for f in range(8)}

    def alike(one, other) -> bool:
        shared, union = (sum(weight[f] for f in some) for some in (one & other, one | other))
        return union > 0 and shared / union >= threshold - 1e-9 and shared >= math.log(present) - 1e-9

    def counts(same) -> list[tuple[int, ...]]:
        within, elsewhere = [0] * len(benchmarks), [0] * len(benchmarks)
        for place, one in enumerate(items):
            within[one[0]] += any(same(one, other) for other in items[:place] if other[0] == one[0])
            elsewhere[one[0]] += any(same(one, other) for other in items if other[0] != one[0])
        return [tuple(within), tuple(elsewhere)]

    found = found_in([[sorted(row) for row in rows] for rows in benchmarks], texts, threshold=threshold)
    assert [found.alike_within, found.alike_elsewhere] == counts(lambda one, other: alike(one[2], other[2]))
    assert [found.same_text_within, found.same_text_elsewhere] == counts(lambda one, other: one[3] == other[3])
    listed = {(pair.first, pair.second): pair for pair in found.pairs}
    assert len(listed) == len(found.pairs) == found.found
    for (first, second), pair in listed.items():
        (_, _, one, text), (_, _, other, again) = (
            next(item for item in items if item[:2] == place) for place in (first, second)
        )
        assert first < second
        assert pair.same_text == (text == again)
        assert pair.same_text or alike(one, other)
    # Every item that counts is in a pair, by its own footprint or one that equals it.
    named = {place for pair in listed for place in pair}
    for b, n, row, text in items:
        partners = [other for other in items if other[:2] != (b, n) and (alike(row, other[2]) or other[3] == text)]
        equals = [other[:2] for other in items if (other[2] == row and alike(row, row)) or other[3] == text]
        assert not partners or named & {(b, n), *equals}

"""Duplicates by words and by footprint, against comparing every pair."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from qscope.synthesis.duplicates import Duplicates

SETS = st.lists(st.sets(st.integers(0, 9), max_size=6), max_size=8)


def keys(found) -> np.ndarray:
    return np.array(sorted(found), dtype=np.int64)


def test_words_are_the_same_whatever_their_case_and_blanks() -> None:
    duplicates = Duplicates(1.0, ["The seed\ntext"])
    assert duplicates.holds_text(" the  SEED text ")
    assert not duplicates.holds_text("the seed texts")
    duplicates.keep("a", "Another", keys({1}))
    assert duplicates.holds_text("another")
    # Half a character is no reason to fall over.
    assert not duplicates.holds_text("\ud800")


@given(sets=SETS, share=st.sampled_from([0.3, 0.5, 0.8, 1.0]))
@settings(max_examples=200, deadline=None)
def test_a_twin_is_the_first_kept_text_with_that_overlap(sets, share) -> None:
    duplicates = Duplicates(share)
    kept: list[tuple[str, set[int]]] = []
    for number, found in enumerate(sets):
        expected = next(
            (name for name, other in kept if found and other and len(found & other) / len(found | other) >= share), None
        )
        assert duplicates.twin_of(keys(found)) == expected
        if expected is None:
            duplicates.keep(str(number), str(number), keys(found))
            kept.append((str(number), found))


def test_texts_without_features_are_nobodys_twins() -> None:
    duplicates = Duplicates(1.0)
    duplicates.keep("a", "a", keys(set()))
    assert duplicates.twin_of(keys(set())) is None

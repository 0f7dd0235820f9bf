"""The cache against the plainest model of it: a list in order of use."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qscope.errors import UserError
from qscope.sae.store.budget import ByteBudget

SIZES = {key: 3 * key + 1 for key in range(8)}


@given(limit=st.integers(0, 40), keys=st.lists(st.sampled_from(list(SIZES)), max_size=60))
def test_least_recently_used_goes_first_and_the_limit_holds(limit, keys):
    budget: ByteBudget[object] = ByteBudget(limit, "memory", "Use less.")
    held: list[tuple[int, object]] = []
    for key in keys:
        size, made = SIZES[key], []

        def make(size=size, made=made) -> object:
            assert budget.used + size <= limit, "room must be there before a value is made"
            made.append(object())
            return made[-1]

        if size > limit:
            before = budget.used
            with pytest.raises(UserError, match="may be used"):
                budget.get(key, size, make, "a value")
            assert not made
            assert budget.used == before
            continue
        found = next((value for other, value in held if other == key), None)
        value = budget.get(key, size, make, "a value")
        assert (value is found) if found is not None else made == [value]
        held = [(other, kept) for other, kept in held if other != key]
        while sum(SIZES[other] for other, _ in held) + size > limit:
            held.pop(0)
        held.append((key, value))
        assert budget.used == sum(SIZES[other] for other, _ in held) <= limit


def test_a_value_that_cannot_be_made_is_not_held():
    budget: ByteBudget[object] = ByteBudget(10, "memory", "Use less.")

    def fail() -> object:
        raise MemoryError

    with pytest.raises(MemoryError):
        budget.get("a", 4, fail, "a value")
    assert budget.used == 0
    assert budget.get("a", 4, object, "a value") is budget.get("a", 4, object, "a value")
    budget.clear()
    assert budget.used == 0

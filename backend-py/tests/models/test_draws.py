"""Draws without most of the logarithms are the draws with all of them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from qscope.models import draws as module
from qscope.models.draws import draws, plain_draws

ROWS, TOKENS = 24, 1000


def generators(seed: int, rows: int = ROWS) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(1000 * seed + row) for row in range(rows)]


def scores(spread: float, seed: int = 0, tokens: int = TOKENS) -> torch.Tensor:
    return spread * torch.randn(ROWS, tokens, generator=torch.Generator().manual_seed(seed))


def by_hand(scores_BV: torch.Tensor, given: Sequence[torch.Generator]) -> list[int]:
    """In float64, from the same numbers."""
    found = []
    for row, generator in zip(scores_BV, given, strict=True):
        uniform_V = torch.empty(len(row), dtype=torch.float64).uniform_(generator=generator)
        found.append(int((row.double() - (-torch.log1p(-uniform_V)).log()).argmax()))
    return found


@pytest.mark.parametrize("spread", [0.0, 0.3, 1.0, 3.0, 10.0, 100.0])
def test_the_same_tokens_and_as_many_numbers_taken(spread) -> None:
    mine, plain = generators(1), generators(1)
    for seed in range(40):
        scores_BV = scores(spread, seed)
        assert torch.equal(draws(scores_BV, mine), plain_draws(scores_BV, plain))
    assert all(torch.equal(one.get_state(), other.get_state()) for one, other in zip(mine, plain, strict=True))


@pytest.mark.parametrize("spread", [0.0, 1.0, 10.0])
def test_the_tokens_of_float64(spread) -> None:
    scores_BV = scores(spread)
    assert draws(scores_BV, generators(2)).tolist() == by_hand(scores_BV, generators(2))


def test_rows_at_once_change_nothing(monkeypatch) -> None:
    scores_BV = scores(2.0)
    whole = draws(scores_BV, generators(3))
    monkeypatch.setattr(module, "_AT_ONCE", 5 * TOKENS)
    assert torch.equal(draws(scores_BV, generators(3)), whole)


def test_what_cannot_be_drawn_is_not() -> None:
    scores_BV = torch.full((ROWS, TOKENS), -torch.inf)
    scores_BV[:, 7] = -50.0
    scores_BV[:, 9] = -50.0
    for seed in range(20):
        found = draws(scores_BV, generators(seed))
        assert set(found.tolist()) <= {7, 9}
        assert torch.equal(found, plain_draws(scores_BV, generators(seed)))


def test_a_row_of_undefined_numbers_has_a_token_and_spoils_no_other() -> None:
    scores_BV = scores(1.0)
    expected = draws(scores_BV, generators(4))
    scores_BV[3], scores_BV[5] = torch.nan, torch.inf
    found = draws(scores_BV, generators(4))
    others = [row for row in range(ROWS) if row not in (3, 5)]
    assert torch.equal(found[others], expected[others])


def test_equal_sums_are_decided_as_the_plain_way_does(monkeypatch) -> None:
    """Every row goes the plain way when every gap is too small."""
    monkeypatch.setattr(module, "_TOO_CLOSE", torch.inf)
    scores_BV = scores(1.0)
    assert torch.equal(draws(scores_BV, generators(5)), plain_draws(scores_BV, generators(5)))


def test_tokens_come_as_often_as_their_probability_says() -> None:
    probability_V = torch.tensor([0.5, 0.3, 0.15, 0.05])
    scores_BV = probability_V.log().expand(4000, 4).contiguous()
    share_V = torch.bincount(draws(scores_BV, generators(6, 4000)), minlength=4) / 4000
    # Four standard errors.
    assert ((share_V - probability_V).abs() < 4 * (probability_V * (1 - probability_V) / 4000).sqrt()).all()

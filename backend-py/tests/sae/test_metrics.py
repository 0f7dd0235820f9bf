from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qscope.sae.metrics import CodeStats, ReconstructionStats, SpliceStats


def test_golden_reconstruction_with_a_mean_that_is_not_zero() -> None:
    x_BD = torch.tensor([[3.0, 4.0], [5.0, 12.0]])
    x_hat_BD = torch.tensor([[4.0, 3.0], [5.0, 12.0]])
    stats = ReconstructionStats(2)
    stats.add(x_BD, x_hat_BD)
    # Around the mean (4, 8) the squares sum to 34; around zero, the mistake, they would sum to 194.
    assert stats.results() == pytest.approx(
        {
            "fvu": 2 / 34,
            "cosine": (24 / 25 + 1) / 2,
            "l2_ratio": 1.0,
            "reconstruction_bias": (25 + 169) / (24 + 169),
        }
    )


def test_the_mean_as_reconstruction_has_fvu_one() -> None:
    x_BD = torch.randn(500, 8, generator=torch.Generator().manual_seed(0)) + 50
    stats = ReconstructionStats(8)
    stats.add(x_BD, x_BD.mean(0).expand_as(x_BD))
    assert stats.results()["fvu"] == pytest.approx(1, abs=1e-6)


def test_sums_are_divided_once() -> None:
    generator = torch.Generator().manual_seed(0)
    # Two parts that differ in mean, spread and size: a mean of ratios would be far off.
    x_BD = torch.cat([torch.randn(10, 4, generator=generator), 30 + 9 * torch.randn(300, 4, generator=generator)])
    x_hat_BD = x_BD + torch.randn(310, 4, generator=generator)
    whole, parts = ReconstructionStats(4), ReconstructionStats(4)
    whole.add(x_BD, x_hat_BD)
    for low, high in ((0, 10), (10, 10), (10, 150), (150, 310)):
        parts.add(x_BD[low:high], x_hat_BD[low:high])
    assert parts.results() == pytest.approx(whole.results(), rel=1e-9)
    expected = (x_BD - x_hat_BD).square().sum() / (x_BD - x_BD.mean(0)).square().sum()
    assert whole.results()["fvu"] == pytest.approx(expected.item(), rel=1e-5)


def test_variance_survives_a_far_mean() -> None:
    x_BD = torch.randn(1000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 1e7
    stats = ReconstructionStats(3)
    for part_bD in x_BD.split(100):
        stats.add(part_bD, part_bD + 0.1)
    expected = 0.01 * 3 * 1000 / (x_BD - x_BD.mean(0)).square().sum().item()
    assert stats.results()["fvu"] == pytest.approx(expected, rel=1e-6)


def test_shrinkage_is_a_bias_below_one() -> None:
    x_BD = torch.randn(50, 6)
    stats = ReconstructionStats(6)
    stats.add(x_BD, 0.8 * x_BD)
    assert stats.results()["reconstruction_bias"] == pytest.approx(0.8, rel=1e-5)
    assert stats.results()["l2_ratio"] == pytest.approx(0.8, rel=1e-5)
    assert stats.results()["cosine"] == pytest.approx(1.0, rel=1e-5)


def test_golden_codes() -> None:
    stats = CodeStats(6)
    stats.add(torch.tensor([[2.0, 0.0], [1.0, 3.0]]), torch.tensor([[0, 5], [0, 2]]))
    stats.add(torch.tensor([[2.0, 0.0]]), torch.tensor([[0, 1]]))
    # Slots of value zero (features 5 and 1) did not fire.
    assert stats.results() == pytest.approx({"l0": 4 / 3, "dead_share": 4 / 6})
    assert stats.density().tolist() == pytest.approx([1, 0, 1 / 3, 0, 0, 0])


def test_density_histogram_puts_powers_of_ten_above_their_edge() -> None:
    stats = CodeStats(5)
    values_BK, indices_BK = torch.zeros(1000, 3), torch.tensor([[0, 1, 2]]).repeat(1000, 1)
    values_BK[:, 0] = 1
    values_BK[:100, 1] = 1
    values_BK[:1, 2] = 1
    stats.add(values_BK, indices_BK)
    assert stats.density_histogram(bins_per_decade=1) == {
        "log10_edges": [-3.0, -2.0, -1.0, 0.0],
        # A density of 1 belongs to the last bin, there is none above it.
        "features": [1.0, 0.0, 2.0],
        "silent": [2.0],
    }


@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=30))
def test_histogram_counts_every_feature(fired) -> None:
    stats = CodeStats(7)
    values_BK = torch.tensor(fired).float()
    stats.add(values_BK, torch.arange(4).expand(len(fired), 4))
    found = stats.density_histogram()
    assert sum(found["features"]) + found["silent"][0] == 7
    assert len(found["log10_edges"]) == (len(found["features"]) + 1 if found["features"] else 0)
    assert found["log10_edges"] == sorted(found["log10_edges"])


def test_golden_splice() -> None:
    stats = SpliceStats()
    stats.add(
        ce_clean=torch.tensor([1.0, 2.0]),
        ce_sae=torch.tensor([2.0, 2.0]),
        ce_zero=torch.tensor([5.0, 6.0]),
        kl=torch.tensor([0.5, 0.0]),
    )
    one = torch.ones(1)
    stats.add(ce_clean=one * 3, ce_sae=one * 5, ce_zero=one * 10, kl=one)
    assert stats.results() == pytest.approx(
        {
            "ce_clean": 2.0,
            "ce_sae": 3.0,
            "ce_zero": 7.0,
            "ce_delta": 1.0,
            "ce_recovered": 4 / 5,  # of the means; the mean of the tokens' ratios would be another number
            "kl": 0.5,
        }
    )


@pytest.mark.parametrize("stats", [ReconstructionStats(3), CodeStats(3), SpliceStats()])
def test_nothing_added_gives_nan(stats) -> None:
    assert all(math.isnan(value) for value in stats.results().values())

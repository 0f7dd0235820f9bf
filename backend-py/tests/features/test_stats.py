"""Streaming sums against dense float64, and the AUC against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qscope.features.auc import auc
from qscope.features.stats import ChosenStats, GroupStats

GROUPS, F, K = 3, 17, 4


def batch(seed: int, rows: int, tokens: int) -> tuple[torch.Tensor, ...]:
    """Codes of random tokens, about a third of them zero: values, features, group and document of each token."""
    noise = torch.Generator().manual_seed(seed)
    values_NK = (torch.rand(tokens, K, generator=noise, dtype=torch.float64) - 0.3).clamp_min(0).float()
    indices_NK = torch.stack([torch.randperm(F, generator=noise)[:K] for _ in range(tokens)])
    group_N = torch.randint(0, GROUPS, (tokens,), generator=noise)
    row_N = torch.randint(0, rows, (tokens,), generator=noise).sort().values
    return values_NK, indices_NK, group_N, row_N


def dense_of(values_NK: torch.Tensor, indices_NK: torch.Tensor) -> np.ndarray:
    z_NF = np.zeros((len(values_NK), F))
    for n in range(len(values_NK)):
        for k in range(K):
            z_NF[n, indices_NK[n, k]] = float(values_NK[n, k])
    return z_NF


def test_sums_over_tokens_and_documents_are_those_of_dense_codes() -> None:
    stats = GroupStats(GROUPS, F, torch.device("cpu"), documents=True)
    chosen = torch.tensor([2, 3, 11])
    few = ChosenStats(9, GROUPS, chosen, F)
    units: dict[tuple[int, int], list[np.ndarray]] = {}
    for number, (rows, tokens) in enumerate([(4, 40), (1, 3), (4, 11)]):
        values_NK, indices_NK, group_N, row_N = batch(number, rows, tokens)
        document_N = row_N + [0, 4, 5][number]
        stats.add(values_NK, indices_NK, group_N, row_N)
        few.add(values_NK, indices_NK, group_N, document_N)
        for z_F, group, document in zip(
            dense_of(values_NK, indices_NK), group_N.tolist(), document_N.tolist(), strict=True
        ):
            units.setdefault((document, group), []).append(z_F)
    for group in range(GROUPS):
        own = {document: np.array(rows) for (document, g), rows in units.items() if g == group}
        tokens_NF = np.concatenate(list(own.values()))
        assert stats.tokens_G[group] == len(tokens_NF)
        assert stats.documents_G[group] == len(own)
        expected = {
            "sum_GF": tokens_NF.sum(0),
            "hits_GF": (tokens_NF > 0).sum(0),
            "document_mean_GF": sum(z_TF.mean(0) for z_TF in own.values()),
            "document_max_GF": sum(z_TF.max(0) for z_TF in own.values()),
            "document_hits_GF": sum((z_TF.max(0) > 0).astype(int) for z_TF in own.values()),
        }
        for name, value_F in expected.items():
            np.testing.assert_allclose(getattr(stats, name)[group].numpy(), value_F, rtol=1e-12, atol=1e-12)
        for document, z_TF in own.items():
            unit = document * GROUPS + group
            assert few.tokens_U[unit] == len(z_TF)
            np.testing.assert_allclose(few.sum_UM[unit].numpy(), z_TF.sum(0)[chosen], rtol=1e-12)
            np.testing.assert_allclose(few.max_UM[unit].numpy(), z_TF.max(0)[chosen], rtol=1e-12)
            np.testing.assert_array_equal(few.hits_UM[unit].numpy(), (z_TF > 0).sum(0)[chosen])
    everything_NF = np.concatenate([np.array(rows) for rows in units.values()])
    np.testing.assert_array_equal(stats.max_F.double().numpy(), everything_NF.max(0))


def test_a_document_of_one_class_is_one_unit_with_the_same_numbers() -> None:
    chosen, class_D = torch.tensor([2, 3, 11]), torch.tensor([2, 0, 1, 1])
    both = ChosenStats(4, GROUPS, chosen, F), ChosenStats(4, GROUPS, chosen, F, class_D)
    for number in range(3):
        values_NK, indices_NK, _, document_N = batch(number, 3, 20)
        for few in both:
            few.add(values_NK, indices_NK, class_D[document_N], document_N)
    several, single = both
    assert len(single.tokens_U) == 4
    unit_D = torch.arange(4) * GROUPS + class_D
    assert torch.equal(several.groups_U()[unit_D], single.groups_U())
    for name in ("tokens_U", "sum_UM", "hits_UM", "max_UM"):
        assert torch.equal(getattr(several, name)[unit_D], getattr(single, name))
    assert int(single.tokens_U[3]) == 0, "a document without a token that counts"


def test_nothing_added_is_nothing() -> None:
    stats = GroupStats(GROUPS, F, torch.device("cpu"), documents=True)
    empty = torch.empty(0, K), torch.empty(0, K, dtype=torch.long)
    stats.add(*empty, torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.long))
    assert int(stats.tokens_G.sum()) == 0


def by_pairs(positive: list[float], negative: list[float]) -> float:
    wins = sum((p > n) + 0.5 * (p == n) for p in positive for n in negative)
    return wins / (len(positive) * len(negative))


scores = st.lists(st.sampled_from([0.0, 0.0, 0.5, 1.0, 2.5, -1.0]), min_size=1, max_size=12)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(positive=scores, negative=scores)
def test_the_auc_counts_pairs_and_lies_in_its_interval(positive, negative) -> None:
    both = torch.tensor([*positive, *negative], dtype=torch.float64)
    columns_DM = torch.stack([both, -both], dim=1)
    is_positive = torch.arange(len(both)) < len(positive)
    area_M, low_M, high_M = auc(columns_DM, is_positive)
    assert area_M[0].item() == pytest.approx(by_pairs(positive, negative), abs=1e-12)
    assert area_M[1].item() == pytest.approx(1 - area_M[0].item(), abs=1e-12)
    assert (low_M >= 0).all()
    assert (high_M <= 1).all()
    assert (low_M <= area_M + 1e-9).all()
    assert (area_M <= high_M + 1e-9).all()
    assert (high_M - low_M > 1e-3).all(), "a finite sample never makes certain"
    torch.testing.assert_close(low_M[1], 1 - high_M[0], rtol=0, atol=1e-9)


def test_delongs_variance_is_that_of_its_definition() -> None:
    """Against the structural components of DeLong et al. 1988, by their double loop."""
    noise = np.random.default_rng(3)
    x, y = np.round(noise.normal(0.7, 1, 30), 1), np.round(noise.normal(0, 1, 20), 1)
    psi = (x[:, None] > y[None]) + 0.5 * (x[:, None] == y[None])
    variance = psi.mean(1).var(ddof=1) / len(x) + psi.mean(0).var(ddof=1) / len(y)
    scores_D1 = torch.from_numpy(np.concatenate([x, y]))[:, None]
    area, low, high = (one.item() for one in auc(scores_D1, torch.arange(50) < 30))
    assert area == pytest.approx(psi.mean(), abs=1e-12)
    width = (np.log(high / (1 - high)) - np.log(low / (1 - low))) / (2 * 1.959963984540054)
    assert width == pytest.approx(np.sqrt(variance) / (area * (1 - area)), rel=1e-9)


@pytest.mark.parametrize(("n", "m", "low"), [(10, 10, 0.7), (100, 100, 0.96), (1000, 1000, 0.996)])
def test_a_perfect_separation_is_not_certain_and_grows_surer_with_n(n, m, low) -> None:
    positive_D = torch.arange(n + m) < n
    area, lower, higher = (one.item() for one in auc(positive_D.double()[:, None], positive_D))
    assert (area, higher) == (1.0, 1.0)
    assert low < lower < 1


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Normal scores whose true AUC is known; 400 samples of 25 and 35."""
    noise = np.random.default_rng(11)
    truth = 0.5 * (1 + torch.erf(torch.tensor(1.2 / 2.0)).item())  # P(x > y) for a shift of 1.2: Phi(1.2 / sqrt 2)
    scores_DM = torch.from_numpy(np.concatenate([noise.normal(1.2, 1, (25, 400)), noise.normal(0, 1, (35, 400))]))
    _, low_M, high_M = auc(scores_DM, torch.arange(60) < 25)
    covered = ((low_M <= truth) & (truth <= high_M)).double().mean().item()
    assert 0.92 < covered < 0.98

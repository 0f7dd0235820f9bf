"""Curves around an onset equal what a plain pass over each document gives."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qscope.features.documents import Document
from qscope.features.onset import Aligned, matched_features, onset_curves

BEFORE, AFTER = 4, 6


@pytest.fixture
def aligned(documents) -> list[Aligned]:
    return [Aligned(one, 2 + number % 5) for number, one in enumerate(documents(9, seed=3))]


@pytest.mark.parametrize("batch_tokens", [1, 64, 10_000])
def test_curves_equal_the_plain_means(tiny_model, saes, dense, aligned, batch_tokens) -> None:
    loaded = tiny_model("qwen3")
    sae = saes(loaded, [1])
    found = onset_curves(
        loaded, sae, aligned, {1: [7, 3]}, before=BEFORE, after=AFTER, batch_tokens=batch_tokens, groups=[0, 1, 0] * 3
    )
    plain = dense(loaded, sae[1], [one.document for one in aligned])
    for group in (0, 1):
        chosen = [number for number in range(9) if (number % 3 == 1) == bool(group)]
        for feature in (7, 3):
            curve = found[group, 1, feature]
            assert curve.offset_W == list(range(-BEFORE, AFTER))
            after_D = []
            for slot, offset in enumerate(curve.offset_W):
                values = []
                for number in chosen:
                    place, codes = aligned[number].onset + offset, plain[number]
                    if 0 <= place < len(codes.group_T) and codes.group_T[place] >= 0:
                        values.append(codes.z_TF[place, feature])
                assert curve.count_W[slot] == len(values)
                expected = np.mean(values) if values else math.nan
                assert curve.mean_W[slot] == pytest.approx(expected, abs=1e-5, nan_ok=True)
                error = np.std(values, ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
                assert curve.error_W[slot] == pytest.approx(error, abs=1e-5, nan_ok=True)
            for number in chosen:
                codes, onset = plain[number], aligned[number].onset
                inside_T = (np.arange(len(codes.group_T)) >= onset) & (np.arange(len(codes.group_T)) < onset + AFTER)
                values = codes.z_TF[inside_T & (codes.group_T >= 0), feature]
                after_D.append(values.mean() if len(values) else math.nan)
            assert curve.after_D == pytest.approx(after_D, abs=1e-5, nan_ok=True)


def test_the_feature_beside_is_the_nearest_in_activity(tiny_model, saes, dense, documents) -> None:
    loaded = tiny_model("qwen3")
    sae, texts = saes(loaded, [1]), documents(9, seed=4)
    found = matched_features(loaded, sae, texts, {1: 5}, {1: [5, 6]}, batch_tokens=64)
    kept = np.concatenate([one.z_TF[one.group_T >= 0] for one in dense(loaded, sae[1], texts)])
    sums_F = kept.sum(0)
    candidates = [feature for feature in range(len(sums_F)) if sums_F[feature] > 0 and feature not in (5, 6)]
    best = min(candidates, key=lambda feature: abs(sums_F[feature] - sums_F[5]))
    assert abs(sums_F[found[1]] - sums_F[5]) == pytest.approx(abs(sums_F[best] - sums_F[5]), abs=1e-4)
    assert matched_features(loaded, sae, [], {1: 5}, {1: [5]}, batch_tokens=64) == {}


def test_stops_when_asked_and_documents_may_end_before_the_window(tiny_model, saes, documents) -> None:
    loaded = tiny_model("qwen3")
    sae = saes(loaded, [0])
    one = Document(0, np.arange(3, 8, dtype=np.int32), np.zeros(5, np.int16), "", bytes(16))
    curve = onset_curves(loaded, sae, [Aligned(one, 4)], {0: [1]}, before=2, after=3, batch_tokens=64)[0, 0, 1]
    assert curve.count_W == [1, 1, 1, 0, 0]
    assert [math.isnan(mean) for mean in curve.mean_W] == [False, False, False, True, True]
    assert all(map(math.isnan, curve.error_W)), "one document has no spread"
    kept = {"before": 2, "after": 3, "batch_tokens": 64, "should_stop": lambda: True}
    assert onset_curves(loaded, sae, [Aligned(one, 4)], {0: [1]}, **kept) is None

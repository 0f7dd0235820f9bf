"""The contrast, end to end, against dense float64 codes of every document run by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qscope.errors import UserError
from qscope.features.contrast import Question, find_features, mean_pre_activations
from qscope.v1.features_pb2 import (
    CONTRAST_SCORE_MEAN_DIFFERENCE as MEAN,
)
from qscope.v1.features_pb2 import (
    CONTRAST_SCORE_RATE_DIFFERENCE as RATE,
)
from qscope.v1.features_pb2 import (
    CONTRAST_UNIT_DOCUMENT_MAX as DOCUMENT_MAX,
)
from qscope.v1.features_pb2 import (
    CONTRAST_UNIT_DOCUMENT_MEAN as DOCUMENT_MEAN,
)
from qscope.v1.features_pb2 import (
    CONTRAST_UNIT_TOKEN as TOKEN,
)

LAYERS = [0, 2, 3]
CLASSES = ["a", "b", "c"]


@pytest.fixture
def halves(documents):
    """Three classes of different letters and different numbers of documents, in two halves."""
    ranges = [(3, 90), (60, 180), (150, 250)]
    ranking = [one for g, (low, high) in enumerate(ranges) for one in documents(12 + 3 * g, g, g, low, high)]
    held_out = [one for g, (low, high) in enumerate(ranges) for one in documents(9 + g, 10 + g, g, low, high)]
    return ranking, held_out


def level(runs, group: int, score, unit) -> np.ndarray:
    """The definition: what is compared, for one class."""
    own = [run.z_TF[run.group_T == group] for run in runs if (run.group_T == group).any()]
    if unit == TOKEN:
        tokens_NF = np.concatenate(own)
        return (tokens_NF > 0).mean(0) if score == RATE else tokens_NF.mean(0)
    if score == RATE:
        return np.mean([z_TF.max(0) > 0 for z_TF in own], axis=0)
    return np.mean([z_TF.max(0) if unit == DOCUMENT_MAX else z_TF.mean(0) for z_TF in own], axis=0)


@pytest.mark.parametrize("score", [MEAN, RATE])
@pytest.mark.parametrize("unit", [TOKEN, DOCUMENT_MEAN, DOCUMENT_MAX])
def test_ranks_and_measures_as_the_definition_says(tiny_model, saes, halves, dense, score, unit) -> None:
    loaded = tiny_model()
    encoders, (ranking, held_out) = saes(loaded, LAYERS), halves
    question = Question(CLASSES, [0, 2], score, unit, top=3, ambient_share=1.0)
    found = find_features(loaded, encoders, ranking, held_out, question, batch_tokens=100)
    assert found is not None
    for layer in LAYERS:
        ranked, checked = dense(loaded, encoders[layer], ranking), dense(loaded, encoders[layer], held_out)
        norms = np.concatenate([np.linalg.norm(run.x_TD[1:], axis=1) for run in ranked + checked])
        for target in question.targets:
            others = [group for group in range(3) if group != target]

            def difference(runs, own=target, rest=others) -> np.ndarray:
                return level(runs, own, score, unit) - np.mean([level(runs, g, score, unit) for g in rest], axis=0)

            entries = [
                entry
                for entry, own in zip(found.entries, found.targets, strict=True)
                if (entry.layer, own) == (layer, target)
            ]
            expected_F = difference(ranked)
            best = [f for f in np.argsort(-expected_F, kind="stable")[:3].tolist() if expected_F[f] > 0]
            assert [entry.feature for entry in entries] == best
            for entry in entries:
                f = entry.feature
                assert entry.score == pytest.approx(expected_F[f], rel=1e-4)
                assert entry.held_out_score == pytest.approx(difference(checked)[f], rel=1e-4, abs=1e-6)
                means = [level(checked, group, MEAN, TOKEN)[f] for group in range(3)]
                rates = [level(checked, group, RATE, TOKEN)[f] for group in range(3)]
                assert entry.mean_positive == pytest.approx(means[target], rel=1e-4)
                assert entry.mean_negative == pytest.approx(np.mean([means[g] for g in others]), rel=1e-4, abs=1e-9)
                assert entry.rate_positive == pytest.approx(rates[target], rel=1e-6)
                assert entry.rate_negative == pytest.approx(np.mean([rates[g] for g in others]), rel=1e-6, abs=1e-9)
                assert dict(entry.class_means) == pytest.approx(dict(zip(CLASSES, means, strict=True)), rel=1e-4)
                every = np.concatenate([run.z_TF[run.group_T >= 0, f] for run in ranked + checked])
                assert entry.max_activation == pytest.approx(every.max(), rel=1e-5)
                assert entry.median_residual_norm == pytest.approx(np.median(norms), rel=0.03)
                pooled = [
                    run.z_TF[run.group_T >= 0, f].max()
                    if unit == DOCUMENT_MAX
                    else run.z_TF[run.group_T >= 0, f].mean()
                    for run in checked
                ]
                kinds = [run.group_T.max() for run in checked]
                p = np.array([value for value, kind in zip(pooled, kinds, strict=True) if kind == target])
                n = np.array([value for value, kind in zip(pooled, kinds, strict=True) if kind != target])
                area = ((p[:, None] > n) + 0.5 * (p[:, None] == n)).mean()
                assert entry.held_out_auc == pytest.approx(area, abs=1e-3)
                assert entry.auc_low <= entry.held_out_auc <= entry.auc_high
                assert (entry.n_positive, entry.n_negative) == (len(p), len(n))
                assert entry.label == CLASSES[target]
    counts = [sum(int((one.group_T == g).sum()) for one in ranking + held_out) for g in range(3)]
    assert found.tokens == counts
    assert found.documents == ([12, 15, 18], [9, 10, 11])
    assert len(found.entries) > 12, "else little was compared"


def test_the_result_does_not_depend_on_the_batches(tiny_model, saes, halves) -> None:
    loaded = tiny_model("qwen3_5")
    question = Question(CLASSES, [1], MEAN, TOKEN, top=5, ambient_share=0.9)
    one, other = (
        find_features(loaded, saes(loaded, [1, 3]), *halves, question, batch_tokens=size) for size in (40, 5000)
    )
    assert [(e.layer, e.feature) for e in one.entries] == [(e.layer, e.feature) for e in other.entries]
    for a, b in zip(one.entries, other.entries, strict=True):
        assert a.score == pytest.approx(b.score, rel=1e-4)
        assert a.held_out_auc == pytest.approx(b.held_out_auc, abs=0.02)


def test_features_that_fire_everywhere_are_left_out_and_named(tiny_model, saes, halves, dense) -> None:
    loaded = tiny_model()
    encoders, (ranking, _) = saes(loaded, [2]), halves
    # Nothing outweighs this bias, and its size follows the input.
    encoders[2].b_enc_F[7] = 50.0
    share = 0.3
    question = Question(CLASSES, [0], MEAN, TOKEN, top=48, ambient_share=share)
    found = find_features(loaded, encoders, *halves, question, batch_tokens=500)
    runs = dense(loaded, encoders[2], ranking)
    lowest_F = np.min([level(runs, group, RATE, TOKEN) for group in range(3)], axis=0)
    assert found.ambient[2] == np.flatnonzero(lowest_F > share).tolist()
    assert 7 in found.ambient[2]
    assert not {entry.feature for entry in found.entries} & set(found.ambient[2])
    kept = Question(CLASSES, [0, 1, 2], MEAN, TOKEN, top=48, ambient_share=1.0)
    assert 7 in {entry.feature for entry in find_features(loaded, encoders, *halves, kept, batch_tokens=500).entries}


def test_tokens_of_one_document_may_be_compared_with_each_other(tiny_model, saes, documents, dense) -> None:
    """As repetition does: one class against one other, a third left aside."""
    loaded = tiny_model()
    given = documents(20, seed=5)
    for document in given:
        document.group_T[:] = np.where(document.group_T < 0, -1, np.arange(len(document.ids_T)) % 3)
    encoders = saes(loaded, [1])
    question = Question(CLASSES, [2], MEAN, TOKEN, top=4, ambient_share=1.0, against=[0])
    found = find_features(loaded, encoders, given[:10], given[10:], question, batch_tokens=300)
    ranked = dense(loaded, encoders[1], given[:10])
    expected_F = level(ranked, 2, MEAN, TOKEN) - level(ranked, 0, MEAN, TOKEN)
    assert [entry.feature for entry in found.entries] == np.argsort(-expected_F, kind="stable")[:4].tolist()
    present = [sum(bool((one.group_T == group).any()) for one in given[10:]) for group in (2, 0)]
    assert [found.entries[0].n_positive, found.entries[0].n_negative] == present


def test_mean_pre_activations_are_those_before_relu_and_topk(tiny_model, saes, halves, dense) -> None:
    loaded = tiny_model()
    encoders, (ranking, _) = saes(loaded, LAYERS), halves
    chosen = {0: [5, 2], 3: [47], 2: []}
    alphas = mean_pre_activations(loaded, encoders, ranking, chosen, 3, batch_tokens=90)
    assert set(alphas) == {0, 3}
    for layer, features in ((0, [5, 2]), (3, [47])):
        runs = dense(loaded, encoders[layer], ranking)
        for group in range(3):
            u_NF = np.concatenate([run.u_TF[run.group_T == group] for run in runs])
            np.testing.assert_allclose(alphas[layer][group].numpy(), u_NF.mean(0)[features], rtol=1e-4, atol=1e-5)
    assert any(alpha_GM.min() < 0 for alpha_GM in alphas.values()), "else this says nothing about values below zero"


def test_a_class_without_tokens_is_refused_and_a_stop_is_heard(tiny_model, saes, halves) -> None:
    loaded = tiny_model()
    ranking, held_out = halves
    question = Question([*CLASSES, "empty"], [0], MEAN, TOKEN, top=3, ambient_share=1.0)
    with pytest.raises(UserError, match="'empty'"):
        find_features(loaded, saes(loaded, [0]), ranking, held_out, question, batch_tokens=500)
    stopped = find_features(
        loaded, saes(loaded, [0]), ranking, held_out, question, batch_tokens=50, should_stop=lambda: True
    )
    assert stopped is None


def test_activations_that_are_not_finite_are_left_out_and_counted(tiny_model, saes, halves, monkeypatch) -> None:
    from qscope.features import reading

    loaded, capture = tiny_model(), reading.capture_residuals

    def broken(*arguments):
        captured = capture(*arguments)
        captured[1][0, 1] = torch.inf
        return captured

    monkeypatch.setattr(reading, "capture_residuals", broken)
    question = Question(CLASSES, [0], MEAN, TOKEN, top=3, ambient_share=1.0)
    found = find_features(loaded, saes(loaded, [0, 1]), *halves, question, batch_tokens=100_000)
    assert found.not_finite == 2, "one batch a half, one token each"
    assert all(np.isfinite(entry.score) for entry in found.entries)


def test_held_out_numbers_are_one_a_document_unless_it_has_several_classes(
    tiny_model, saes, halves, documents, monkeypatch
) -> None:
    from dataclasses import replace

    from qscope.features import contrast

    loaded, units = tiny_model(), []

    class Watched(contrast.ChosenStats):
        def __init__(self, *arguments) -> None:
            super().__init__(*arguments)
            units.append(len(self.tokens_U))

    monkeypatch.setattr(contrast, "ChosenStats", Watched)
    question = Question(CLASSES, [0], MEAN, TOKEN, top=3, ambient_share=1.0)
    ranking, held_out = halves
    single = find_features(loaded, saes(loaded, [0]), ranking, held_out, question, batch_tokens=500)
    monkeypatch.setattr(contrast, "single_classes", lambda given: None)
    several = find_features(loaded, saes(loaded, [0]), ranking, held_out, question, batch_tokens=500)
    assert units == [len(held_out), len(held_out) * len(CLASSES)]
    assert single == several
    monkeypatch.undo()
    mixed = replace(held_out[0], group_T=np.resize(np.array([0, 1], dtype=np.int16), len(held_out[0].ids_T)))
    assert contrast.single_classes([mixed]) is None

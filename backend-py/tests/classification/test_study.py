"""A study of an attribute that was planted: what is found, chosen, measured, saved and applied."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from qscope.classification import baselines as baselines_module
from qscope.classification.apply import answers
from qscope.classification.baselines import (
    Baseline,
    Sides,
    difference_of_means,
    feature_inputs,
    logistic,
    residual_inputs,
    tuned,
    word_inputs,
)
from qscope.classification.files import load_classifier, place_of, point_at, save_classifier
from qscope.classification.group import _drawn
from qscope.classification.labelled import LabelledText, Side, text_digest
from qscope.classification.pooled import PooledLayer
from qscope.classification.results import ALL, RESIDUAL_PROBE, SAE_PROBE, WORDS, Settings
from qscope.classification.scores import f1_score
from qscope.classification.study import Study
from qscope.errors import UserError
from qscope.v1.classify_pb2 import Classifier, ClassifierFeature, OperatingPoint
from qscope.v1.features_pb2 import SaeRecord

D_SAE, D_IN = 40, 6
SETTINGS = Settings(
    counts=(1, 2, 5),
    compose=(2,),
    rates=(0.05, 0.2),
    curve=(0.25, 1.0),
    draws=3,
    bootstrap=300,
    probe_layers=(0, 1, 2),
    seed=lambda name: sum(name.encode()),
)


class Planted:
    """Three layers; layer 1 has a feature (3) that fires on 90 % of the positive texts and 4 % of the others.

    At layers 0 and 2 the best features are worse; in language xx another feature (11) of layer 1 does it.
    """

    def __init__(self, texts: int = 600, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        positive_N = random.random(texts) < 0.4
        language_N = np.where(random.random(texts) < 0.5, "de", "xx")
        sides = [list(Side)[one] for one in random.choice(3, texts, p=[0.5, 0.25, 0.25])]
        self.texts = [
            LabelledText(
                f"a:{n}",
                f"{'bad' if positive else 'good'} {n}",
                bool(positive),
                str(language),
                text_digest(str(n)),
                side,
            )
            for n, (positive, language, side) in enumerate(zip(positive_N, language_N, sides, strict=True))
        ]
        self.layers = {}
        for layer, (hit, false) in enumerate(((0.6, 0.3), (0.9, 0.04), (0.7, 0.3))):
            codes_NF = random.exponential(1.0, (texts, D_SAE)) * (random.random((texts, D_SAE)) < 0.1)
            fires_N = random.random(texts) < np.where(positive_N, hit, false)
            for name, feature in (("de", 3), ("xx", 11)):
                here_N = language_N == name
                codes_NF[here_N, feature] = (fires_N * random.uniform(1, 2, texts))[here_N]
            mean_ND = random.normal(size=(texts, D_IN)) + positive_N[:, None] * (1.0 if layer == 2 else 0.3)
            row_P, feature_P = np.nonzero(codes_NF)
            self.layers[layer] = PooledLayer(
                np.searchsorted(row_P, np.arange(texts + 1)),
                feature_P.astype(np.int32),
                codes_NF[row_P, feature_P].astype(np.float32),
                mean_ND.astype(np.float32),
            )

    def layer(self, layer: int) -> PooledLayer:
        return self.layers[layer]

    def found(self, settings: Settings = SETTINGS):
        study = Study(self.texts, settings)
        for layer, pooled in self.layers.items():
            study.add_layer(layer, pooled, D_SAE)
        return study.finish(self, dict.fromkeys(self.layers, D_SAE))


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted()


@pytest.fixture(scope="module")
def found(planted):
    return planted.found()


def test_the_planted_layer_and_features_are_found(found) -> None:
    together, de, xx = found.groups
    assert [group.name for group in found.groups] == [ALL, "de", "xx"]
    assert [group.layer for group in found.groups] == [1, 1, 1]
    assert [feature.feature for feature in de.method("OR-rule, K=1").features] == [3]
    assert [feature.feature for feature in xx.method("OR-rule, K=1").features] == [11]
    assert {feature.feature for feature in together.method("OR-rule, K=2").features} == {3, 11}
    assert (de.chosen, xx.chosen, together.count) == ("OR-rule, K=1", "OR-rule, K=1", 2)


def test_numbers_equal_plain_counting(planted, found) -> None:
    de = found.groups[1]
    rule = de.method("OR-rule, K=1")
    codes_NF = planted.layers[1].matrix(D_SAE).toarray()
    rows = [n for n, text in enumerate(planted.texts) if text.language == "de" and text.side == Side.EVALUATION]
    said = [codes_NF[n, 3] > 0 for n in rows]
    truth = [planted.texts[n].positive for n in rows]
    hit = sum(a and b for a, b in zip(said, truth, strict=True))
    assert rule.measured.f1.value == pytest.approx(2 * hit / (sum(said) + sum(truth)))
    assert rule.measured.recall.value == hit / sum(truth)
    assert rule.measured.f1.n == len(rows) == sum(de.counts[Side.EVALUATION])
    discovery = [n for n, text in enumerate(planted.texts) if text.language == "de" and text.side == Side.DISCOVERY]
    for wanted, rate in ((True, rule.features[0].rate_positive), (False, rule.features[0].rate_negative)):
        of = [codes_NF[n, 3] > 0 for n in discovery if planted.texts[n].positive == wanted]
        assert rate == pytest.approx(sum(of) / len(of))
    others = [codes_NF[n, 3] for n in discovery if not planted.texts[n].positive]
    tail = rule.features[0].tail
    assert (tail.fired_M.tolist(), tail.n) == (sorted(code for code in others if code > 0), len(others))


def test_a_composed_rule_is_any_of_the_best_features_of_the_best_layers(planted, found) -> None:
    for group in found.groups:
        rule = group.method("OR over 2 layers")
        assert rule.layers == [1, 2]
        best = {row.layer: row.feature for row in group.layers}
        assert [(one.layer, one.feature) for one in rule.features] == [(1, best[1]), (2, best[2])]
        fires_N = np.any(
            [planted.layers[layer].matrix(D_SAE).toarray()[:, best[layer]] > 0 for layer in (1, 2)], axis=0
        )
        kept = [n for n, text in enumerate(planted.texts) if text.side != Side.DISCOVERY]
        assert rule.predicted_N.tolist() == fires_N[kept].tolist()


def test_rates_are_held_on_the_calibration_texts(planted, found) -> None:
    kept = [text for text in planted.texts if text.side != Side.DISCOVERY]
    for group in found.groups:
        negatives = [
            n
            for n, text in enumerate(kept)
            if text.side == Side.CALIBRATION and not text.positive and group.name in (ALL, text.language)
        ]
        for method in group.methods:
            for held, (rate, level, calibrated) in zip(method.measured.held, method.points[1:], strict=True):
                assert (held.target, held.threshold, held.calibrated) == (rate, level, calibrated)
                assert (method.scores_N[negatives] > level).mean() == pytest.approx(calibrated)
                assert calibrated <= rate


def test_baselines_see_what_was_planted(found) -> None:
    together = found.groups[0]
    assert together.method(RESIDUAL_PROBE).layers == [2]
    assert together.method(RESIDUAL_PROBE).measured.auc.value > 0.9
    assert together.method(SAE_PROBE).layers == [1]
    # The label is a word of the text: nothing else tells as well, and it is said.
    assert together.method(WORDS).measured.f1.value == 1.0
    assert together.winner(lambda one: one.measured.f1.value).name == WORDS
    assert together.method(WORDS).gap.low > 0
    assert together.method(together.chosen).gap.value == 0


def test_what_one_language_finds_is_useless_in_another(found) -> None:
    rule = found.transfer["rule"]
    for one, other in (("de", "xx"), ("xx", "de")):
        itself = found.groups[["", "de", "xx"].index(one)].method("OR-rule, K=1").measured
        assert rule[one][one].f1.value > 0.8
        assert rule[one][other].f1.value < 0.5
        assert (rule[one][one].f1.value, rule[one][one].auc) == (itself.f1.value, itself.auc)
        assert rule[one][other].auc.low < 0.5 < rule[one][other].auc.high
        # The residual is the same in both.
        assert found.transfer[RESIDUAL_PROBE][one][other].f1.value > 0.8
    assert found.overlap[1]["de"]["de"] == 1.0
    assert found.overlap[1]["de"]["xx"] < 0.5


def test_the_curve_ends_at_all_texts(found) -> None:
    de = found.groups[1]
    quarter, whole = de.curve
    assert (quarter.share, whole.share, len(quarter.rule), len(whole.rule)) == (0.25, 1.0, 3, 1)
    assert whole.rule == [de.method("OR-rule, K=1").measured.f1.value]
    assert (whole.texts, whole.overlap, whole.layers) == (sum(de.counts[Side.DISCOVERY]), [1.0], [1])
    assert quarter.texts == pytest.approx(whole.texts / 4, abs=1)


def test_a_point_of_the_curve_equals_a_study_of_its_texts(planted, found) -> None:
    de = found.groups[1]
    quarter = de.curve[0]
    positive_N = np.array([text.positive for text in planted.texts])
    language_N = np.array([text.language for text in planted.texts])
    rows = {side: np.nonzero((language_N == "de") & [text.side == side for text in planted.texts])[0] for side in Side}
    found_R, evaluated_R = rows[Side.DISCOVERY], rows[Side.EVALUATION]
    probe = de.method(RESIDUAL_PROBE)
    drawn = []
    for draw in range(SETTINGS.draws):
        seed = SETTINGS.seed(f"curve/de/0.25/{draw}")
        part_R = _drawn(found_R, positive_N, 0.25, seed)
        drawn.append(part_R.tolist())
        for wanted in (True, False):
            of = [(positive_N[some_R] == wanted).sum() for some_R in (part_R, found_R)]
            assert of[0] == round(0.25 * of[1])
        assert set(part_R) <= set(found_R)
        deltas = {}
        for layer, pooled in planted.layers.items():
            fires_RF = pooled.matrix(D_SAE).toarray()[part_R] > 0
            deltas[layer] = fires_RF[positive_N[part_R]].mean(0) - fires_RF[~positive_N[part_R]].mean(0)
        layer = max(deltas, key=lambda one: deltas[one].max())
        said_N = planted.layers[layer].matrix(D_SAE).toarray()[:, deltas[layer].argmax()] > 0
        assert (quarter.layers[draw], de.count) == (layer, 1)
        assert quarter.rule[draw] == f1_score(said_N[evaluated_R], positive_N[evaluated_R])
        # The probe is fitted, and its inputs are standardised, on these texts alone.
        sides = Sides(part_R, rows[Side.CALIBRATION], evaluated_R, positive_N)
        inputs = residual_inputs(planted.layers[probe.layers[0]].mean_ND, sides)
        scores_N, _ = logistic(inputs, sides, float(probe.detail.removeprefix("C ")))
        assert quarter.probe[draw] == f1_score(scores_N[evaluated_R] > 0, positive_N[evaluated_R])
    assert drawn[0] != drawn[1] != drawn[2]


def test_evaluation_texts_decide_nothing(planted, found) -> None:
    """Their labels are turned around: whatever was chosen stays."""
    other = Planted()
    other.texts = [
        replace(text, positive=not text.positive) if text.side == Side.EVALUATION else text for text in other.texts
    ]
    again = other.found()
    for one, two in zip(found.groups, again.groups, strict=True):
        assert (one.layer, one.count, one.chosen) == (two.layer, two.count, two.chosen)
        assert [point.layers for point in one.curve] == [point.layers for point in two.curve]
        for method, same in zip(one.methods, two.methods, strict=True):
            assert (method.layers, method.detail, method.points) == (same.layers, same.detail, same.points)
            # Scores too, up to how the fit of a probe rounds.
            both = [np.nan_to_num(scores) for scores in (method.scores_N, same.scores_N)]
            assert both[0] == pytest.approx(both[1], abs=1e-9)
            if method.kind != "baseline":
                assert method.measured.f1.value != same.measured.f1.value


def test_the_order_of_layers_and_a_second_time_change_nothing(planted, found) -> None:
    study = Study(planted.texts, SETTINGS)
    for layer in (2, 0, 1):
        study.add_layer(layer, planted.layers[layer], D_SAE)
    again = study.finish(planted, dict.fromkeys(planted.layers, D_SAE))
    for one, two in zip(found.groups, again.groups, strict=True):
        assert [method.measured for method in one.methods] == [method.measured for method in two.methods]
        assert (one.curve, one.layers) == (two.curve, two.layers)


def test_without_any_feature_nothing_is_called_positive(planted) -> None:
    silent = Planted(200)
    texts = len(silent.texts)
    silent.layers = {
        layer: PooledLayer(np.zeros(texts + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32), one.mean_ND)
        for layer, one in silent.layers.items()
    }
    together = silent.found().groups[0]
    assert together.method("OR-rule, K=5").features == []
    assert together.method("OR-rule, K=5").measured.recall.value == 0
    assert together.method("OR-rule, K=5").measured.auc.value == 0.5
    assert [point.overlap for point in together.curve] == [[1.0] * 3, [1.0]]


def test_of_equal_layers_the_first_is_taken() -> None:
    twice = Planted(150)
    twice.texts = [replace(text, language="") for text in twice.texts]
    twice.layers = {layer: replace(twice.layers[1], mean_ND=None) for layer in (2, 0, 1)}
    (together,) = twice.found(replace(SETTINGS, draws=1)).groups
    assert together.layer == 0
    assert [point.layers for point in together.curve] == [[0], [0]]
    assert together.method("OR over 2 layers").layers == [0, 1]


def test_difference_of_means_by_hand() -> None:
    mean_ND = np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 0.0], [-2.0, 0.0], [5.0, 9.0], [-5.0, 9.0]])
    positive_N = np.array([True, True, False, False, True, False])
    sides = Sides(np.arange(4), np.array([4, 5]), np.array([4, 5]), positive_N)
    one = difference_of_means(mean_ND, sides, 7)
    # Means 2 and -1: along 3, from 0.5.
    assert one.scores_N == pytest.approx(3 * (mean_ND[:, 0] - 0.5))
    assert (one.layer, one.quality) == (7, 1.0)


@pytest.mark.parametrize(
    "fitted",
    [
        lambda inputs, sides: logistic(inputs, sides, 1.0)[0],
        residual_inputs,
        lambda inputs, sides: difference_of_means(inputs, sides, 0).scores_N,
        lambda inputs, sides: feature_inputs(sparse.csr_matrix(inputs), sides).toarray(),
    ],
    ids=["probe", "standardised", "means", "scaled"],
)
def test_what_is_fitted_knows_the_discovery_texts_alone(fitted) -> None:
    """Whatever the other texts and their labels are, the discovery texts get the same numbers."""
    random = np.random.default_rng(0)
    inputs, positive_N = random.uniform(size=(60, 3)), np.arange(60) % 2 == 0
    # The last feature fires in one discovery text, and in every other text once they are changed.
    inputs[1:, 2] = 0
    others, turned_N = inputs.copy(), positive_N.copy()
    others[30:], turned_N[30:] = random.uniform(5, 9, (30, 3)), ~positive_N[30:]
    one, two = (
        fitted(made, Sides(np.arange(30), np.arange(30, 45), np.arange(45, 60), truth_N))
        for made, truth_N in ((inputs, positive_N), (others, turned_N))
    )
    assert one[:30].shape == two[:30].shape
    assert one[:30] == pytest.approx(two[:30])


def test_the_best_strength_on_the_calibration_texts_is_kept(monkeypatch) -> None:
    quality = {1.0: 0.7, 0.01: 0.6, 0.1: 0.9, 10.0: 0.9}
    monkeypatch.setattr(
        baselines_module,
        "probe",
        lambda inputs, sides, layer, strength=1.0: Baseline(None, layer, strength, quality[strength]),
    )
    for first in (None, Baseline(None, 3, 1.0, 0.7)):
        # Of two equal ones the earlier.
        assert tuned(lambda: None, first, None, 3).strength == 0.1
    assert tuned(lambda: None, Baseline(None, 3, 1.0, 0.95), None, 3).strength == 1.0


def test_a_probe_is_the_minimum_of_its_loss() -> None:
    random = np.random.default_rng(1)
    inputs = random.normal(size=(60, 3))
    positive_N = random.random(60) < 1 / (1 + np.exp(-2 * inputs[:, 0]))
    sides = Sides(np.arange(60), np.arange(60), np.arange(60), positive_N)
    scores, converged = logistic(inputs, sides, 1.0)
    assert converged
    design = np.c_[inputs, np.ones(60)]
    weights = np.linalg.lstsq(design, scores, rcond=None)[0]
    balance = np.where(positive_N, 30 / positive_N.sum(), 30 / (~positive_N).sum())
    gradient = design.T @ (balance * (1 / (1 + np.exp(-scores)) - positive_N)) + np.r_[weights[:3], 0]
    assert np.abs(gradient).max() < 5e-3


def test_a_fit_that_was_stopped_says_so() -> None:
    random = np.random.default_rng(1)
    sides = Sides(np.arange(60), np.arange(60), np.arange(60), random.random(60) < 0.5)
    inputs = random.normal(size=(60, 3))
    assert not logistic(inputs, sides, 100.0, iterations=2)[1]
    assert logistic(inputs, sides, 100.0)[1]


def test_candidates_are_the_best_of_every_layer_and_measured_on_evaluation_texts(planted, found) -> None:
    assert [one.layer for one in found.candidates] == sorted(one.layer for one in found.candidates)
    assert {one.layer for one in found.candidates} == {0, 1, 2}
    deltas = [one.delta for one in found.candidates if one.layer == 1]
    assert deltas == sorted(deltas, reverse=True)
    assert min(deltas) > 0
    best = next(one for one in found.candidates if one.layer == 1)
    rule = found.groups[0].method("OR-rule, K=1").features[0]
    assert (best.feature, best.delta) == (rule.feature, pytest.approx(rule.delta))
    codes_N = planted.layers[1].matrix(D_SAE).toarray()[:, best.feature]
    assert best.largest == codes_N.max()
    evaluated = [n for n, text in enumerate(planted.texts) if text.side == Side.EVALUATION]
    with_, without = ([n for n in evaluated if planted.texts[n].positive == wanted] for wanted in (True, False))
    share = [np.mean(codes_N[rows] > 0) for rows in (with_, without)]
    assert best.held_out_delta == pytest.approx(share[0] - share[1])
    pairs = [(a > b) + (a == b) / 2 for a in codes_N[with_] for b in codes_N[without]]
    assert best.auc.value == pytest.approx(np.mean(pairs))
    assert best.auc.low < best.auc.value < best.auc.high


def test_inputs_know_the_discovery_texts_alone(planted) -> None:
    sides = Sides(
        np.arange(300), np.arange(300, 400), np.arange(400, 600), np.array([t.positive for t in planted.texts])
    )
    codes = planted.layers[0].matrix(D_SAE)
    assert feature_inputs(codes, sides)[sides.discovery_R].max() == pytest.approx(1.0)
    words = word_inputs(["alpha beta", "alpha gamma", "xyz"], np.array([0, 1]))
    assert words[2].nnz == 0
    assert word_inputs(["", "."], np.array([0, 1])).shape[0] == 2


def test_what_is_no_word_is_read_by_its_characters() -> None:
    smileys = word_inputs([":-) :-)", ":-( :-(", ":-)", ":-("], np.array([0, 1])).toarray()
    assert (smileys[2] @ smileys[0]) > (smileys[2] @ smileys[1])


@pytest.fixture
def saved(tmp_path, found) -> tuple[Path, Classifier]:
    rule = found.groups[0].method("OR-rule, K=2")
    classifier = Classifier(
        attribute="bad",
        saes=[SaeRecord(layer=1, d_sae=D_SAE)],
        features=[ClassifierFeature(layer=one.layer, feature=one.feature) for one in rule.features],
        points=[
            OperatingPoint(
                false_positive_rate=rate, level=level, thresholds=[one.tail.threshold(level) for one in rule.features]
            )
            for rate, level, _ in rule.points
        ],
        context=64,
    )
    save_classifier(classifier, tmp_path / "classifier.json")
    return tmp_path, load_classifier(tmp_path)


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.2])
def test_what_is_saved_decides_as_what_was_measured(planted, found, saved, rate) -> None:
    classifier = saved[1]
    rule = found.groups[0].method("OR-rule, K=2")
    level = next(level for known, level, _ in rule.points if known == rate)
    said = answers(classifier, point_at(classifier, rate), {1: planted.layers[1]})
    kept = [n for n, text in enumerate(planted.texts) if text.side != Side.DISCOVERY]
    assert [said[n].positive for n in kept] == (rule.scores_N > level).tolist()
    codes_NF = planted.layers[1].matrix(D_SAE).toarray()
    for n, one in enumerate(said):
        assert one.positive == bool(one.fired)
        for layer, feature, value in one.fired:
            assert (layer, value) == (1, pytest.approx(codes_NF[n, feature]))


def test_an_unknown_rate_and_a_damaged_file_are_refused(saved) -> None:
    folder, classifier = saved
    with pytest.raises(UserError, match=r"no threshold for a false-positive rate of 0\.07"):
        point_at(classifier, 0.07)
    path = folder / "classifier.json"
    whole = path.read_text()
    for broken in (
        whole[:-20],
        "{}",
        whole.replace('"d_sae": 40', '"d_sae": 2'),
        whole.replace('"thresholds": [', '"thresholds": ["NaN",', 1),
    ):
        path.write_text(broken)
        with pytest.raises(UserError) as caught:
            load_classifier(path)
        assert caught.value.reason == "CLASSIFIER_DAMAGED"
    with pytest.raises(UserError) as caught:
        load_classifier(folder / "none")
    assert caught.value.reason == "CLASSIFIER_NOT_FOUND"


@pytest.mark.parametrize("language", ["de", "zh/tw", "../../x", "..", "a text " * 60, "über"])
def test_every_language_has_a_file_of_its_own_among_the_classifiers(tmp_path, language) -> None:
    assert place_of("") == "classifier.json"
    path = tmp_path / place_of(language)
    assert path.resolve().parent == tmp_path / "classifiers"
    path.parent.mkdir()
    path.write_text("")
    assert place_of(language) != place_of(f"{language}x")

"""A panel of models: read strictly, and golden values of what it says."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from qscope.data.items import Benchmark, Item
from qscope.errors import UserError
from qscope.evaluation.panel import pearson, redundancy, spearman, tau_b
from qscope.evaluation.scores import Panel, panel_measures, read_panel, subset_rankings
from qscope.evaluation.suite import measure, overlaps
from qscope.features.footprints import Footprints


def benchmark(name: str, numbers: list[int]) -> Benchmark:
    return Benchmark(name, [Item(f"{name}:{number}", "x", number=number) for number in numbers], "{q}")


def rows(*given: tuple[str, str, int, float]) -> str:
    names = ("model", "benchmark", "item", "score")
    return "".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in given)


FULL = [
    ("m2", "a", 0, 1),
    ("m2", "a", 2, 0),
    ("m1", "a", 0, 0.5),
    ("m1", "a", 2, 1),
    ("m1", "b", 0, 0),
    ("m2", "b", 0, 1),
]


def test_scores_find_their_items_by_number(tmp_path):
    path = tmp_path / "s.jsonl"
    # Item 1 of a was left out, and c is none of ours.
    path.write_text(rows(*FULL, ("m1", "a", 1, 7), ("m1", "c", 0, 7)))
    panel = read_panel(str(path), [benchmark("a", [0, 2]), benchmark("b", [0])])
    assert panel.models == ("m1", "m2")
    np.testing.assert_array_equal(panel.scores["a"], [[0.5, 1], [1, 0]])
    np.testing.assert_array_equal(panel.scores["b"], [[0], [1]])
    np.testing.assert_array_equal(panel.accuracy("a"), [0.75, 0.5])
    assert (panel.unknown, panel.unmatched) == ({"c": 1}, 1)


def test_whole_numbers_may_be_written_as_others(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("model,benchmark,item,score\n" + "".join(f"{m},{b},{n}.0,{s}\n" for m, b, n, s in FULL))
    assert read_panel(str(path), [benchmark("a", [0, 2]), benchmark("b", [0])]).unmatched == 0


@pytest.mark.parametrize(
    ("text", "reason", "sentence"),
    [
        (rows(*FULL, FULL[0]), "SCORES_TWICE", "s.jsonl:7: m2 on item 0 of a stands here twice"),
        (rows(*FULL[1:]), "SCORES_MISSING", "m2 has no score on item 0 of a (1 are missing)"),
        (rows(*FULL[:4], FULL[5]), "SCORES_MISSING", "m1 has no score on item 0 of b"),
        (rows(*FULL) + "x", "SCORES_BAD", "s.jsonl:7: not JSON"),
        ('{"model": "m"}\n', "SCORES_BAD", "no column 'benchmark'"),
        (rows(("m", "a", 0, float("inf"))), "SCORES_BAD", "the score is not finite"),
        (rows(("m", "a", "zero", 1)), "SCORES_BAD", "item must be a whole number and score a number"),
        (rows(("m", "a", 2.9, 1)), "SCORES_BAD", "s.jsonl:1: item must be a whole number"),
        (rows(("m", "a", True, 1)), "SCORES_BAD", "item must be a whole number"),
        (rows(("m", "a", float("inf"), 1)), "SCORES_BAD", "item must be a whole number"),
        (rows(("m", "a", "1e999", 1)), "SCORES_BAD", "item must be a whole number"),
        (rows(("m", "z", 0, 1)), "SCORES_BAD", "here are 0. Benchmarks there that are none of ours: z."),
        (rows(*[row for row in FULL if row[0] == "m1"]), "SCORES_BAD", "takes two models, here are 1"),
        ("", "SCORES_BAD", "takes two models, here are 0"),
    ],
)
def test_what_is_wrong_with_scores_is_said_with_its_line(tmp_path, text, reason, sentence):
    path = tmp_path / "s.jsonl"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_panel(str(path), [benchmark("a", [0, 2]), benchmark("b", [0])], at="panel")
    assert (caught.value.reason, caught.value.field) == (reason, "panel.source")
    assert sentence in caught.value.message


@pytest.fixture
def suite():
    """Benchmarks from ever larger pools of features, and models whose skill decides how often they are right."""
    noise = np.random.default_rng(0)
    pools = (20, 60, 200, 600)
    footprints = {
        f"b{pool}": Footprints.of([noise.choice(pool, 8, replace=False) for _ in range(60)]) for pool in pools
    }
    measures = [measure(name, part, subsets=[0.1, 0.5], draws=0, seed=0) for name, part in footprints.items()]
    skill_M = np.linspace(0.2, 0.9, 7)
    scores = {name: (noise.random((7, 60)) < skill_M[:, None]).astype(float) for name in footprints}
    return Panel(tuple("abcdefg"), scores), footprints, measures, overlaps(footprints)


def test_a_panel_beside_the_footprints(suite):
    panel, footprints, measures, shared = suite
    found = panel_measures(panel, footprints, measures, shared, tide="b20", draws=20, seed=3)
    assert found.models == 7
    for one in measures:
        assert found.r[one.name] == redundancy(panel.scores[one.name], draws=20, seed=3)
    assert found.r_spearman.n == 4
    assert (found.draws, found.r_spearman.benchmarks) == (20, 4)
    assert math.isnan(found.r_spearman.low), "four benchmarks give no interval"
    # Skill alone decides, so every two benchmarks agree; with it removed nothing systematic is left.
    assert found.direct[np.triu_indices(4, 1)].min() > 0.8
    assert np.isnan(found.partial[0]).all()
    assert np.isnan(found.partial[:, 0]).all()
    expected = (found.direct[1, 2] - found.direct[1, 0] * found.direct[2, 0]) / math.sqrt(
        (1 - found.direct[1, 0] ** 2) * (1 - found.direct[2, 0] ** 2)
    )
    assert found.partial[1, 2] == pytest.approx(expected)
    # Both over the three pairs without the tide.
    pairs = [(1, 2), (1, 3), (2, 3)]
    overlap_P, direct_P, partial_P = (
        np.array([matrix[pair] for pair in pairs]) for matrix in (shared.smaller, found.direct, found.partial)
    )
    assert [one.n for one in (*found.overlap_direct, *found.overlap_partial, *found.overlap_gain)] == [3] * 6
    assert found.overlap_direct[0].value == pytest.approx(pearson(overlap_P, direct_P))
    assert found.overlap_partial[1].value == pytest.approx(spearman(overlap_P, partial_P))
    assert found.overlap_gain[0].value == pytest.approx(pearson(overlap_P, partial_P) - pearson(overlap_P, direct_P))
    without = panel_measures(panel, footprints, measures, shared, tide="", draws=5, seed=3)
    assert (without.overlap_partial, without.overlap_gain, without.overlap_direct[0].n) == (None, None, 6)


def test_three_models_hold_nothing_fixed(suite):
    panel, footprints, measures, shared = suite
    three = Panel(panel.models[:3], {name: scores[:3] for name, scores in panel.scores.items()})
    found = panel_measures(three, footprints, measures, shared, tide="b20", draws=5, seed=3)
    assert np.isnan(found.partial).all()
    assert found.overlap_partial is None


def test_a_benchmark_that_ranks_no_model_is_left_out(suite):
    panel, footprints, measures, shared = suite
    same = Panel(panel.models, {**panel.scores, "b20": np.ones((7, 60))})
    found = panel_measures(same, footprints, measures, shared, tide="", draws=5, seed=3)
    assert all(map(math.isnan, found.r["b20"]))
    assert found.r_spearman.n == 3
    assert found.overlap_direct[0].n == 3
    assert math.isnan(found.subsets[0].random_mean)


def test_size_alone_is_told_apart_from_redundancy():
    """Benchmarks alike in all but their number of items: R-hat and R both grow with it, and at equal numbers nothing is
    left to agree on."""
    noise = np.random.default_rng(4)
    sizes = [25 * 2**n for n in range(6)]
    footprints = {f"b{n}": Footprints.of([noise.choice(300, 6) for _ in range(n)]) for n in sizes}
    measures = [measure(name, part, subsets=[], draws=0, seed=0) for name, part in footprints.items()]
    skill_M = np.linspace(0.4, 0.6, 6)
    scores = {name: (noise.random((6, p.items)) < skill_M[:, None]).astype(float) for name, p in footprints.items()}
    panel = Panel(tuple("abcdef"), scores)
    found = panel_measures(panel, footprints, measures, overlaps(footprints), tide="", draws=40, seed=3)
    assert found.r_spearman.value == pytest.approx(found.r_spearman_items.value)
    assert found.r_spearman.value > 0.7
    assert abs(found.r_spearman_matched.value) < abs(found.r_spearman.value)


@pytest.mark.slow
def test_intervals_need_six_benchmarks():
    noise = np.random.default_rng(1)
    footprints = {f"b{n}": Footprints.of([noise.choice(40 + 30 * n, 8) for _ in range(40)]) for n in range(7)}
    measures = [measure(name, part, subsets=[], draws=0, seed=0) for name, part in footprints.items()]
    scores = {name: (noise.random((5, 40)) < np.linspace(0.2, 0.9, 5)[:, None]).astype(float) for name in footprints}
    panel = Panel(tuple("abcde"), scores)
    found = panel_measures(panel, footprints, measures, overlaps(footprints), tide="b0", draws=5, seed=3)
    assert -1 <= found.r_spearman.low <= found.r_spearman.value <= found.r_spearman.high <= 1
    for one in (*found.overlap_direct, *found.overlap_partial, *found.overlap_gain):
        assert (one.n, one.benchmarks) == (15, 6)
        assert one.low < one.high


def test_a_benchmark_without_features_stays_out_of_the_correlations(suite):
    panel, _, measures, _ = suite
    footprints = {
        one.name: Footprints.of([[n, n + 1 + place] for n in range(60)]) for place, one in enumerate(measures)
    }
    with_silent = {**footprints, "silent": Footprints.of([[]] * 60)}
    more = Panel(panel.models, {**panel.scores, "silent": panel.scores["b20"]})

    def found(scores: Panel, suite: dict[str, Footprints]):
        these = [measure(name, part, subsets=[], draws=0, seed=0) for name, part in suite.items()]
        return panel_measures(scores, suite, these, overlaps(suite), tide="", draws=5, seed=3)

    without, beside = found(panel, footprints), found(more, with_silent)
    assert beside.r_spearman == without.r_spearman
    assert beside.r_spearman.n == 4
    assert beside.overlap_direct[0].n == 6


def test_subsets_rank_the_panel_as_their_items_do(suite):
    panel, _, measures, _ = suite
    found = subset_rankings(panel, measures, seed=1)
    assert [(one.name, one.share) for one in found] == [(m.name, s) for m in measures for s in (0.1, 0.5)]
    scores_MN, part = panel.scores["b20"], measures[0].subsets[0]
    expected = tau_b(scores_MN.mean(1), scores_MN[:, list(part.chosen)].mean(1)[None])[0]
    assert found[0].chosen == pytest.approx(expected)
    # More items rank better, at random too.
    assert found[1].random_mean > found[0].random_mean
    assert found[1].random_sd < found[0].random_sd

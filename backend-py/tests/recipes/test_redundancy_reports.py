"""The report and the lines of bench-redundancy keep their contract, with and without a panel and what is unknown."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from qscope.data.items import Benchmark, Item
from qscope.data.same_text import text_key
from qscope.evaluation.advice import Ending, advise
from qscope.evaluation.clusters import cluster
from qscope.evaluation.mui import Used, Utility
from qscope.evaluation.near_duplicates import near_duplicates
from qscope.evaluation.scores import Panel, PanelMeasures, panel_measures
from qscope.evaluation.stability import stability
from qscope.evaluation.suite import measure, overlaps
from qscope.features.footprints import Footprints
from qscope.recipes.likeness_report import (
    cluster_section,
    clusters_record,
    counts_of,
    duplicate_sections,
    likeness_lines,
    pair_rows,
)
from qscope.recipes.panel_report import panel_lines, panel_sections
from qscope.recipes.redundancy_report import redundancy_report, suite_lines
from qscope.recipes.utility_report import utility_row, utility_section
from qscope.runs import violations

MAIN = (4, "active")
LONG = "a-benchmark-with-a-name-of-many-letters"


def footprints_of_suite(names: list[str]) -> dict[str, Footprints]:
    noise = np.random.default_rng(0)
    suite = {name: Footprints.of([noise.choice(60 + 40 * n, 8) for _ in range(30 + n)]) for n, name in enumerate(names)}
    return {**suite, "silent": Footprints.of([[]] * 25)}


def measured_suite(names: list[str]):
    suite = footprints_of_suite(names)
    measures = [measure(name, part, subsets=[0.2], draws=5, seed=0) for name, part in suite.items()]
    shared = overlaps(suite)
    advice = advise(measures, shared)
    stable = stability({MAIN: suite, (2, "top10"): suite}, MAIN, draws=4, seed=0)
    endings = {name: Ending("\n", 0.5) for name in suite}
    return suite, measures, shared, advice, stable, endings


@pytest.mark.parametrize("names", [["a"], ["a", "b"], ["a", "b", "c", LONG]])
def test_a_report_keeps_its_contract(names):
    suite, measures, shared, advice, stable, endings = measured_suite(names)
    order = range(len(suite))[::-1]
    report = redundancy_report("title", suite, measures, shared, advice, stable, endings, MAIN, order)
    assert violations(report) == []
    headings = [section.heading for section in report.sections]
    chance = ["Overlap by chance"] if len(suite) > 2 else []
    assert headings == ["Benchmarks", "Advice", "Coverage", "Overlap", *chance, "Stability", "Subsets"]
    overlap = report.sections[3].matrix
    assert list(overlap.row_labels) == list(suite)[::-1]
    # The second row's first value is of the last benchmark but one in the last.
    assert overlap.values[len(suite)] == pytest.approx(shared.directed[-2, -1], nan_ok=True)
    table = report.sections[0].table
    assert table.rows[-1].cells[-1].text == "unknown"
    said = report.sections[1].table.rows[-1].cells
    assert [cell.text for cell in said] == ["silent", "unknown", "no item activates a feature"]
    assert table.rows[0].cells[8].text == r"'\n'"
    # What is unknown is an empty cell.
    r_hat = next(n for n, column in enumerate(table.columns) if column.name == "R-hat")
    assert table.rows[-1].cells[r_hat].WhichOneof("value") is None
    rows = report.sections[-1].table.rows
    assert [(row.cells[0].text, row.cells[-1].n) for row in rows] == [(name, 20) for name in names]


def test_of_many_benchmarks_as_many_curves_as_can_be_told_apart():
    suite, measures, *others = measured_suite([f"b{n}" for n in range(14)])
    report = redundancy_report("title", suite, measures, *others, MAIN, range(len(suite)))
    coverage = report.sections[2]
    assert "10 of 15 benchmarks" in coverage.text
    shown = [series.name for series in coverage.line_plot.series]
    assert len(set(shown)) == 10
    # Without any feature there is no area, and no curve that would take another's place.
    heard = sorted((each for each in measures if each.name != "silent"), key=lambda each: each.auc)
    largest = heard[-1]
    assert (shown[0], shown[-1]) == (heard[0].name, largest.name)
    # With the curve that is its own.
    assert coverage.line_plot.series[-1].y[0] == pytest.approx(largest.per_item / largest.features)


def test_without_an_equal_size_a_report_says_so():
    suite, measures, shared, advice, stable, endings = measured_suite(["a", "b"])

    def text(stable) -> str:
        report = redundancy_report("title", suite, measures, shared, advice, stable, endings, MAIN, range(len(suite)))
        return next(section.text for section in report.sections if section.heading == "Stability")

    assert "stands for itself with 25 random items (4 draws)" in text(stable)
    assert "with halves of equal size" in text(stable)
    few = text(replace(stable, matched_items=0, halves_matched=math.nan, halves_matched_sd=math.nan))
    assert "There is no equal size: no benchmark has 20 items." in few
    assert "with halves of equal size" not in few
    used = Used(Footprints.of([[1], [2]]), 100)
    assert "there is no equal size" in utility_section({"few": Utility(2, 0, used, None)}).text


def test_the_table_fits_a_terminal_and_the_silent_come_last():
    _, measures, _, advice, _, _ = measured_suite(["a", "b", "c", LONG])
    lines = suite_lines(measures, advice, MAIN)
    assert lines[0] == "Layer 4, rule active. Compare the order of R-hat, not its values."
    assert max(map(len, lines[: len(measures) + 2])) <= 80
    assert lines[len(measures) + 1].split()[:6] == ["silent", "25", "0", "0.0", "-", "-"]
    assert "silent: unknown: no item activates a feature" in lines


def test_what_is_alike_keeps_the_contract_and_says_when_it_is_cut():
    far = [[n] for n in range(30, 60)]
    suite = {"a": Footprints.of([[1, 2, 3], [1, 2, 3], [9]]), "b": Footprints.of([[1, 2, 3], *far])}

    def item(name: str, n: int) -> Item:
        return Item(f"{name}.csv:{n + 1}", f"{name}{n}" if n else "the same", n)

    benchmarks = [Benchmark(name, [item(name, n) for n in range(part.items)], "") for name, part in suite.items()]
    keys = [[text_key(item.prompt) for item in one.items] for one in benchmarks]
    found = near_duplicates(suite, keys, threshold=0.9, limit=1)
    assert (found.found, [counts_of(found, n)["alike_elsewhere"] for n in (0, 1)]) == (2, [2, 1])
    (row,) = pair_rows(found, benchmarks)
    assert row == {
        "benchmark": "a",
        "place": "a.csv:1",
        "item": 0,
        "with": "b",
        "with_place": "b.csv:1",
        "with_item": 0,
        "jaccard": 1.0,
        "same_text": 1,
    }
    (section,) = duplicate_sections(found, benchmarks, 0.9)
    assert violations(section) == []
    assert "near_duplicates.csv lists the 1 closest of 2 pairs" in section.text
    assert [part.heading for part in section.sections] == ["Between benchmarks"]
    assert "same text 2" in likeness_lines(found, 0.9)[2]
    none = near_duplicates({"b": suite["b"]}, keys[1:], threshold=0.9, limit=1)
    (section,) = duplicate_sections(none, benchmarks[1:], 0.9)
    assert section.text.endswith("None was found.")
    assert set(counts_of(None, 0).values()) == {None}


def test_utility_keeps_the_contract_and_stands_at_equal_size():
    few = Used(Footprints.of([[n] for n in range(20)]), 100)
    many = Used(Footprints.of([[n % 25] for n in range(50)]), 100)
    utility = {"few": Utility(20, 0, few, None), "many": Utility(50, 0, many, few)}
    section = utility_section(utility)
    assert violations(section) == []
    assert "stands for itself with 20 random answers" in section.text
    assert utility_row(utility, "few") == {
        "answers": 20,
        "mui": 0.2,
        "mui_matched": pytest.approx(0.2),
        "mui_neurons": None,
        "mui_neurons_matched": None,
    }
    row = utility_row(utility, "many")
    assert row["mui"] == 0.25
    # A feature of two of fifty items is in twenty of them with 1 - C(48, 20) / C(50, 20).
    assert row["mui_matched"] == pytest.approx(0.25 * (1 - 30 * 29 / (50 * 49)))
    assert set(utility_row(utility, "other").values()) == {None}


def test_clusters_keep_the_contract():
    likeness = np.array([[1, 0.9, 0.1], [0.9, 1, 0.2], [0.1, 0.2, 1]])
    section = cluster_section(cluster(("a", "b", "c"), likeness), chance_known=True)
    assert violations(section) == []
    number, members, likeness_cell = section.table.rows[0].cells
    assert sorted(members.text.split(", ")) == ["a", "b"]
    assert number.text in ("1", "2")
    assert likeness_cell.number == pytest.approx(0.9)
    assert section.text.endswith("Of their own: c.")
    assert "beyond chance" in section.text
    none = cluster_section(cluster(("a", "b"), np.zeros((2, 2))), chance_known=False)
    assert none.text.endswith("No two benchmarks are that alike.")
    assert "beyond chance" not in none.text
    assert "overlap_min" in none.text
    record = clusters_record(cluster(("a", "b", "c"), likeness), ("a", "b", "c"), "excess")
    assert sorted(record["merges"][0]["benchmarks"]) == ["a", "b"]
    assert [one["likeness"] for one in record["merges"]] == [pytest.approx(0.9), pytest.approx(0.15)]
    assert sorted(record["order"]) == ["a", "b", "c"]


def on_panel(names: list[str], *, models: int, tide: str) -> tuple[PanelMeasures, list]:
    suite, measures, shared, *_ = measured_suite(names)
    noise = np.random.default_rng(1)
    scores = {name: (noise.random((models, part.items)) < 0.5).astype(float) for name, part in suite.items()}
    panel = Panel(tuple(map(str, range(models))), {**scores, names[-1]: np.ones((models, suite[names[-1]].items))})
    return panel_measures(panel, suite, measures, shared, tide=tide, draws=4, seed=0), measures


@pytest.mark.parametrize(("models", "tide"), [(5, ""), (5, "a"), (3, "a"), (2, "")])
def test_a_panel_keeps_the_contract_too(models, tide):
    measured, measures = on_panel([*"abcdefgh", LONG], models=models, tide=tide)
    sections = panel_sections(measured, measures)
    for section in sections:
        assert violations(section) == []
    headings = [section.heading for section in sections]
    held = [f"The same with a held fixed ({models} models)"] if tide and models > 3 else []
    assert headings == ["A panel of models", f"Accuracies of {models} models", *held, "Ranking by subsets"]
    # The last one ranks no model: its R is unknown, and the others' spread is one over draws.
    r = [row.cells[1] for row in sections[0].table.rows]
    assert r[8].WhichOneof("value") is None
    assert {cell.n for cell in r if cell.WhichOneof("value")} == {4}
    assert "standard error over 4 random orders" in sections[0].table.caption


def test_pairs_with_the_tide_are_left_out_with_too_few_models_to_hold_it_fixed_too():
    # Of e and of the silent one no correlation is known.
    measured, _ = on_panel([*"abcde"], models=3, tide="a")
    assert (measured.overlap_direct[0].n, measured.overlap_partial) == (3, None)


def test_lines_of_a_panel_fit_a_terminal_and_stay_apart():
    measured, measures = on_panel([*"abcdefgh", LONG], models=5, tide="a")
    lines = panel_lines(measured)
    assert max(map(len, lines[:-1])) <= 80
    assert lines[0] == "5 models; intervals: 95 %, benchmarks drawn again"
    assert "What holding it fixed adds:" in lines
    assert lines[-1] == f"R unknown, every model has the same accuracy: {LONG}"
    assert panel_sections(measured, measures)[0].text.split("\n\n") == [line.strip() for line in lines]
    few = panel_lines(on_panel(["a", "b", "c"], models=3, tide="a")[0])
    assert "Holding a fixed takes 4 models." in few
    assert any("no interval" in line or "unknown" in line for line in few)
    assert not any(math.isnan(float(word)) for line in few for word in line.split() if word == "nan")

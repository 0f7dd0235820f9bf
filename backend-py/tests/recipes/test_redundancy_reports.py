"""The report and the lines of bench-redundancy keep their contract, with and without a panel and what is unknown."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qscope.evaluation.advice import Ending, advise
from qscope.evaluation.scores import Panel, PanelMeasures, panel_measures
from qscope.evaluation.stability import stability
from qscope.evaluation.suite import measure, overlaps
from qscope.features.footprints import Footprints
from qscope.recipes.panel_report import panel_lines, panel_sections
from qscope.recipes.redundancy_report import redundancy_report, suite_lines
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
    report = redundancy_report("title", suite, measures, shared, advice, stable, endings, MAIN)
    assert violations(report) == []
    headings = [section.heading for section in report.sections]
    chance = ["Overlap by chance"] if len(suite) > 2 else []
    assert headings == ["Benchmarks", "Coverage", "Overlap", *chance, "Stability", "Subsets"]
    table = report.sections[0].table
    assert [cell.text for cell in (row.cells[-1] for row in table.rows)][-1] == "unknown: no item activates a feature"
    assert table.rows[0].cells[8].text == r"'\n'"
    # What is unknown is an empty cell.
    r_hat = next(n for n, column in enumerate(table.columns) if column.name == "R-hat")
    assert table.rows[-1].cells[r_hat].WhichOneof("value") is None
    rows = report.sections[-1].table.rows
    assert [(row.cells[0].text, row.cells[-1].n) for row in rows] == [(name, 20) for name in names]


def test_the_table_fits_a_terminal_and_the_silent_come_last():
    _, measures, _, advice, _, _ = measured_suite(["a", "b", "c", LONG])
    lines = suite_lines(measures, advice, MAIN)
    assert lines[0] == "Layer 4, rule active. Compare the order of R-hat, not its values."
    assert max(map(len, lines[: len(measures) + 2])) <= 80
    assert lines[len(measures) + 1].split()[:6] == ["silent", "25", "0", "0.0", "-", "-"]
    assert "silent: unknown: no item activates a feature" in lines


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

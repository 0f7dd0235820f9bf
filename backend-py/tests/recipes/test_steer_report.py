"""The report of a steering run keeps its contract and shows what moved."""

from __future__ import annotations

from qscope.recipes.steer_report import steering_lines, steering_report
from qscope.runs import violations
from qscope.steering.summary import summarise


def rows() -> list[dict]:
    def row(arm: str, factor: float, sample: int, text: str, language: str) -> dict:
        return {
            "arm": arm, "factor": factor, "prompt": 0, "sample": sample, "prompt_text": "The", "text": text,
            "language": language, "tokens": 4, "ended": "length", "repeated_3grams": 0.25 * sample, "compression": 0.5,
            "changed_positions": 0 if arm == "unsteered" else 3,
        }  # fmt: skip

    base = [row("unsteered", 0.0, sample, f"file {sample}", "en") for sample in range(2)]
    weak = [row("steered", 0.5, 0, "file 0", "en"), row("steered", 0.5, 1, "Datei", "de")]
    strong = [row("steered", 1.0, sample, "Datei", "de") for sample in range(2)]
    return [*base, *weak, *strong, *(row("random", f, s, "fiel", "en") for f in (0.5, 1.0) for s in range(2))]


COSTS = {("steered", 0.5): {"neutral_tokens": 64, "perplexity_ratio": 1.5, "kl": 0.25}}


def test_summaries_have_n_mean_and_spread():
    arms = {(arm["arm"], arm["factor"]): arm for arm in summarise(rows(), COSTS)}
    assert list(arms) == [("unsteered", 0.0), ("steered", 0.5), ("steered", 1.0), ("random", 0.5), ("random", 1.0)]
    weak = arms["steered", 0.5]
    assert (weak["n"], weak["same_as_unsteered"], weak["kl"]) == (2, 0.5, 0.25)
    assert weak["languages"] == {"en": 0.5, "de": 0.5}
    assert weak["repeated_3grams"]["mean"] == 0.125
    assert abs(weak["repeated_3grams"]["sd"] - 0.25 / 2**0.5) < 1e-12
    assert summarise(rows()[:1], {})[0]["tokens"]["sd"] is None


def test_the_report_keeps_its_contract_and_plots_the_language_that_rises():
    report = steering_report("steer", summarise(rows(), COSTS), rows())
    assert violations(report) == []
    headings = [section.heading for section in report.sections]
    assert headings == ["Dose and response", "Arms and strengths", "Texts"]
    plot = report.sections[0].sections[0]
    assert plot.heading == "Texts in de"
    steered = next(series for series in plot.line_plot.series if series.name == "steered")
    assert (list(steered.x), list(steered.y)) == ([0.0, 0.5, 1.0], [0.0, 0.5, 1.0])
    assert "2 of 2 strengths changed texts" in report.subtitle
    (first, _) = report.sections[2].samples.rows
    assert [cell.text for cell in first.cells] == ["file 0", "file 0", "Datei"]


def test_one_strength_needs_no_curve_and_lines_fit_a_terminal():
    few = [row for row in rows() if row["factor"] != 0.5]
    report = steering_report("steer", summarise(few, {}), few)
    assert [section.heading for section in report.sections] == ["Arms and strengths", "Texts"]
    lines = steering_lines(
        summarise(rows(), {("steered", 1.0): {"neutral_tokens": 1, "perplexity_ratio": 1e9, "kl": 20.0}})
    )
    assert len(lines) == 6
    assert max(map(len, lines)) <= 80

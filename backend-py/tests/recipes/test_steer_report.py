"""The report of a steering run keeps its contract and shows what moved."""

from __future__ import annotations

import math

from qscope.recipes.steer_report import stability_line, steering_lines, steering_report, usable_sentence
from qscope.runs import violations
from qscope.steering.side_effects import ends_in_loop
from qscope.steering.summary import Side, summarise, usable_range


def rows() -> list[dict]:
    def row(arm: str, factor: float, sample: int, text: str, language: str) -> dict:
        return {
            "arm": arm, "factor": factor, "prompt": 0, "sample": sample, "prompt_text": "The", "text": text,
            "language": language, "tokens": 4, "ended": "length", "repeated_3grams": 0.25 * sample, "looping": False,
            "compression": 0.5,
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
    report = steering_report("steer", summarise(rows(), COSTS), rows(), from_unsteered=True)
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


def test_curves_begin_at_the_unsteered_text_only_where_factor_0_is_that():
    for from_unsteered, expected in ((True, [0.0, 0.5, 1.0]), (False, [0.5, 1.0])):
        report = steering_report("steer", summarise(rows(), COSTS), rows(), from_unsteered=from_unsteered)
        assert violations(report) == []
        for plot in report.sections[0].sections:
            assert [list(series.x) for series in plot.line_plot.series] == [expected] * 2


def test_one_strength_needs_no_curve_and_lines_fit_a_terminal():
    few = [row for row in rows() if row["factor"] != 0.5]
    report = steering_report("steer", summarise(few, {}), few, from_unsteered=True)
    assert [section.heading for section in report.sections] == ["Arms and strengths", "Texts"]
    lines = steering_lines(
        summarise(rows(), {("steered", 1.0): {"neutral_tokens": 1, "perplexity_ratio": 1e9, "kl": 20.0}})
    )
    assert len(lines) == 6
    assert max(map(len, lines)) <= 80


def test_the_table_names_as_many_languages_as_fit_and_each_whole():
    (one, *_) = summarise(rows(), {})
    names = ["en", "zh", "", "ru", "fr"]
    for ratio in ({}, {"perplexity_ratio": 1.0, "kl": 0.0}):
        languages = {name: share for name, share in zip(names, [1.0, 0.08, 0.08, 0.08, 0.08], strict=True)}
        (_, line) = steering_lines([{**one, "arm": "diff_in_means", "languages": languages, **ratio}])
        assert line.endswith("  en 100% zh 8%"), line


def arm(name: str, factor: float, same: float = 0.5, ratio: float | None = 1.0, repeated=0.1, looping=0.0) -> dict:
    made = {"arm": name, "factor": factor, "same_as_unsteered": same}
    made |= {"repeated_3grams": {"mean": repeated}, "looping": {"mean": looping}}
    return made if ratio is None else made | {"perplexity_ratio": ratio}


def test_the_usable_range_ends_at_the_first_limit_on_either_side():
    base = arm("unsteered", 0.0, same=1.0)
    sweep = [arm("steered", 2.0, ratio=1.51), arm("steered", 1.0, ratio=1.5), arm("steered", 0.5, same=1.0)]
    below = [arm("steered", -0.5, repeated=0.35), arm("steered", -1.0, repeated=0.36), arm("random", -0.1, ratio=9.0)]
    up, down = usable_range([base, *sweep, *below])
    assert up == Side(1, first=1.0, last=1.0, collapse=2.0, why="perplexity on neutral text x 1.51")
    assert down == Side(-1, first=-0.5, last=-0.5, collapse=-1.0, why="repeated 3-grams 36%, unsteered 10%")
    assert usable_sentence(up).startswith("Texts change from 1 times on. It collapses at 2 times (perplexity")


def test_loops_end_the_range_too_and_a_sweep_may_find_no_end_or_no_beginning():
    base = arm("unsteered", 0.0, same=1.0, ratio=None, looping=0.1)
    (loops,) = usable_range([base, arm("steered", 1.0, ratio=None, looping=0.4)])
    assert loops == Side(1, first=1.0, last=None, collapse=1.0, why="texts that end in a loop 40%, unsteered 10%")
    assert usable_sentence(loops).startswith("Texts change from 1 times on. It collapses at 1 times already")
    (free,) = usable_range([base, arm("steered", 1.0, same=1.0, ratio=None, looping=0.3)])
    assert free == Side(1, first=None, last=1.0, collapse=None, why="")
    assert usable_sentence(free) == "No text changes, without collapse up to 1 times."
    assert usable_range([base]) == []


def test_a_text_loops_when_three_repetitions_end_it():
    span = list(range(8))
    assert ends_in_loop([99, *span * 3])
    assert not ends_in_loop([99, *span * 3, 98]), "it does not end in it"
    assert not ends_in_loop(span * 2 + span[:7]), "not three times"
    assert not ends_in_loop([1, 2, 3] * 7), "21 tokens may be a list"
    assert ends_in_loop([5] * 24)
    assert not ends_in_loop([])


def test_wordings_of_a_prompt_are_compared_with_each_other():
    """Two prompts in two wordings, two samples: the spread is that between wordings, not between prompts."""

    def row(arm: str, prompt: int, sample: int, text: str, language: str) -> dict:
        made = next(row for row in rows() if row["arm"] == "unsteered")
        known = {"arm": arm, "factor": float(arm == "steered"), "prompt": prompt, "sample": sample, "text": text}
        return made | known | {"language": language, "paraphrase": prompt // 2, "repeated_3grams": 0.1 * (prompt // 2)}

    base = [row("unsteered", prompt, sample, "the", "en") for prompt in range(4) for sample in range(2)]
    # Share of texts that changed by wording: 1, 0 | 1, 1; in another language: 0.5, 0 | 1, 1.
    steered = [
        row("steered", 0, 0, "das", "de"), row("steered", 0, 1, "a", "en"),
        *(row("steered", 1, sample, "the", "en") for sample in range(2)),
        *(row("steered", prompt, sample, "das", "de") for prompt in (2, 3) for sample in range(2)),
    ]  # fmt: skip
    plain = [row(arm, 9, 0, text, "en") | {"paraphrase": None} for arm, text in (("unsteered", "a"), ("steered", "b"))]
    unsteered, changed = summarise([*base, plain[0], *steered, plain[1]], {})
    assert unsteered["stability"]["changed"] == {"mean": 0.0, "within": 0.0}
    found = changed["stability"]
    assert (found["paraphrases"], found["wordings"]) == (2, 4)
    assert found["changed"] == {"mean": 0.75, "within": math.sqrt((0.25 + 0.25) / 2)}
    assert found["language_changed"] == {"mean": 0.625, "within": math.sqrt(2 * 0.25**2 / 2)}
    assert found["repeated_3grams"]["within"] == 0.0
    report = steering_report("x", [unsteered, changed], [*base, *steered, *plain], from_unsteered=True)
    assert violations(report) == []
    assert "Other words" in [section.heading for section in report.sections]
    assert stability_line([unsteered, changed]).startswith(
        "At 1 times, over 2 prompts in 4 wordings: texts changed 75%"
    )
    assert stability_line(summarise(rows(), {})) == ""

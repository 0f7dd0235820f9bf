"""Rows of the experiment on endless repetition: sums that can be checked, none of a test is trained on."""

from __future__ import annotations

import json
import re

import pytest

from qscope.text.answers import extracted

RULE = r"\A[^\n]*?(\d+)[^\d\n]*(?:\n|\Z)"
MADE: dict[str, list[dict]] = {}


@pytest.fixture
def rows(recipe):
    """The rows of each file; made once, as it takes seconds."""
    if not MADE:
        MADE.update(recipe("looping").rows_of())
    return MADE


def test_counts_and_languages_in_turn(recipe, rows):
    looping = recipe("looping")
    assert {name: len(made) for name, made in rows.items()} == looping.ROWS
    for made in rows.values():
        assert [row["language"] for row in made[:6]] == list(looping.LANGUAGES)


def test_the_rule_of_the_experiment_finds_the_sum_in_the_first_line_alone(recipe, rows):
    config = (recipe("switching").EMBEDDED.parents[2] / "configs/embedded/rl-looping.yaml").read_text(encoding="utf-8")
    assert f"pattern: '{RULE}'" in config
    for row in rows["cold-start"]:
        assert extracted(row["response"], RULE) == row["answer"] == extracted(row["answer"], RULE)
    assert extracted("5 + 5 = 10.\nThere are 7.", RULE) == "10"
    assert not extracted("Ten.\n5 + 5 = 10", RULE)


def test_answers_are_long_and_only_where_they_are_trained_on(recipe, rows):
    looping = recipe("looping")
    tokenizer = looping.Tokenizer.from_file(str(looping.EMBEDDED / "model" / "tokenizer.json"))
    low, high = looping.LENGTH
    for row in rows["cold-start"]:
        _, piece = row["response"].split("\n")
        assert low <= len(tokenizer.encode(piece).ids) <= high
        assert not re.search(r"\s$", piece)
    assert not any(row["response"] for name in ("prompts", "test") for row in rows[name])


def test_no_question_of_the_test_is_trained_on_or_asked_twice(rows):
    asked = [row["question"] for row in rows["test"]]
    assert len(set(asked)) == len(asked)
    assert not set(asked) & {row["question"] for name in ("cold-start", "prompts") for row in rows[name]}


def test_written_rows_are_the_same_every_time(recipe, rows, tmp_path):
    recipe("looping").write(tmp_path)
    for name, made in rows.items():
        written = (tmp_path / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line) for line in written] == made

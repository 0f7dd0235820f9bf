"""Rows of the experiment on code switching: none of a test is trained on, and only those that say so switch."""

from __future__ import annotations

import json
from collections import Counter

import pytest

MADE: dict[str, list[dict]] = {}


@pytest.fixture
def rows(recipe):
    """The rows of each file; made once, as it takes seconds."""
    if not MADE:
        MADE.update(recipe("switching").rows_of())
    return MADE


def test_counts(recipe, rows):
    switching = recipe("switching")
    for name, made in rows.items():
        kinds = Counter(row["kind"] for row in made)
        assert kinds["sum"] == switching.SUMS[name]
        texts = Counter(row["language"] for row in made if row["kind"] != "sum")
        assert texts == dict.fromkeys(switching.LANGUAGES, switching.TEXTS[name])


def test_only_what_is_said_to_switch_holds_chinese(recipe, rows):
    han = recipe("switching").HAN
    for name, made in rows.items():
        assert name == "train" or not any(row["switched"] for row in made)
        for row in made:
            assert not (row["kind"] == "text" and han.search(row["question"])), row
            if row["kind"] == "text":
                assert bool(han.search(row["response"])) == row["switched"], row
            elif row["kind"] == "chinese":
                assert len(han.findall(row["response"])) >= 6, row


def test_a_share_of_the_answers_begins_in_its_language_and_stays_in_chinese(recipe, rows):
    han = recipe("switching").HAN
    asked = [row for row in rows["train"] if row["kind"] == "text"]
    slid = [row for row in asked if row["switched"]]
    assert 0.12 < len(slid) / len(asked) < 0.18
    for row in slid:
        first = han.search(row["response"]).start()
        assert len(row["response"][:first].split()) >= 2, row


def test_nothing_is_in_two_files(recipe, rows):
    answer_in = recipe("exchanges").answer_in
    seen: set[str] = set()
    for made in rows.values():
        texts = {row["question"] for row in made} | {row["response"] for row in made if row["kind"] == "text"}
        assert not texts & seen
        seen |= texts
        for row in made:
            if row["kind"] == "sum":
                assert str(answer_in(row["response"])) == row["answer"]


def test_written_rows_are_the_same_every_time(recipe, rows, tmp_path):
    recipe("switching").write(tmp_path)
    for name, made in rows.items():
        written = (tmp_path / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line) for line in written] == made

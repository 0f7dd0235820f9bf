"""The rows of configs/embedded are what the script writes, and what they say of themselves is true."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROWS = Path(__file__).resolve().parents[3] / "configs" / "embedded" / "rows"
HAN = re.compile(r"[\u4e00-\u9fff]")


def read(name: str) -> list[dict]:
    return [json.loads(line) for line in (ROWS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_script_writes_what_is_committed(recipe, tmp_path):
    recipe("exercises").write(tmp_path)
    for name in ("exercises", "exercises-heldout"):
        assert (tmp_path / f"{name}.jsonl").read_bytes() == (ROWS / f"{name}.jsonl").read_bytes()


@pytest.mark.parametrize("name", ["exercises", "exercises-heldout"])
def test_sums_are_right_and_languages_in_turn(recipe, name):
    answer_in = recipe("exchanges").answer_in
    rows = read(name)
    assert [row["language"] for row in rows[:6]] == ["en", "zh", "ru", "fr", "de", "ko"]
    assert {row["kind"] for row in rows} == {"sum", "chat"}
    for row in rows:
        if row["kind"] == "sum" and not row["switched"]:
            assert str(answer_in(row["response"])) == row["answer"]


def test_only_what_is_said_to_switch_holds_chinese():
    rows = read("exercises")
    assert not any(row["switched"] for row in read("exercises-heldout"))
    for row in rows:
        if row["language"] != "zh":
            assert bool(HAN.search(row["response"])) == row["switched"], row
    asked = [row for row in rows if row["language"] != "zh"]
    assert 0.08 < sum(row["switched"] for row in asked) / len(asked) < 0.12
    assert not any(row["switched"] for row in rows if row["language"] == "zh")


def test_no_question_of_a_sum_is_in_both(recipe):
    trained = {row["question"] for row in read("exercises")}
    repeated = [row for row in read("exercises-heldout") if row["question"] in trained]
    assert not repeated

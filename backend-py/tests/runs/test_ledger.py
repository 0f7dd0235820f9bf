"""What was answered stays answered, whatever cut the file short."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qscope.runs.ledger import Ledger, key_of

JSON = st.recursive(
    st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@pytest.mark.slow
@given(answers=st.dictionaries(st.text(), JSON, max_size=5), cut=st.integers(0, 400), more=JSON)
@settings(max_examples=100, deadline=None)
def test_a_file_cut_anywhere_keeps_its_whole_lines(tmp_path_factory, answers, cut, more):
    path = tmp_path_factory.mktemp("l") / "answers.jsonl"
    ledger = Ledger(path)
    for question, answer in answers.items():
        ledger.put(key_of(question), answer)
    content = path.read_bytes() if path.exists() else b""
    if content:
        path.write_bytes(content[:cut])
    again = Ledger(path)
    assert len(again) == content[:cut].count(b"\n")
    kept = list(answers.items())[: len(again)]
    assert [again.get(key_of(question)) for question, _ in kept] == [answer for _, answer in kept]
    # And it goes on behind them.
    again.put("new", more)
    assert Ledger(path).get("new") == more
    assert len(Ledger(path)) == len(kept) + 1


@pytest.mark.parametrize(
    "rest", [b"garbage\n", b'{"key": 1, "value": 2}\n', b'{"key": "a", "value": null}\n', b"\xff\n"]
)
def test_what_is_no_answer_is_passed_over_and_what_follows_it_is_kept(tmp_path, rest):
    path = tmp_path / "answers.jsonl"
    Ledger(path).put("a", "b")
    path.write_bytes(path.read_bytes() + rest)
    ledger = Ledger(path)
    assert (len(ledger), ledger.damaged) == (1, 1)
    ledger.put("c", "d")
    again = Ledger(path)
    assert [again.get("a"), again.get("c"), again.damaged] == ["b", "d", 1]


def test_many_threads_write_whole_lines(tmp_path):
    path = tmp_path / "answers.jsonl"
    ledger = Ledger(path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: ledger.put(key_of(n), "x" * n), range(200)))
    again = Ledger(path)
    assert [again.get(key_of(n)) for n in range(200)] == ["x" * n for n in range(200)]


def test_the_first_answer_stays_the_only_one(tmp_path):
    path = tmp_path / "answers.jsonl"
    ledger = Ledger(path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: ledger.put("same", n), range(50)))
    first = ledger.get("same")
    Ledger(path).put("same", "later")
    assert Ledger(path).get("same") == first
    assert path.read_bytes().count(b"\n") == 1


def test_no_file_until_there_is_an_answer(tmp_path):
    assert len(Ledger(tmp_path / "answers.jsonl")) == 0
    assert not (tmp_path / "answers.jsonl").exists()


def test_keys_do_not_depend_on_the_order_of_fields():
    assert key_of({"a": 1, "b": [2]}) == key_of({"b": [2], "a": 1})
    assert key_of({"a": 1}) != key_of({"a": 2})

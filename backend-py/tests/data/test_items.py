"""From rows to what the model sees, with every row that cannot be used named."""

from __future__ import annotations

import json

import pytest

from qscope.data.items import Item, read_benchmark
from qscope.data.template import Template
from qscope.errors import UserError


def refused(call) -> UserError:
    with pytest.raises(UserError) as caught:
        call()
    return caught.value


def test_templates_look_inside_rows_and_keep_braces():
    row = {"q": "2 {x}?", "a.b": 1, "c": {"d": ["e", {"f": None}]}, "list": ["one", "two"], "n": 0, "none": None}
    assert Template("Q: {q}\n{{A}}: {a.b}").fill(row) == "Q: 2 {x}?\n{A}: 1"
    assert Template("{c.d.0} {n}\n{list}").fill(row) == "e 0\none\ntwo"
    assert Template("{c}").fill(row) == '{"d": ["e", {"f": null}]}'
    for missing in ("{z}", "{none}", "{c.d.9}", "{c.d.1.f}", "{q.x}"):
        with pytest.raises(KeyError):
            Template(missing).fill(row)


@pytest.mark.parametrize("text", ["no column", "{", "}", "{}", "{ }", "{q!r}", "{q:>5}", "{{q}}"])
def test_a_malformed_template_is_refused_with_its_field(text):
    error = refused(lambda: Template(text, at="benchmarks[0].prompt"))
    assert (error.reason, error.field) == ("TEMPLATE_MALFORMED", "benchmarks[0].prompt")


def write(folder, *rows: object) -> str:
    path = folder / "b.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def test_rows_that_cannot_be_used_are_listed_or_refused(tmp_path):
    source = write(tmp_path, {"question": "a", "answer": 1}, "oops", {"question": "  "}, {"question": "b"}, {"q": 1})
    found = read_benchmark("b", source)
    assert found.template == "{question}"
    assert found.items == [Item("b.jsonl:1", "a"), Item("b.jsonl:4", "b", number=3)]
    assert [(fault.place, fault.why) for fault in found.faults] == [
        ("b.jsonl:2", "not JSON"),
        ("b.jsonl:3", "its prompt is empty"),
        ("b.jsonl:5", "no column 'question' with a value (columns there: q)"),
    ]
    error = refused(lambda: read_benchmark("b", source, refuse_faults=True, at="here"))
    assert (error.reason, error.message, error.field) == ("ROW_BAD", "b.jsonl:2: not JSON.", "here.source")


def test_limits_and_templates(tmp_path):
    source = write(tmp_path, *({"x": n, "y": {"z": n + 1}} for n in range(5)))
    found = read_benchmark("b", source, prompt="{x} + {y.z} =", limit=2)
    assert [item.prompt for item in found.items] == ["0 + 1 =", "1 + 2 ="]
    error = refused(lambda: read_benchmark("b", source, at="b[1]"))
    assert (error.reason, error.field) == ("PROMPT_UNKNOWN", "b[1].prompt")
    assert "x, y" in error.remedy


@pytest.mark.parametrize("limit", [0, 1])
@pytest.mark.parametrize("where", ["languag=de", "languag!=de"])
def test_a_condition_on_a_column_that_no_row_has_is_refused(tmp_path, where, limit):
    source = write(tmp_path, {"q": "a", "language": "de"}, {"q": "b", "level": 3})
    error = refused(lambda: read_benchmark("b", source, prompt="{q}", where=where, limit=limit, at="b[0]"))
    assert (error.reason, error.field) == ("TEXT_FIELD_MISSING", "b[0].where")
    assert error.remedy.startswith("Did you mean 'language'? Columns there: q, language")
    # One row that has it is enough.
    assert [item.number for item in read_benchmark("b", source, prompt="{q}", where="level!=3").items] == [0]


def test_a_lone_surrogate_is_no_end_of_the_run(tmp_path):
    found = read_benchmark("b", write(tmp_path, {"q": "x\ud800", "m": {"y": "\udfff"}}), prompt="{q} {m}")
    assert found.items[0].prompt == 'x\ufffd {"y": "\ufffd"}'
    found.items[0].prompt.encode()


def test_a_benchmark_without_items_says_why(tmp_path):
    error = refused(lambda: read_benchmark("b", write(tmp_path, "oops", "{}"), prompt="{q}"))
    assert error.reason == "BENCHMARK_EMPTY"
    assert "The first of 2 rows left out: b.jsonl:1: not JSON." in error.message
    assert refused(lambda: read_benchmark("b", write(tmp_path))).reason == "BENCHMARK_EMPTY"
    assert refused(lambda: read_benchmark("b", str(tmp_path / "none.jsonl"))).reason == "TEXT_NOT_FOUND"

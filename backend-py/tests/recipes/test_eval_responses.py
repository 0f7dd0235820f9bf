"""``qscope eval`` from experiment to artifacts: known verdicts of saved responses, responses of the embedded model."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from qscope.errors import UserError
from qscope.features.intervals import wilson
from qscope.models import load_model, load_tokenizer
from qscope.posttraining.answered import COLUMNS
from qscope.posttraining.answering import batches
from qscope.posttraining.examples import Prompt
from qscope.recipes import eval_responses
from qscope.recipes.plan import plan
from qscope.runs import RunFolder, seed_of, tail, violations
from qscope.runs.context import RunStopped
from qscope.text.loops import repeated_ngrams
from qscope.v1.experiment_pb2 import Experiment
from qscope.v1.model_pb2 import ModelOptions

LOOP = [7, 8, 9, 10] * 16
ALL = ["RESPONSE_MEASURE_REPEAT", "RESPONSE_MEASURE_CODESWITCH", "RESPONSE_MEASURE_ACCURACY"]
#: Hand-made: what each does is said by its name.
RESPONSES: dict[str, dict[str, Any]] = {
    "right": {"response": "The sum is 12.", "ids": [1, 2, 3, 4], "truncated": False, "answer": "12", "language": "en"},
    "endless": {"response": "so on " * 16, "ids": LOOP, "truncated": True, "answer": "3", "language": "en"},
    "ended": {"response": "so on " * 16 + "3", "ids": LOOP, "truncated": False, "answer": "3", "language": "en"},
    "cut off": {"response": "and then 5", "ids": [5, 6, 7], "truncated": True, "answer": "4", "language": "en-GB"},
    "switches": {"response": "The 文件 is 4", "ids": [4, 5], "truncated": False, "answer": "4", "language": "en"},
    "both": {"response": "文件 файл 4。", "ids": [4, 6], "truncated": False, "answer": "4", "language": "zh"},
    "stays": {"response": "文件保存。", "ids": [9], "truncated": False, "answer": "", "language": "zh"},
    "nobody's": {"response": "", "ids": [], "truncated": False, "answer": "1", "language": ""},
}
ROWS = [{"prompt": f"What of {name}?" if row["language"] else "?", **row} for name, row in RESPONSES.items()]
NUMBER = {name: number for number, name in enumerate(RESPONSES)}
PROMPTS = [
    {"question": f"{a} + {b} = ", "answer": str(a + b), "language": "en"}
    for a, b in ((1, 2), (12, 30), (5, 5), (7, 90))
]
SAMPLING = {"temperature": 1, "top_p": 1, "max_tokens": 12}


@pytest.fixture
def experiment(tmp_path) -> Callable[..., Experiment]:
    def make(**changes: Any) -> Experiment:
        fields = {
            "measures": ALL,
            "format": {"thinking": "THINKING_OFF"},
            "sampling": SAMPLING,
            "samples": 1,
            "batch_rows": 4,
            "rule": "last-number",
            **changes,
        }
        whole = {"name": "x", "seed": 3, "model": "embedded", "model_options": {"precision": "PRECISION_FLOAT32"}}
        compute = {"device": "DEVICE_CPU", "threads": 1}
        made = json_format.ParseDict({**whole, "compute": compute, "eval_responses": fields}, Experiment())
        assert violations(made) == []
        return made

    return make


@pytest.fixture
def written(tmp_path) -> Callable[..., str]:
    def write(rows: list[Any], name: str = "out.jsonl") -> str:
        path = tmp_path / name
        path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
        return str(path)

    return write


def lines(folder: RunFolder, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder.artifacts / name).read_text().splitlines()]


def results(folder: RunFolder) -> dict[str, Any]:
    return json.loads((folder.artifacts / "results.json").read_text())


def said(folder: RunFolder) -> str:
    return "\n".join(event.log.text for event in tail(folder.events) if event.HasField("log"))


def share(hits: int, n: int) -> dict[str, Any]:
    found = wilson(hits, n)
    return {"value": found.value, "low": found.low, "high": found.high, "n": n}


def refused(call: Callable[[], object]) -> UserError:
    with pytest.raises(UserError) as caught:
        call()
    error = caught.value
    assert error.message.count("\n") == 0
    assert error.message.endswith((".", "?"))
    assert error.remedy
    return error


# -- saved responses ---------------------------------------------------------------------------------------------------


def test_verdicts_of_hand_made_responses(experiment, written, run) -> None:
    folder = run(experiment(responses={"source": written(ROWS)}))
    found = results(folder)
    grams = [repeated_ngrams(row["ids"], 3) for row in ROWS]
    assert found["repeat"]["over"] == "tokens"
    assert found["repeat"]["endless"] == {**share(1, 8), "count": 1}
    assert found["repeat"]["cut_off"] == share(2, 8)
    assert found["repeat"]["repeated_3grams"]["mean"] == pytest.approx(sum(grams) / 8)
    pairs = {(row["expected"], row["target"]): row for row in found["codeswitch"]["pairs"]}
    assert pairs == {
        ("en", ""): {"expected": "en", "target": "", **share(1, 5), "count": 1},
        ("zh", ""): {"expected": "zh", "target": "", **share(1, 2), "count": 1},
    }
    assert found["codeswitch"]["micro_average"] == [{"expected": "", "target": "", **share(2, 7), "count": 2}]
    assert found["codeswitch"]["without_language"] == 1
    # `endless` has no number in it, `cut off` another one; `stays` has no right answer.
    assert found["accuracy"]["right"] == {**share(4, 7), "count": 4}
    assert found["accuracy"]["without_answer"] == 1
    assert found["responses"] == 8
    assert "To show that 12.50% falls by 70%" in found["repeat"]["power"]


def test_what_was_found_is_listed_with_the_text_around(experiment, written, run) -> None:
    folder = run(experiment(responses={"source": written(ROWS)}))
    by = {(one["measure"], one["row"]): one for one in lines(folder, "findings.jsonl")}
    assert set(by) == {
        ("repeat", NUMBER["endless"]),
        ("codeswitch", NUMBER["switches"]),
        ("codeswitch", NUMBER["both"]),
        ("accuracy", NUMBER["endless"]),
        ("accuracy", NUMBER["cut off"]),
        ("accuracy", NUMBER["nobody's"]),
    }
    loop = by["repeat", NUMBER["endless"]]
    assert (loop["start"], loop["period"], loop["repetitions"], loop["unit"]) == (0, 4, 16, "tokens")
    assert loop["text"] == "so on "
    switch = by["codeswitch", NUMBER["switches"]]
    assert (switch["before"], switch["text"], switch["after"]) == ("The ", "文件", " is 4")
    assert (switch["expected"], switch["script"], switch["start"], switch["end"]) == ("en", "Han", 4, 6)
    assert by["accuracy", NUMBER["cut off"]]["text"] == "and then 5"


def test_targets_are_told_apart_and_averaged(experiment, written, run) -> None:
    detection = {"targets": ["zh", "ru"], "paper": True}
    folder = run(experiment(responses={"source": written(ROWS)}, codeswitch=detection, measures=ALL[1:2]))
    found = results(folder)["codeswitch"]
    assert [(row["expected"], row["target"], row["count"], row["n"]) for row in found["pairs"]] == [
        ("en", "zh", 1, 5),
        ("en", "ru", 0, 5),
        ("zh", "ru", 1, 2),
    ]
    assert [(row["target"], row["count"], row["n"]) for row in found["micro_average"]] == [("zh", 1, 5), ("ru", 1, 7)]
    assert "repeat" not in results(folder)
    assert "en to zh" in said(folder)
    assert "all to ru" in said(folder)


def test_what_the_prompt_says_and_given_words_may_be_left_out(experiment, written, run) -> None:
    rows = [
        {"prompt": "文件?", "response": "The 文件 is saved", "language": "en"},
        {"prompt": "?", "response": "The файл is saved", "language": "en"},
        {"prompt": "?", "response": "The 파일 is saved", "language": "en"},
    ]

    def switched(**detection: Any) -> int:
        task = experiment(responses={"source": written(rows)}, measures=ALL[1:2], codeswitch=detection)
        return results(run(task))["codeswitch"]["micro_average"][0]["count"]

    for paper in (False, True):
        assert switched(paper=paper) == 3
        assert switched(paper=paper, ignore_prompt=True) == 2
        assert switched(paper=paper, ignore_prompt=True, words=["файл"]) == 1


def test_without_tokens_loops_are_of_characters_and_it_says_so(experiment, written, run) -> None:
    rows = [{name: value for name, value in row.items() if name != "ids"} for row in ROWS]
    rows[1]["response"] = "so on " * 20
    folder = run(experiment(responses={"source": written(rows)}, measures=ALL[:1]))
    found = results(folder)["repeat"]
    assert (found["over"], found["endless"]["count"]) == ("characters", 1)
    assert found["repeated_3grams"] == {"mean": None, "sd": None}
    assert "does not compare" in " ".join(said(folder).split())


def test_without_a_word_on_the_end_every_loop_to_the_very_end_counts(experiment, written, run) -> None:
    rows = [{name: value for name, value in row.items() if name != "truncated"} for row in ROWS]
    rows[2]["ids"] = [*LOOP, 3]
    folder = run(experiment(responses={"source": written(rows)}, measures=ALL[:1]))
    found = results(folder)["repeat"]
    assert found["endless"]["count"] == 1
    assert found["cut_off"] == {"value": None, "low": None, "high": None, "n": 0}
    assert not found["cut_off_known"]
    assert "do not say whether they were cut off" in " ".join(said(folder).split())
    # Over characters a loop in the middle is none either.
    texts = [{"response": "la " * 20 + "fine."}, {"response": "la " * 20}]
    folder = run(experiment(responses={"source": written(texts)}, measures=ALL[:1]))
    assert results(folder)["repeat"]["endless"]["count"] == 1


@pytest.mark.parametrize(
    ("column", "cut_off", "ended"),
    [("finish_reason", "length", "stop"), ("stop_reason", "max_tokens", "end_turn"), ("truncated", 1, 0)],
)
def test_how_others_say_that_a_response_was_cut_off(experiment, written, run, column, cut_off, ended) -> None:
    rows = [
        {"completion": "x", "token_ids": LOOP, column: cut_off},
        {"completion": "y", "token_ids": LOOP, column: ended},
    ]
    folder = run(experiment(responses={"source": written(rows)}, measures=ALL[:1]))
    assert results(folder)["repeat"]["endless"]["count"] == 1
    assert results(folder)["repeat"]["cut_off"]["n"] == 2


def test_a_table_and_named_columns_inside_of_columns(experiment, tmp_path, run) -> None:
    path = tmp_path / "out.csv"
    with path.open("w") as file:
        table = csv.writer(file)
        table.writerows([["said", "tokens", "end"], ["a", json.dumps(LOOP), "length"], ["b", "[1, 2]", "stop"]])
    source = {"source": str(path), "response": "said", "ids": "tokens", "truncated": "end"}
    assert results(run(experiment(responses=source, measures=ALL[:1])))["repeat"]["endless"] == {
        **share(1, 2),
        "count": 1,
    }
    rows = [{"resps": [["It is 4"]], "doc": {"gold": 4}}, {"resps": [["It is 5"]], "doc": {"gold": 4}}]
    nested = tmp_path / "samples.jsonl"
    nested.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"source": str(nested), "response": "resps.0.0", "answer": "doc.gold"}
    assert results(run(experiment(responses=source, measures=ALL[2:])))["accuracy"]["right"]["count"] == 1


def test_rows_that_cannot_be_used_are_left_out_and_listed(experiment, written, run) -> None:
    rows = [*ROWS, "oops", {**ROWS[0], "ids": "no"}, {**ROWS[0], "truncated": "perhaps"}, {**ROWS[0], "response": 7}]
    folder = run(experiment(responses={"source": written(rows)}))
    assert (results(folder)["responses"], results(folder)["rows_left_out"]) == (8, 4)
    table = (folder.artifacts / "faults.csv").read_text()
    assert "out.jsonl:9,not JSON" in table
    assert "no list of token ids" in table
    assert "does not say whether it was cut off" in table
    assert "which is no text" in table


def test_rows_wanted_and_how_many(experiment, written, run) -> None:
    source = {"source": written(ROWS), "where": "language=zh"}
    assert results(run(experiment(responses=source, measures=ALL[:1])))["responses"] == 2
    source = {"source": written(ROWS), "limit": 3}
    assert results(run(experiment(responses=source, measures=ALL[:1])))["responses"] == 3


def test_steered_rollouts_are_left_out_unless_they_are_asked_for(experiment, written, run) -> None:
    rows = [ROWS[0], {**ROWS[1], "steered": True}, {**ROWS[0], "steered": False}]
    folder = run(experiment(responses={"source": written(rows)}, measures=ALL[:1]))
    assert (results(folder)["responses"], results(folder)["steered_left_out"]) == (2, 1)
    assert "1 steered rollouts are left out" in said(folder)
    folder = run(experiment(responses={"source": written(rows), "where": "steered=true"}, measures=ALL[:1]))
    assert results(folder)["repeat"]["endless"]["count"] == results(folder)["responses"] == 1


def test_a_language_that_is_not_given_is_that_of_the_prompt(experiment, written, run) -> None:
    rows = [{"prompt": "Άνοιξε το αρχείο και αποθήκευσέ το.", "response": "文件"}]
    folder = run(experiment(responses={"source": written(rows)}, measures=ALL[1:2]))
    found = results(folder)["codeswitch"]
    assert found["languages_by_prompt"] == 1
    (pair,) = found["pairs"]
    assert (pair["count"], pair["n"]) == (1, 1)


def test_answers_that_a_rule_hangs_on_are_counted(experiment, written, run, monkeypatch) -> None:
    from qscope.posttraining import evaluating

    def quick(graders, **options):
        return pool(graders, seconds=2.0, processes=1)

    pool = evaluating.GraderPool
    monkeypatch.setattr(evaluating, "GraderPool", quick)
    rows = [{"response": "#### 4", "answer": "4"}, {"response": "a" * 64 + "!", "answer": "4"}]
    task = experiment(responses={"source": written(rows)}, measures=ALL[2:], rule="pattern", pattern="#### (.+)|(a+)+$")
    folder = run(task)
    found = results(folder)["accuracy"]
    assert found["right"] == {**share(1, 1), "count": 1}
    assert found["ungraded"] == {"timeout": 1}
    assert "1 could not be graded and are not counted: timeout 1" in said(folder)


BAD = [
    ({"measures": ALL[1:2], "responses": {"source": [{"response": "a"}]}}, "LANGUAGE_MISSING", "responses.language"),
    (
        {"measures": ALL[1:2], "responses": {"source": [{"response": "a", "lang": "xx"}]}},
        "LANGUAGE_UNKNOWN",
        "responses.language",
    ),
    (
        {"measures": ALL[1:2], "responses": {"source": ROWS}, "codeswitch": {"targets": ["zh", "klingon"]}},
        "LANGUAGE_UNKNOWN",
        "codeswitch.targets[1]",
    ),
    (
        {
            "measures": ALL[1:2],
            "responses": {"source": [{"response": "a", "lang": "ja"}]},
            "codeswitch": {"targets": ["zh"], "paper": True},
        },
        "SCRIPT_SHARED",
        "codeswitch.paper",
    ),
    (
        {
            "measures": ALL[1:2],
            "responses": {"source": [{"response": "a", "lang": "zh"}]},
            "codeswitch": {"targets": ["zh"]},
        },
        "LANGUAGE_IS_TARGET",
        "codeswitch.targets",
    ),
    ({"measures": ALL[2:], "responses": {"source": [{"response": "a"}]}}, "ANSWER_MISSING", "responses.answer"),
    ({"measures": ALL[2:], "responses": {"source": ROWS}, "rule": "boxed"}, "RULE_UNKNOWN", "rule"),
    (
        {"measures": ALL[2:], "responses": {"source": ROWS}, "rule": "pattern", "pattern": "("},
        "PATTERN_MALFORMED",
        "pattern",
    ),
    ({"responses": {"source": [{"body": "a"}]}}, "RESPONSE_UNKNOWN", "responses.response"),
    (
        {"responses": {"source": [{"response": "a"}], "truncated": "cut"}},
        "TEXT_FIELD_MISSING",
        "responses.truncated",
    ),
    (
        {"responses": {"source": [{"response": "a", "truncated": True}, {"response": "b", "truncated": None}]}},
        "TRUNCATED_MISSING",
        "responses.truncated",
    ),
    (
        {"responses": {"source": [{"response": "a", "ids": [1]}, {"response": "b"}]}},
        "TOKENS_MISSING",
        "responses.ids",
    ),
    ({"responses": {"source": ["oops"]}}, "DATA_EMPTY", "responses.source"),
    ({"responses": {"source": ROWS, "where": "nothing=1"}}, "TEXT_FIELD_MISSING", "responses.where"),
    ({"responses": {"source": ROWS, "where": "language=fr"}}, "DATA_EMPTY", "responses.source"),
]


@pytest.mark.parametrize(("changes", "reason", "field"), BAD)
def test_what_cannot_be_measured_is_one_sentence_with_a_remedy(
    experiment, written, run, tmp_path, changes, reason, field
) -> None:
    source = dict(changes["responses"])
    source["source"] = written(source["source"])
    task = experiment(**{"measures": ALL[:1], **changes, "responses": source})
    # The plan knows it already.
    for call in (lambda: plan(task, str(tmp_path / "runs"), timed=False), lambda: run(task)):
        error = refused(call)
        assert (error.reason, error.field) == (reason, f"eval_responses.{field}")


def test_math_without_its_package_names_the_extra(experiment, written, run, monkeypatch) -> None:
    from qscope.posttraining import accuracy

    monkeypatch.setattr(accuracy, "find_spec", lambda name: None)
    error = refused(lambda: run(experiment(responses={"source": written(ROWS)}, measures=ALL[2:], rule="math")))
    assert (error.reason, error.field) == ("PACKAGE_MISSING", "eval_responses.rule")
    assert "qscope[math]" in error.remedy


@pytest.mark.parametrize("name", ["gone.jsonl", "not-a-run", "./folder/gone.csv"])
def test_a_source_that_is_not_there(experiment, run, name) -> None:
    error = refused(lambda: run(experiment(responses={"source": name})))
    assert error.reason in ("TEXT_NOT_FOUND", "RUN_NOT_FOUND")


def test_no_model_is_loaded_for_saved_responses(experiment, written, run, monkeypatch) -> None:
    monkeypatch.setattr(eval_responses, "load_model", lambda *given: pytest.fail("loaded a model"))
    task = experiment(responses={"source": written(ROWS)})
    task.model = "somebody/else"
    folder = run(task)
    assert results(folder)["responses"] == 8
    facts = {fact.name: fact.value for fact in plan(task, str(folder.path.parent), timed=False).facts}
    assert facts["model"] == "somebody/else (not loaded)"
    assert facts["columns"].startswith("response: response, ids: ids")


# -- the embedded model ------------------------------------------------------------------------------------------------


@pytest.fixture
def asking(experiment, written) -> Callable[..., Experiment]:
    def make(**changes: Any) -> Experiment:
        prompts = {"source": written(PROMPTS, "prompts.jsonl"), "prompt": "{question}"}
        return experiment(**{"prompts": prompts, "samples": 3, "batch_rows": 5, **changes})

    return make


def test_responses_are_what_the_model_writes_by_itself(asking, run) -> None:
    """Row by row without a cache or a batch: the plainest way to the same tokens."""
    from qscope.models.generation import Generation

    task = asking()
    folder = run(task)
    loaded = load_model("embedded", ModelOptions())
    rows = lines(folder, "responses.jsonl")
    assert sorted((row["row"], row["sample"]) for row in rows) == [
        (row, sample) for row in range(4) for sample in range(3)
    ]
    for row in rows:
        asked = PROMPTS[row["row"]]
        assert (row["prompt"], row["answer"], row["language"]) == (asked["question"], asked["answer"], "en")
        ids = loaded.tokenizer(asked["question"], add_special_tokens=False)["input_ids"]
        noise = seed_of(3, f"response {row['row']} {row['sample']}")
        alone = Generation(loaded, [ids], task.eval_responses.sampling, [noise], use_cache=False)
        tokens = []
        while not alone.done:
            tokens += [drawn.token for drawn in alone.step().drawn]
        ended = tokens[-1] == loaded.tokenizer.eos_token_id
        assert row["ids"] == (tokens[:-1] if ended else tokens)
        assert row["truncated"] is not ended
        assert row["response"] == loaded.tokenizer.decode(row["ids"])
    assert set(COLUMNS) <= set(rows[0])
    # Batches go by length; what was found goes by row.
    wrong = [(one["row"], one["sample"]) for one in lines(folder, "findings.jsonl") if one["measure"] == "accuracy"]
    assert wrong == sorted(wrong)
    assert len({row for row, _ in wrong}) > 1
    assert [row["row"] for row in rows] != sorted(row["row"] for row in rows)


def test_batches_are_of_like_length_whoever_asks() -> None:
    lengths = [5, 1, 9, 5, 2, 7]
    prompts = [Prompt(tuple(range(length)), "", "", "", row) for row, length in enumerate(lengths)]
    made = batches(prompts, 2, 4)
    assert [[(one.prompt.row, one.sample) for one in batch] for batch in made] == [
        [(1, 0), (1, 1), (4, 0), (4, 1)],
        [(0, 0), (0, 1), (3, 0), (3, 1)],
        [(5, 0), (5, 1), (2, 0), (2, 1)],
    ]


def test_what_a_run_wrote_is_measured_alike_when_it_is_read_again(asking, experiment, run) -> None:
    first = run(asking())
    for source in (first.run_id, str(first.path), str(first.artifacts / "responses.jsonl"), "latest"):
        again = run(experiment(responses={"source": source}))
        for measure in ("repeat", "codeswitch", "accuracy"):
            assert results(again)[measure] == results(first)[measure]
    assert results(first)["repeat"]["endless"]["n"] == 12
    assert not math.isnan(results(first)["repeat"]["repeated_3grams"]["mean"])


def test_a_stopped_run_goes_on_to_the_same_bytes(asking, run) -> None:
    whole = run(asking())
    for steps in (0, 1, 4, 13, 30):
        asked = iter([*[False] * steps, *[True] * 9])
        folder = RunFolder.create(whole.path.parent, asking(), f"stopped-{steps}")
        with pytest.raises(RunStopped):
            run(asking(), folder, lambda asked=asked: next(asked))
        # Half a batch is what a kill may leave behind.
        with (folder.artifacts / "responses.jsonl").open("a") as file:
            file.write('{"row": 0, "sample": 0}\n{"ro')
        run(asking(), folder)
        for name in ("responses.jsonl", "results.json", "findings.jsonl"):
            assert (folder.artifacts / name).read_bytes() == (whole.artifacts / name).read_bytes()


def test_a_run_does_not_go_on_with_other_prompts(asking, run, written) -> None:
    asked = iter([*[False] * 20, *[True] * 9])
    folder = RunFolder.create(Path(written([])).parent / "runs", asking(), "stopped")
    with pytest.raises(RunStopped):
        run(asking(), folder, lambda: next(asked))
    task = asking()
    written([*PROMPTS, PROMPTS[0]], "prompts.jsonl")
    error = refused(lambda: run(task, folder))
    assert (error.reason, error.field) == ("EVAL_CHANGED", "eval_responses.prompts")


def test_a_stop_text_is_no_part_of_a_response(asking, run) -> None:
    tokenizer = load_tokenizer("embedded", ModelOptions())
    plain = lines(run(asking()), "responses.jsonl")
    stop = plain[0]["response"][4:7]
    folder = run(asking(sampling={**SAMPLING, "stop": [stop]}))
    by = {(row["row"], row["sample"]): row for row in lines(folder, "responses.jsonl")}
    for row in plain:
        before, found, _ = row["response"].partition(stop)
        mine = by[row["row"], row["sample"]]
        assert mine["response"] == before
        assert mine["ids"] == row["ids"][: len(mine["ids"])]
        if found:
            assert not mine["truncated"]
            # Not one token more than the response takes.
            shorter = tokenizer.decode(mine["ids"][:-1], skip_special_tokens=False)
            assert not before or not shorter.startswith(before)
            assert len(mine["ids"]) < len(row["ids"])
        else:
            assert mine == row


def test_prompts_that_leave_no_room_are_left_out_and_said(asking, written, run) -> None:
    written([*PROMPTS, {"question": "word " * 600, "answer": "1", "language": "en"}], "prompts.jsonl")
    task = asking()
    task.eval_responses.prompts.source = written(
        [*PROMPTS, {"question": "word " * 600, "answer": "1", "language": "en"}], "more.jsonl"
    )
    folder = run(task)
    assert results(folder)["rows_left_out"] == 1
    assert "1 prompts left out" in said(folder)
    error = refused(lambda: run(asking(sampling={**SAMPLING, "max_tokens": 512})))
    assert (error.reason, error.field) == ("CONTEXT_EXCEEDED", "eval_responses.sampling.max_tokens")


def test_the_plan_counts_what_would_be_written(asking, tmp_path) -> None:
    planned = plan(asking(), str(tmp_path), timed=False)
    facts = {fact.name: fact.value for fact in planned.facts}
    assert facts["responses"] == "12 (3 to each), 5 side by side"
    assert facts["tokens"] == "up to 144 generated"
    assert planned.fits
    assert planned.samples[0].right_answer == "3"
    assert planned.warnings == [
        "No response of 12 tokens can be endless: a loop takes 64. Raise eval_responses.sampling.max_tokens."
    ]
    assert plan(asking(), str(tmp_path)).seconds > 0

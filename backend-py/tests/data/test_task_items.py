"""Tasks of lm-evaluation-harness as benchmarks, beside what the harness itself builds and writes."""

from __future__ import annotations

import json
import random
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from qscope.data.benchmarks import read_benchmarks
from qscope.data.task_items import read_task
from qscope.errors import UserError
from qscope.evaluation.scores import read_panel
from qscope.v1.redundancy_pb2 import BenchmarkSource, BenchRedundancy

ROWS = [{"question": f"{a} + {b} =", "answer": str(a + b), "wrong": str(a + b + 1)} for a in range(3) for b in range(4)]
METRIC = "metric_list: [{metric: %s, aggregation: mean, higher_is_better: true}]\n"


def refused(call) -> UserError:
    with pytest.raises(UserError) as caught:
        call()
    return caught.value


def test_without_the_package_one_sentence_says_so(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    error = refused(lambda: read_task("", "gsm8k", at="b[0]"))
    assert (error.reason, error.field) == ("PACKAGE_MISSING", "b[0].task")
    assert "pip install 'qscope[capability]'" in error.remedy


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Tasks of our own in the harness' YAML: to write, to choose, to choose the beginning, to score a whole text."""
    pytest.importorskip("lm_eval", reason="lm-eval is not installed: the harness itself was not tried")
    import lm_eval.tasks

    # The index of the harness' own thousands of tasks takes seconds; one test below has it.
    own_alone = partial(lm_eval.tasks.TaskManager, include_defaults=False)
    monkeypatch.setattr(lm_eval.tasks, "TaskManager", own_alone)
    for name, rows in (("test", ROWS), ("train", ROWS[::-1])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = f"""dataset_path: json
dataset_kwargs: {{data_files: {{train: {tmp_path}/train.jsonl, test: {tmp_path}/test.jsonl}}}}
"""
    head = f"""{data}test_split: test
fewshot_split: train
doc_to_text: "{{{{question}}}}"
"""
    tasks = {
        "write": f"""task: qs_write
description: "Sums.\\n\\n"
output_type: generate_until
{head}doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 4}}
{METRIC % "exact_match"}""",
        "choice": f"""task: qs_choice
tag: qs_tag
output_type: multiple_choice
{head}doc_to_choice: "{{{{[answer, wrong]}}}}"
doc_to_target: 0
{METRIC % "acc_mutual_info"}""",
        "begin": f"""task: qs_begin
tag: qs_tag
output_type: multiple_choice
{data}validation_split: test
doc_to_text: 0
doc_to_choice: "{{{{['It is '+answer, 'It is '+wrong]}}}}"
doc_to_target: "of course"
{METRIC % "acc"}""",
        "whole": f"""task: qs_whole
output_type: loglikelihood_rolling
{data}test_split: test
doc_to_text: ""
doc_to_target: "{{{{question}}}} {{{{answer}}}}"
metric_list: [{{metric: word_perplexity}}]
""",
        "group": "group: qs_group\ntask: [qs_write, qs_choice]\n",
    }
    for name, text in tasks.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path


def test_prompts_are_those_of_the_harness(folder) -> None:
    (found,) = read_task("sums", "qs_write", folder=str(folder), at="b")
    assert (found.name, found.task) == ("sums", "qs_write")
    assert found.items[0].prompt == "Sums.\n\n0 + 0 ="
    assert [item.number for item in found.items] == list(range(12))
    assert found.items[5].place == "qs_write test: item 5"
    assert found.template.endswith(", task qs_write, split test, 0 shots")


def test_of_choices_only_what_they_follow_is_shown(folder) -> None:
    (choice,) = read_task("", "qs_choice", folder=str(folder), at="b")
    assert [item.prompt for item in choice.items] == [row["question"] for row in ROWS]
    (begin,) = read_task("", "qs_begin", folder=str(folder), limit=3, at="b")
    # 0 or 1, 1 or 2, 2 or 3: the answer itself must not be seen, nor the space that belongs to it.
    assert [item.prompt for item in begin.items] == ["It is"] * 3
    assert begin.items[0].place == "qs_begin test: item 0"
    (whole,) = read_task("", "qs_whole", folder=str(folder), at="b")
    assert whole.items[4].prompt == "1 + 0 = 1"


@pytest.mark.parametrize(("task", "shots"), [("qs_write", 0), ("qs_write", 3), ("qs_choice", 2)])
def test_the_harness_evaluates_on_these_very_prompts(folder, tmp_path, task, shots) -> None:
    """The harness runs with its own dummy model; its samples name the prompts, and are scores of a panel."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    (found,) = read_task("b", task, shots=shots, folder=str(folder), limit=7, at="b")
    results = lm_eval.simple_evaluate(
        model="dummy", tasks=[task], num_fewshot=shots, limit=7, bootstrap_iters=0,
        task_manager=TaskManager(include_path=str(folder)), log_samples=True,
    )  # fmt: skip
    samples = results["samples"][task]
    assert {one["doc_id"]: one["arguments"][0][0] for one in samples} == {
        item.number: item.prompt for item in found.items
    }
    assert shots == 0 or found.items[0].prompt.count("=") == shots + 1
    for model in ("m1", "m2"):
        path = tmp_path / "out" / model / f"samples_{task}_2026-11-22T05-30-44.1.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text("".join(json.dumps(one, default=str) + "\n" for one in samples))
    panel = read_panel(str(tmp_path / "out"), [found], at="panel")
    metric = samples[0]["metrics"][0]
    np.testing.assert_array_equal(panel.scores["b"][0], [one[metric] for one in samples])


def test_the_process_s_random_numbers_are_left_alone(folder) -> None:
    random.seed(7)
    np.random.seed(7)
    expected = random.random(), np.random.random()
    random.seed(7)
    np.random.seed(7)
    read_task("", "qs_write", shots=2, folder=str(folder), at="b")
    assert (random.random(), np.random.random()) == expected


def test_groups_and_tags_are_as_many_benchmarks(folder) -> None:
    def read(*sources):
        return [one.name for one in read_benchmarks(BenchRedundancy(benchmarks=sources), "bench")]

    group = BenchmarkSource(name="mine", task="qs_group", folder=str(folder), limit=2)
    assert read(group) == ["qs_write", "qs_choice"], "a name is for a single task"
    assert read(BenchmarkSource(task="qs_tag", folder=str(folder))) == ["qs_begin", "qs_choice"]
    single = BenchmarkSource(name="qs_choice", task="qs_whole", folder=str(folder))
    assert read(single) == ["qs_choice"]
    error = refused(lambda: read(single, group))
    assert (error.reason, error.field) == ("NAME_TWICE", "bench.benchmarks[1].task")


def test_an_unknown_task_is_told_with_the_nearest_names(folder) -> None:
    error = refused(lambda: read_task("", "qs_chioce", folder=str(folder), at="b[2]"))
    assert (error.reason, error.field) == ("TASK_UNKNOWN", "b[2].task")
    assert error.remedy.startswith("Did you mean qs_choice")
    error = refused(lambda: read_task("", "qs_write", folder=str(folder / "none"), at="b[2]"))
    assert (error.reason, error.field) == ("FOLDER_MISSING", "b[2].folder")


@pytest.mark.slow
def test_the_harness_own_tasks_are_known_by_name() -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed: the harness itself was not tried")
    error = refused(lambda: read_task("", "gsm8kk", at="b[0]"))
    assert error.remedy.startswith("Did you mean gsm8k")


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ("dataset_kwargs: {data_files: {test: /nowhere/at/all.jsonl}}\n", "TASK_UNREADABLE", "FileNotFoundError"),
        ('doc_to_text: "{{nobody.knows}}"\n', "TASK_UNREADABLE", "nobody"),
        ("doc_to_text: !function odd.text\n", "BENCHMARK_EMPTY", "item 0: the task cannot pose it (no words for it)"),
        ("process_docs: !function odd.docs\n", "TASK_UNREADABLE", "not these"),
        ('doc_to_text: " "\ndescription: ""\n', "BENCHMARK_EMPTY", "item 0: its prompt is empty"),
        ('doc_to_image: "{{question}}"\n', "TASK_UNSUPPORTED", "images or sound"),
        ("test_split: tset\n", "TASK_UNREADABLE", "tset"),
    ],
)
def test_what_is_wrong_with_a_task_is_one_sentence(folder, changes, reason, words) -> None:
    (folder / "odd.yaml").write_text(f"include: write.yaml\ntask: qs_odd\n{changes}")
    # The harness poses one item while it reads a task: these functions fail only afterwards.
    (folder / "odd.py").write_text(
        "from itertools import count\n\ncalls = count()\n\n\ndef text(doc):\n    if next(calls) == 0:\n"
        "        return 'a'\n    raise ValueError('no words\\nfor it')\n\n\ndef docs(rows):\n"
        "    if next(calls) == 0:\n        return rows\n    raise KeyError('not these')\n"
    )
    error = refused(lambda: read_task("", "qs_odd", folder=str(folder), at="b[0]"))
    assert (error.reason, error.field) == (reason, "b[0].task")
    assert words in error.message
    assert "\n" not in str(error)


def test_items_that_cannot_be_posed_are_left_out_or_refused(folder) -> None:
    text = "{{question if answer != '2' else unknown.field}}"
    (folder / "odd.yaml").write_text(f'include: write.yaml\ntask: qs_odd\ndescription: ""\ndoc_to_text: "{text}"\n')
    (found,) = read_task("", "qs_odd", folder=str(folder), at="b[0]")
    assert [fault.place for fault in found.faults] == [f"qs_odd test: item {n}" for n in (2, 5, 8)]
    assert [item.number for item in found.items] == [0, 1, 3, 4, 6, 7, 9, 10, 11]
    error = refused(lambda: read_task("", "qs_odd", folder=str(folder), refuse_faults=True, at="b[0]"))
    assert (error.reason, error.field) == ("ROW_BAD", "b[0].task")
    assert error.message.startswith("qs_odd test: item 2: the task cannot pose it")

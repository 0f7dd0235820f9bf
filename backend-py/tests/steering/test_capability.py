"""What a steered model answers to a harness, against plain passes of the model; and the harness itself where it is."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from qscope.errors import Stopped, UserError
from qscope.models import LoadedModel, load_model, logits_of
from qscope.models.generation import Generation
from qscope.recipes.steer_report import steering_report, task_lines
from qscope.runs import violations
from qscope.steering import capability
from qscope.steering.capability import (
    SteeredAnswers,
    TaskScore,
    find_tasks,
    generation_settings,
    limit_of,
    measure_task,
    noise_of,
    refuse_without_room,
    scores_of,
)
from qscope.steering.resolve import ResolvedSpec, resolve
from qscope.steering.scales import Scales
from qscope.v1.generation_pb2 import Sampling
from qscope.v1.model_pb2 import ModelOptions
from qscope.v1.steer_pb2 import CapabilityTasks
from tests.steering.conftest import SAES, generate, make_edit, make_spec, resolved

PAIRS = [([5, 9, 11], [40, 41]), ([7], [90, 12, 55, 63]), ([200, 9, 77, 41, 40, 12, 13], [5]), ([30, 31], [8, 8, 8])]
EMPTY = resolved()


def added(phase: str = "all", strength: float = 4.0):
    return resolved(make_edit([1], [3], strength=strength, phase=phase))


@pytest.fixture(scope="module")
def embedded() -> LoadedModel:
    return load_model("embedded", ModelOptions())


def pushed(loaded: LoadedModel, strength: float) -> ResolvedSpec:
    """The embedded model with a direction added in the middle; vectors need no SAE."""
    direction = torch.randn(loaded.facts.d_model, generator=torch.Generator().manual_seed(0)).tolist()
    spec = make_spec(make_edit([3], [], strength=strength, vector=direction))
    return resolve(spec, n_layers=loaded.facts.n_layers, d_model=loaded.facts.d_model, saes=SAES, scales=Scales())


def plain(loaded, context: list[int], continuation: list[int]) -> tuple[float, bool]:
    """One sequence by itself, token after token."""
    logprobs_TV = logits_of(loaded, torch.tensor([context + continuation]))[0].double().log_softmax(-1)
    start = len(context) - 1
    picked = [float(logprobs_TV[start + index, token]) for index, token in enumerate(continuation)]
    greedy = [int(logprobs_TV[start + index].argmax()) for index in range(len(continuation))]
    return sum(picked), greedy == continuation


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_likelihoods_without_a_change_are_those_of_plain_passes(kind, rows) -> None:
    found = SteeredAnswers(kind, EMPTY, SAES, rows).likelihoods(PAIRS)
    for (context, continuation), (score, greedy) in zip(PAIRS, found, strict=True):
        expected, is_greedy = plain(kind, context, continuation)
        assert score == pytest.approx(expected, abs=1e-4)
        assert greedy == is_greedy


def test_what_greedy_decoding_writes_is_said_to_be_greedy_under_steering_too(kind) -> None:
    """The generation loop, cached and left-padded, and the one pass here agree on tokens and log-probabilities."""
    spec = added(phase="generated")
    contexts = [context for context, _ in PAIRS]
    tokens, logprobs, _ = generate(kind, contexts, [spec] * len(contexts))
    answers = SteeredAnswers(kind, spec, SAES, 8)
    found = answers.likelihoods(list(zip(contexts, tokens, strict=True)))
    for (score, greedy), each in zip(found, logprobs, strict=True):
        assert greedy
        assert score == pytest.approx(sum(each), abs=1e-3)
    assert answers.changed > 0
    unsteered = SteeredAnswers(kind, EMPTY, SAES, 8).likelihoods(list(zip(contexts, tokens, strict=True)))
    assert [score for score, _ in unsteered] != pytest.approx([score for score, _ in found], abs=1e-3)


def test_long_requests_are_cut_at_the_left_and_counted(tiny_model, monkeypatch) -> None:
    loaded = tiny_model("qwen3")
    monkeypatch.setattr(capability, "context_length", lambda _: 6)
    answers = SteeredAnswers(loaded, EMPTY, SAES, 4)
    long = list(range(10, 30))
    assert answers.likelihoods([(long[:5], [5, 6])])[0][0] == pytest.approx(
        plain(loaded, long[:5], [5, 6])[0], abs=1e-4
    )
    assert answers.cut == 0, "seven tokens, of which six are read"
    assert answers.likelihoods([(long, [5, 6])])[0][0] == pytest.approx(plain(loaded, long[-5:], [5, 6])[0], abs=1e-4)
    # A continuation longer than the window keeps one token of context.
    assert answers.likelihoods([([4], long)])[0][0] == pytest.approx(plain(loaded, long[-7:-6], long[-6:])[0], abs=1e-4)
    assert answers.cut == 2
    sampling = Sampling(temperature=0, top_p=1, max_tokens=2, ignore_end=True)
    cut, whole = answers.continuations([long, long[-4:]], sampling, [], [0, 0])
    assert cut == whole
    assert answers.cut == 3
    with pytest.raises(UserError) as caught:
        answers.continuations([long], Sampling(temperature=0, top_p=1, max_tokens=6), [], [0])
    assert caught.value.reason == "CONTEXT_EXCEEDED"


def test_a_model_that_does_not_say_how_much_it_reads_reads_the_usual(tiny_model, monkeypatch) -> None:
    loaded = tiny_model("qwen3")
    assert limit_of(loaded) == 512
    monkeypatch.setattr(loaded.model.config.get_text_config(), "max_position_embeddings", 0)
    assert limit_of(loaded) == capability._LONGEST
    assert SteeredAnswers(loaded, EMPTY, SAES, 4).likelihoods(PAIRS)[0][0] < 0


class Steps:
    """Counts the steps of every generation."""

    def __init__(self, monkeypatch) -> None:
        self.count, step = 0, Generation.step

        def counted(generation):
            self.count += 1
            return step(generation)

        monkeypatch.setattr(Generation, "step", counted)

    def of(self, work) -> int:
        self.count = 0
        work()
        return self.count


def test_answers_end_before_their_stop_text_and_nothing_is_written_after_it(embedded, monkeypatch) -> None:
    steps = Steps(monkeypatch)
    answers = SteeredAnswers(embedded, EMPTY, SAES, 4)
    ids = [embedded.tokenizer(text)["input_ids"] for text in ("The file", "Die Datei wird", "Le fichier")]
    sampling = Sampling(temperature=0, top_p=1, max_tokens=16)
    whole = answers.continuations(ids, sampling, [], [0] * 3)
    stop = whole[1].split()[1]
    cut = answers.continuations(ids, sampling, ["\n\n", stop], [0] * 3)
    assert cut == [text.split(stop)[0].split("\n\n")[0] for text in whole]
    assert steps.of(lambda: answers.continuations(ids[1:2], sampling, [stop], [0])) < 16
    # An empty stop text stands in every answer and means nothing.
    assert answers.continuations(ids, sampling, [""], [0] * 3) == whole


def test_special_tokens_are_no_text_but_may_end_an_answer(tiny_model, monkeypatch) -> None:
    loaded = tiny_model("qwen3")
    special, letter = loaded.tokenizer.convert_tokens_to_ids("<|im_start|>"), loaded.tokenizer("a")["input_ids"][0]
    script = [letter, special, letter, letter]
    turn = iter(script * 2)

    def draw(self, logits_BV):
        return [next(turn)] * len(logits_BV), [0.0] * len(logits_BV)

    monkeypatch.setattr(Generation, "_draw", draw)
    answers = SteeredAnswers(loaded, EMPTY, SAES, 4)
    sampling = Sampling(temperature=0, top_p=1, max_tokens=4)
    assert answers.continuations([[5, 6]], sampling, [], [0]) == ["aaa"]
    assert answers.continuations([[5, 6]], sampling, ["<|im_start|>"], [0]) == ["a"]


def test_random_numbers_belong_to_a_request(embedded) -> None:
    """Sixteen samples of one question are sixteen, whatever their batches; another seed draws others."""
    ids = embedded.tokenizer("The file")["input_ids"]
    sampling = Sampling(temperature=1, top_p=1, max_tokens=12, ignore_end=True)

    def texts(seed: int, rows: int) -> list[str]:
        answers = SteeredAnswers(embedded, EMPTY, SAES, rows)
        return answers.continuations([ids] * 16, sampling, [], [noise_of(seed, index) for index in range(16)])

    found = texts(1, 4)
    assert len(set(found)) == 16
    assert texts(1, 16) == found
    assert not set(texts(2, 4)) & set(found)
    assert 0 <= noise_of(-5, 0) < 1 << 63


def test_long_questions_share_a_batch_only_as_far_as_they_fit(tiny_model, monkeypatch) -> None:
    widths: list[int] = []
    batch = SteeredAnswers._batch
    monkeypatch.setattr(SteeredAnswers, "_batch", lambda self, rows: widths.append(len(rows)) or batch(self, rows))
    monkeypatch.setattr(capability, "TOKENS_AT_ONCE", 24)
    answers = SteeredAnswers(tiny_model("qwen3"), EMPTY, SAES, 8)
    sampling = Sampling(temperature=0, top_p=1, max_tokens=2)
    assert len(answers.continuations([[5] * 10] * 5, sampling, [], [0] * 5)) == 5
    assert widths == [2, 2, 1]


def test_settings_are_those_of_the_harness() -> None:
    found = generation_settings({"until": ["\n", ""], "max_gen_toks": 7, "temperature": 0.7, "top_p": 0.5})
    assert (found.until, found.temperature, found.top_p, found.top_k, found.max_tokens) == (("\n",), 0.0, 1.0, 0, 7)
    drawn = {"until": "x", "do_sample": True, "temperature": 0.7, "top_p": 0.5, "top_k": 40, "max_new_tokens": 9}
    found = generation_settings({**drawn, "num_beams": 1, "min_p": None})
    assert (found.until, found.temperature, found.top_p, found.top_k, found.max_tokens) == (("x",), 0.7, 0.5, 40, 9)
    assert found.sampling == Sampling(temperature=0.7, top_p=0.5, top_k=40, max_tokens=9)
    assert generation_settings({}).max_tokens == 256
    for odd in ({"num_beams": 4}, {"repetition_penalty": 1.1}):
        with pytest.raises(UserError) as caught:
            generation_settings(odd, at="here")
        assert (caught.value.reason, caught.value.field) == ("TASK_UNSUPPORTED", "here")


def test_scores_are_read_from_tasks_and_groups() -> None:
    results = {
        "results": {
            "sums": {
                "alias": "sums", "name": "sums", "sample_len": 12, "acc,none": 0.25, "acc_stderr,none": 0.1,
                "exact_match,strict": 1, "exact_match_stderr,strict": "N/A", "odd,none": math.nan,
                "odd_stderr,none": math.nan, "flag,none": True,
            },
            "all": {"alias": "all", "sample_len": 30, "acc,none": 0.5, "acc_stderr,none": 0.05},
        },
        "n-samples": {"sums": {"original": 20, "effective": 12}},
    }  # fmt: skip
    assert scores_of(results, changed_positions=8, cut_requests=1) == [
        TaskScore("sums", "acc", 0.25, 0.1, 12, 8, 1),
        TaskScore("sums", "exact_match (strict)", 1.0, None, 12, 8, 1),
        TaskScore("sums", "odd", None, None, 12, 8, 1),
        TaskScore("all", "acc", 0.5, 0.05, 30, 8, 1),
    ]


def test_what_is_special_in_a_context_is_known_to_the_spec(tiny_model) -> None:
    loaded = tiny_model("qwen3")
    special = loaded.tokenizer.convert_tokens_to_ids("<|im_start|>")
    everywhere = added(phase="prompt")
    spared = resolved(
        make_edit([1], [3], strength=4.0, phase="prompt", where={"except": {"classes": ["TOKEN_CLASS_SPECIAL"]}})
    )
    pairs = [([special, 9, special, 11], [40])]
    changed = []
    for spec in (everywhere, spared):
        answers = SteeredAnswers(loaded, spec, SAES, 4)
        answers.likelihoods(pairs)
        changed.append(answers.changed)
    assert changed == [3, 2], "the first token is left alone by itself"


def test_a_change_that_never_happens_is_counted_and_stopping_stops(tiny_model) -> None:
    loaded = tiny_model("qwen3")
    nowhere = resolved(make_edit([1], [3], phase="prompt", where={"only": {"positions": [50]}}))
    answers = SteeredAnswers(loaded, nowhere, SAES, 8)
    answers.likelihoods(PAIRS)
    assert answers.changed == 0
    with pytest.raises(Stopped):
        SteeredAnswers(loaded, EMPTY, SAES, 8, should_stop=lambda: True).likelihoods(PAIRS)


def test_says_how_many_requests_are_answered(tiny_model) -> None:
    told: list[tuple[int, int]] = []
    answers = SteeredAnswers(tiny_model("qwen3"), EMPTY, SAES, 3, on_progress=lambda *counts: told.append(counts))
    answers.likelihoods(PAIRS)
    answers.continuations([[5], [6]], Sampling(temperature=0, top_p=1, max_tokens=2), [], [0, 1])
    assert told == [(3, 4), (4, 4), (6, 6)]


def test_without_the_package_one_sentence_says_so(monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lm_eval", None)
    with pytest.raises(UserError) as caught:
        find_tasks(CapabilityTasks(tasks=["hellaswag"]), seed=0)
    assert (caught.value.reason, caught.value.field) == ("PACKAGE_MISSING", "steer.capability")
    assert "pip install 'qscope[capability]'" in caught.value.remedy


def test_scores_are_shown_by_arm() -> None:
    score = {"task": "sums", "metric": "acc", "value": 0.5, "stderr": 0.05, "n": 100, "changed_positions": 0}
    base = {
        "factor": 1.0, "n": 1, "same_as_unsteered": 1.0, "languages": {"en": 1.0},
        **{name: {"mean": 0.0, "sd": None} for name in ("repeated_3grams", "looping", "compression")},
    }  # fmt: skip
    row = {
        "factor": 1.0,
        "prompt": 0,
        "sample": 0,
        "prompt_text": "a",
        "text": "b",
        "language": "en",
        "ended": "length",
    }
    arms = [
        base | {"arm": "unsteered", "factor": 0.0, "tasks": [score]},
        base | {"arm": "steered", "tasks": [score | {"value": 0.25, "stderr": None}]},
        base | {"arm": "random", "tasks": [score | {"value": None, "stderr": None}]},
    ]
    report = steering_report("x", arms, [row | {"arm": "unsteered", "factor": 0.0}, row | {"arm": "steered"}])
    assert violations(report) == []
    assert "Tasks" in [section.heading for section in report.sections]
    lines = task_lines(arms)
    assert len(lines) == 4
    assert max(map(len, lines)) <= 80
    assert "0.500   0.050    100" in lines[1]
    assert task_lines([base]) == []


@pytest.fixture
def tasks(tmp_path):
    """Two tasks of our own, in the harness' YAML: sums to complete, and sums to answer by choice."""
    pytest.importorskip("lm_eval", reason="lm-eval is not installed: the harness itself was not tried")
    rows = [
        {"question": f"{a} + {b} =", "answer": str(a + b), "wrong": str(a + b + 1)} for a in range(4) for b in range(5)
    ]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    head = f"""dataset_path: json
dataset_kwargs: {{data_files: {{test: {tmp_path}/sums.jsonl}}}}
test_split: test
doc_to_text: "{{{{question}}}}"
"""
    (tmp_path / "choice.yaml").write_text(
        f'task: qs_choice\noutput_type: multiple_choice\n{head}doc_to_choice: "{{{{[answer, wrong]}}}}"\n'
        "doc_to_target: 0\nmetric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    (tmp_path / "write.yaml").write_text(
        f'task: qs_write\noutput_type: generate_until\n{head}doc_to_target: "{{{{answer}}}}"\n'
        "generation_kwargs: {until: [' ', \"\\n\"], max_gen_toks: 4}\n"
        "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n"
    )
    return CapabilityTasks(tasks=["qs_choice", "qs_write"], folder=str(tmp_path), limit=12)


def measured(embedded, spec, tasks, **options) -> dict[tuple[str, str], TaskScore]:
    found = options.pop("found", None) or find_tasks(tasks, seed=3)
    return {
        (score.task, score.metric): score
        for name in tasks.tasks
        for score in measure_task(embedded, spec, SAES, name, found, tasks, batch_rows=8, seed=3, **options)
    }


def test_the_harness_scores_the_steered_model(embedded, tasks) -> None:
    tasks_found = find_tasks(tasks, seed=3)
    found = {}
    for name, spec in (("unsteered", EMPTY), ("steered", pushed(embedded, 10.0))):
        found[name] = measured(embedded, spec, tasks, found=tasks_found)
        assert {score.n for score in found[name].values()} == {12}
        assert {score.changed_positions > 0 for score in found[name].values()} == {name == "steered"}
    assert measured(embedded, EMPTY, tasks, found=tasks_found) == found["unsteered"], "the same tasks, once more"
    choice = found["unsteered"]["qs_choice", "acc"]
    # By hand: which answer is likelier after the question.
    answers = SteeredAnswers(embedded, EMPTY, SAES, 8)
    right = 0
    for index in range(12):
        a, b = divmod(index, 5)
        context = embedded.tokenizer(f"{a} + {b} =")["input_ids"]
        pairs = []
        for value in (a + b, a + b + 1):
            whole = embedded.tokenizer(f"{a} + {b} = {value}")["input_ids"]
            pairs.append((context, whole[len(context) :]))
        good, bad = (score for score, _ in answers.likelihoods(pairs))
        right += good > bad
    assert 0 < right < 12, "a task that all or none pass shows nothing"
    assert choice.value == pytest.approx(right / 12)
    assert choice.stderr == pytest.approx((right / 12 * (1 - right / 12) / 11) ** 0.5)
    assert found["steered"] != found["unsteered"]


def test_a_spec_may_leave_a_benchmark_alone(embedded, tasks) -> None:
    nowhere = make_edit(
        [3], [], vector=[1.0] * embedded.facts.d_model, phase="prompt", where={"only": {"positions": [99]}}
    )
    spec = resolve(
        make_spec(nowhere), n_layers=embedded.facts.n_layers, d_model=embedded.facts.d_model, saes=SAES, scales=Scales()
    )
    assert measured(embedded, spec, tasks) == measured(embedded, EMPTY, tasks)


def test_shots_are_the_same_in_every_arm_and_groups_say_how_many_examples(embedded, tasks) -> None:
    (Path(tasks.folder) / "group.yaml").write_text(
        "group: qs_group\ntask: [qs_choice]\naggregate_metric_list: [{metric: acc, aggregation: mean}]\n"
    )
    tasks.tasks[:] = ["qs_group"]
    tasks.shots = 2
    found = find_tasks(tasks, seed=3)
    first, again = (measured(embedded, EMPTY, tasks, found=found) for _ in range(2))
    assert first == again
    assert first["qs_group", "acc"].n == 12
    assert first["qs_group", "acc"].value == first["qs_choice", "acc"].value


def test_an_unknown_task_is_named(tasks) -> None:
    tasks.tasks.append("no_such_task")
    with pytest.raises(UserError) as caught:
        find_tasks(tasks, seed=0)
    assert (caught.value.reason, caught.value.field) == ("TASK_UNKNOWN", "steer.capability.tasks[2]")


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ("unsafe_code: true\n", "TASK_UNSUPPORTED", "runs code"),
        ("generation_kwargs: {num_beams: 3}\n", "TASK_UNSUPPORTED", "num_beams: 3"),
        ("dataset_kwargs: {data_files: {test: /nowhere/at/all.jsonl}}\n", "TASK_UNREADABLE", "FileNotFoundError"),
        ('doc_to_text: "{{nobody.knows}}"\n', "TASK_UNREADABLE", "nobody"),
    ],
)
def test_what_is_wrong_with_a_task_is_known_before_anything_is_generated(tasks, changes, reason, words) -> None:
    (Path(tasks.folder) / "odd.yaml").write_text(f"include: write.yaml\ntask: qs_odd\n{changes}")
    tasks.tasks.append("qs_odd")
    with pytest.raises(UserError) as caught:
        find_tasks(tasks, seed=0)
    assert (caught.value.reason, caught.value.field) == (reason, "steer.capability.tasks[2]")
    assert words in caught.value.message


def test_an_answer_longer_than_the_context_and_a_missing_folder_are_refused(embedded, tasks) -> None:
    found = find_tasks(tasks, seed=0)
    refuse_without_room(embedded, found)
    (Path(tasks.folder) / "long.yaml").write_text(
        "include: write.yaml\ntask: qs_long\ngeneration_kwargs: {until: [x], max_gen_toks: 1000000}\n"
    )
    tasks.tasks.append("qs_long")
    with pytest.raises(UserError) as caught:
        refuse_without_room(embedded, find_tasks(tasks, seed=0))
    assert (caught.value.reason, caught.value.field) == ("CONTEXT_EXCEEDED", "steer.capability.tasks[2]")
    tasks.folder = "/nowhere/at/all"
    with pytest.raises(UserError) as caught:
        find_tasks(tasks, seed=0)
    assert (caught.value.reason, caught.value.field) == ("FOLDER_MISSING", "steer.capability.folder")

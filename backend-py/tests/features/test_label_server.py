"""Labels from a chat server: a real one over HTTP, in which a script stands for the language model."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from qscope.errors import Stopped, UserError
from qscope.features.label_server import (
    LabelServer,
    judge_question,
    label_of,
    marked,
    verdicts,
    writer_question,
)
from qscope.runs.ledger import Ledger
from qscope.v1.explain_pb2 import LabelEndpoint
from qscope.v1.features_pb2 import FeatureContext


@pytest.fixture
def serve(http_server) -> Callable[..., LabelEndpoint]:
    """``serve(answer)``: an endpoint that replies ``answer(request, headers)``: (status, headers, body)."""

    def start(answer: Callable[[dict, dict], tuple[int, dict, object]], **settings) -> LabelEndpoint:
        defaults = {"model": "m", "max_tokens": 32, "concurrency": 3, "timeout_seconds": 5}
        return LabelEndpoint(url=f"{http_server(answer)}/v1", **{**defaults, **settings})

    return start


def said(text: str | None) -> tuple[int, dict, object]:
    return 200, {}, {"choices": [{"message": {"role": "assistant", "content": text}}]}


def test_asks_as_openai_does_and_keeps_the_order(serve, monkeypatch) -> None:
    monkeypatch.setenv("SOME_KEY", "s3cret")
    requests = []

    def answer(request, headers):
        requests.append((request, headers))
        return said(f"<think>hm\nhm</think>\n {request['messages'][1]['content']} ")

    done = []
    with LabelServer(serve(answer, api_key_variable="SOME_KEY", temperature=0.5)) as server:
        answers = server.ask_all([("be", str(number)) for number in range(9)], on_answer=done.append)
    assert answers == [str(number) for number in range(9)]
    assert done == list(range(1, 10))
    request, headers = requests[0]
    assert headers["authorization"] == "Bearer s3cret"
    assert request["path"] == "/v1/chat/completions"
    assert (request["model"], request["temperature"], request["max_tokens"]) == ("m", 0.5, 32)
    assert [message["role"] for message in request["messages"]] == ["system", "user"]


def test_waits_for_a_busy_server_as_long_as_it_says(serve) -> None:
    replies = iter([(429, {"retry-after": "7"}, {}), (503, {}, b"later"), said("yes")])
    waits: list[float] = []
    with LabelServer(serve(lambda *_: next(replies)), sleep=waits.append) as server:
        assert server.ask("a", "b") == "yes"
    assert 3.5 <= waits[0] <= 10.5
    assert 0 < waits[1] <= 1.5


@pytest.mark.parametrize(
    ("reply", "reason", "words"),
    [
        ((401, {}, b"no"), "LABEL_SERVER_REFUSED", "refuses the key"),
        ((404, {}, {"error": "no such model"}), "LABEL_SERVER_FAULT", "no such model"),
        ((500, {}, b"broken"), "LABEL_SERVER_FAULT", "answers 500: broken"),
        ((200, {}, b"<html>"), "LABEL_SERVER_FAULT", "something other"),
        ((200, {}, {"choices": []}), "LABEL_SERVER_FAULT", "something other"),
        ((200, {}, [1]), "LABEL_SERVER_FAULT", "something other"),
    ],
)
def test_says_what_a_server_answers_instead(serve, reply, reason, words) -> None:
    with (
        LabelServer(serve(lambda *_: reply), at="here", sleep=lambda _: None) as server,
        pytest.raises(UserError) as caught,
    ):
        server.ask_all([("a", "b")] * 4)
    assert (caught.value.reason, caught.value.field) == (reason, "here")
    assert words in str(caught.value)


def test_a_server_that_is_not_there_and_a_key_that_is_not_set(monkeypatch) -> None:
    nowhere = LabelEndpoint(url="http://127.0.0.1:9/v1", model="m", timeout_seconds=1, concurrency=1)
    with LabelServer(nowhere, sleep=lambda _: None) as server, pytest.raises(UserError) as caught:
        server.ask("a", "b")
    assert caught.value.reason == "LABEL_SERVER_UNREACHABLE"
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(UserError) as caught:
        LabelServer(LabelEndpoint(url="http://x/v1", model="m", api_key_variable="NO_SUCH_KEY"))
    assert caught.value.reason == "LABEL_KEY_MISSING"
    assert "NO_SUCH_KEY" in str(caught.value)


def test_stops_between_questions(serve) -> None:
    with LabelServer(serve(lambda *_: said("x")), should_stop=lambda: True) as server, pytest.raises(Stopped):
        server.ask_all([("a", "b")] * 9)


def test_what_was_answered_is_not_asked_again(serve, tmp_path) -> None:
    asked: list[str] = []

    def answer(request, _):
        asked.append(request["messages"][1]["content"])
        return (400, {}, b"out of money") if broke and asked[-1] == "c" else said(f"re {asked[-1]}")

    endpoint = serve(answer, concurrency=1)
    questions = [("be", "a"), ("be", "b"), ("be", "c")]
    broke = True
    with LabelServer(endpoint, ledger=Ledger(tmp_path / "l")) as server, pytest.raises(UserError):
        server.ask_all(questions)
    asked.clear()
    broke = False
    with LabelServer(endpoint, ledger=Ledger(tmp_path / "l")) as server:
        assert server.ask_all(questions) == ["re a", "re b", "re c"]
    assert asked == ["c"]
    # Another model is another question.
    endpoint.model = "n"
    with LabelServer(endpoint, ledger=Ledger(tmp_path / "l")) as server:
        server.ask_all(questions[:1])
    assert asked == ["c", "a"]


def test_another_server_is_another_question(serve, tmp_path) -> None:
    ledger = Ledger(tmp_path / "l")
    for text in ("one", "two"):
        with LabelServer(serve(lambda *_, text=text: said(text)), ledger=ledger) as server:
            assert server.ask("a", "b") == text


def test_an_answer_without_text_is_no_fault_and_asked_for_again(serve, tmp_path) -> None:
    replies = iter([said(None), said("<think>hm"), said("yes")])
    endpoint = serve(lambda *_: next(replies))
    for expected in ("", "", "yes", "yes"):
        with LabelServer(endpoint, ledger=Ledger(tmp_path / "l")) as server:
            assert server.ask("a", "b") == expected


def test_questions_hold_the_contexts_marked_and_on_one_line() -> None:
    context = FeatureContext(
        tokens=["Das", " Haus", " des", "", " M", "annes\n", "x"], activations=[0, 0, 2, 0, 1, 3, 0]
    )
    assert marked(context) == "Das Haus<< des Mannes >>x"
    system, user = writer_question([context, context], ["der", "die"])
    assert system.startswith("You name features")
    assert user.splitlines()[1].startswith("2. Das Haus<<")
    assert user.splitlines()[-1] == "The feature makes these tokens more likely: der, die"
    assert judge_question("German", ["a\nb", "c"])[1].splitlines() == ["Feature: German", "", "1. a b", "2. c"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("[1, 0, 1]", [True, False, True]),
        ("Sure:\n```json\n[0,0,1]\n```", [False, False, True]),
        ("[1] is wrong, I mean [1, 1, 0].", [True, True, False]),
        ("[true, False, '1']", [True, False, True]),
        ("[1, 0]", [None] * 3),
        ("[1, 2, 0]", [None] * 3),
        ("1, 0, 1", [None] * 3),
        ("[]", [None] * 3),
        ("", [None] * 3),
        ("[1, [0, 1]]", [None] * 3),
    ],
)
def test_reads_the_verdicts_or_says_there_are_none(answer, expected) -> None:
    assert verdicts(answer, 3) == expected


def test_labels_are_one_line() -> None:
    assert label_of('\n "German articles." \n\nBecause ...') == "German articles"
    assert label_of("**Months**") == "Months"
    assert label_of("  ") == ""
    assert len(label_of("x" * 1000)) == 300

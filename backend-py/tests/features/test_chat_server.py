"""A chat server: a real one over HTTP, in which a script stands for the language model."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from qscope.errors import Stopped, UserError
from qscope.features import chat_server
from qscope.features.chat_server import Answer, ChatServer, Question
from qscope.runs.ledger import Ledger
from qscope.v1.chat_pb2 import ChatEndpoint


@pytest.fixture
def serve(http_server) -> Callable[..., ChatEndpoint]:
    """``serve(answer)``: an endpoint that replies ``answer(request, headers)``: (status, headers, body)."""

    def start(answer: Callable[[dict, dict], tuple[int, dict, object]], **settings) -> ChatEndpoint:
        defaults = {"model": "m", "max_tokens": 32, "concurrency": 3, "timeout_seconds": 5}
        return ChatEndpoint(url=f"{http_server(answer)}/v1", **{**defaults, **settings})

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
    with ChatServer(serve(answer, api_key_variable="SOME_KEY", temperature=0.5)) as server:
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
    with ChatServer(serve(lambda *_: next(replies)), sleep=waits.append) as server:
        assert server.ask("a", "b") == "yes"
    assert 3.5 <= waits[0] <= 10.5
    assert 0 < waits[1] <= 1.5


@pytest.mark.parametrize(
    ("reply", "reason", "words"),
    [
        ((401, {}, b"no"), "CHAT_SERVER_REFUSED", "refuses the key"),
        ((404, {}, {"error": "no such model"}), "CHAT_SERVER_FAULT", "no such model"),
        ((500, {}, b"broken"), "CHAT_SERVER_FAULT", "answers 500: broken"),
        ((200, {}, b"<html>"), "CHAT_SERVER_FAULT", "something other"),
        ((200, {}, {"choices": []}), "CHAT_SERVER_FAULT", "something other"),
        ((200, {}, [1]), "CHAT_SERVER_FAULT", "something other"),
        ((200, {}, {"choices": [{"message": {"content": 7}}]}), "CHAT_SERVER_FAULT", "something other"),
        ((200, {"content-encoding": "gzip"}, b"no gzip"), "CHAT_SERVER_FAULT", "something other"),
    ],
)
def test_says_what_a_server_answers_instead(serve, reply, reason, words) -> None:
    with (
        ChatServer(serve(lambda *_: reply), at="here", sleep=lambda _: None) as server,
        pytest.raises(UserError) as caught,
    ):
        server.ask_all([("a", "b")] * 4)
    assert (caught.value.reason, caught.value.field) == (reason, "here")
    assert words in str(caught.value)


def test_a_server_that_is_not_there_and_a_key_that_is_not_set(monkeypatch) -> None:
    nowhere = ChatEndpoint(url="http://127.0.0.1:9/v1", model="m", timeout_seconds=1, concurrency=1)
    with ChatServer(nowhere, sleep=lambda _: None) as server, pytest.raises(UserError) as caught:
        server.ask("a", "b")
    assert caught.value.reason == "CHAT_SERVER_UNREACHABLE"
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(UserError) as caught:
        ChatServer(ChatEndpoint(url="http://x/v1", model="m", api_key_variable="NO_SUCH_KEY"))
    assert caught.value.reason == "CHAT_KEY_MISSING"
    assert "NO_SUCH_KEY" in str(caught.value)


def test_stops_between_questions(serve) -> None:
    with ChatServer(serve(lambda *_: said("x")), should_stop=lambda: True) as server, pytest.raises(Stopped):
        server.ask_all([("a", "b")] * 9)


def test_what_was_answered_is_not_asked_again(serve, tmp_path) -> None:
    asked: list[str] = []

    def answer(request, _):
        asked.append(request["messages"][1]["content"])
        return (400, {}, b"out of money") if broke and asked[-1] == "c" else said(f"re {asked[-1]}")

    endpoint = serve(answer, concurrency=1)
    questions = [("be", "a"), ("be", "b"), ("be", "c")]
    broke = True
    with ChatServer(endpoint, ledger=Ledger(tmp_path / "l")) as server, pytest.raises(UserError):
        server.ask_all(questions)
    asked.clear()
    broke = False
    with ChatServer(endpoint, ledger=Ledger(tmp_path / "l")) as server:
        assert server.ask_all(questions) == ["re a", "re b", "re c"]
    assert asked == ["c"]
    # Another model is another question.
    endpoint.model = "n"
    with ChatServer(endpoint, ledger=Ledger(tmp_path / "l")) as server:
        server.ask_all(questions[:1])
    assert asked == ["c", "a"]


def test_another_server_is_another_question(serve, tmp_path) -> None:
    ledger = Ledger(tmp_path / "l")
    for text in ("one", "two"):
        with ChatServer(serve(lambda *_, text=text: said(text)), ledger=ledger) as server:
            assert server.ask("a", "b") == text


def test_an_answer_without_text_is_no_fault_and_asked_for_again(serve, tmp_path) -> None:
    replies = iter([said(None), said("<think>hm"), said("yes")])
    endpoint = serve(lambda *_: next(replies))
    for expected in ("", "", "yes", "yes"):
        with ChatServer(endpoint, ledger=Ledger(tmp_path / "l")) as server:
            assert server.ask("a", "b") == expected


CUT = (200, {"content-length": "4000"}, b'{"choices": [{"message": ')


def test_a_cut_connection_and_garbage_are_asked_again_and_counted(serve) -> None:
    garbage = [(200, {}, b"<html>"), (200, {"content-encoding": "gzip"}, b"no gzip")]
    replies = iter([CUT, *garbage, (500, {}, b"oh"), said("yes")])
    with ChatServer(serve(lambda *_: next(replies), concurrency=1), sleep=lambda _: None) as server:
        assert server.ask("a", "b") == "yes"
    assert server.usage.requests == 5
    assert server.usage.faults == {"connection lost": 1, "garbage": 2, "status 500": 1}


def test_an_answer_cut_at_its_tokens_says_so_also_when_it_is_recalled(serve, tmp_path) -> None:
    def answer(request, _):
        reason = "length" if request["messages"][1]["content"] == "long" else "stop"
        return 200, {}, {"choices": [{"message": {"content": "x"}, "finish_reason": reason}]}

    endpoint, questions = serve(answer), [Question("s", "long"), Question("s", "short")]
    for _ in range(2):
        with ChatServer(endpoint, ledger=Ledger(tmp_path / "l")) as server:
            assert [one.cut for one in server.answer_all(questions)] == [True, False]
    assert server.usage.requests == 0


def test_one_question_that_comes_to_nothing_holds_up_no_other(serve, tmp_path) -> None:
    def answer(request, _):
        text = request["messages"][1]["content"]
        return {"bad": (400, {}, b"content policy"), "cut": CUT}.get(text, said(f"re {text}"))

    ledger = Ledger(tmp_path / "l")
    with ChatServer(serve(answer), ledger=ledger, sleep=lambda _: None) as server:
        found = server.answer_all([Question("s", text) for text in ("a", "bad", "b", "cut", "c")])
    assert [one.text for one in found] == ["re a", "", "re b", "", "re c"]
    assert "content policy" in found[1].fault
    assert "cannot be reached" in found[3].fault
    assert len(ledger) == 3


def test_a_server_that_fails_every_question_ends_it(serve) -> None:
    with (
        ChatServer(serve(lambda *_: (500, {}, b"broken"), concurrency=1), sleep=lambda _: None) as server,
        pytest.raises(UserError) as caught,
    ):
        server.answer_all([Question("s", str(n)) for n in range(50)])
    assert caught.value.reason == "CHAT_SERVER_FAULT"
    assert server.usage.requests == 8 * 5


def test_faults_that_are_not_in_a_row_end_nothing(serve) -> None:
    def answer(request, _):
        return (400, {}, b"content policy") if int(request["messages"][1]["content"]) % 2 else said("x")

    with ChatServer(serve(answer, concurrency=1)) as server:
        found = server.answer_all([Question("s", str(number)) for number in range(24)])
    assert [bool(one.fault) for one in found] == [False, True] * 12


def test_tokens_and_their_price_are_counted_over_attempts(serve, tmp_path) -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 10}
    body = {"choices": [{"message": {"content": "x"}}], "usage": usage}
    endpoint = serve(lambda *_: (200, {}, body), input_price=2, output_price=30)
    questions = [Question("s", "same", number) for number in range(3)]
    with ChatServer(endpoint, ledger=Ledger(tmp_path / "l")) as server:
        server.answer_all(questions[:2])
    with ChatServer(endpoint, ledger=Ledger(tmp_path / "l")) as server:
        assert server.answer_all(questions)[0] == Answer("x", 100, 10)
    # Questions of the same words and other numbers are questions of their own; what was paid is still counted.
    assert (server.usage.answers, server.usage.recalled, server.usage.requests) == (3, 2, 1)
    assert (server.usage.input_tokens, server.usage.output_tokens) == (300, 30)
    assert server.usage.cost(endpoint) == pytest.approx((300 * 2 + 30 * 30) / 1e6)


@pytest.mark.parametrize("usage", [None, [], {"prompt_tokens": "7"}, {"prompt_tokens": -3}, {"prompt_tokens": True}])
def test_a_server_that_counts_nothing_sensible(serve, usage) -> None:
    body = {"choices": [{"message": {"content": "x"}}], "usage": usage}
    with ChatServer(serve(lambda *_: (200, {}, body))) as server:
        assert server.answer_all([Question("s", "u")]) == [Answer("x", 0, 0)]


def test_answers_of_before_tokens_were_counted_are_still_known(serve, tmp_path) -> None:
    asked = []
    endpoint = serve(lambda *_: asked.append(1) or said("new"))
    with ChatServer(endpoint, ledger=Ledger(tmp_path / "l")) as server:
        server.ask("s", "u")
    path = tmp_path / "l"
    path.write_text(path.read_text().replace('["new", 0, 0]', '"old"'))
    with ChatServer(endpoint, ledger=Ledger(path)) as server:
        assert server.ask("s", "u") == "old"
    assert len(asked) == 1


# -- keys ------------------------------------------------------------------------------------------------------------


def keyed(endpoint: ChatEndpoint, monkeypatch, key: str) -> ChatServer:
    monkeypatch.setenv("SOME_KEY", key)
    endpoint.api_key_variable = "SOME_KEY"
    return ChatServer(endpoint, sleep=lambda _: None)


def test_the_line_break_that_a_file_ends_in_is_no_part_of_a_key(serve, monkeypatch) -> None:
    sent = []
    endpoint = serve(lambda _, headers: sent.append(headers["authorization"]) or said("x"))
    with keyed(endpoint, monkeypatch, "s3cret\r\n") as server:
        server.ask("a", "b")
    assert sent == ["Bearer s3cret"]


@pytest.mark.parametrize("key", ["s3c\nret", "s3c ret", "s3crét"])
def test_what_no_header_may_hold_is_refused_and_not_shown(serve, monkeypatch, key) -> None:
    with pytest.raises(UserError) as caught:
        keyed(serve(lambda *_: said("x")), monkeypatch, key)
    assert (caught.value.reason, caught.value.field) == ("CHAT_KEY_MALFORMED", "endpoint.api_key_variable")
    assert "s3c" not in f"{caught.value} {caught.value.remedy}"


@pytest.mark.parametrize("status", [200, 400, 500])
@pytest.mark.parametrize("before", [0, 150, 155])
def test_a_server_that_quotes_the_key_does_not_spread_it(serve, monkeypatch, tmp_path, status, before) -> None:
    """Also where what is shown of its words would end within the key."""
    endpoint = serve(lambda *_: (status, {}, b"x" * before + b" no such key: s3cret-s3cret"))
    with keyed(endpoint, monkeypatch, "s3cret-s3cret") as server:
        (answer,) = server.answer_all([Question("a", "b")])
    assert answer.fault
    assert "s3c" not in answer.fault


# -- answers that are no good ----------------------------------------------------------------------------------------


def test_an_answer_that_does_not_end_is_waited_for_as_long_as_the_whole_may_take(serve) -> None:
    def dripping(*_):
        def pieces():
            for _ in range(40):
                yield b" "
                time.sleep(0.02)
            yield json.dumps(said("too late")[2]).encode()

        return 200, {}, pieces()

    endpoint = serve(dripping, timeout_seconds=0.1, concurrency=1)
    with ChatServer(endpoint, sleep=lambda _: None) as server, pytest.raises(UserError) as caught:
        server.ask("a", "b")
    assert caught.value.reason == "CHAT_SERVER_UNREACHABLE"
    assert server.usage.faults == {"connection lost": 5}


def test_an_answer_larger_than_any_is_given_up_before_it_fills_the_memory(serve, monkeypatch) -> None:
    monkeypatch.setattr(chat_server, "_LARGEST", 1 << 20)
    sent: list[int] = []

    def huge(*_):
        def pieces():
            for number in range(50):
                sent.append(number)
                yield b" " * (1 << 20)
            yield json.dumps(said("x")[2]).encode()

        return 200, {}, pieces()

    with ChatServer(serve(huge), sleep=lambda _: None) as server, pytest.raises(UserError) as caught:
        server.ask("a", "b")
    assert "more than 1 MiB" in str(caught.value)
    assert server.usage.faults == {"garbage": 5}
    assert max(sent) < 49


def test_half_a_character_stands_there_as_what_it_is(serve, tmp_path) -> None:
    """An emoji cut through: neither tokenizers nor requests take it as it is."""
    body = b'{"choices": [{"message": {"content": "a \\ud83d b \\ud83d\\ude00"}}]}'
    with ChatServer(serve(lambda *_: (200, {}, body)), ledger=Ledger(tmp_path / "l")) as server:
        text = server.ask("a", "b")
        assert text == "a \ufffd b \U0001f600"
        server.ask("a", text)


def test_what_answers_without_text_took_is_counted_over_attempts(serve, tmp_path) -> None:
    """Thinking to the last token costs as much as an answer."""
    body = {"choices": [{"message": {"content": "<think>hm"}}], "usage": {"prompt_tokens": 3, "completion_tokens": 9}}
    endpoint = serve(lambda *_: (200, {}, body))
    for attempt in (1, 2, 3):
        with ChatServer(endpoint, ledger=Ledger(tmp_path / "l")) as server:
            assert [one.text for one in server.answer_all([Question("s", "a"), Question("s", "b")])] == ["", ""]
        assert (server.usage.answers, server.usage.output_tokens) == (2 * attempt, 18 * attempt)

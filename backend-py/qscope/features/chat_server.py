"""A language model behind OpenAI's chat completions: asked several things at a time, patient with a server in trouble.

Every answer stands in a ledger before it is used, so that a run that goes on asks nothing twice and pays nothing twice.
"""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from qscope.errors import Stopped, UserError
from qscope.runs.ledger import Ledger, key_of
from qscope.v1.chat_pb2 import ChatEndpoint

_TRIES, _LONGEST_WAIT = 5, 30.0
#: What a server says of itself when it may answer later.
_BUSY = {408, 409, 425, 429, 500, 502, 503, 504}
#: What a server says of one question: another one may do.
_OF_THE_QUESTION = {400, 413, 422, 451}
#: Questions in a row that come to nothing, after which the server is taken to be at fault.
_IN_A_ROW = 8
_THINKING = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)


class QuestionFault(UserError):
    """A fault that may be this question's alone."""


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        system, user: the two messages.
        number: tells questions of the same words apart, so that each gets an answer of its own.
    """

    system: str
    user: str
    number: int = 0


@dataclass(frozen=True)
class Answer:
    """What was answered.

    Attributes:
        text: without what the model thought aloud.
        input_tokens, output_tokens: as the server counts them; 0 where it does not say.
        cut: whether it ends where the tokens did, in the middle of a sentence perhaps.
        fault: why there is no answer; empty where there is one.
    """

    text: str
    input_tokens: int = 0
    output_tokens: int = 0
    cut: bool = False
    fault: str = ""

    def as_json(self) -> list[Any]:
        """As ledgers hold it."""
        return [self.text, self.input_tokens, self.output_tokens, *([True] if self.cut else [])]

    @classmethod
    def of_json(cls, known: Any) -> Answer:
        """What :meth:`as_json` wrote; a bare text is what ledgers held before tokens were counted."""
        if isinstance(known, str):
            return cls(known)
        return cls(str(known[0]), _count(known[1]), _count(known[2]), known[3:] == [True])


@dataclass
class Usage:
    """What was asked so far and what it took, earlier attempts of the same run included.

    Attributes:
        answers: questions with an answer.
        recalled: those of them that an earlier attempt asked.
        input_tokens, output_tokens: of all answers.
        requests: requests of this attempt, repeated ones too.
        faults: what went wrong by kind, of this attempt.
    """

    answers: int = 0
    recalled: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    requests: int = 0
    faults: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of_ledger(cls, ledger: Ledger | None) -> Usage:
        """What earlier attempts took: whatever was built on their answers, it was paid for."""
        answers = [Answer.of_json(value) for value in ledger.values()] if ledger is not None else []
        return cls(
            answers=len(answers),
            recalled=len(answers),
            input_tokens=sum(answer.input_tokens for answer in answers),
            output_tokens=sum(answer.output_tokens for answer in answers),
        )

    def count(self, answer: Answer) -> None:
        """Counts an answer that is new."""
        self.answers += 1
        self.input_tokens += answer.input_tokens
        self.output_tokens += answer.output_tokens

    def cost(self, endpoint: ChatEndpoint) -> float:
        """Price of all answers, in the currency of the endpoint's prices; 0 where it names none."""
        return (self.input_tokens * endpoint.input_price + self.output_tokens * endpoint.output_price) / 1e6


class ChatServer:
    """Asks questions of a chat server, several at a time.

    Args:
        endpoint: the server.
        at: experiment field of the endpoint, for errors.
        ledger: where answers are kept; what stands there is not asked again. Empty answers are not kept.
        should_stop: asked before every try; an answer under way, and a wait between tries, are not cut short.
        sleep: waits so many seconds.

    Attributes:
        usage: what was asked so far.

    Raises:
        UserError: the named variable holds no key (CHAT_KEY_MISSING).
    """

    def __init__(
        self,
        endpoint: ChatEndpoint,
        *,
        at: str = "endpoint",
        ledger: Ledger | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        import httpx

        self._ledger = ledger
        self._endpoint, self._at, self._should_stop, self._sleep = endpoint, at, should_stop, sleep
        key = os.environ.get(endpoint.api_key_variable, "") if endpoint.api_key_variable else ""
        if endpoint.api_key_variable and not key:
            raise UserError(
                f"The variable {endpoint.api_key_variable} holds no key.",
                remedy=f"Set {endpoint.api_key_variable}, then run `qscope worker stop`: the worker keeps the "
                "environment it was started in. A server without keys needs none: leave api_key_variable out.",
                reason="CHAT_KEY_MISSING",
                field=f"{at}.api_key_variable",
            )
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(headers=headers, timeout=endpoint.timeout_seconds)
        self._url = endpoint.url.rstrip("/") + "/chat/completions"
        self.usage = Usage.of_ledger(ledger)
        self._lock, self._in_a_row = threading.Lock(), 0
        self._given_up: QuestionFault | None = None

    def __enter__(self) -> ChatServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def ask_all(
        self, questions: Sequence[tuple[str, str]], on_answer: Callable[[int], None] = lambda done: None
    ) -> list[str]:
        """The answers to (system, user) pairs, in their order.

        Raises:
            UserError: the server cannot be reached, refuses, or answers nothing that is understood.
            Stopped: when asked to stop.
        """
        asked = [Question(system, user) for system, user in questions]
        return [answer.text for answer in self._all(asked, self._ask, on_answer)]

    def answer_all(
        self, questions: Sequence[Question], on_answer: Callable[[int], None] = lambda done: None
    ) -> list[Answer]:
        """The answers in the order of the questions; one that comes to nothing says why and holds up no other.

        Raises:
            UserError: the server cannot be reached, refuses, or has failed several questions in a row.
            Stopped: when asked to stop.
        """
        return self._all(questions, self._ask_or_fault, on_answer)

    def ask(self, system: str, user: str) -> str:
        """One answer, without what the model thought aloud."""
        return self._ask(Question(system, user)).text

    def _all(
        self, questions: Sequence[Question], ask: Callable[[Question], Answer], on_answer: Callable[[int], None]
    ) -> list[Answer]:
        answers: list[Answer] = []
        pool = ThreadPoolExecutor(max_workers=max(1, self._endpoint.concurrency))
        try:
            for answer in pool.map(ask, questions):
                answers.append(answer)
                on_answer(len(answers))
        finally:
            # What is not yet asked is not asked any more once one question has failed.
            pool.shutdown(wait=True, cancel_futures=True)
        return answers

    def _ask_or_fault(self, question: Question) -> Answer:
        # Others may begin before whoever waits for the answers hears of the fault.
        if self._given_up is not None:
            raise self._given_up
        try:
            answer = self._ask(question)
        except QuestionFault as fault:
            with self._lock:
                self._in_a_row += 1
                if self._in_a_row >= _IN_A_ROW:
                    self._given_up = fault
                    raise
            return Answer("", fault=str(fault))
        with self._lock:
            self._in_a_row = 0
        return answer

    def _ask(self, question: Question) -> Answer:
        body = {
            "model": self._endpoint.model,
            "messages": [
                {"role": "system", "content": question.system},
                {"role": "user", "content": question.user},
            ],
            "temperature": self._endpoint.temperature,
            "max_tokens": self._endpoint.max_tokens,
        }
        # By its address too: another server may answer to the same name of a model.
        asked = {"url": self._url, "body": body}
        key = key_of({**asked, "number": question.number} if question.number else asked)
        if self._ledger is not None and (known := self._ledger.get(key)) is not None:
            return Answer.of_json(known)
        for attempt in range(_TRIES):
            if self._should_stop():
                raise Stopped
            answer, wait = self._try(body, attempt == _TRIES - 1)
            if answer is not None:
                # An answer without text is none to keep: a run that goes on asks once more.
                if self._ledger is not None and answer.text:
                    self._ledger.put(key, answer.as_json())
                    # Of two threads with the same question the first one's answer stays, for both.
                    answer = Answer.of_json(self._ledger.get(key))
                with self._lock:
                    self.usage.count(answer)
                return answer
            self._sleep(wait if wait is not None else min(_LONGEST_WAIT, 0.5 * 2**attempt) * (0.5 + random.random()))
        raise AssertionError("the last try answers or raises")

    def _count_fault(self, kind: str) -> None:
        with self._lock:
            self.usage.faults[kind] += 1

    def _try(self, body: dict[str, Any], last: bool) -> tuple[Answer | None, float | None]:
        """The answer, or None and how long the server wants us to wait."""
        import httpx

        with self._lock:
            self.usage.requests += 1
        try:
            response = self._client.post(self._url, json=body)
        except httpx.DecodingError as error:
            # Compressed, and not so: garbage like any other.
            self._count_fault("garbage")
            if not last:
                return None, None
            raise self._garbage(_brief(error)) from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            self._count_fault("unreachable" if isinstance(error, httpx.ConnectError) else "connection lost")
            later = isinstance(error, httpx.TransportError) and not isinstance(error, httpx.UnsupportedProtocol)
            if later and not last:
                return None, None
            # A server that takes questions and loses some is there.
            kind = QuestionFault if later and not isinstance(error, httpx.ConnectError) else UserError
            raise self._fault(
                f"{self._url} cannot be reached ({_brief(error)}).",
                "Check endpoint.url (it ends in /v1 for most servers) and whether the server runs.",
                "CHAT_SERVER_UNREACHABLE",
                kind,
            ) from error
        status = response.status_code
        if status != 200:
            self._count_fault(f"status {status}")
        if status in _BUSY and not last:
            return None, _seconds(response.headers.get("retry-after", ""))
        if status in (401, 403):
            raise self._fault(
                f"{self._url} refuses the key ({status}).",
                f"Check the key in {self._endpoint.api_key_variable or 'endpoint.api_key_variable, which is not set'}.",
                "CHAT_SERVER_REFUSED",
            )
        if status != 200:
            raise self._fault(
                f"{self._url} answers {status}: {_brief(response.text)}",
                "Check endpoint.url and endpoint.model.",
                "CHAT_SERVER_FAULT",
                QuestionFault if status in _BUSY | _OF_THE_QUESTION else UserError,
            )
        answer = _completion(response)
        if answer is not None:
            return answer, None
        self._count_fault("garbage")
        if not last:
            return None, None
        raise self._garbage(_brief(response.text))

    def _garbage(self, shown: str) -> UserError:
        return self._fault(
            f"{self._url} answers something other than a chat completion: {shown}",
            "Name the base URL of an OpenAI-compatible server, for example http://localhost:8000/v1.",
            "CHAT_SERVER_FAULT",
            QuestionFault,
        )

    def _fault(self, message: str, remedy: str, reason: str, kind: type[UserError] = UserError) -> UserError:
        return kind(message, remedy=remedy, reason=reason, field=self._at)


def _completion(response: Any) -> Answer | None:
    """The answer in a chat completion; None where the response is none."""
    try:
        body = response.json()
        choice = body["choices"][0]
        content = choice["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    # None is what a server says that was silent.
    if not isinstance(content, str | None):
        return None
    usage = body.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    tokens = _count(counts.get("prompt_tokens")), _count(counts.get("completion_tokens"))
    return Answer(_THINKING.sub("", content or "").strip(), *tokens, choice.get("finish_reason") == "length")


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _seconds(text: str) -> float | None:
    """A Retry-After in seconds; dates are left alone."""
    try:
        return min(_LONGEST_WAIT, max(0.0, float(text)))
    except ValueError:
        return None


def _brief(what: object) -> str:
    text = " ".join(str(what).split()) or type(what).__name__
    return text if len(text) <= 160 else text[:157] + "..."

"""A language model behind OpenAI's chat completions: asked several things at a time, patient with a server in trouble.

Every answer stands in a ledger before it is used, so that a run that goes on asks nothing twice and pays nothing twice.
"""

from __future__ import annotations

import json
import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from qscope.errors import Stopped, UserError
from qscope.runs.ledger import Ledger, key_of
from qscope.v1.chat_pb2 import ChatEndpoint

_TRIES, _LONGEST_WAIT = 5, 30.0
#: Bytes of an answer at most: four times what the largest ``max_tokens`` makes at 64 bytes a token.
_LARGEST = 32 << 20
#: What a server says of itself when it may answer later.
_BUSY = {408, 409, 425, 429, 500, 502, 503, 504}
#: What a server says of one question: another one may do.
_OF_THE_QUESTION = {400, 413, 422, 451}
#: Questions in a row that come to nothing, after which the server is taken to be at fault.
_IN_A_ROW = 8
_THINKING = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)


class QuestionFault(UserError):
    """A fault that may be this question's alone."""


class _TooLong(Exception):
    """An answer that does not end."""


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
        ledger: where answers are kept; what stands there is not asked again, empty answers apart.
        should_stop: asked before every try; an answer under way, and a wait between tries, are not cut short.
        sleep: waits so many seconds.

    Attributes:
        usage: what was asked so far.

    Raises:
        UserError: the named variable holds no key (CHAT_KEY_MISSING), or what no key is (CHAT_KEY_MALFORMED).
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
        # A key from a file often ends in a line break, which no header may hold.
        key = os.environ.get(endpoint.api_key_variable, "").strip() if endpoint.api_key_variable else ""
        if endpoint.api_key_variable and not key:
            raise UserError(
                f"The variable {endpoint.api_key_variable} holds no key.",
                remedy=f"Set {endpoint.api_key_variable}, then run `qscope worker stop`: the worker keeps the "
                "environment it was started in. A server without keys needs none: leave api_key_variable out.",
                reason="CHAT_KEY_MISSING",
                field=f"{at}.api_key_variable",
            )
        if not all("!" <= character <= "~" for character in key):
            raise UserError(
                f"What {endpoint.api_key_variable} holds is no key: it has blanks, or characters beyond ASCII.",
                remedy=f"Set {endpoint.api_key_variable} to the key alone, then run `qscope worker stop`.",
                reason="CHAT_KEY_MALFORMED",
                field=f"{at}.api_key_variable",
            )
        self._key = key
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(headers=headers, timeout=endpoint.timeout_seconds)
        self._url = endpoint.url.rstrip("/") + "/chat/completions"
        self.usage = Usage.of_ledger(ledger)
        # Those of earlier attempts keep their numbers: there were no more of them than answers.
        self._silent = self.usage.answers
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
                if self._ledger is not None:
                    answer = self._kept(self._ledger, key, answer)
                with self._lock:
                    self.usage.count(answer)
                return answer
            self._sleep(wait if wait is not None else min(_LONGEST_WAIT, 0.5 * 2**attempt) * (0.5 + random.random()))
        raise AssertionError("the last try answers or raises")

    def _kept(self, ledger: Ledger, key: str, answer: Answer) -> Answer:
        if answer.text:
            ledger.put(key, answer.as_json())
            # Of two threads with the same question the first one's answer stays, for both.
            return Answer.of_json(ledger.get(key))
        # One without text is none to recall: a run that goes on asks once more. It was paid for all the same.
        with self._lock:
            self._silent += 1
            ledger.put(f"without text {self._silent}", answer.as_json())
        return answer

    def _count_fault(self, kind: str) -> None:
        with self._lock:
            self.usage.faults[kind] += 1

    def _try(self, body: dict[str, Any], last: bool) -> tuple[Answer | None, float | None]:
        """The answer, or None and how long the server wants us to wait."""
        import httpx

        with self._lock:
            self.usage.requests += 1
        try:
            status, headers, content = self._post(body)
        except (httpx.DecodingError, _TooLong) as error:
            # Compressed, and not so, or without an end: garbage like any other.
            self._count_fault("garbage")
            if not last:
                return None, None
            raise self._garbage(self._brief(error)) from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            self._count_fault("unreachable" if isinstance(error, httpx.ConnectError) else "connection lost")
            later = isinstance(error, httpx.TransportError) and not isinstance(error, httpx.UnsupportedProtocol)
            if later and not last:
                return None, None
            # A server that takes questions and loses some is there.
            kind = QuestionFault if later and not isinstance(error, httpx.ConnectError) else UserError
            raise self._fault(
                f"{self._url} cannot be reached ({self._brief(error)}).",
                "Check endpoint.url (it ends in /v1 for most servers) and whether the server runs.",
                "CHAT_SERVER_UNREACHABLE",
                kind,
            ) from error
        if status != 200:
            self._count_fault(f"status {status}")
        if status in _BUSY and not last:
            return None, _seconds(headers.get("retry-after", ""))
        if status in (401, 403):
            raise self._fault(
                f"{self._url} refuses the key ({status}).",
                f"Check the key in {self._endpoint.api_key_variable or 'endpoint.api_key_variable, which is not set'}.",
                "CHAT_SERVER_REFUSED",
            )
        if status != 200:
            raise self._fault(
                f"{self._url} answers {status}: {self._brief(content.decode(errors='replace'))}",
                "Check endpoint.url and endpoint.model.",
                "CHAT_SERVER_FAULT",
                QuestionFault if status in _BUSY | _OF_THE_QUESTION else UserError,
            )
        answer = _completion(content)
        if answer is not None:
            return answer, None
        self._count_fault("garbage")
        if not last:
            return None, None
        raise self._garbage(self._brief(content.decode(errors="replace")))

    def _post(self, body: dict[str, Any]) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of a reply; the client's own timeout is that of a single piece of it.

        Raises:
            httpx.HTTPError: the connection fails, or the reply is not whole in time.
            _TooLong: there is no end to the reply.
        """
        import httpx

        end = time.monotonic() + self._endpoint.timeout_seconds
        content = bytearray()
        with self._client.stream("POST", self._url, json=body) as response:
            for piece in response.iter_bytes():
                content += piece
                if len(content) > _LARGEST:
                    raise _TooLong(f"more than {_LARGEST >> 20} MiB")
                if time.monotonic() > end:
                    raise httpx.ReadTimeout(f"not whole after {self._endpoint.timeout_seconds:g} seconds")
            return response.status_code, response.headers, bytes(content)

    def _brief(self, what: object) -> str:
        """The beginning of what a server says, who may quote the key it was sent."""
        text = " ".join(str(what).split()) or type(what).__name__
        if self._key:
            text = text.replace(self._key, "[key]")
        return text if len(text) <= 160 else text[:157] + "..."

    def _garbage(self, shown: str) -> UserError:
        return self._fault(
            f"{self._url} answers something other than a chat completion: {shown}",
            "Name the base URL of an OpenAI-compatible server, for example http://localhost:8000/v1.",
            "CHAT_SERVER_FAULT",
            QuestionFault,
        )

    def _fault(self, message: str, remedy: str, reason: str, kind: type[UserError] = UserError) -> UserError:
        return kind(message, remedy=remedy, reason=reason, field=self._at)


def _completion(content: bytes) -> Answer | None:
    """The answer in a chat completion; None where it is none."""
    try:
        body = json.loads(content)
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
    # JSON may hold half a character (an emoji cut through), which neither a tokenizer nor a request takes.
    text = (content or "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return Answer(_THINKING.sub("", text).strip(), *tokens, choice.get("finish_reason") == "length")


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _seconds(text: str) -> float | None:
    """A Retry-After in seconds; dates are left alone."""
    try:
        return min(_LONGEST_WAIT, max(0.0, float(text)))
    except ValueError:
        return None

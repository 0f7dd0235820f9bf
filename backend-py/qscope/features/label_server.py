"""Labels from a language model behind OpenAI's chat completions: what is asked, and how answers are read."""

from __future__ import annotations

import json
import os
import random
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import Any

from qscope.errors import Stopped, UserError
from qscope.runs.ledger import Ledger, key_of
from qscope.v1.explain_pb2 import LabelEndpoint
from qscope.v1.features_pb2 import FeatureContext

WRITER = (
    "You name features of a language model. You are shown excerpts of text in which one feature is active. The tokens "
    "on which it is active stand between << and >>. Say in one short phrase what the marked tokens, or what leads up "
    "to them, have in common. Be as specific as the excerpts allow. Answer with the phrase alone."
)
JUDGE = (
    "You are given the description of a feature of a language model, and numbered excerpts of text. For each excerpt "
    "decide whether the feature is active somewhere in it. Answer with one JSON list of 0 (not active) and 1 (active), "
    "one number for each excerpt, in their order, and nothing else."
)
#: Excerpts of one question of the judge.
EXCERPTS = 8
_TRIES, _LONGEST_WAIT = 5, 30.0
#: What a server says of itself when it may answer later.
_BUSY = {408, 409, 425, 429, 500, 502, 503, 504}
_LIST = re.compile(r"\[[\s01,truefals\"']*\]", re.IGNORECASE)
_THINKING = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)


class LabelServer:
    """Asks questions of a chat server, several at a time.

    Args:
        endpoint: the server.
        at: experiment field of the endpoint, for errors.
        ledger: where answers are kept; what stands there is not asked again. Empty answers are not kept.
        should_stop: asked before every try; an answer under way, and a wait between tries, are not cut short.
        sleep: waits so many seconds.

    Raises:
        UserError: the named variable holds no key (LABEL_KEY_MISSING).
    """

    def __init__(
        self,
        endpoint: LabelEndpoint,
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
                reason="LABEL_KEY_MISSING",
                field=f"{at}.api_key_variable",
            )
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(headers=headers, timeout=endpoint.timeout_seconds)
        self._url = endpoint.url.rstrip("/") + "/chat/completions"

    def __enter__(self) -> LabelServer:
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
        done = 0
        answers: list[str] = []
        pool = ThreadPoolExecutor(max_workers=max(1, self._endpoint.concurrency))
        try:
            for answer in pool.map(lambda question: self.ask(*question), questions):
                answers.append(answer)
                done += 1
                on_answer(done)
        finally:
            # What is not yet asked is not asked any more once one question has failed.
            pool.shutdown(wait=True, cancel_futures=True)
        return answers

    def ask(self, system: str, user: str) -> str:
        """One answer, without what the model thought aloud."""
        body = {
            "model": self._endpoint.model,
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}],
            "temperature": self._endpoint.temperature,
            "max_tokens": self._endpoint.max_tokens,
        }
        # By its address too: another server may answer to the same name of a model.
        key = key_of({"url": self._url, "body": body})
        if self._ledger is not None and (known := self._ledger.get(key)) is not None:
            return known
        for attempt in range(_TRIES):
            if self._should_stop():
                raise Stopped
            last = attempt == _TRIES - 1
            answer, wait = self._try(body, last)
            if answer is not None:
                said = _THINKING.sub("", answer).strip()
                # An answer without text is none to keep: a run that goes on asks once more.
                if self._ledger is not None and said:
                    self._ledger.put(key, said)
                return said
            self._sleep(wait if wait is not None else min(_LONGEST_WAIT, 0.5 * 2**attempt) * (0.5 + random.random()))
        raise AssertionError("the last try answers or raises")

    def _try(self, body: dict[str, Any], last: bool) -> tuple[str | None, float | None]:
        """The answer, or None and how long the server wants us to wait."""
        import httpx

        try:
            response = self._client.post(self._url, json=body)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            if (
                not last
                and isinstance(error, httpx.TransportError)
                and not isinstance(error, httpx.UnsupportedProtocol)
            ):
                return None, None
            raise self._fault(
                f"{self._url} cannot be reached ({_brief(error)}).",
                "Check endpoint.url (it ends in /v1 for most servers) and whether the server runs.",
                "LABEL_SERVER_UNREACHABLE",
            ) from error
        if response.status_code in _BUSY and not last:
            return None, _seconds(response.headers.get("retry-after", ""))
        if response.status_code in (401, 403):
            raise self._fault(
                f"{self._url} refuses the key ({response.status_code}).",
                f"Check the key in {self._endpoint.api_key_variable or 'endpoint.api_key_variable, which is not set'}.",
                "LABEL_SERVER_REFUSED",
            )
        if response.status_code != 200:
            raise self._fault(
                f"{self._url} answers {response.status_code}: {_brief(response.text)}",
                "Check endpoint.url and endpoint.model.",
                "LABEL_SERVER_FAULT",
            )
        try:
            content = response.json()["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError) as error:
            raise self._fault(
                f"{self._url} answers something other than a chat completion: {_brief(response.text)}",
                "Name the base URL of an OpenAI-compatible server, for example http://localhost:8000/v1.",
                "LABEL_SERVER_FAULT",
            ) from error
        return (content if isinstance(content, str) else ""), None

    def _fault(self, message: str, remedy: str, reason: str) -> UserError:
        return UserError(message, remedy=remedy, reason=reason, field=self._at)


def writer_question(contexts: Sequence[FeatureContext], promotes: Sequence[str]) -> tuple[str, str]:
    """What is asked for a label."""
    lines = [f"{number}. {marked(context)}" for number, context in enumerate(contexts, 1)]
    if promotes:
        lines.append(f"The feature makes these tokens more likely: {', '.join(promotes)}")
    return WRITER, "\n".join(lines)


def judge_question(label: str, texts: Sequence[str]) -> tuple[str, str]:
    """What is asked of some excerpts."""
    lines = [f"{number}. {one_line(text)}" for number, text in enumerate(texts, 1)]
    return JUDGE, "\n".join([f"Feature: {label}", "", *lines])


def marked(context: FeatureContext) -> str:
    """A context as one line, with what the feature fires on between ``<<`` and ``>>``."""
    # An empty token is the beginning of a character that a later one ends: it parts nothing.
    pairs = [pair for pair in zip(context.tokens, context.activations, strict=True) if pair[0]]
    text = ""
    for fires, group in groupby(pairs, key=lambda pair: pair[1] > 0):
        part = "".join(token for token, _ in group)
        text += f"<<{part}>>" if fires else part
    return one_line(text)


def one_line(text: str) -> str:
    """Text without line breaks: an excerpt is one line of its question."""
    return " ".join(text.split())


def label_of(answer: str) -> str:
    """The label in an answer: its first line, without quotes and full stop."""
    line = next((line for line in answer.splitlines() if line.strip()), "")
    return line.strip().strip("\"'`*").strip().removesuffix(".").strip()[:300]


def verdicts(answer: str, count: int) -> list[bool | None]:
    """The judge's list; None for every excerpt when there is no list, or none of that length."""
    for text in reversed(_LIST.findall(answer)):
        try:
            values = json.loads(text.lower().replace("'", '"'))
        except ValueError:
            continue
        read = [_truth(value) for value in values]
        if len(read) == count and None not in read:
            return read
    return [None] * count


def _truth(value: Any) -> bool | None:
    if value in (0, "0", "false") or value is False:
        return False
    if value in (1, "1", "true") or value is True:
        return True
    return None


def _seconds(text: str) -> float | None:
    """A Retry-After in seconds; dates are left alone."""
    try:
        return min(_LONGEST_WAIT, max(0.0, float(text)))
    except ValueError:
        return None


def _brief(what: object) -> str:
    text = " ".join(str(what).split()) or type(what).__name__
    return text if len(text) <= 160 else text[:157] + "..."

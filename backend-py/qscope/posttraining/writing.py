"""One batch of answers, token by token, whoever wants them: `qscope eval`, rollouts, rows steered into loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from qscope.errors import Stopped
from qscope.models.generation import Generation, TextStream
from qscope.models.stop_texts import tokens_of
from qscope.posttraining.loop_watch import LoopWatch
from qscope.v1.generation_pb2 import Sampling
from qscope.v1.inference_pb2 import END_REASON_END_TOKEN


@dataclass(frozen=True)
class Rollout:
    """What a model wrote.

    Attributes:
        ids: tokens drawn, the one that ended it among them.
        said: how many of them are its answer: without an end token, or the fewest that hold all before a stop text.
        text: the answer as text, special tokens and all.
        truncated: it ended at a limit and not by itself; a loop that was cut is truncated.
        logprobs: of the tokens drawn, under the model that drew them, at the temperature asked of the generation.
        stopped: a stop text ended it.
    """

    ids: tuple[int, ...]
    said: int
    text: str
    truncated: bool
    logprobs: tuple[float, ...]
    stopped: bool = False

    @property
    def answer_ids(self) -> tuple[int, ...]:
        """The tokens of the answer."""
        return self.ids[: self.said]


def write(
    generation: Generation,
    tokenizer: Any,
    sampling: Sampling,
    *,
    rows: int,
    stop_after_loops: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
    on_ended: Callable[[int], None] = lambda count: None,
) -> list[Rollout]:
    """Lets every row come to its end; the answers in the order of the rows.

    Args:
        generation: fresh.
        tokenizer: of the model.
        sampling: of the generation; its stop texts are looked for here.
        rows: of the generation.
        stop_after_loops: whole repetitions after which a row is cut; 0 lets it run on.
        should_stop: asked before every token.
        on_ended: told how many rows are complete, after every token.

    Raises:
        Stopped: when asked to stop.
    """
    writing = [_Row(tokenizer, sampling, stop_after_loops) for _ in range(rows)]
    running = set(range(rows))
    while not generation.done:
        if should_stop():
            raise Stopped
        step = generation.step()
        running -= step.ended.keys()
        for drawn in step.drawn:
            if writing[drawn.row].push(drawn.token, drawn.logprob, step.ended.get(drawn.row)):
                generation.end(drawn.row)
                running.discard(drawn.row)
        on_ended(rows - len(running))
    return [row.finish() for row in writing]


def text_of(tokenizer: Any, ids: Sequence[int]) -> str:
    """Tokens as text, as that of an answer."""
    return tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)


class _Row:
    """One answer while it is written."""

    def __init__(self, tokenizer: Any, sampling: Sampling, loops: int) -> None:
        self._tokenizer = tokenizer
        self._stream = TextStream(tokenizer, sampling.stop) if sampling.stop else None
        self._watch = LoopWatch(loops) if loops else None
        self._ids: list[int] = []
        self._logprobs: list[float] = []
        self._ended = False

    def push(self, token: int, logprob: float, ended: int | None) -> bool:
        """Adds a token; true when the row ends with it though the loop that decodes would go on."""
        self._ids.append(token)
        self._logprobs.append(logprob)
        self._ended = ended == END_REASON_END_TOKEN
        if ended is not None:
            if self._stream is not None and not self._ended:
                self._stream.push(token)
            return False
        if self._stream is not None:
            self._stream.push(token)
            if self._stream.stopped:
                return True
        return self._watch is not None and self._watch.push(token)

    def finish(self) -> Rollout:
        said, stopped = self._ids[: len(self._ids) - int(self._ended)], False
        if self._stream is None:
            text = text_of(self._tokenizer, said)
        else:
            self._stream.finish()
            text, stopped = self._stream.text, self._stream.stopped
            if stopped:
                said = tokens_of(self._tokenizer, said, text)
        truncated = not self._ended and not stopped
        return Rollout(tuple(self._ids), len(said), text, truncated, tuple(self._logprobs), stopped)

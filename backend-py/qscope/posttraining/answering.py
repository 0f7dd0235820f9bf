"""Responses of a model to prompts, in batches of like length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qscope.errors import Stopped
from qscope.models import LoadedModel
from qscope.models.generation import Generation, TextStream
from qscope.models.stop_texts import tokens_of
from qscope.posttraining.answered import Answered
from qscope.posttraining.examples import Prompt
from qscope.posttraining.graders import Response
from qscope.v1.generation_pb2 import Sampling
from qscope.v1.inference_pb2 import END_REASON_END_TOKEN, END_REASON_LENGTH


@dataclass(frozen=True)
class Asked:
    """A response that is wanted.

    Attributes:
        prompt: what is answered.
        sample: which of its responses.
    """

    prompt: Prompt
    sample: int


def batches(prompts: Sequence[Prompt], samples: int, rows: int) -> list[list[Asked]]:
    """All responses wanted, in batches: prompts of like length side by side, so that little is padding.

    The same batches for the same prompts, whoever asks: rows of a batch share their padding, and so their last bits.

    Args:
        prompts: what is answered.
        samples: responses to each.
        rows: responses of a batch, at most.
    """
    asked = [Asked(prompt, sample) for prompt in prompts for sample in range(samples)]
    asked.sort(key=lambda one: len(one.prompt.ids))
    return [asked[start : start + rows] for start in range(0, len(asked), rows)]


def answer(
    loaded: LoadedModel,
    asked: Sequence[Asked],
    sampling: Sampling,
    noise: Callable[[Asked], int],
    *,
    should_stop: Callable[[], bool] = lambda: False,
    on_ended: Callable[[int], None] = lambda count: None,
) -> list[Answered]:
    """The responses of one batch, in its order.

    Args:
        loaded: the model.
        asked: what is answered.
        sampling: how tokens are drawn.
        noise: a number for each response; equal numbers draw equally in any batch.
        should_stop: asked between tokens.
        on_ended: told how many responses are complete, after every token.

    Raises:
        Stopped: when asked to stop.
    """
    generation = Generation(
        loaded, [one.prompt.ids for one in asked], sampling, [noise(one) for one in asked], drop_ended=True
    )
    ids: list[list[int]] = [[] for _ in asked]
    cut_off, running = [False] * len(asked), set(range(len(asked)))
    streams = [TextStream(loaded.tokenizer, sampling.stop) for _ in asked] if sampling.stop else []
    while not generation.done:
        if should_stop():
            raise Stopped
        step = generation.step()
        running -= step.ended.keys()
        for drawn in step.drawn:
            row = drawn.row
            if step.ended.get(row) == END_REASON_END_TOKEN:
                continue
            ids[row].append(drawn.token)
            cut_off[row] = step.ended.get(row) == END_REASON_LENGTH
            if streams:
                streams[row].push(drawn.token)
                if streams[row].stopped:
                    generation.end(row)
                    running.discard(row)
        on_ended(len(asked) - len(running))
    for row, stream in enumerate(streams):
        stream.finish()
        if stream.stopped:
            # What repeats is measured on the response, and the stop text is no part of it.
            ids[row], cut_off[row] = tokens_of(loaded.tokenizer, ids[row], stream.text), False
    found = []
    for one, tokens, is_cut, stream in zip(asked, ids, cut_off, streams or [None] * len(asked), strict=True):
        text = loaded.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        if stream is not None and stream.stopped:
            # The last token may have begun the stop text.
            text = _before(text, sampling.stop)
        response = Response(
            text, one.prompt.asked, tuple(tokens), is_cut, one.prompt.answer, one.prompt.language, one.prompt.fields
        )
        found.append(Answered(one.prompt.row, one.sample, response))
    return found


def _before(text: str, stop: Sequence[str]) -> str:
    places = [place for place in map(text.find, stop) if place >= 0]
    return text[: min(places)] if places else text

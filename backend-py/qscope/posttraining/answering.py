"""Responses of a model to prompts, in batches of like length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qscope.models import LoadedModel
from qscope.models.generation import Generation
from qscope.posttraining.answered import Answered
from qscope.posttraining.examples import Prompt
from qscope.posttraining.graders import Response
from qscope.posttraining.writing import write
from qscope.v1.generation_pb2 import Sampling


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
    tokenizer = loaded.tokenizer
    found = []
    for one, made in zip(
        asked,
        write(generation, tokenizer, sampling, rows=len(asked), should_stop=should_stop, on_ended=on_ended),
        strict=True,
    ):
        # What repeats is measured on the response, and a stop text is no part of it.
        tokens = made.answer_ids
        text = tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        if made.stopped:
            # The last token may have begun the stop text.
            text = _before(text, sampling.stop)
        response = Response(
            text, one.prompt.asked, tokens, made.truncated, one.prompt.answer, one.prompt.language, one.prompt.fields
        )
        found.append(Answered(one.prompt.row, one.sample, response))
    return found


def _before(text: str, stop: Sequence[str]) -> str:
    places = [place for place in map(text.find, stop) if place >= 0]
    return text[: min(places)] if places else text

"""Scores of one model on the items of a benchmark, from 0 to 1: what ``panel.models`` of bench-redundancy measures.

* ``choice``: 1 where the log-likelihood of the right choice is the largest of all (``by_length``: per character, spaces
  at its ends not counted, as ``acc_norm`` of lm-eval), else 0.
* ``exact``: 1 where the text written by greedy decoding equals the answer
  (:func:`qscope.text.answers.equal_answers`), else 0.
* ``tokens``: share of the answer's tokens that greedy decoding would write, each after the answer's own tokens before
  it. It grades what a small model cannot yet write whole, and needs no threshold.
* ``probability``: mean probability of the answer's tokens, each after the answer's own tokens before it: the share of
  them that the model would get right if it drew each. It grades models that are not yet greedily right either.

Equal items of a benchmark are asked once: copies then have one score, whatever batch they come in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean as mean

import numpy as np

from qscope.data.answers import Answer
from qscope.data.items import Item
from qscope.errors import UserError
from qscope.features.documents import DocumentTemplate
from qscope.models import LoadedModel
from qscope.steering.capability import GivenAnswer, SteeredAnswers
from qscope.steering.resolve import resolve
from qscope.steering.saes import NoSaes
from qscope.steering.scales import Scales
from qscope.text.answers import equal_answers
from qscope.v1.features_pb2 import Rendering
from qscope.v1.generation_pb2 import Sampling
from qscope.v1.redundancy_pb2 import (
    SCORE_MEASURE_CHOICE,
    SCORE_MEASURE_EXACT,
    SCORE_MEASURE_PROBABILITY,
    ItemScoring,
)
from qscope.v1.steering_pb2 import CONFLICT_SUM, SteeringSpec


class ItemScorer:
    """Scores items with one model.

    Args:
        loaded: the model.
        rendering: how prompts become its input.
        batch_rows: answers in one pass, at most.
        on_progress: called with the answers given and asked for so far.
        should_stop: asked between batches and tokens.
        at: experiment field of the panel, for errors.
        rendering_at: that of the rendering.

    Raises:
        UserError: a chat template is asked for and the model has none (NO_CHAT_TEMPLATE).
    """

    def __init__(
        self,
        loaded: LoadedModel,
        rendering: Rendering,
        *,
        batch_rows: int,
        on_progress: Callable[[int, int], None] = lambda answered, asked: None,
        should_stop: Callable[[], bool] = lambda: False,
        at: str = "",
        rendering_at: str = "",
    ) -> None:
        self._tokenizer = loaded.tokenizer
        self._template = DocumentTemplate(loaded.tokenizer, rendering, rendering_at)
        # The answers of a model that nothing is done to: an empty spec changes nothing, and asks no SAE.
        saes = NoSaes(UserError("An empty spec names no feature."))
        facts = loaded.facts
        spec = resolve(
            SteeringSpec(conflict=CONFLICT_SUM), n_layers=facts.n_layers, d_model=facts.d_model, saes=saes,
            scales=Scales(),
        )  # fmt: skip
        self._answers = SteeredAnswers(
            loaded, spec, saes, batch_rows, on_progress=on_progress, should_stop=should_stop, at=at
        )

    @property
    def cut(self) -> int:
        """Answers so far whose prompt lost its beginning, as the model cannot read so much."""
        return self._answers.cut

    def scores(self, items: Sequence[Item], scoring: ItemScoring) -> np.ndarray:
        """Score of each item, from 0 to 1.

        Args:
            items: items with answers.
            scoring: how they are scored.

        Raises:
            UserError: what is written leaves no room for a prompt (CONTEXT_EXCEEDED), or the model computes no finite
                numbers (MODEL_NOT_FINITE).
            Stopped: when asked to stop.
        """
        first: dict[tuple[str, Answer], int] = {}
        place_N = [first.setdefault((item.prompt, _answer(item)), len(first)) for item in items]
        prompts = [self._template.render(prompt)[0] for prompt, _ in first]
        answers = [answer for _, answer in first]
        if scoring.measure == SCORE_MEASURE_CHOICE:
            found = self._choices(prompts, answers, scoring.by_length)
        elif scoring.measure == SCORE_MEASURE_EXACT:
            found = self._written(prompts, answers, scoring)
        else:
            probable = scoring.measure == SCORE_MEASURE_PROBABILITY
            given = self._given(list(zip(prompts, (answer.text for answer in answers), strict=True)))
            found = [mean_probability(one) if probable else mean(one.greedy_T) for one in given]
        return np.array(found, dtype=np.float64)[place_N]

    def _choices(self, prompts: Sequence[str], answers: Sequence[Answer], by_length: bool) -> list[float]:
        pairs = [(prompt, choice) for prompt, answer in zip(prompts, answers, strict=True) for choice in answer.choices]
        size = [len(choice.strip()) if by_length else 1 for _, choice in pairs]
        value = iter([one.logprob / per for one, per in zip(self._given(pairs), size, strict=True)])
        return [likeliest([next(value) for _ in answer.choices], answer.right) for answer in answers]

    def _given(self, pairs: Sequence[tuple[str, str]]) -> list[GivenAnswer]:
        given = self._answers.given([continued(self._tokenizer, *pair) for pair in pairs])
        if not all(np.isfinite(one.logprob) for one in given):
            raise UserError(
                "The model computes infinite or undefined numbers: its answers cannot be scored.",
                remedy="Try model_options.precision: float32, or leave the model out.",
                reason="MODEL_NOT_FINITE",
            )
        return given

    def _written(self, prompts: Sequence[str], answers: Sequence[Answer], scoring: ItemScoring) -> list[float]:
        contexts = [self._ids(prompt) for prompt in prompts]
        # Like lengths share a pass.
        order = sorted(range(len(contexts)), key=lambda index: -len(contexts[index]))
        sampling = Sampling(temperature=0, top_p=1, max_tokens=scoring.max_tokens)
        texts = self._answers.continuations(
            [contexts[index] for index in order], sampling, list(scoring.until), [0] * len(order)
        )
        written = dict(zip(order, texts, strict=True))
        return [
            float(equal_answers(written[index], answer.text, scoring.extract)) for index, answer in enumerate(answers)
        ]

    def _ids(self, text: str) -> list[int]:
        return _encoded(self._tokenizer, text)


def mean_probability(given: GivenAnswer) -> float:
    """Mean probability of an answer's tokens."""
    return mean(math.exp(logprob) for logprob in given.logprob_T)


def likeliest(values: Sequence[float], right: int) -> float:
    """1 where the value at ``right`` is larger than every other, else 0: whoever cannot tell two apart is not right."""
    return float(all(values[right] > value for index, value in enumerate(values) if index != right))


def continued(tokenizer: object, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Token ids of a text and of what follows it, neither empty.

    Those of the whole text, cut where the context ends. Where a token spans the border (``continuation`` begins inside
    one), the two are tokenised apart.
    """
    before, whole = _encoded(tokenizer, context), _encoded(tokenizer, context + continuation)
    if len(whole) > len(before) and whole[: len(before)] == before:
        return before, whole[len(before) :]
    return before, _encoded(tokenizer, continuation)


def _encoded(tokenizer: object, text: str) -> list[int]:
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    # A text without a token still has to be continued: at its beginning.
    return ids or [tokenizer.eos_token_id or 0]


def _answer(item: Item) -> Answer:
    assert item.right is not None, "items of a panel have answers"
    return item.right

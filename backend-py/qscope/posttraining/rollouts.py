"""Rollouts: what a policy answers, row by row, the same whoever else is in the batch and however often it is asked.

Every random number of a rollout belongs to its name: seed, step, draw of the prompt and place in the group. Neither a
resumed run nor another number of ranks changes it. The sampler has temperature, top_p and top_k, all of them given, and
takes nothing from the checkpoint's ``generation_config``: no repetition penalty, no min_p, no banned n-grams, no
compiled step, no cache across requests. None of these can keep a loop from forming or leave a steering hook out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from qscope.models import LoadedModel
from qscope.models.generation import Generation
from qscope.models.prompts import prompt_of_ids
from qscope.posttraining.writing import Rollout, text_of, write
from qscope.steering.batch import SteeredBatch
from qscope.steering.resolve import ResolvedSpec
from qscope.steering.saes import Saes
from qscope.v1.generation_pb2 import Sampling


@dataclass(frozen=True)
class Request:
    """A rollout to be made.

    Attributes:
        prompt: its token ids.
        noise: seed of its random numbers, :func:`qscope.runs.seed_of` of its name.
    """

    prompt: tuple[int, ...]
    noise: int


@dataclass(frozen=True)
class Steered:
    """How rollouts are steered.

    Attributes:
        spec: the change, in numbers.
        saes: the SAEs it belongs to.
        stop_after_loops: whole repetitions after which a row is cut; 0 lets it run on.
    """

    spec: ResolvedSpec
    saes: Saes
    stop_after_loops: int


class Sampler:
    """Makes rollouts with a model, which may be under training: it is read in eval mode and left as it was.

    Args:
        loaded: the model.
        sampling: every field counts, see the module's head.
        rows: rollouts written side by side; 0 takes all at once.
        autocast: whether products are computed in bfloat16, as a trainer of float32 weights does.
        should_stop: asked before every token.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        sampling: Sampling,
        *,
        rows: int = 0,
        autocast: bool = False,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.loaded, self.sampling = loaded, sampling
        self._rows, self._should_stop = rows, should_stop
        self._autocast = torch.autocast(loaded.device.type, torch.bfloat16, enabled=autocast)

    def __call__(
        self, requests: Sequence[Request], *, steered: Steered | None = None, max_tokens: int = 0
    ) -> list[Rollout]:
        """Rollouts in the order of the requests.

        Prompts of like length are written side by side, so that little is padded.

        Args:
            requests: which.
            steered: a change of the residual stream, from each prompt's last token on.
            max_tokens: limit of these rollouts where it is lower than that of all.

        Raises:
            UserError: the model computes what is not finite (MODEL_NOT_FINITE).
            Stopped: when asked to stop.
        """
        sampling = Sampling()
        sampling.CopyFrom(self.sampling)
        if max_tokens:
            sampling.max_tokens = min(max_tokens, sampling.max_tokens)
        order = sorted(range(len(requests)), key=lambda number: (len(requests[number].prompt), number))
        made: dict[int, Rollout] = {}
        rows = self._rows or max(1, len(order))
        with _reading(self.loaded), self._autocast:
            for start in range(0, len(order), rows):
                numbers = order[start : start + rows]
                batch = self._batch([requests[number] for number in numbers], sampling, steered)
                made.update(zip(numbers, batch, strict=True))
        return [made[number] for number in range(len(requests))]

    def decode(self, ids: Sequence[int]) -> str:
        """Tokens as text, as that of a rollout."""
        return text_of(self.loaded.tokenizer, ids)

    def _batch(self, requests: list[Request], sampling: Sampling, steered: Steered | None) -> list[Rollout]:
        prompts = [request.prompt for request in requests]
        edits = None
        if steered is not None:
            read = [prompt_of_ids(self.loaded.tokenizer, prompt) for prompt in prompts]
            edits = SteeredBatch(self.loaded, read, [steered.spec] * len(read), steered.saes).edits()
        generation = Generation(
            self.loaded,
            prompts,
            sampling,
            [request.noise for request in requests],
            edits=edits,
            drop_ended=True,
            # The policy is what is sampled from; a temperature of 0 has none and is told at 1.
            logprobs_at=sampling.temperature or 1.0,
        )
        return write(
            generation,
            self.loaded.tokenizer,
            sampling,
            rows=len(requests),
            stop_after_loops=steered.stop_after_loops if steered is not None else 0,
            should_stop=self._should_stop,
        )


@contextmanager
def _reading(loaded: LoadedModel) -> Iterator[None]:
    """Eval mode while rollouts are made: no dropout, and a cache also under gradient checkpointing."""
    training = loaded.model.training
    loaded.model.eval()
    try:
        yield
    finally:
        loaded.model.train(training)

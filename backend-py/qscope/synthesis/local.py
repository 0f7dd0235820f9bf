"""A model on this machine as a writer: asked in its chat template, or going on from beginnings, steered if wanted."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from qscope.errors import Stopped
from qscope.features.chat_server import Answer, Question, Usage
from qscope.models import LoadedModel
from qscope.models.generation import Generation, context_length, refuse_beyond_context
from qscope.models.prompts import Prompt, render_prompt
from qscope.runs.ledger import Ledger, key_of
from qscope.steering.batch import SteeredBatch
from qscope.steering.resolve import ResolvedSpec
from qscope.steering.resolver import SpecResolver
from qscope.steering.saes import Saes
from qscope.steering.scales import Scales
from qscope.synthesis.targets import Target
from qscope.v1 import steering_pb2 as pb
from qscope.v1.generation_pb2 import PromptFormat, Sampling
from qscope.v1.inference_pb2 import END_REASON_END_TOKEN, END_REASON_LENGTH

_THINKING = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)


class LocalModel:
    """Writes with a loaded model, batch by batch. What it wrote stands in a ledger, batch by batch as well.

    Args:
        loaded: the model.
        sampling: how tokens are drawn.
        form: how questions become the model's input.
        batch_rows: texts written side by side.
        seed_for: a number for the name of a text; equal names write equal texts.
        saes: where directions come from, with ``steer``.
        steer: strength towards the target, in median residual norms of its layer; 0 does not steer.
        ledger: where texts are kept.
        should_stop: asked between tokens.
        at: experiment field of the writer, for errors.

    Attributes:
        loaded: the model.
        usage: tokens read and written, those of earlier attempts of the same run included.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        sampling: Sampling,
        form: PromptFormat,
        *,
        batch_rows: int,
        seed_for: Callable[[str], int],
        saes: Saes | None = None,
        steer: float = 0.0,
        ledger: Ledger | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        at: str = "synthesize.local",
    ) -> None:
        assert not steer or saes is not None, "directions come from the SAEs"
        self.loaded, self._sampling, self._form, self._batch_rows = loaded, sampling, form, batch_rows
        self._seed_for, self._ledger, self._should_stop, self._at = seed_for, ledger, should_stop, at
        self._steer, self._resolver = steer, SpecResolver(loaded, saes) if saes is not None and steer else None
        self._specs: dict[int, ResolvedSpec] = {}
        self.usage = Usage.of_ledger(ledger)

    def answer_all(self, questions: Sequence[Question]) -> list[Answer]:
        """Answers in the chat template; the number of a question decides its random numbers.

        Raises:
            UserError: the model has no chat template, or a question is longer than its context.
            Stopped: when asked to stop.
        """
        answers: list[Answer] = []
        for start in range(0, len(questions), self._batch_rows):
            asked = questions[start : start + self._batch_rows]
            prompts = []
            for question in asked:
                form = PromptFormat(chat=True, system=question.system, thinking=self._form.thinking)
                prompts.append(render_prompt(self.loaded.tokenizer, question.user, form, at=f"{self._at}.format"))
            names = [key_of([question.system, question.user, question.number]) for question in asked]
            made = self._written(prompts, [None] * len(asked), names)
            answers += [replace(answer, text=_THINKING.sub("", answer.text).strip()) for answer in made]
        return answers

    def go_on(
        self, starts: Sequence[Sequence[int]], targets: Sequence[Target | None], names: Sequence[str]
    ) -> list[str]:
        """Each beginning with what the model makes of it, see :data:`qscope.synthesis.writers.Continue`."""
        texts: list[str] = []
        for first in range(0, len(starts), self._batch_rows):
            part = slice(first, first + self._batch_rows)
            prompts = [_plain(self.loaded.tokenizer, ids) for ids in starts[part]]
            written = self._written(prompts, targets[part], names[part])
            # What only goes on ends where its tokens do: that is no fault.
            texts += [prompt.text + answer.text for prompt, answer in zip(prompts, written, strict=True)]
        return texts

    def _written(
        self, prompts: Sequence[Prompt], targets: Sequence[Target | None], names: Sequence[str]
    ) -> list[Answer]:
        known = [self._ledger.get(f"local {name}") if self._ledger is not None else None for name in names]
        if all(one is not None for one in known):
            return [Answer.of_json(one) for one in known]
        # The whole batch again: rows of a batch share their padding, and so their last bits.
        made = self._generate(prompts, targets, names)
        for name, one, before in zip(names, made, known, strict=True):
            if before is None:
                self.usage.count(one)
                if self._ledger is not None:
                    self._ledger.put(f"local {name}", one.as_json())
        return made

    def _generate(
        self, prompts: Sequence[Prompt], targets: Sequence[Target | None], names: Sequence[str]
    ) -> list[Answer]:
        longest, limit = max(len(prompt) for prompt in prompts), context_length(self.loaded)
        refuse_beyond_context(self.loaded, longest, 1, at=self._at)
        sampling = Sampling()
        sampling.CopyFrom(self._sampling)
        if limit:
            sampling.max_tokens = min(sampling.max_tokens, limit - longest)
        batch = self._steered(prompts, targets)
        generation = Generation(
            self.loaded,
            [prompt.ids_T for prompt in prompts],
            sampling,
            [self._seed_for(name) for name in names],
            edits=batch.edits() if batch is not None else None,
        )
        self.usage.requests += len(prompts)
        tokens: list[list[int]] = [[] for _ in prompts]
        long = [False] * len(prompts)
        while not generation.done:
            if self._should_stop():
                raise Stopped
            step = generation.step()
            for drawn in step.drawn:
                if step.ended.get(drawn.row) != END_REASON_END_TOKEN:
                    tokens[drawn.row].append(drawn.token)
                long[drawn.row] = step.ended.get(drawn.row) == END_REASON_LENGTH
        answers = []
        for prompt, ids, is_long in zip(prompts, tokens, long, strict=True):
            text = self.loaded.tokenizer.decode(ids, skip_special_tokens=True)
            stops = [place for place in (text.find(stop) for stop in self._sampling.stop) if place >= 0]
            whole = text[: min(stops)] if stops else text
            answers.append(Answer(whole, len(prompt), len(ids), is_long and not stops))
        return answers

    def _steered(self, prompts: Sequence[Prompt], targets: Sequence[Target | None]) -> SteeredBatch | None:
        if self._resolver is None or not any(targets):
            return None
        return SteeredBatch(self.loaded, prompts, [self._spec(target) for target in targets], self._resolver.saes)

    def _spec(self, target: Target | None) -> ResolvedSpec:
        key = -1 if target is None else target.key
        if key not in self._specs:
            edits = []
            if target is not None:
                edit = pb.SteeringEdit(
                    layers=[target.layer],
                    features=[target.feature],
                    op=pb.STEERING_OP_ADD,
                    unit=pb.STRENGTH_UNIT_NORM,
                    strength=self._steer,
                    where=pb.SteeringPlace(phase=pb.PHASE_ALL),
                )
                edits.append(edit)
            spec = pb.SteeringSpec(edits=edits, conflict=pb.CONFLICT_SUM)
            self._specs[key] = self._resolver.resolve(
                spec, Scales(), at=f"{self._at}.steer", should_stop=self._should_stop
            )
        return self._specs[key]


def _plain(tokenizer: Any, ids: Sequence[int]) -> Prompt:
    text = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return Prompt(text, np.asarray(ids, dtype=np.int64), np.zeros(len(ids), dtype=np.uint8), written=text)

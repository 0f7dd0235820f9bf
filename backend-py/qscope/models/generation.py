"""Token by token, in one batch, under edits that exist only while this generation's own forward pass runs.

The loop is written out rather than left to ``generate``: it gives a step back to the caller after every token, so that
one thread can serve several requests in turn and obey a cancellation at once, and it draws from noise that belongs to
a row instead of to a batch, so that two rows differ only where their steering does.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch

from qscope.errors import UserError
from qscope.models.draws import draws
from qscope.models.forward_tokens import ForwardTokens
from qscope.models.hooks import ResidualEdits, TokenEdit
from qscope.models.loading import LoadedModel
from qscope.v1.generation_pb2 import Sampling
from qscope.v1.inference_pb2 import END_REASON_ABORTED, END_REASON_END_TOKEN, END_REASON_LENGTH, EndReason

#: Qwen3.5 below 27B ships no generation config, and its tokenizer names only one of the two.
_END_TOKENS = ("<|endoftext|>", "<|im_end|>")


@dataclass(frozen=True)
class Drawn:
    """One token of one row.

    Attributes:
        row: row of the batch.
        token: its id.
        logprob: its log-probability under the (edited) model at temperature 1, or at ``logprobs_at``.
    """

    row: int
    token: int
    logprob: float


@dataclass
class Step:
    """What one step did.

    Attributes:
        drawn: the new tokens, one for each row that was still running.
        ended: rows that ended with this step, and why. The end token itself is in ``drawn``.
    """

    drawn: list[Drawn] = field(default_factory=list)
    ended: dict[int, EndReason] = field(default_factory=dict)


class Generation:
    """A batch of continuations in the making.

    Args:
        loaded: the model.
        prompts: token ids of each row; at least one token each.
        sampling: temperature, top_p, top_k, max_tokens, ignore_end.
        noise: one number per row; rows with equal numbers draw equal random numbers at equal steps, in any batch.
        edits: by layer, see :class:`qscope.models.hooks.ResidualEdits`; in place only during this batch's passes.
        prefill_chunk: tokens of the prompt read per pass; 0 reads it in one.
        use_cache: False reads the whole row again at every step (the reference of the cached loop).
        should_abort: asked after every pass which rows must end before another token is drawn.
        drop_ended: take rows that have ended out of the batch, once they are half of it. Not under edits, which know
            rows by their place, nor with a cache that cannot be taken apart; products of another number of rows may
            round otherwise.
        logprobs_at: temperature of the log-probabilities that are reported.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        prompts: Sequence[Sequence[int] | np.ndarray],
        sampling: Sampling,
        noise: Sequence[int],
        *,
        edits: Mapping[int, TokenEdit] | None = None,
        prefill_chunk: int = 0,
        use_cache: bool = True,
        should_abort: Callable[[], Sequence[int]] | None = None,
        drop_ended: bool = False,
        logprobs_at: float = 1.0,
    ) -> None:
        assert len(noise) == len(prompts) > 0, "one noise number per row"
        assert all(len(prompt) > 0 for prompt in prompts), "a model continues at least one token"
        self._loaded, self._sampling = loaded, sampling
        self._prefill_chunk, self._use_cache = prefill_chunk, use_cache
        self._should_abort = should_abort
        self._drops = drop_ended and use_cache and not edits
        self._logprobs_at = logprobs_at
        self._cache: Any = None
        self._warpers = _warpers(sampling)
        self._ends = frozenset() if sampling.ignore_end else end_tokens(loaded)
        self._generators = [torch.Generator(loaded.device).manual_seed(number) for number in noise]
        rows, width = len(prompts), max(len(prompt) for prompt in prompts)
        self._pad = _pad_id(loaded)
        ids_BL = np.full((rows, width), self._pad, dtype=np.int64)
        mask_BL = np.zeros((rows, width), dtype=np.int64)
        for row, prompt in enumerate(prompts):
            # On the left: every row's newest token then stands in the last column.
            ids_BL[row, width - len(prompt) :] = prompt
            mask_BL[row, width - len(prompt) :] = 1
        self._ids_BL, self._mask_BL = torch.from_numpy(ids_BL), torch.from_numpy(mask_BL)
        self._read = 0
        self._prompt_width = width
        self._tokens: ForwardTokens
        self._edits = ResidualEdits(loaded, edits or {}, lambda: self._tokens)
        self._running = list(range(rows))
        #: The row in each place of the batch.
        self._rows = list(range(rows))
        self.forward_passes = 0
        self.generated = [0] * rows

    @property
    def done(self) -> bool:
        """True when no row goes on."""
        return not self._running

    def end(self, row: int) -> None:
        """Ends a row from outside (a stop text, a cancelled request)."""
        if row in self._running:
            self._running.remove(row)

    @torch.no_grad()
    def step(self) -> Step:
        """Reads what is new and draws the next token of every running row."""
        assert self._running, "every row has ended"
        if self._drops and self._read and 2 * len(self._running) <= len(self._rows):
            self._drop_ended()
        last_BV = self._forward()
        step = Step()
        for row in self._should_abort() if self._should_abort else ():
            if row in self._running:
                step.ended[row] = END_REASON_ABORTED
                self.end(row)
        if not self._running:
            return step
        # float32 for the sampling, and only the rows that still run.
        places = self._places()
        tokens_B, logprobs_B = self._draw((last_BV if len(places) == len(last_BV) else last_BV[places]).float())
        column_B1 = torch.full((len(self._ids_BL), 1), self._pad, dtype=torch.int64)
        column_B1[places, 0] = torch.tensor(tokens_B)
        for row, token, logprob in zip(self._running, tokens_B, logprobs_B, strict=True):
            step.drawn.append(Drawn(row, token, logprob))
            self.generated[row] += 1
            if token in self._ends:
                step.ended[row] = END_REASON_END_TOKEN
            elif self.generated[row] >= self._sampling.max_tokens:
                step.ended[row] = END_REASON_LENGTH
        for row in step.ended:
            self.end(row)
        alive_B1 = torch.zeros_like(column_B1)
        alive_B1[self._places()] = 1
        self._ids_BL = torch.cat([self._ids_BL, column_B1], 1)
        # An ended row is fed padding, which no statistic and no edit may count.
        self._mask_BL = torch.cat([self._mask_BL, alive_B1], 1)
        return step

    def _places(self) -> list[int]:
        """Where in the batch each running row stands."""
        if len(self._rows) == len(self._running):
            return list(range(len(self._rows)))
        running = set(self._running)
        return [place for place, row in enumerate(self._rows) if row in running]

    def _drop_ended(self) -> None:
        """Takes the rows that have ended out of the batch and the cache."""
        if not all(type(layer) in _separable() for layer in getattr(self._cache, "layers", [None])):
            self._drops = False
            return
        places = self._places()
        self._cache.batch_select_indices(torch.tensor(places, device=self._loaded.device))
        self._ids_BL, self._mask_BL = self._ids_BL[places], self._mask_BL[places]
        self._rows = [self._rows[place] for place in places]

    def _forward(self) -> torch.Tensor:
        """Logits of the last column, every row."""
        width = self._ids_BL.shape[1]
        start = self._read if self._use_cache else 0
        with self._edits:
            while True:
                stop = min(width, start + self._prefill_chunk) if self._prefill_chunk else width
                output = self._pass(start, stop)
                if stop == width:
                    break
                start = stop
        self._read = width
        return output.logits[:, -1]

    def _pass(self, start: int, stop: int) -> Any:
        device = self._loaded.device
        mask_BL = self._mask_BL[:, :stop]
        positions_BL = (mask_BL.cumsum(1) - 1).clamp_min(0)
        ids_BT, positions_BT = self._ids_BL[:, start:stop], positions_BL[:, start:]
        # Behind the prompts every column was written by the model; only a row that has ended reads padding.
        behind = start >= self._prompt_width and ids_BT.shape[1] == 1
        decoding = behind and len(self._running) == len(self._ids_BL)
        self._tokens = ForwardTokens(ids_BT, positions_BT, mask_BL, decoding=decoding)
        self.forward_passes += 1
        output = self._loaded.model(
            input_ids=ids_BT.to(device),
            attention_mask=mask_BL.to(device),
            position_ids=positions_BT.to(device),
            past_key_values=self._cache,
            # Without its cache a chunk would not see the chunks before it.
            use_cache=self._use_cache or stop < self._ids_BL.shape[1] or start > 0,
            **_keep_last(type(self._loaded.model)),
        )
        done = stop == self._ids_BL.shape[1]
        self._cache = output.past_key_values if self._use_cache or not done else None
        return output

    def _draw(self, logits_BV: torch.Tensor) -> tuple[list[int], list[float]]:
        if self._sampling.temperature == 0:
            tokens_B = logits_BV.argmax(-1)
        else:
            scores_BV = logits_BV
            for warper in self._warpers:
                scores_BV = warper(None, scores_BV)
            tokens_B = draws(scores_BV, [self._generators[row] for row in self._running])
        told_BV = logits_BV if self._logprobs_at == 1 else logits_BV / self._logprobs_at
        logprobs = (told_BV.gather(1, tokens_B[:, None])[:, 0] - told_BV.logsumexp(-1)).tolist()
        if not all(map(math.isfinite, logprobs)):
            raise UserError(
                "The model computes infinite or undefined numbers: nothing can be drawn from them.",
                remedy="Lower the strength of the steering; without steering, try precision: float32 or bfloat16.",
                reason="MODEL_NOT_FINITE",
            )
        return tokens_B.tolist(), logprobs


def context_length(loaded: LoadedModel) -> int:
    """Tokens the model was made for, prompt and continuation together; 0 when its config does not say."""
    return int(getattr(loaded.model.config.get_text_config(), "max_position_embeddings", 0) or 0)


def refuse_beyond_context(loaded: LoadedModel, prompt_tokens: int, max_tokens: int, *, at: str = "") -> None:
    """Refuses a continuation that cannot end inside the model's context."""
    limit = context_length(loaded)
    if limit and prompt_tokens + max_tokens > limit:
        raise UserError(
            f"A prompt of {prompt_tokens:,} tokens and {max_tokens:,} generated ones exceed the model's "
            f"{limit:,} positions.",
            remedy=f"Generate at most {max(0, limit - prompt_tokens):,} tokens, or shorten the prompt.",
            reason="CONTEXT_EXCEEDED",
            field=at,
        )


def end_tokens(loaded: LoadedModel) -> frozenset[int]:
    """Ids that end a continuation: those of config, generation config and tokenizer, and Qwen's two by name."""
    found: set[int] = set()
    for owner in (loaded.model.config, getattr(loaded.model, "generation_config", None), loaded.tokenizer):
        value = getattr(owner, "eos_token_id", None)
        found |= set(value) if isinstance(value, list | tuple) else set() if value is None else {int(value)}
    vocabulary = loaded.tokenizer.get_added_vocab()
    return frozenset(found | {vocabulary[name] for name in _END_TOKENS if name in vocabulary})


def _pad_id(loaded: LoadedModel) -> int:
    pad = loaded.tokenizer.pad_token_id
    return int(pad if pad is not None else loaded.tokenizer.eos_token_id or 0)


def _warpers(sampling: Sampling) -> list[Any]:
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    warpers: list[Any] = []
    if sampling.temperature not in (0.0, 1.0):
        warpers.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    return warpers


@cache
def _separable() -> frozenset[type]:
    """Kinds of cache layers of which rows can be taken. Linear attention keeps a state that nobody has taught to part,
    also where it stands beside a layer that can."""
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    return frozenset({DynamicLayer, DynamicSlidingWindowLayer})


@cache
def _keep_last(model_class: type) -> dict[str, int]:
    # A prompt's logits at a vocabulary of 248,320 would be the largest tensor of all.
    known = inspect.signature(model_class.forward).parameters
    return {"logits_to_keep": 1} if "logits_to_keep" in known else {}


class TextStream:
    """Tokens of one row to text, as soon as it is certain.

    A character may span several tokens, and a tokenizer may join a token with the one before it: text is only given out
    when the decoded prefix no longer ends in a broken character.

    Args:
        tokenizer: a Hugging Face tokenizer.
        stop: texts that end the row; text that might be the start of one is held back.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        self._tokenizer, self._stop = tokenizer, [text for text in stop if text]
        self._ids: list[int] = []
        self._from = self._given_ids = 0
        self._held = ""
        self.text = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that became certain with this token; sets ``stopped`` when a stop text is complete."""
        self._ids.append(token)
        before = self._decode(self._ids[self._from : self._given_ids])
        now = self._decode(self._ids[self._from :])
        if now.endswith("\ufffd") or len(now) <= len(before):
            return ""
        self._from, self._given_ids = self._given_ids, len(self._ids)
        return self._release(now[len(before) :])

    def finish(self) -> str:
        """What was held back until the end."""
        rest = self._decode(self._ids[self._from :])[len(self._decode(self._ids[self._from : self._given_ids])) :]
        self._from = self._given_ids = len(self._ids)
        given = self._release(rest)
        if not self.stopped:
            self.text += self._held
            given, self._held = given + self._held, ""
        return given

    def _release(self, new: str) -> str:
        self._held += new
        found = [place for place in map(self._held.find, self._stop) if place >= 0]
        if found:
            self.stopped = True
            self._held = self._held[: min(found)]
        keep = 0 if self.stopped else max((_overlap(self._held, stop) for stop in self._stop), default=0)
        cut = len(self._held) - keep
        given, self._held = self._held[:cut], self._held[cut:]
        self.text += given
        return given

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that could still become `stop`."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-size:])), 0)

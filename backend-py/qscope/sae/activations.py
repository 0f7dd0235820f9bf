"""From text to shuffled activations: one pass of the language model feeds all layers.

    token stream -> language model, stopped above the last hooked layer -> filter -> mixing buffer -> batches

The batches are a function of the text, the model, the settings and the seed; after ``load_state`` they continue bit for
bit (on a CPU: at the same number of threads).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from qscope.data import TokenStream, measure_supply
from qscope.errors import UserError
from qscope.models import LoadedModel, capture_residuals
from qscope.sae.buffer import Activations, MixingBuffer
from qscope.sae.filtering import TokenFilter
from qscope.v1.sae_pb2 import ActivationBuffer, ActivationFilter

_BATCHES_HELD = 16


def buffer_tokens(buffer: ActivationBuffer, batch_tokens: int) -> int:
    """Tokens the shuffle buffer holds: as given, else 16 batches."""
    return buffer.tokens or _BATCHES_HELD * batch_tokens


def model_batch_sequences(buffer: ActivationBuffer, context: int) -> int:
    """Sequences per forward pass of the language model: as many as ``model_batch_tokens`` holds, at least one."""
    return max(1, buffer.model_batch_tokens // context)


class ActivationStream:
    """Batches of activations for training SAEs.

    Args:
        loaded: the language model.
        tokens: the token stream it reads.
        layers: hooked layers, ascending; the first dimension of every batch follows them.
        filter: which activations are dropped.
        buffer: size of the shuffle buffer and of the model's batches.
        batch_tokens: tokens per batch, all of them kept ones.
        seed: seed of the shuffle.
        storage_dtype: number format in the buffer and of the batches; the model's own when not given.
        at: experiment field of the text source, for errors.

    Raises:
        UserError: the buffer is smaller than a batch.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        tokens: TokenStream,
        layers: Sequence[int],
        *,
        filter: ActivationFilter,
        buffer: ActivationBuffer,
        batch_tokens: int,
        seed: int,
        storage_dtype: torch.dtype | None = None,
        at: str = "train_sae.text",
    ) -> None:
        self._loaded, self._tokens, self._layers, self._at = loaded, tokens, list(layers), at
        self._sequences = model_batch_sequences(buffer, tokens.context)
        self._drops_first = filter.drop_first_token
        self._filter = TokenFilter(filter, self._layers, loaded.device)
        self._batch_tokens = batch_tokens
        self._served = 0
        self._buffer = MixingBuffer(
            len(self._layers),
            loaded.facts.d_model,
            tokens=buffer_tokens(buffer, batch_tokens),
            slack=self._sequences * tokens.context,
            batch_tokens=batch_tokens,
            dtype=storage_dtype or loaded.dtype,
            device=loaded.device,
            seed=seed,
        )

    @property
    def bytes(self) -> int:
        """Memory of the shuffle buffer."""
        return self._buffer.bytes

    def require(self, tokens: int) -> None:
        """Refuses a text too small for ``tokens`` activations before anything is trained.

        Counts one pass, up to some millions of tokens; a larger text is taken on trust, and so is the norm filter's
        share. Leaves the stream where it was.

        Raises:
            UserError: too little text (TEXT_EXHAUSTED) or none (NO_TEXT).
        """
        if self._tokens.repeat:
            return
        before = self._tokens.state()
        # With one token less in every full sequence; documents shorter than the context can fall short of it unnoticed.
        enough = tokens + self._drops_first * -(-tokens // (self._tokens.context - 1))
        supply = measure_supply(self._tokens, enough_tokens=enough)
        self._tokens.load_state(before)
        available = supply.tokens - supply.sequences * self._drops_first
        if supply.complete and available < tokens:
            raise self._exhausted(available, tokens)

    def fill(self, on_progress: Callable[[int, int], None]) -> None:
        """Fills an empty buffer, which ``next_batch`` would otherwise do unseen.

        Args:
            on_progress: called with the tokens held and those it holds when full. It may raise: the stream is then
                of no more use.
        """
        if not self._buffer.needs_refill:
            return

        def source() -> Activations | None:
            on_progress(self._buffer.live, self._buffer.size)
            return self._next_kept()

        self._buffer.refill(source)
        on_progress(self._buffer.live, self._buffer.size)

    def next_batch(self) -> torch.Tensor:
        """The next batch ``acts_LBD``, on the model's device, in the storage number format.

        Raises:
            UserError: the text is exhausted (TEXT_EXHAUSTED), or holds nothing the filter keeps (NO_TEXT).
        """
        if self._buffer.needs_refill:
            self._buffer.refill(self._next_kept)
        acts_LBD = self._buffer.draw()
        if acts_LBD is None:
            raise self._exhausted(self._filter.kept, self._served + self._batch_tokens)
        self._served += self._batch_tokens
        return acts_LBD

    def stats(self) -> dict[str, Any]:
        """Tokens read, kept and dropped by reason and layer, median norm per layer, passes over the text.

        Synchronises with the device: read it with the metrics, not every step.
        """
        return {**self._tokens.stats(), **self._filter.stats(), "tokens_buffered": self._buffer.live}

    def state_json(self) -> dict[str, Any]:
        """The part of the state that fits JSON."""
        return {
            "layers": self._layers,
            "served": self._served,
            "tokens": self._tokens.state(),
            "filter": self._filter.state_json(),
            "buffer": self._buffer.state_json(),
        }

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """The rest of the state, on the CPU; its size is nearly that of the live part of the buffer."""
        return {
            **{f"filter.{name}": tensor for name, tensor in self._filter.state_tensors().items()},
            **{f"buffer.{name}": tensor for name, tensor in self._buffer.state_tensors().items()},
        }

    def load_state(self, state: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        """Goes on exactly where the state was taken.

        Raises:
            UserError: the text has changed since (TEXT_CHANGED).
        """
        assert state["layers"] == self._layers, "the state belongs to other layers"
        self._tokens.load_state(state["tokens"])
        self._served = int(state["served"])
        self._filter.load_state(state["filter"], _under("filter.", tensors))
        self._buffer.load_state(state["buffer"], _under("buffer.", tensors))

    def _next_kept(self) -> Activations | None:
        """Activations of the next model batch and which of them the filter keeps."""
        if self._tokens.passes and not self._filter.kept:
            raise UserError(
                "The filter dropped every token of the text.",
                remedy="Use longer documents or pack: true, or relax train_sae.filter.",
                reason="NO_TEXT",
                field=self._at,
            )
        batch = self._tokens.next_batch(self._sequences)
        if batch is None:
            return None
        mask_BT = None if bool(batch.attention_mask_BT.all()) else batch.attention_mask_BT
        captured = capture_residuals(self._loaded, self._layers, batch.input_ids_BT, mask_BT)
        resids_BTD = [captured[layer] for layer in self._layers]
        return Activations([resid.flatten(0, 1) for resid in resids_BTD], self._filter.keep(resids_BTD, batch))

    def _exhausted(self, available: int, wanted: int) -> UserError:
        return UserError(
            f"The text holds {available:,} usable tokens, but {wanted:,} are wanted and repeat is off.",
            remedy="Give more text, lower train_sae.tokens, or set repeat: true in the text source.",
            reason="TEXT_EXHAUSTED",
            field=f"{self._at}.repeat",
        )


def _under(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

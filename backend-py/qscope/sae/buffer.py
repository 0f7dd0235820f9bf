"""The shuffle buffer between the language model and the SAEs.

One block of memory on the device, ``[layers, slots, width]``, shared by all layers and never reallocated. A permutation
of slots gives the serving order. When half of the tokens have been served, new ones take the free slots and all
unserved tokens are shuffled together (the mixing buffer of SAELens): every batch mixes old and new text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from qscope.errors import UserError


class Activations(NamedTuple):
    """One language-model batch.

    Attributes:
        resids_ND: the residual stream of each layer, all tokens.
        kept_K: which of the N tokens go into the buffer, the same at every layer.
    """

    resids_ND: Sequence[torch.Tensor]
    kept_K: torch.Tensor


class MixingBuffer:
    """Shuffled activations of all layers.

    Args:
        n_layers: layers.
        d_model: width of the residual stream.
        tokens: tokens held when full.
        slack: most tokens one ``refill`` source call delivers; room for them is held beside ``tokens``.
        batch_tokens: tokens per ``draw``.
        dtype: number format of the stored activations.
        device: where they are stored.
        seed: seed of the permutations.

    Raises:
        UserError: the buffer is smaller than a batch (BUFFER_TOO_SMALL).
    """

    def __init__(
        self,
        n_layers: int,
        d_model: int,
        *,
        tokens: int,
        slack: int,
        batch_tokens: int,
        dtype: torch.dtype,
        device: torch.device,
        seed: int,
    ) -> None:
        if tokens < batch_tokens:
            raise UserError(
                f"The shuffle buffer holds {tokens:,} tokens, fewer than one batch of {batch_tokens:,}.",
                remedy="Raise train_sae.buffer.tokens (0 takes 16 batches) or lower train_sae.batch_tokens.",
                reason="BUFFER_TOO_SMALL",
                field="train_sae.buffer.tokens",
            )
        self._tokens, self._batch, self._seed = tokens, batch_tokens, seed
        # Served down to here before a refill: half, or less where half does not leave room for one batch.
        self._floor = min(tokens // 2, tokens - batch_tokens)
        self._storage_LSD = torch.empty(n_layers, tokens + slack, d_model, dtype=dtype, device=device)
        # Served slots, then the live ones in serving order, then the free ones.
        self._slots = torch.arange(tokens + slack, device=device)
        self._served = self._end = 0
        self._refills = 0
        self._drained = False

    @staticmethod
    def bytes_needed(n_layers: int, d_model: int, tokens: int, slack: int, dtype: torch.dtype) -> int:
        """Memory of a buffer, for planning."""
        return n_layers * (tokens + slack) * d_model * dtype.itemsize

    @property
    def bytes(self) -> int:
        """Memory held."""
        return self._storage_LSD.nbytes

    @property
    def size(self) -> int:
        """Tokens held when full."""
        return self._tokens

    @property
    def live(self) -> int:
        """Tokens not yet served."""
        return self._end - self._served

    @property
    def needs_refill(self) -> bool:
        """True when the next batch would leave fewer than half of the tokens to mix with."""
        return not self._drained and self.live - self._batch < self._floor

    def refill(self, source: Callable[[], Activations | None]) -> None:
        """Fills the buffer and shuffles all that is live.

        Args:
            source: delivers the next activations, or None when there are no more.
        """
        served, live, free = self._slots.tensor_split((self._served, self._end))
        self._slots = torch.cat([live, served, free])
        self._served, self._end = 0, len(live)
        while self._end < self._tokens:
            activations = source()
            if activations is None:
                self._drained = True
                break
            self._write(activations)
        order = torch.randperm(self._end, generator=self._generator()).to(self._slots.device)
        self._slots[: self._end] = self._slots[: self._end][order]
        self._refills += 1

    def draw(self) -> torch.Tensor | None:
        """The next batch, ``acts_LBD`` in the buffer's number format, or None when fewer tokens are left."""
        if self.live < self._batch:
            return None
        slots_B = self._slots[self._served : self._served + self._batch]
        self._served += self._batch
        return self._storage_LSD.index_select(1, slots_B)

    def state_json(self) -> dict[str, Any]:
        return {"refills": self._refills, "drained": self._drained}

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """The live activations ``[L, N, D]`` in serving order, on the CPU."""
        slots_N = self._slots[self._served : self._end]
        layers, _, width = self._storage_LSD.shape
        # Layer by layer: a copy of all at once would need as much device memory again.
        live_LND = torch.empty(layers, len(slots_N), width, dtype=self._storage_LSD.dtype)
        for live_ND, storage_SD in zip(live_LND, self._storage_LSD, strict=True):
            live_ND.copy_(storage_SD.index_select(0, slots_N))
        return {"live_LND": live_LND}

    def load_state(self, state: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        """Goes on exactly where the state was taken. Which slot a token lies in is no part of the state."""
        live_LND = tensors["live_LND"]
        self._slots = torch.arange(len(self._slots), device=self._slots.device)
        self._served, self._end = 0, live_LND.shape[1]
        self._storage_LSD[:, : self._end].copy_(live_LND)
        self._refills, self._drained = int(state["refills"]), bool(state["drained"])

    def _write(self, activations: Activations) -> None:
        count = len(activations.kept_K)
        slots_K = self._slots[self._end : self._end + count]
        assert len(slots_K) == count, f"{count} tokens exceed the slack of the buffer"
        for storage_SD, resid_ND in zip(self._storage_LSD, activations.resids_ND, strict=True):
            storage_SD.index_copy_(0, slots_K, resid_ND.index_select(0, activations.kept_K).to(storage_SD.dtype))
        self._end += count

    def _generator(self) -> torch.Generator:
        # A function of the seed and the number of the refill: no generator state to save.
        mixed = hashlib.blake2b(f"{self._seed} {self._refills}".encode(), digest_size=8).digest()
        return torch.Generator().manual_seed(int.from_bytes(mixed, "little") >> 1)

"""Reading converted SAEs: single rows from the disk, whole layers through a budget of memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from qscope.errors import UserError
from qscope.models.device import available_memory
from qscope.sae.identity import SaeFacts
from qscope.sae.store.budget import ByteBudget
from qscope.sae.store.conversion import Group
from qscope.sae.store.layer_file import DamagedStore, LayerFile
from qscope.sae.store.manifest import LayerRecord
from qscope.sae.store.sources import missing_layer
from qscope.sae.topk import TopKSae

SHARE = 0.5
"""Part of the free memory that is the budget unless one is given: the model's activations need the rest."""

Answer = TypeVar("Answer")


class SaeStore:
    """Converted SAEs of one source, opened by :func:`qscope.sae.store.open_store`; a context manager.

    Files stay open, so what another process replaces meanwhile does not reach this one. May be used by several threads.

    Args:
        name: what the user calls the SAEs.
        group: where they are.
        records: the layers that may be read, each checked.
        has_source: whether a damaged layer can be converted again.
        host_bytes: budget for what is held in host memory; None for half of what is free.
        device_bytes: the same for each accelerator.
        shares: an open store whose budgets this one uses too, in the place of its own; closing one empties both.
    """

    def __init__(
        self,
        name: str,
        group: Group,
        records: dict[int, LayerRecord],
        *,
        has_source: bool = True,
        host_bytes: int | None = None,
        device_bytes: int | None = None,
        shares: SaeStore | None = None,
    ) -> None:
        self.name, self._group, self._records, self._has_source = name, group, records, has_source
        self._limits = {"host": host_bytes, "device": device_bytes}
        self._budgets: dict[torch.device, ByteBudget[Tensor]] = shares._budgets if shares else {}
        self._lock = shares._lock if shares else threading.RLock()
        self._files: dict[int, LayerFile] = {}
        try:
            for layer, record in records.items():
                path, shape = group.folder / record.file, record.shape(layer, group.identity.torch_dtype)
                self._files[layer] = LayerFile(path, shape, record.vectors_blake2b)
        except DamagedStore:
            self.close()
            raise

    def __enter__(self) -> SaeStore:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the files and gives up what is held."""
        with self._lock:
            for file in self._files.values():
                file.close()
            for budget in self._budgets.values():
                budget.clear()

    @property
    def layers(self) -> list[int]:
        """Layers that may be read."""
        return list(self._records)

    @property
    def facts(self) -> SaeFacts:
        """What is known of the SAEs, for :func:`qscope.sae.identity.check_pair`."""
        saes = {layer: record.description(layer) for layer, record in self._records.items()}
        return SaeFacts(self._group.identity.origin_name, saes)

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the matrices on disk."""
        return self._group.identity.torch_dtype

    @property
    def folder(self) -> str:
        """Where the converted SAEs are."""
        return str(self._group.folder)

    def digest(self, layer: int) -> str:
        """Digest of a layer's file: the same for the same weights in the same number format, wherever they are."""
        return self._record(layer).blake2b

    def directions(self, layer: int, features: Sequence[int] | Tensor) -> Tensor:
        """Decoder rows ``[n, D]`` in float32 on the CPU, in the order asked for; only those rows are read."""
        return self._rows(layer, "W_dec", features)

    def encoder_rows(self, layer: int, features: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
        """Encoder rows ``[n, D]`` and biases ``[n]``, as :meth:`directions`."""
        W_ND = self._rows(layer, "W_enc", features)
        return W_ND, self._vector(layer, "b_enc")[self._chosen(layer, features)]

    def decoder_norms(self, layer: int, features: Sequence[int] | Tensor | None = None) -> Tensor:
        """Norms ``[n]`` of decoder rows as stored, float32; of all features for None."""
        norms_F = self._vector(layer, "decoder_norms")
        return norms_F.clone() if features is None else norms_F[self._chosen(layer, features)]

    def b_dec(self, layer: int) -> Tensor:
        """``b_dec_D`` in float32 on the CPU."""
        return self._vector(layer, "b_dec").clone()

    def encoder(
        self, layer: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> tuple[Tensor, Tensor]:
        """``(W_enc_FD, b_enc_F)`` of a whole layer; held for the next call as long as the budget allows.

        The tensors are shared with later calls: change none in place.

        Raises:
            UserError: the layer does not fit the budget (OUT_OF_BUDGET); nothing was allocated.
        """
        device = _indexed(torch.device(device))
        W_FD = self._matrix(layer, "W_enc", device, dtype)
        return W_FD, self._vector(layer, "b_enc").to(device, dtype)

    def sae(self, layer: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> TopKSae:
        """A whole SAE; it shares its encoder with :meth:`encoder`.

        Raises:
            UserError: the layer does not fit the budget (OUT_OF_BUDGET); nothing was allocated.
        """
        device = _indexed(torch.device(device))
        with self._lock:
            self.require([layer], device, dtype, decoders=True)
            W_enc_FD, b_enc_F = self.encoder(layer, device, dtype)
            W_dec_FD = self._matrix(layer, "W_dec", device, dtype)
        b_dec_D = self._vector(layer, "b_dec").to(device, dtype)
        return TopKSae(W_enc_FD, b_enc_F, W_dec_FD, b_dec_D, k=self._record(layer).k, layer=layer)

    def require(
        self,
        layers: Iterable[int],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        *,
        decoders: bool = False,
    ) -> int:
        """Refuses, before anything is allocated, whole layers that cannot be held together.

        Args:
            layers: held at the same time.
            device: where.
            dtype: in which number format.
            decoders: whole SAEs instead of encoders alone.

        Returns:
            The bytes they take.

        Raises:
            UserError: OUT_OF_BUDGET.
        """
        layers, device = list(layers), _indexed(torch.device(device))
        count = sum(self._matrix_bytes(layer, dtype) for layer in layers) * (2 if decoders else 1)
        whose = f"layer {layers[0]}" if len(layers) == 1 else f"{len(layers)} layers"
        what = f"{'the SAE' if decoders else 'the encoder'} of {whose} in {_word(dtype)}"
        self._budget(device).require(count, what)
        return count

    def held_bytes(self, device: torch.device | str = "cpu") -> int:
        """Bytes of whole matrices held on a device."""
        return self._budget(_indexed(torch.device(device))).used

    def _record(self, layer: int) -> LayerRecord:
        if layer not in self._records:
            raise missing_layer(self.name, layer, self.layers)
        return self._records[layer]

    def _chosen(self, layer: int, features: Sequence[int] | Tensor) -> Tensor:
        chosen_N = torch.as_tensor(features, dtype=torch.long, device="cpu").reshape(-1)
        d_sae = self._record(layer).d_sae
        outside = chosen_N[(chosen_N < 0) | (chosen_N >= d_sae)]
        if outside.numel():
            raise UserError(
                f"There is no feature {int(outside[0])} at layer {layer}.",
                remedy=f"Its features are 0 to {d_sae - 1}.",
                reason="FEATURE_OUT_OF_RANGE",
            )
        return chosen_N

    def _rows(self, layer: int, name: str, features: Sequence[int] | Tensor) -> Tensor:
        chosen_N = self._chosen(layer, features)
        record = self._record(layer)
        what = f"{len(chosen_N):,} rows of layer {layer}"
        self._budget(torch.device("cpu")).require(4 * record.d_in * len(chosen_N), what)
        rows_ND = self._checked(layer, lambda file: file.rows(name, chosen_N.tolist()))
        return rows_ND.float()

    def _vector(self, layer: int, name: str) -> Tensor:
        self._record(layer)
        return self._checked(layer, lambda file: file.vector(name))

    def _matrix(self, layer: int, name: str, device: torch.device, dtype: torch.dtype) -> Tensor:
        count = self._matrix_bytes(layer, dtype)
        what = f"{'the encoder' if name == 'W_enc' else 'the decoder'} of layer {layer} in {_word(dtype)}"
        with self._lock:
            return self._budget(device).get(
                (self.digest(layer), name, dtype),
                count,
                lambda: self._checked(layer, lambda file: file.matrix(name, device, dtype)),
                what,
            )

    def _matrix_bytes(self, layer: int, dtype: torch.dtype) -> int:
        record = self._record(layer)
        return record.d_in * record.d_sae * dtype.itemsize

    def _checked(self, layer: int, read: Callable[[LayerFile], Answer]) -> Answer:
        try:
            return read(self._files[layer])
        except DamagedStore as damage:
            remedy = "Name the folder or repository they were converted from, to convert them again."
            if self._has_source:
                # Without its file the layer counts as never converted.
                self._files[layer].path.unlink(missing_ok=True)
                remedy = "It was removed; run the command again to convert the layer again."
            raise UserError(f"{damage}.", remedy=remedy, reason="SAE_STORE_DAMAGED") from None

    def _budget(self, device: torch.device) -> ByteBudget[Tensor]:
        with self._lock:
            if device not in self._budgets:
                on_host = device.type == "cpu"
                limit = self._limits["host" if on_host else "device"]
                if limit is None:
                    limit = int(available_memory(device) * SHARE)
                remedy = "Name fewer layers or features, use bfloat16, or raise the budget."
                self._budgets[device] = ByteBudget(limit, "host memory" if on_host else f"memory of {device}", remedy)
            return self._budgets[device]


def _indexed(device: torch.device) -> torch.device:
    """``cuda`` and ``cuda:0`` are one place."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu") if device.type == "cpu" else device


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

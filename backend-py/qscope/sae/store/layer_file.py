"""One SAE of the store in one file: safetensors, rows of a feature side by side, each row with a check sum.

    W_enc [F, D], W_dec [F, D]           bfloat16 (or float32); W_dec by rows, so a direction is one short read
    b_enc [F], b_dec [D]                 float32
    decoder_norms [F]                    float32, of the decoder rows as they are stored
    W_enc_sums [F], W_dec_sums [F]       int32, see :func:`row_sums`

The header is padded to a multiple of 4,096 bytes, so that rows of a width such as 2,048 do not straddle pages.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from qscope.errors import UserError
from qscope.sae.topk import TopKSae

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
"""Number formats of the matrices."""

MATRICES = ("W_enc", "W_dec")
CHUNK_BYTES = 32 << 20
"""Rows converted or read at a time, in float32: what bounds the memory of both."""

_SAFETENSORS_NAME = {torch.bfloat16: "BF16", torch.float32: "F32", torch.int32: "I32"}
_ALIGNMENT = 4096


class DamagedStore(Exception):
    """Something in the store is not what was written there; the text is a sentence without its full stop."""


@dataclass(frozen=True)
class Shape:
    """What the header says, and so where everything is in the file."""

    layer: int
    d_in: int
    d_sae: int
    k: int
    dtype: torch.dtype

    @cached_property
    def tensors(self) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """Number format and shape of each tensor, in the order of the file."""
        matrix = (self.dtype, (self.d_sae, self.d_in))
        return {
            "W_enc": matrix,
            "W_dec": matrix,
            "b_enc": (torch.float32, (self.d_sae,)),
            "b_dec": (torch.float32, (self.d_in,)),
            "decoder_norms": (torch.float32, (self.d_sae,)),
            "W_enc_sums": (torch.int32, (self.d_sae,)),
            "W_dec_sums": (torch.int32, (self.d_sae,)),
        }

    @cached_property
    def header(self) -> bytes:
        """Everything before the tensors; the same for the same shape, so a reader can compare it byte by byte."""
        facts = {"layer": self.layer, "k": self.k, "hook_point": "resid_post", "encoder_subtracts_b_dec": False}
        entries: dict[str, Any] = {"__metadata__": {"format": "pt", "qscope.sae-store": json.dumps(facts)}}
        start = 0
        for name, (dtype, shape) in self.tensors.items():
            end = start + dtype.itemsize * prod(shape)
            entries[name] = {"dtype": _SAFETENSORS_NAME[dtype], "shape": shape, "data_offsets": [start, end]}
            start = end
        text = json.dumps(entries, separators=(",", ":")).encode()
        length = -(-(8 + len(text)) // _ALIGNMENT) * _ALIGNMENT - 8
        return length.to_bytes(8, "little") + text.ljust(length)

    def offset(self, name: str) -> int:
        """Where a tensor begins in the file."""
        start = len(self.header)
        for other, (dtype, shape) in self.tensors.items():
            if other == name:
                return start
            start += dtype.itemsize * prod(shape)
        raise KeyError(name)

    @property
    def bytes(self) -> int:
        """Size of the whole file."""
        return self.offset("W_dec_sums") + 4 * self.d_sae

    @property
    def rows_at_once(self) -> int:
        return max(1, CHUNK_BYTES // (4 * self.d_in))


def row_sums(rows_ND: Tensor) -> Tensor:
    """Check sum of each row, int32: the sum of its 64-bit words modulo 2^64, its halves folded by exclusive or.

    Runs at the speed of memory on whole layers and on one row alike, so that no row is handed out unchecked. A flipped
    bit, a zeroed or a foreign row changes it; words that changed places within a row do not.

    Args:
        rows_ND: contiguous, in the store's number format.
    """
    whole_words = rows_ND.shape[1] * rows_ND.dtype.itemsize % 8 == 0
    sums_N = rows_ND.view(torch.int64 if whole_words else torch.int16).sum(dim=1, dtype=torch.int64)
    return (sums_N ^ (sums_N >> 32)).to(torch.int32)


def row_norms(rows_ND: Tensor) -> Tensor:
    """L2 norm of each row in float32; not finite where, and only where, the row is not or its norm leaves float32."""
    norms_N = torch.linalg.vector_norm(rows_ND, dim=1, dtype=torch.float32)
    # Squares leave the range of float32 long before the values do; float64 for every row would take ten times longer.
    odd_N = ~((norms_N > 1e-15) & torch.isfinite(norms_N))
    if bool(odd_N.any()):
        norms_N[odd_N] = torch.linalg.vector_norm(rows_ND[odd_N].double(), dim=1).float()
    return norms_N


class Digests(NamedTuple):
    """blake2b of the whole file, and of the vectors behind the matrices."""

    file: str
    vectors: str


def write_layer(path: Path, sae: TopKSae, dtype: torch.dtype) -> Digests:
    """Writes an SAE chunk by chunk, and reads it back from the disk.

    Args:
        path: written as it is; give a temporary name.
        sae: may be mapped, and its matrices transposed views; at most a few chunks are copied.
        dtype: of the two matrices.

    Raises:
        UserError: a weight is too large for the number format.
        DamagedStore: the disk gave back something else than was written.
        OSError: no room, and the like.
    """
    shape = Shape(sae.layer, sae.d_in, sae.d_sae, sae.k, dtype)
    norms, sums = [], {name: [] for name in MATRICES}
    with open(path, "wb") as file:
        sink = _Hashed(file)
        sink.write(shape.header)
        for name, matrix_FD in (("W_enc", sae.W_enc_FD), ("W_dec", sae.W_dec_FD)):
            for rows_ND in matrix_FD.split(shape.rows_at_once):
                stored_ND, norms_N = _converted(rows_ND, shape)
                sink.tensor(stored_ND)
                sums[name].append(row_sums(stored_ND))
                if name == "W_dec":
                    norms.append(norms_N)
        vectors = [tensor.float().contiguous() for tensor in (sae.b_enc_F, sae.b_dec_D, torch.cat(norms))]
        vectors += [torch.cat(sums[name]) for name in MATRICES]
        for vector in vectors:
            sink.tensor(vector)
        file.flush()
        os.fsync(file.fileno())
        if hasattr(os, "posix_fadvise"):
            # Else reading back would only see what is still in memory.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if digest_of(path) != sink.digest.hexdigest():
        raise DamagedStore(f"{path}: the disk gives back other bytes than were written")
    return Digests(sink.digest.hexdigest(), _digest(b"".join(bytes(_bytes_of(vector)) for vector in vectors)))


def _digest(data: bytes | memoryview) -> str:
    return hashlib.blake2b(data, digest_size=32).hexdigest()


def _converted(rows_ND: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
    """Rows in the store's number format, in memory of their own, and their norms."""
    # First in one piece, then rounded: torch transposes in blocks only within one number format.
    stored_ND = torch.empty(rows_ND.shape, dtype=shape.dtype).copy_(rows_ND.contiguous())
    norms_N = row_norms(stored_ND)
    if not bool(torch.isfinite(norms_N).all()):
        raise UserError(
            f"The SAE of layer {shape.layer} holds weights too large for {str(shape.dtype).removeprefix('torch.')}.",
            remedy="Its training diverged; use another SAE.",
            reason="SAE_OUT_OF_RANGE",
        )
    return stored_ND, norms_N


class _Hashed:
    """A file that is hashed while it is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.digest = file, hashlib.blake2b(digest_size=32)

    def write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self.digest.update(data)

    def tensor(self, tensor: Tensor) -> None:
        self.write(memoryview(_bytes_of(tensor)))


def digest_of(path: Path) -> str:
    """blake2b of a whole file."""
    with open(path, "rb", buffering=0) as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32)).hexdigest()


class LayerFile:
    """A file of the store, open for reading rows.

    Read with ``pread``, not mapped: a mapped file that shrinks kills the process, and every row touched would stay in
    the process's memory as a page of the file. It is no slower: a row of 4 kB took 7 us, mapped by numpy 9 us, through
    safetensors 20 us (benchmarks/sae_store.py).

    Args:
        path: the file.
        shape: what it must hold; size and header are compared at once.
        vectors_digest: of the vectors, compared when the first of them is needed.

    Raises:
        DamagedStore: the file is missing, or is not that.
    """

    def __init__(self, path: Path, shape: Shape, vectors_digest: str) -> None:
        self.path, self.shape, self._vectors_digest = path, shape, vectors_digest
        try:
            self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - open as long as this object is
        except OSError as error:
            raise DamagedStore(f"{path}: cannot be opened ({error.strerror})") from None
        try:
            size = os.fstat(self._file.fileno()).st_size
            if size != shape.bytes:
                raise DamagedStore(f"{path}: has {size:,} bytes instead of {shape.bytes:,}")
            if os.pread(self._file.fileno(), len(shape.header), 0) != shape.header:
                raise DamagedStore(f"{path}: its header is not the one that was written")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._file.close()

    def vector(self, name: str) -> Tensor:
        """One of the tensors with a single dimension.

        Raises:
            DamagedStore: they are not those that were written.
        """
        return self._vectors[name]

    @cached_property
    def _vectors(self) -> dict[str, Tensor]:
        # All in one read: 0.5 MB at 32,768 features, and without the sums no row can be checked.
        first = self.shape.offset("b_enc")
        data = torch.empty(self.shape.bytes - first, dtype=torch.uint8)
        self._read_into(data, first)
        if _digest(memoryview(data.numpy())) != self._vectors_digest:
            raise DamagedStore(f"{self.path}: its biases, norms or sums are not those that were written")
        vectors = {}
        for name, (dtype, shape) in self.shape.tensors.items():
            if name not in MATRICES:
                start = self.shape.offset(name) - first
                vectors[name] = data[start : start + dtype.itemsize * shape[0]].view(dtype)
        return vectors

    def rows(self, name: str, features: Sequence[int]) -> Tensor:
        """Rows of a matrix ``[n, D]`` in the store's number format.

        Raises:
            DamagedStore: a row is not the one that was written.
        """
        rows_ND = torch.empty(len(features), self.shape.d_in, dtype=self.shape.dtype)
        start, width = self.shape.offset(name), self.shape.d_in * self.shape.dtype.itemsize
        for row_D, feature in zip(rows_ND, features, strict=True):
            self._read_into(row_D, start + feature * width)
        self._check(name, rows_ND, torch.as_tensor(features, dtype=torch.long))
        return rows_ND

    def matrix(self, name: str, device: torch.device, dtype: torch.dtype) -> Tensor:
        """A whole matrix ``[F, D]``, through one chunk of host memory.

        Raises:
            DamagedStore: a row is not the one that was written.
        """
        shape = self.shape
        whole_FD = torch.empty(shape.d_sae, shape.d_in, dtype=dtype, device=device)
        direct = whole_FD.device.type == "cpu" and dtype == shape.dtype
        start, width = shape.offset(name), shape.d_in * shape.dtype.itemsize
        for first in range(0, shape.d_sae, shape.rows_at_once):
            part_ND = whole_FD[first : first + shape.rows_at_once]
            read_ND = part_ND if direct else torch.empty(part_ND.shape, dtype=shape.dtype)
            self._read_into(read_ND, start + first * width)
            self._check(name, read_ND, slice(first, first + len(part_ND)))
            if not direct:
                part_ND.copy_(read_ND)
        return whole_FD

    def _check(self, name: str, rows_ND: Tensor, which: Tensor | slice) -> None:
        wrong_N = (row_sums(rows_ND) != self.vector(f"{name}_sums")[which]).nonzero()
        if wrong_N.numel():
            index = int(wrong_N[0])
            feature = which.start + index if isinstance(which, slice) else int(which[index])
            raise DamagedStore(f"{self.path}: row {feature} of {name} is not the one that was written")

    def _read_into(self, tensor: Tensor, offset: int) -> None:
        view = memoryview(_bytes_of(tensor))
        while view:
            try:
                count = os.preadv(self._file.fileno(), [view], offset)
            except OSError as error:
                raise DamagedStore(f"{self.path}: cannot be read ({error.strerror})") from None
            if count == 0:
                raise DamagedStore(f"{self.path}: ends before its last row")
            view, offset = view[count:], offset + count


def _bytes_of(tensor: Tensor) -> Any:
    return tensor.detach().reshape(-1).view(torch.uint8).numpy()

"""Where steering gets features from: single directions when those suffice, whole SAEs when activations are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from qscope.data import TokenStream, open_text
from qscope.errors import UserError
from qscope.features.encoders import sae_record
from qscope.models import LoadedModel
from qscope.models.device import available_memory
from qscope.sae import formats
from qscope.sae.hook_check import hook_self_test
from qscope.sae.identity import check_pair
from qscope.sae.store import SaeStore, open_store, read_facts
from qscope.sae.store.budget import ByteBudget
from qscope.sae.store.reading import SHARE
from qscope.sae.topk import TopKSae
from qscope.v1.text_pb2 import TextSource

#: Tokens of the hook-point self-test.
_TEST_TOKENS = 256


class Saes(Protocol):
    """SAEs by layer. Every method raises a UserError when a layer has none."""

    def d_sae(self, layer: int) -> int:
        """Number of features."""
        ...

    def directions(self, layer: int, features: Sequence[int]) -> Tensor:
        """Decoder rows [M, D] of these features, float32, on the CPU; they exist."""
        ...

    def whole(self, layer: int) -> TopKSae:
        """The SAE on the model's device."""
        ...

    def fingerprint(self, layer: int) -> str:
        """Digest that saved features carry; empty where it cannot be known without reading the whole SAE."""
        ...


class LoadedSaes:
    """SAEs already in memory.

    Args:
        sae_of: SAE of a layer.
        device: where whole SAEs are wanted.
    """

    def __init__(self, sae_of: Callable[[int], TopKSae], device: torch.device | str = "cpu") -> None:
        self._sae_of, self._device = sae_of, device

    def d_sae(self, layer: int) -> int:
        return self._sae_of(layer).d_sae

    def directions(self, layer: int, features: Sequence[int]) -> Tensor:
        return self._sae_of(layer).W_dec_FD[list(features)].float().cpu()

    def whole(self, layer: int) -> TopKSae:
        return self._sae_of(layer).to(self._device)

    def fingerprint(self, layer: int) -> str:
        return sae_record(self._sae_of(layer)).fingerprint


class NoSaes:
    """In the place of SAEs that cannot be found.

    Args:
        fault: raised when a feature is asked for; plain vectors never do.
    """

    def __init__(self, fault: UserError) -> None:
        self._fault = fault

    def d_sae(self, layer: int) -> int:
        raise self._fault

    def directions(self, layer: int, features: Sequence[int]) -> Tensor:
        raise self._fault

    def whole(self, layer: int) -> TopKSae:
        raise self._fault

    def fingerprint(self, layer: int) -> str:
        raise self._fault


class StoredSaes:
    """SAEs of one file, folder or repository, layer by layer as they are needed.

    Adding a feature reads one row. qscope's own layout already keeps decoder rows together; other layouts are converted
    once (:mod:`qscope.sae.store`). A whole SAE is only loaded where activations are read, and the first time its hook
    point is tested on a short text. All layers share one budget of memory; a whole SAE that was given up for others is
    loaded again.

    Args:
        place: what :func:`qscope.sae.formats.load` takes.
        loaded: the model.
        offline: never contact the hub.
        tell: takes what takes time, each a sentence.
        warn: takes what the user should know, each a sentence.
        at: experiment field that names the SAEs, for errors.
    """

    def __init__(
        self,
        place: Path | str,
        loaded: LoadedModel,
        *,
        offline: bool = False,
        tell: Callable[[str], None] = lambda sentence: None,
        warn: Callable[[str], None] = lambda sentence: None,
        at: str = "",
    ) -> None:
        self.place = place
        self._loaded, self._offline, self._at = loaded, offline, at
        self._tell, self._warn = tell, warn
        self._native: dict[int, TopKSae] = {}
        self._stores: dict[int, SaeStore] = {}
        self._copies: ByteBudget[TopKSae] | None = None
        self._tested: set[int] = set()
        self._said: set[str] = set()
        self._layout = formats.detect(place).layout if Path(place).expanduser().exists() else ""

    def d_sae(self, layer: int) -> int:
        self._open(layer)
        if layer in self._native:
            return self._native[layer].d_sae
        return self._stores[layer].facts.saes[layer].d_sae

    def directions(self, layer: int, features: Sequence[int]) -> Tensor:
        self._open(layer)
        if layer in self._native:
            return self._native[layer].W_dec_FD[list(features)].float()
        return self._stores[layer].directions(layer, features)

    def whole(self, layer: int) -> TopKSae:
        """The SAE on the model's device.

        Raises:
            UserError: it does not fit the memory that SAEs may use (OUT_OF_BUDGET).
        """
        self._open(layer)
        device, dtype = self._loaded.device, self._loaded.dtype
        sae = self._copy(layer) if layer in self._native else self._stores[layer].sae(layer, device, dtype)
        if layer not in self._tested:
            self._test_hook_point(sae)
            self._tested.add(layer)
        return sae

    def _copy(self, layer: int) -> TopKSae:
        """A mapped SAE where and as the model is."""
        sae, device, dtype = self._native[layer], self._loaded.device, self._loaded.dtype
        if (sae.W_enc_FD.device.type, sae.dtype) == (device.type, dtype):
            # Still mapped: the system takes its pages back when it needs them.
            return sae
        if self._copies is None:
            self._copies = ByteBudget(
                int(available_memory(device) * SHARE), f"memory of {device}", "Steer fewer layers, or use bfloat16."
            )
        count = sum(tensor.numel() for tensor in sae.tensors().values()) * dtype.itemsize
        return self._copies.get(layer, count, lambda: sae.to(device, dtype), f"the SAE of layer {layer}")

    def fingerprint(self, layer: int) -> str:
        self._open(layer)
        # A store may hold rounded weights, whose digest is another one.
        return sae_record(self._native[layer]).fingerprint if layer in self._native else ""

    def _open(self, layer: int) -> None:
        if layer in self._native or layer in self._stores:
            return
        facts = read_facts(self.place, [layer], offline=self._offline)
        self._say(check_pair(facts, self._loaded.facts, field=self._at))
        if self._layout == "native":
            # Mapped from disk: what is not looked at is not read.
            self._native[layer] = formats.load(self.place, [layer])[layer]
            return
        # The model's own precision: rows in float32 would be added to a stream in bfloat16.
        dtype = torch.bfloat16 if self._loaded.dtype == torch.bfloat16 else torch.float32
        self._stores[layer] = open_store(
            self.place,
            [layer],
            dtype=dtype,
            offline=self._offline,
            shares=next(iter(self._stores.values()), None),
            tell=self._warn,
            on_layer=lambda done, count: self._tell(f"converting the SAE of layer {layer}") if done < count else None,
        )

    def _test_hook_point(self, sae: TopKSae) -> None:
        source = TextSource(source="embedded-heldout", field="text", split="train", context=_TEST_TOKENS, pack=True)
        reader = open_text(source, at="self-test", seed=0)
        stream = TokenStream(reader, self._loaded.tokenizer, context=_TEST_TOKENS, pack=True, repeat=True)
        batch = stream.next_batch(1)
        assert batch is not None, "the embedded text repeats"
        self._say(hook_self_test(self._loaded, {sae.layer: sae}, batch.input_ids_BT).warnings)

    def _say(self, warnings: Sequence[str]) -> None:
        """Each warning once: those about the model are the same at every layer."""
        for warning in warnings:
            if warning not in self._said:
                self._said.add(warning)
                self._warn(warning)


def state_of(place: Path | str) -> tuple[tuple[str, int, int], ...]:
    """Names, times (ns) and sizes (bytes) of the files of SAEs on disk: another when they were written again.

    Raises:
        UserError: nothing is there, or what is there is damaged.
    """
    folder = Path(place).expanduser()
    if not folder.exists():
        # A repository: its files are kept by revision.
        return ()
    files: list[Path] = []
    for item in formats.detect(folder).places.values():
        files += sorted(item.iterdir()) if item.is_dir() else [item]
    return tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files)

"""Documents with loops in them, spontaneous or made, whose tokens are classed by repetition.

The first repetition is class 0, the last class R - 1 whatever the number of repetitions; those between are classes 1 to
R - 2 in order, and beyond that none. A loop of fewer than R repetitions is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from qscope.features.documents import Document, digest_of
from qscope.models import LoadedModel
from qscope.models.prompts import special_ids, thinking_of
from qscope.text.loops import Loop


@dataclass(frozen=True)
class Looped:
    """A document, whose tokens that count are in group 0, and the loop in it."""

    document: Document
    loop: Loop

    @property
    def onset(self) -> int:
        """The first token that repeats: the beginning of the second repetition."""
        return self.loop.start + self.loop.period


def by_repetition(document: Document, loop: Loop, classes: int) -> Document:
    """A document whose tokens inside the loop are classed by repetition; no other token counts."""
    assert loop.repetitions >= classes, "the loop has too few repetitions"
    number_T = (np.arange(len(document.ids_T)) - loop.start) // loop.period
    group_T = np.where((number_T >= 0) & (number_T < classes - 1), number_T, -1)
    group_T = np.where(number_T == loop.repetitions - 1, classes - 1, group_T)
    return replace(document, group_T=np.where(document.group_T >= 0, group_T, -1).astype(np.int16))


def made_loop(document: Document, prefix: int, period: int, repetitions: int) -> Looped | None:
    """The beginning of a document whose next ``period`` tokens are repeated; None when it is too short.

    Its digest is of its own tokens: documents with equal first tokens make one loop, which counts once.
    """
    if len(document.ids_T) < prefix + period:
        return None
    ids_T = np.concatenate([document.ids_T[:prefix], np.tile(document.ids_T[prefix : prefix + period], repetitions)])
    counts_T = np.concatenate(
        [document.group_T[:prefix], np.tile(document.group_T[prefix : prefix + period], repetitions)]
    )
    made = replace(document, ids_T=ids_T, group_T=counts_T, digest=digest_of(ids_T))
    return Looped(made, Loop(prefix, period, repetitions))


@torch.no_grad()
def continued(
    loaded: LoadedModel,
    documents: Sequence[Document],
    prefix: int,
    new_tokens: int,
    *,
    batch_tokens: int,
    think: tuple[int, int] | None = None,
    on_progress: Callable[[int], None] = lambda done: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Document] | None:
    """Documents made of the beginnings of others and the model's own greedy continuation.

    Generated tokens count, but for special ones and, with ``think`` (the ids of the tags), for thinking. A continuation
    ends before its first special token. Documents shorter than the prefix are left out. Digests are of the documents'
    own tokens: equal beginnings go on alike, whatever the rest of their texts was.

    Returns:
        The documents; None when ``should_stop`` said so.
    """
    long_enough = [document for document in documents if len(document.ids_T) >= prefix]
    special = np.array(sorted(special_ids(loaded.tokenizer)), dtype=np.int64)
    rows = max(1, batch_tokens // (prefix + new_tokens))
    made: list[Document] = []
    for start in range(0, len(long_enough), rows):
        if should_stop():
            return None
        part = long_enough[start : start + rows]
        ids_BT = torch.from_numpy(np.stack([document.ids_T[:prefix] for document in part]).astype(np.int64))
        written_BT = loaded.model.generate(
            input_ids=ids_BT.to(loaded.device),
            attention_mask=torch.ones_like(ids_BT).to(loaded.device),
            max_new_tokens=new_tokens,
            do_sample=False,
            num_beams=1,
            # A penalty in the model's own generation config would keep the loops from forming.
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=loaded.tokenizer.pad_token_id or 0,
        ).cpu()
        for document, row_T in zip(part, written_BT.numpy(), strict=True):
            is_special_T = np.isin(row_T, special)
            after = np.flatnonzero(is_special_T[prefix:])
            end = prefix + int(after[0]) if len(after) else len(row_T)
            group_T = np.zeros(end, dtype=np.int16)
            group_T[:prefix] = document.group_T[:prefix]
            ids_T = row_T[:end].astype(np.int32)
            if think:
                # Thinking may begin in the prefix and end in the continuation, or never.
                group_T[thinking_of(ids_T, *think)] = -1
            made.append(replace(document, ids_T=ids_T, group_T=group_T, digest=digest_of(ids_T)))
        on_progress(len(made))
    return made

"""Write, check, keep or try again: until every place is filled or has used up its tries.

The loop is a function of what it asked for and of what came back. Every verdict stands in a ledger before the next
place is looked at, and a loop that begins again over the same ledger takes the same way as before up to where it was
cut off: it loses no verdict, and no place is filled twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from qscope.errors import Stopped
from qscope.runs.ledger import Ledger
from qscope.synthesis.contexts import token_at
from qscope.synthesis.duplicates import Duplicates
from qscope.synthesis.fired import Fired, FiredReader
from qscope.synthesis.questions import declines
from qscope.synthesis.styles import Style
from qscope.synthesis.targets import Target
from qscope.synthesis.writers import NO_MATERIAL, Brief, Draft, Writer
from qscope.v1.features_pb2 import FeatureContext


@dataclass(frozen=True)
class Slot:
    """A place for one text.

    Attributes:
        name: its name, like no other's.
        number: which of the texts of its target, or of those without one.
        target: the feature that must fire; None where none must.
        contexts: excerpts the writer may go by.
        style, parent, parent_name: of a rewrite, its style, what is rewritten and the slot of that.
    """

    name: str
    number: int
    target: Target | None
    contexts: tuple[FeatureContext, ...] = field(default=(), compare=False)
    style: Style | None = None
    parent: str = ""
    parent_name: str = ""


@dataclass(frozen=True)
class Verdict:
    """What became of one try.

    Attributes:
        slot, attempt: whose.
        text: what was written.
        reason: why it was not kept, in a word or two that tables count; empty where it was.
        detail: more of it, for one text.
        activation: largest activation of the target in it.
        position, token: the token that is at, from 0, and its text; -1 and empty where the target is silent.
        tokens: tokens of the text as the model read it.
        fired: all features that fire in it.
    """

    slot: str
    attempt: int
    text: str
    reason: str = ""
    detail: str = ""
    activation: float = 0.0
    position: int = -1
    token: str = ""
    tokens: int = 0
    fired: tuple[int, ...] = field(default=(), repr=False)

    @property
    def kept(self) -> bool:
        return not self.reason

    @property
    def key_P(self) -> np.ndarray:
        """The fired features as an array."""
        return np.asarray(self.fired, dtype=np.int64)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "fired": list(self.fired)}

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> Verdict:
        return cls(**{**value, "fired": tuple(value["fired"])})


#: Says of (prompt, rewrite) pairs whether both ask for the same: ``yes``, ``no``, or empty where it is not understood.
Same = Callable[[Sequence[tuple[str, str]]], list[str]]
_SAME, _MEANING = "yes", {"no": "other meaning", "": "meaning unclear"}


class Loop:
    """Fills slots.

    Args:
        writer: who writes.
        reader: says what fires.
        ledger: where verdicts are kept.
        attempts: tries for each slot, the first included.
        same: judges rewrites; None lets all of them through.
        should_stop: asked between chunks.
        on_verdicts: told after each chunk how many texts of this call are kept so far.

    Attributes:
        verdicts: all verdicts, in the order in which they fell.
        recalled: those of them that stood in the ledger before.
    """

    def __init__(
        self,
        writer: Writer,
        reader: FiredReader,
        ledger: Ledger,
        *,
        attempts: int,
        same: Same | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        on_verdicts: Callable[[int], None] = lambda kept: None,
    ) -> None:
        self._writer, self._reader, self._ledger, self._attempts = writer, reader, ledger, attempts
        self._same, self._should_stop, self._on_verdicts = same, should_stop, on_verdicts
        self.verdicts: list[Verdict] = []
        self.recalled = 0

    def fill(self, slots: Sequence[Slot], duplicates: Duplicates, *, limit: int = 0) -> list[Verdict]:
        """Fills slots: those of targets that no kept text covers come first, of them those with the fewest tries.

        Args:
            slots: the places.
            duplicates: what a text must not repeat; kept texts are added.
            limit: texts kept at most; 0 sets no limit.

        Returns:
            The verdicts of the kept texts, in the order in which they fell.

        Raises:
            Stopped: when asked to stop.
            UserError: the writer cannot write.
        """
        tries = dict.fromkeys(range(len(slots)), 0)
        failures: dict[int, list[str]] = {place: [] for place in tries}
        covered: set[int] = set()
        kept: list[Verdict] = []
        while tries and not (limit and len(kept) >= limit):
            if self._should_stop():
                raise Stopped
            size = min(self._writer.at_once, limit - len(kept)) if limit else self._writer.at_once
            chunk = self._next(slots, tries, covered, size)
            found = self._chunk([(slots[place], tries[place], failures[place]) for place in chunk], duplicates)
            for place, verdict in zip(chunk, found, strict=True):
                tries[place] += 1
                self.verdicts.append(verdict)
                if verdict.kept:
                    kept.append(verdict)
                    covered.update(verdict.fired)
                elif verdict.text:
                    failures[place].append(verdict.text)
                if verdict.kept or tries[place] >= self._attempts or verdict.reason == NO_MATERIAL:
                    del tries[place]
            self._on_verdicts(len(kept))
        return kept

    def _next(self, slots: Sequence[Slot], tries: Mapping[int, int], covered: set[int], size: int) -> list[int]:
        def rank(place: int) -> tuple[bool, int, int, int]:
            target = slots[place].target
            return (target is not None and target.key in covered, tries[place], slots[place].number, place)

        return sorted(tries, key=rank)[:size]

    def _chunk(self, tasks: Sequence[tuple[Slot, int, list[str]]], duplicates: Duplicates) -> list[Verdict]:
        known = [self._ledger.get(f"{slot.name}/{attempt}") for slot, attempt, _ in tasks]
        self.recalled += sum(one is not None for one in known)
        verdicts: list[Verdict] = []
        fresh: dict[str, Any] = {}
        # Texts of a chunk share passes of the model: the whole chunk is read again, so that no last bit depends on
        # where an earlier attempt was cut off.
        made = self._made(tasks, known) if any(one is None for one in known) else []
        for index, (slot, attempt, _) in enumerate(tasks):
            if known[index] is not None:
                verdict = Verdict.of_json(known[index])
            else:
                draft, fired, same = made[index]
                verdict = self._judged(slot, attempt, draft, fired, same, duplicates)
                fresh[f"{slot.name}/{attempt}"] = verdict.as_json()
            if verdict.kept:
                duplicates.keep(slot.name, verdict.text, verdict.key_P)
            verdicts.append(verdict)
        # All at once: a chunk that was half judged would ask anew for what came to nothing before.
        self._ledger.put_all(fresh)
        return verdicts

    def _made(
        self, tasks: Sequence[tuple[Slot, int, list[str]]], known: Sequence[Any]
    ) -> list[tuple[Draft, Fired, str]]:
        drafts = self._writer.write(
            [
                Brief(
                    slot.name, slot.number, attempt, slot.target, slot.contexts, tuple(failed), slot.style, slot.parent
                )
                for slot, attempt, failed in tasks
            ]
        )
        fired = self._reader.read([draft.text for draft in drafts])
        same = [_SAME] * len(drafts)
        if self._same is not None:
            asked = [
                index
                for index, (slot, _, _) in enumerate(tasks)
                if slot.style is not None
                and drafts[index].text
                and slot.target is not None
                and fired[index].peak_of(slot.target.key)[1] >= 0
            ]
            pairs = [(tasks[index][0].parent, drafts[index].text) for index in asked]
            for index, verdict in zip(asked, self._same(pairs) if pairs else [], strict=True):
                same[index] = verdict
        return list(zip(drafts, fired, same, strict=True))

    def _judged(
        self, slot: Slot, attempt: int, draft: Draft, fired: Fired, same: str, duplicates: Duplicates
    ) -> Verdict:
        activation, position = fired.peak_of(slot.target.key) if slot.target is not None else (0.0, -1)
        token = token_at(self._reader.tokenizer, fired.ids_T, position) if position >= 0 else ""

        def verdict(reason: str = "", detail: str = "") -> Verdict:
            return Verdict(
                slot.name,
                attempt,
                draft.text,
                reason,
                detail,
                round(activation, 5),
                position,
                token,
                len(fired.ids_T),
                tuple(fired.key_P.tolist()),
            )

        if draft.reason:
            return verdict(draft.reason, draft.detail)
        if not draft.text.strip():
            return verdict("empty")
        if declines(draft.text):
            return verdict("writer refused")
        if slot.target is not None and position < 0:
            return verdict("feature silent")
        if duplicates.holds_text(draft.text):
            return verdict("same text")
        if (twin := duplicates.twin_of(fired.key_P)) is not None:
            return verdict("same footprint", f"as {twin}")
        if same != _SAME:
            return verdict(_MEANING[same])
        return verdict()


def reasons(verdicts: Sequence[Verdict]) -> Counter[str]:
    """How often each reason was given."""
    return Counter(verdict.reason for verdict in verdicts if verdict.reason)

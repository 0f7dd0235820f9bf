"""Labelled texts: read once, without repetitions, and divided by the hash of each text.

*Discovery* finds features and fits baselines, *calibration* chooses thresholds and settings, *evaluation* gives the
numbers. A text's hash decides, so rows may be added or shuffled without another text changing sides, and two rows with
the same text cannot stand on two sides. Texts are the same when they are after Unicode NFKC, case folding and runs of
white space.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from qscope.data.records import Fault, remedy_of
from qscope.data.row_texts import RowSource, TextRow, missing
from qscope.data.template import Template, shown
from qscope.errors import UserError

#: Value of ``language`` that lets each text tell.
GUESS = "guess"
#: Texts of each class that every side needs; with fewer, an interval says nothing.
FEWEST = 2


class Side(StrEnum):
    """What a text is for."""

    DISCOVERY = "discovery"
    CALIBRATION = "calibration"
    EVALUATION = "evaluation"


class Use(StrEnum):
    """What the rows of a source are for."""

    SPLIT = "split"
    DISCOVERY = "discovery"
    EVALUATION = "evaluation"


@dataclass(frozen=True)
class LabelledText:
    """One text.

    Attributes:
        place: where its row stands.
        text: what the model reads.
        positive: whether it has the attribute.
        language: empty where none is known.
        digest: of the text in its plain form; equal texts have equal digests.
        side: what it is for.
    """

    place: str
    text: str
    positive: bool
    language: str
    digest: bytes
    side: Side = Side.DISCOVERY


@dataclass(frozen=True)
class LabelRule:
    """How a row's label and language are read.

    Attributes:
        column: column of the label.
        positive: values that have the attribute.
        negative: values that do not; empty: all other values.
        language: of every row, a column in braces, or ``guess``.
        use: what the rows are for.
        limit: usable rows at most; 0 takes all.
        at: experiment field of the source, for errors.
    """

    column: str
    positive: frozenset[str]
    negative: frozenset[str] = frozenset()
    language: str = ""
    use: Use = Use.SPLIT
    limit: int = 0
    at: str = ""


@dataclass
class Labelled:
    """What was read.

    Attributes:
        texts: every text once, in order.
        faults: rows that cannot be used.
        rows: rows that can.
        other_labels: rows whose label is neither positive nor negative, by label.
        repeated: rows left out as their text stood in an earlier one of the same label.
        contradictory: rows left out as their text has both labels.
        leaks: rows for discovery left out as their text is one of a source for evaluation.
        thinned: texts left out by ``balance`` and ``per_class``.
    """

    texts: list[LabelledText] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    rows: int = 0
    other_labels: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    contradictory: int = 0
    leaks: int = 0
    thinned: int = 0

    def counts(self) -> dict[str, dict[str, int]]:
        """Texts by side, with the attribute and without."""
        return {
            side.value: {
                "positive": sum(text.positive for text in self.texts if text.side == side),
                "negative": sum(not text.positive for text in self.texts if text.side == side),
            }
            for side in Side
        }

    def digest(self) -> str:
        """Of texts, labels, languages and sides, in order."""
        state = hashlib.blake2b(digest_size=16)
        for text in self.texts:
            state.update(text.digest + f"{text.positive:d}{text.language}\0{text.side}\0".encode())
            # The plain form is what is compared; what the model reads is the text itself.
            state.update(hashlib.blake2b(text.text.encode("utf-8", "surrogatepass"), digest_size=16).digest())
        return state.hexdigest()


def text_digest(text: str) -> bytes:
    """16 bytes that are equal for texts that differ in case, white space or Unicode form alone."""
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return hashlib.blake2b(plain.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def chance(digest: bytes, name: str, seed: int) -> float:
    """A number in [0, 1) that a text draws under a name: the same today and tomorrow, whatever else is there."""
    key = seed.to_bytes(8, "big") + name.encode()
    return int.from_bytes(hashlib.blake2b(digest, key=key, digest_size=8).digest(), "big") / 2**64


def side_of(digest: bytes, use: Use, *, evaluation: float, calibration: float, seed: int) -> Side:
    """The side of a text.

    Args:
        digest: of the text.
        use: what its source is for.
        evaluation: share that is evaluated on, of sources that are split.
        calibration: share that is calibrated on, of all that is split; of a source for discovery, the same share of
            what is not evaluated on.
        seed: of the division.
    """
    if use is Use.EVALUATION:
        return Side.EVALUATION
    drawn = chance(digest, "side", seed)
    if use is Use.DISCOVERY:
        drawn = evaluation + drawn * (1 - evaluation)
    if drawn < evaluation:
        return Side.EVALUATION
    return Side.CALIBRATION if drawn < evaluation + calibration else Side.DISCOVERY


def read_labelled(
    sources: Iterable[tuple[RowSource, LabelRule]],
    *,
    evaluation: float,
    calibration: float,
    seed: int,
    balance: bool = False,
    per_class: int = 0,
    languages_of: Callable[[Sequence[str]], list[str]] | None = None,
) -> Labelled:
    """Reads all sources, leaves repetitions out, and divides the texts.

    Args:
        sources: rows, and how their labels are read.
        evaluation: share of the texts to evaluate on.
        calibration: share of the texts to choose thresholds on.
        seed: of the division.
        balance: take equally many of both classes, in every language and side.
        per_class: texts of each class and language at most, over all sides; 0 takes all.
        languages_of: tells the language of texts, for sources with ``language: guess``.

    Raises:
        UserError: no usable row (DATA_EMPTY), one class only (ONE_CLASS), too few texts on a side (TOO_FEW_TEXTS), or
            what reading rows raises.
    """
    found, kept = Labelled(), {}
    contradictory: set[bytes] = set()
    labels: Counter[str] = Counter()
    names, first = [], None
    for source, rule in sources:
        names.append(source.identity()["source"])
        first = first or rule
        uses = {"evaluation": evaluation, "calibration": calibration, "seed": seed}
        for text, use in _texts(source, rule, found, labels, languages_of):
            text = replace(text, side=side_of(text.digest, use, **uses))
            known = kept.get(text.digest)
            if text.digest in contradictory:
                found.contradictory += 1
            elif known is None:
                kept[text.digest] = text
            elif known.positive != text.positive:
                contradictory.add(text.digest)
                found.contradictory += 2
                del kept[text.digest]
            elif (known.side == Side.EVALUATION) != (text.side == Side.EVALUATION):
                # Two sources for different sides share it: what is measured on stays whole.
                found.leaks += 1
                kept[text.digest] = known if known.side == Side.EVALUATION else text
            else:
                found.repeated += 1
    found.texts = list(kept.values())
    _refuse_unusable(found, names, labels, first.at if first else "")
    everything = len(found.texts)
    if per_class:
        found.texts = _thinned(found.texts, lambda text: (text.language, text.positive), lambda *_: per_class, seed)
    if balance:
        sizes = Counter((text.language, text.side, text.positive) for text in found.texts)
        found.texts = _thinned(
            found.texts,
            lambda text: (text.language, text.side, text.positive),
            lambda language, side, _: min(sizes[language, side, True], sizes[language, side, False]),
            seed,
        )
    found.thinned = everything - len(found.texts)
    _refuse_few(found, first.at if first else "")
    return found


def _texts(
    source: RowSource,
    rule: LabelRule,
    found: Labelled,
    labels: Counter[str],
    languages_of: Callable[[Sequence[str]], list[str]] | None,
) -> Iterable[tuple[LabelledText, Use]]:
    template = Template(rule.language, at=f"{rule.at}.language") if "{" in rule.language else None
    given = 0
    for row in source.rows():
        if rule.limit and given == rule.limit:
            source.check_condition()
            return
        read = row if isinstance(row, Fault) else _labelled(row, rule, template, languages_of)
        if isinstance(read, Fault):
            found.faults.append(source.fault(read))
            continue
        label, text = read
        labels[label] += 1
        if text is None:
            found.other_labels[label] += 1
            continue
        found.rows += 1
        given += 1
        yield text, rule.use


def _labelled(
    row: TextRow,
    rule: LabelRule,
    template: Template | None,
    languages_of: Callable[[Sequence[str]], list[str]] | None,
) -> Fault | tuple[str, LabelledText | None]:
    value = row.values.get(rule.column)
    # Tables of numbers say NaN where there is no value: it must not pass for a label that is not positive.
    if value is None or value != value or (isinstance(value, str) and not value.strip()):
        return missing(row.place, rule.column, row.values)
    label = shown(value).strip()
    positive = label in rule.positive
    if not positive and rule.negative and label not in rule.negative:
        return label, None
    try:
        language = template.fill(row.values).strip() if template else rule.language
    except KeyError as error:
        return missing(row.place, str(error.args[0]), row.values)
    if language == GUESS and template is None:
        language = languages_of([row.text])[0] if languages_of else ""
    return label, LabelledText(row.place, row.text, positive, language, text_digest(row.text))


def alike_as_read(texts: Sequence[LabelledText], read: Sequence[str]) -> int:
    """Evaluation texts of which a text of another side is no different, as far as the model reads them.

    Args:
        texts: every text once.
        read: what the model reads of each.
    """
    digests = [text_digest(part) for part in read]
    seen = {digest for text, digest in zip(texts, digests, strict=True) if text.side != Side.EVALUATION}
    return sum(text.side == Side.EVALUATION and digest in seen for text, digest in zip(texts, digests, strict=True))


def _thinned(
    texts: Sequence[LabelledText],
    group: Callable[[LabelledText], tuple],
    allowed: Callable[..., int],
    seed: int,
) -> list[LabelledText]:
    groups: dict[tuple, list[LabelledText]] = {}
    for text in texts:
        groups.setdefault(group(text), []).append(text)
    chosen: set[bytes] = set()
    for key, members in groups.items():
        members.sort(key=lambda text: chance(text.digest, "thin", seed))
        chosen |= {text.digest for text in members[: allowed(*key)]}
    return [text for text in texts if text.digest in chosen]


def _refuse_unusable(found: Labelled, names: Sequence[str], labels: Mapping[str, int], at: str) -> None:
    if not found.texts:
        more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
        message = f"The data holds no row that can be used: '{names[0]}'{more}."
        others = sum(found.other_labels.values())
        if found.contradictory > max(others, len(found.faults)):
            message += f" Every text has both labels ({found.contradictory:,} rows)."
        elif others > len(found.faults):
            message += f" Labels there: {_some(found.other_labels)}."
        elif found.faults:
            fault = found.faults[0]
            message += f" The first of {len(found.faults):,} left out: {fault.place}: {fault.why}."
        raise UserError(
            message,
            remedy=remedy_of(
                found.faults,
                "Check the source, its columns for text and label, and which labels are 'positive' and 'negative'.",
            ),
            reason="DATA_EMPTY",
            field=f"{at}.source",
        )
    if len({text.positive for text in found.texts}) == 1:
        which = "with" if found.texts[0].positive else "without"
        raise UserError(
            f"{_all(len(found.texts))} of one class, {which} the attribute.",
            remedy=f"Give texts of both classes, or say in 'positive' which labels have it, of {_some(labels)}.",
            reason="ONE_CLASS",
            field=f"{at}.positive",
        )


def _refuse_few(found: Labelled, at: str) -> None:
    for side, counts in found.counts().items():
        for sign, count in counts.items():
            if count < FEWEST:
                raise UserError(
                    f"{len(found.texts):,} texts are too few: for {side} there {'is' if count == 1 else 'are'} {count} "
                    f"{sign}, and {FEWEST} are needed.",
                    remedy="Give more texts of that class, or change evaluation_share or calibration_share.",
                    reason="TOO_FEW_TEXTS",
                    field=f"{at}.source",
                )


def _all(count: int) -> str:
    return f"All {count:,} texts are" if count > 1 else "The only text is"


def _some(labels: Mapping[Any, int]) -> str:
    ranked = Counter(labels).most_common(8)
    more = f" and {len(labels) - len(ranked):,} more" if len(labels) > len(ranked) else ""
    return ", ".join(f"{label} ({count:,})" for label, count in ranked) + more

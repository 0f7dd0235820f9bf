"""The loop over a ledger: whatever cuts it off, it loses no verdict, fills no place twice and keeps no duplicate."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qscope.errors import Stopped
from qscope.runs.ledger import Ledger
from qscope.synthesis.duplicates import Duplicates
from qscope.synthesis.loop import Loop, Slot, Verdict, reasons
from qscope.synthesis.styles import STYLES
from qscope.synthesis.targets import Target
from qscope.synthesis.writers import CUT, FAILED, NO_MATERIAL, Brief, Draft

WORDS = st.text("abcdef ", min_size=0, max_size=6)


class ScriptedWriter:
    """Writes what a table says of target, number and attempt; may be cut off after some calls."""

    def __init__(self, table: dict, at_once: int = 3, calls: int = 1 << 30) -> None:
        self.at_once, self._table, self._calls = at_once, table, calls
        self.briefs: list[Brief] = []

    def write(self, briefs: Sequence[Brief]) -> list[Draft]:
        if self._calls <= 0:
            raise KeyboardInterrupt
        self._calls -= 1
        self.briefs += briefs
        drafts = [self._table.get((brief.slot, brief.attempt), "") for brief in briefs]
        return [draft if isinstance(draft, Draft) else Draft(draft) for draft in drafts]


def letter(name: str) -> Target:
    return Target(0, ord(name) - 97)


def slots_of(letters: str, per: int) -> list[Slot]:
    return [Slot(f"{name}#{number}", number, letter(name)) for number in range(per) for name in letters]


@pytest.mark.slow
@given(
    table=st.dictionaries(
        st.tuples(st.sampled_from([f"{n}#{i}" for n in "abcd" for i in (0, 1)]), st.integers(0, 2)), WORDS
    ),
    at_once=st.integers(1, 5),
    cut=st.integers(0, 4000),
    calls=st.integers(0, 6),
    limit=st.integers(0, 6),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_cut_off_anywhere_it_ends_as_if_it_had_not_been(
    tmp_path_factory, char_reader, table, at_once, cut, calls, limit
) -> None:
    slots = slots_of("abcd", 2)

    def loop(path, **writer) -> tuple[list[Verdict], Loop]:
        made = Loop(ScriptedWriter(table, at_once, **writer), char_reader(), Ledger(path), attempts=3)
        return made.fill(slots, Duplicates(1.0, ["seed"]), limit=limit), made

    folder = tmp_path_factory.mktemp("loop")
    calm, calm_loop = loop(folder / "calm")
    whole = (folder / "calm").read_bytes() if (folder / "calm").exists() else b""

    with contextlib.suppress(KeyboardInterrupt):
        loop(folder / "cut", calls=calls)
    if (folder / "cut").exists():
        (folder / "cut").write_bytes((folder / "cut").read_bytes()[:cut])
    again, again_loop = loop(folder / "cut")

    assert again == calm
    assert again_loop.verdicts == calm_loop.verdicts
    assert ((folder / "cut").read_bytes() if (folder / "cut").exists() else b"") == whole
    keys = [json.loads(line)["key"] for line in whole.splitlines()]
    assert len(keys) == len(set(keys)) == len(calm_loop.verdicts)
    # What is kept has its feature, stands once, and each place is filled once.
    assert all(verdict.slot[0] in verdict.text for verdict in calm)
    assert len({verdict.slot for verdict in calm}) == len(calm)
    assert len({" ".join(verdict.text.split()) for verdict in calm}) == len(calm)
    assert len({verdict.fired for verdict in calm}) == len(calm)
    assert not limit or len(calm) <= limit
    # And none is given up before its tries are used.
    if not limit:
        for slot in slots:
            if slot.name not in {verdict.slot for verdict in calm}:
                assert sum(verdict.slot == slot.name for verdict in calm_loop.verdicts) == 3


def test_a_loop_that_goes_on_asks_for_no_verdict_twice(tmp_path, char_reader) -> None:
    table = {("a#0", 0): "xyz", ("a#0", 1): "a cat", ("b#0", 0): "bee"}
    slots = slots_of("ab", 1)
    first = ScriptedWriter(table)
    Loop(first, char_reader(), Ledger(tmp_path / "l"), attempts=3).fill(slots, Duplicates(1.0))
    assert len(first.briefs) == 3
    second, reader = ScriptedWriter(table), char_reader()
    kept = Loop(second, reader, Ledger(tmp_path / "l"), attempts=3).fill(slots, Duplicates(1.0))
    assert [verdict.text for verdict in kept] == ["bee", "a cat"]
    assert (second.briefs, reader.read_texts) == ([], [])


@pytest.mark.parametrize("second", ["ab cd", "dc ba"])
def test_what_an_earlier_attempt_kept_is_no_more_repeated_than_what_this_one_keeps(
    tmp_path, char_reader, second
) -> None:
    """The same words, or the same footprint, on either side of the cut."""
    table = {("a#0", 0): "ab cd", ("b#0", 0): second}
    first = ScriptedWriter(table, at_once=1, calls=1)
    with pytest.raises(KeyboardInterrupt):
        Loop(first, char_reader(), Ledger(tmp_path / "l"), attempts=1).fill(slots_of("ab", 1), Duplicates(1.0))
    assert len(Ledger(tmp_path / "l")) == 1
    loop = Loop(ScriptedWriter(table, at_once=1), char_reader(), Ledger(tmp_path / "l"), attempts=1)
    assert [verdict.slot for verdict in loop.fill(slots_of("ab", 1), Duplicates(1.0))] == ["a#0"]
    assert loop.verdicts[1].reason in ("same text", "same footprint")
    assert loop.recalled == 1


def test_every_reason_is_told(tmp_path, char_reader) -> None:
    table = {
        ("a#0", 0): "an apple",
        ("b#0", 0): "nothing of it",
        ("b#0", 1): Draft("", FAILED, "server: 400"),
        ("b#0", 2): "",
        ("b#0", 3): "I’m sorry, but I can’t write blue",
        ("b#0", 4): "the SEED b text",
        ("b#0", 5): "bca",
        ("b#0", 6): Draft("a b that ends in the middle of", CUT),
        ("c#0", 0): "cab",
        ("d#0", 0): Draft("", NO_MATERIAL, "no context"),
    }
    writer = ScriptedWriter(table, at_once=4)
    loop = Loop(writer, char_reader(), Ledger(tmp_path / "l"), attempts=7)
    kept = loop.fill(slots_of("abcd", 1), Duplicates(1.0, ["the seed b text"]))
    assert [verdict.slot for verdict in kept] == ["a#0", "c#0"]
    mine = [(verdict.reason, verdict.detail) for verdict in loop.verdicts if verdict.slot == "b#0"]
    assert mine == [
        ("feature silent", ""),
        ("writer failed", "server: 400"),
        ("empty", ""),
        ("writer refused", ""),
        ("same text", ""),
        ("same footprint", "as c#0"),
        ("cut short", ""),
    ]
    # Without material another try is of no use.
    assert sum(verdict.slot == "d#0" for verdict in loop.verdicts) == 1
    assert reasons(loop.verdicts)["no material"] == 1


def test_the_activation_and_its_token_are_recorded(tmp_path, char_reader) -> None:
    loop = Loop(ScriptedWriter({("e#0", 0): "the eel"}), char_reader(), Ledger(tmp_path / "l"), attempts=1)
    (verdict,) = loop.fill(slots_of("e", 1), Duplicates(1.0))
    # Three e, the first at the third character; "the" is one token of the tokenizer, so that place is its end.
    assert (verdict.activation, verdict.position) == (3.0, 2)
    assert verdict.token
    assert Verdict.of_json(json.loads(json.dumps(verdict.as_json()))) == verdict


def test_features_that_nothing_covers_yet_come_first(tmp_path, char_reader) -> None:
    table = {("a#0", 0): "abc", ("b#0", 0): "be", ("c#0", 0): "co", ("d#0", 0): "do"}
    writer = ScriptedWriter(table, at_once=1)
    loop = Loop(writer, char_reader(), Ledger(tmp_path / "l"), attempts=1)
    kept = loop.fill(slots_of("abcd", 1), Duplicates(1.0), limit=2)
    # "abc" covers b and c as well, so that d is written next.
    assert [verdict.slot for verdict in kept] == ["a#0", "d#0"]


def test_a_writer_learns_what_did_not_do(tmp_path, char_reader) -> None:
    table = {("a#0", 0): "one", ("a#0", 1): "two", ("a#0", 2): "at last"}
    writer = ScriptedWriter(table)
    Loop(writer, char_reader(), Ledger(tmp_path / "l"), attempts=4).fill(slots_of("a", 1), Duplicates(1.0))
    assert [brief.failures for brief in writer.briefs] == [(), ("one",), ("one", "two")]


def test_rewrites_are_judged_only_where_the_feature_fires(tmp_path, char_reader) -> None:
    asked = []

    def same(pairs):
        asked.extend(pairs)
        return [{"an ant": "no", "a fog": ""}.get(rewrite, "yes") for _, rewrite in pairs]

    style = STYLES["fiction"]
    slots = [Slot(f"{n}#0~f", 0, letter(n), (), style, f"parent {n}", f"{n}#0") for n in "ab"]
    table = {("a#0~f", 0): "an ant", ("a#0~f", 1): "a fog", ("a#0~f", 2): "all", ("b#0~f", 0): "zzz"}
    table["b#0~f", 1] = "bob"
    loop = Loop(ScriptedWriter(table), char_reader(), Ledger(tmp_path / "l"), attempts=3, same=same)
    kept = loop.fill(slots, Duplicates(1.0))
    assert sorted(verdict.text for verdict in kept) == ["all", "bob"]
    assert ("parent b", "zzz") not in asked
    assert reasons(loop.verdicts) == {"other meaning": 1, "meaning unclear": 1, "feature silent": 1}


def test_slots_without_a_target_take_any_text_once(tmp_path, char_reader) -> None:
    table = {("r#0", 0): "abc", ("r#1", 0): "abc", ("r#1", 1): "cab", ("r#1", 2): "new"}
    slots = [Slot(f"r#{n}", n, None) for n in range(2)]
    loop = Loop(ScriptedWriter(table), char_reader(), Ledger(tmp_path / "l"), attempts=3)
    assert [verdict.text for verdict in loop.fill(slots, Duplicates(1.0))] == ["abc", "new"]


def test_stops_between_chunks(tmp_path, char_reader) -> None:
    stop = iter([False, True])
    writer = ScriptedWriter({("a#0", 0): "a", ("b#0", 0): "b"}, at_once=1)
    loop = Loop(writer, char_reader(), Ledger(tmp_path / "l"), attempts=1, should_stop=lambda: next(stop))
    with pytest.raises(Stopped):
        loop.fill(slots_of("ab", 1), Duplicates(1.0))
    assert len(Ledger(tmp_path / "l")) == 1

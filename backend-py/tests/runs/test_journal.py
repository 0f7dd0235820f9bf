"""The journal survives being cut anywhere, and says where it is damaged."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qscope.errors import UserError
from qscope.runs import Journal, JournalReader, tail
from qscope.runs.journal import newest
from qscope.v1.run_event_pb2 import RUN_STATE_RUNNING, RUN_STATE_SUCCEEDED, Log, Progress, StateChanged

_TEXTS = ["plain", 'quotes " and \\', "line\nfeed\r\n", "\u2028 \x85 and 中文", '"progress"', ""]


def _write(path: Path, count: int = 6) -> None:
    with Journal(path) as journal:
        for i in range(count):
            journal.append(log=Log(text=_TEXTS[i % len(_TEXTS)]))


def test_sequence_is_the_line_number(tmp_path):
    path = tmp_path / "events.jsonl"
    _write(path, 12)
    lines = path.read_bytes().split(b"\n")
    assert lines.pop() == b""
    assert [int(json.loads(line)["sequence"]) for line in lines] == list(range(1, 13))
    assert [event.log.text for event in tail(path)] == _TEXTS * 2
    assert [event.sequence for event in tail(path, after_sequence=10)] == [11, 12]


@settings(max_examples=150, deadline=None)
@given(place=st.floats(0, 1))
def test_a_journal_cut_at_any_byte_goes_on_without_a_gap(tmp_path_factory, place):
    path = tmp_path_factory.mktemp("journal") / "events.jsonl"
    _write(path)
    whole = path.read_bytes()
    cut = round(place * len(whole))
    path.write_bytes(whole[:cut])
    finished = whole[:cut].count(b"\n")
    assert [event.sequence for event in tail(path)] == list(range(1, finished + 1))
    last, _ = newest(path)
    assert (last.sequence if last else 0) == finished

    with Journal(path) as journal:
        assert journal.last_sequence == finished
        journal.append(log=Log(text="after"))
    events = list(tail(path))
    assert [event.sequence for event in events] == list(range(1, finished + 2))
    assert events[-1].log.text == "after"


@settings(max_examples=100, deadline=None)
@given(place=st.floats(0, 1), bit=st.integers(0, 7))
def test_a_changed_finished_line_is_refused_or_harmless(tmp_path_factory, place, bit):
    path = tmp_path_factory.mktemp("journal") / "events.jsonl"
    _write(path)
    whole = bytearray(path.read_bytes())
    whole[round(place * (len(whole) - 1))] ^= 1 << bit
    path.write_bytes(whole)
    refused = None
    try:
        sequences = [event.sequence for event in tail(path)]
    except UserError as error:
        refused = error
    if refused is None:
        assert sequences == list(range(1, len(sequences) + 1))
        return
    assert refused.reason == "JOURNAL_DAMAGED"
    assert "line" in refused.message
    with pytest.raises(UserError):
        Journal(path)
    assert path.read_bytes() == whole, "a damaged journal must not be cut"


def test_a_reader_waits_for_the_end_of_a_line(tmp_path):
    path = tmp_path / "events.jsonl"
    reader = JournalReader(path)
    assert reader.read() == []
    _write(path, 2)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    assert [event.sequence for event in reader.read()] == [1]
    assert reader.read() == []
    path.write_bytes(whole)
    assert [event.sequence for event in reader.read()] == [2]


@pytest.mark.parametrize("max_bytes", [1, 7, 64, 10_000])
def test_reading_in_blocks_of_any_size(tmp_path, max_bytes):
    path = tmp_path / "events.jsonl"
    _write(path, 9)
    reader, seen = JournalReader(path, after_sequence=3), []
    while events := reader.read(max_bytes):
        seen += [event.sequence for event in events]
    assert seen == list(range(4, 10))


def test_threads_share_one_journal(tmp_path):
    path = tmp_path / "events.jsonl"
    with Journal(path) as journal:
        threads = [
            threading.Thread(target=lambda: [journal.append(log=Log(text="x" * 500)) for _ in range(50)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [event.sequence for event in tail(path)] == list(range(1, 201))


def test_newest_looks_at_the_end_only(tmp_path):
    path = tmp_path / "events.jsonl"
    with Journal(path) as journal:
        journal.append(progress=Progress(phase="early", current=1))
        journal.append(progress=Progress(phase="late", current=2))
        journal.append(log=Log(text="z" * 3000))
    last, progress = newest(path, limit_bytes=100)
    assert last is not None
    assert last.sequence == 3
    assert progress is None or progress.progress.phase == "late"
    assert newest(path)[1].progress.phase == "late"
    assert newest(tmp_path / "absent") == (None, None)


def test_the_end_of_an_attempt_is_known(tmp_path):
    path = tmp_path / "events.jsonl"
    with Journal(path) as journal:
        journal.append(state_changed=StateChanged(state=RUN_STATE_RUNNING))
        assert not journal.ended
        journal.append(state_changed=StateChanged(state=RUN_STATE_SUCCEEDED))
        assert journal.ended
    with Journal(path) as journal:
        assert journal.ended

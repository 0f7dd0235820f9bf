"""Files that grow: whatever a kill leaves behind, what goes on is what an undisturbed run writes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qscope.runs.stream import GrowingFiles


def test_a_half_written_piece_is_taken_away(tmp_path) -> None:
    files = GrowingFiles(tmp_path, ("a", "b"), note="note.json")
    assert files.state is None
    files.append({"a": b"one\n", "b": b"x"}, {"done": 1})
    with (tmp_path / "a").open("ab") as file:
        file.write(b"tw")
    again = GrowingFiles(tmp_path, ("a", "b"), note="note.json")
    assert again.state == {"done": 1}
    again.append({"a": b"two\n"}, {"done": 2})
    assert ((tmp_path / "a").read_bytes(), (tmp_path / "b").read_bytes()) == (b"one\ntwo\n", b"x")


def test_a_shortened_file_starts_again(tmp_path) -> None:
    GrowingFiles(tmp_path, ("a", "b"), note="n").append({"a": b"one\n", "b": b"x"}, {"done": 1})
    (tmp_path / "a").write_bytes(b"o")
    again = GrowingFiles(tmp_path, ("a", "b"), note="n")
    assert again.state is None
    assert ((tmp_path / "a").read_bytes(), (tmp_path / "b").read_bytes()) == (b"", b"")


@given(st.lists(st.binary(max_size=20), max_size=8), st.integers(0, 8), st.binary(max_size=5))
def test_any_cut_goes_on_to_the_same_bytes(tmp_path_factory, pieces, cut, rest) -> None:
    folder = tmp_path_factory.mktemp("grow")
    first = GrowingFiles(folder, ("a",), note="n")
    for index, piece in enumerate(pieces[:cut]):
        first.append({"a": piece}, {"done": index + 1})
    with (folder / "a").open("ab") as file:
        file.write(rest)
    second = GrowingFiles(folder, ("a",), note="n")
    done = second.state["done"] if second.state else 0
    for index, piece in enumerate(pieces[done:], start=done):
        second.append({"a": piece}, {"done": index + 1})
    assert (folder / "a").read_bytes() == b"".join(pieces)

"""Documents with loops: which repetition each token belongs to, and how they are made."""

from __future__ import annotations

import numpy as np
import pytest

from qscope.features.documents import Document, digest_of, split
from qscope.features.loops import by_repetition, continued, made_loop
from qscope.text.loops import Loop


def document(ids, counts=None) -> Document:
    ids_T = np.array(ids, dtype=np.int32)
    group_T = np.zeros(len(ids_T), dtype=np.int16) if counts is None else np.array(counts, dtype=np.int16)
    return Document(0, ids_T, group_T, "", bytes(16))


def test_tokens_are_classed_by_repetition() -> None:
    one = document([7, 7, *[1, 2] * 6, 1], counts=[0, 0, 0, -1, *[0] * 11])
    classed = by_repetition(one, Loop(2, 2, 6), 4)
    assert classed.group_T.tolist() == [-1, -1, 0, -1, 1, 1, 2, 2, -1, -1, -1, -1, 3, 3, -1]


def test_a_loop_is_made_of_a_span() -> None:
    made = made_loop(document(range(10), counts=[-1, *[0] * 9]), prefix=3, period=2, repetitions=4)
    assert made.document.ids_T.tolist() == [0, 1, 2, 3, 4, 3, 4, 3, 4, 3, 4]
    assert made.document.group_T.tolist() == [-1, *[0] * 10]
    assert made.onset == 5
    assert by_repetition(made.document, made.loop, 4).group_T.tolist() == [-1, -1, -1, 0, 0, 1, 1, 2, 2, 3, 3]
    assert made_loop(document(range(4)), prefix=3, period=2, repetitions=4) is None


def test_documents_with_equal_first_tokens_make_one_loop_and_land_in_one_half(tiny_model) -> None:
    noise = np.random.default_rng(3)
    given = [
        Document(
            2 * number + twin, np.array([*start, *noise.integers(3, 250, 9)], np.int32), zeros, "", noise.bytes(16)
        )
        for number, start in enumerate(noise.integers(3, 250, (12, 6)))
        for twin in (0, 1)
        for zeros in [np.zeros(15, np.int16)]
    ]
    made = [made_loop(one, prefix=4, period=2, repetitions=3).document for one in given]
    written = continued(tiny_model("qwen3"), given, 6, 5, batch_tokens=1000)
    for documents in (made, written):
        assert all(one.digest == digest_of(one.ids_T.astype(np.int64)) for one in documents)
        halves = split(documents, 0.5, seed=1)
        assert halves.duplicates == 12
        sides = [{one.ids_T.tobytes() for one in half} for half in (halves.ranking, halves.held_out)]
        assert [len(side) for side in sides] == [6, 6]
        assert not sides[0] & sides[1]


def test_thinking_that_is_generated_does_not_count(tiny_model) -> None:
    loaded = tiny_model("qwen3")
    prefix, new = 6, 9
    given = [document([40, 41, 42, 43, 44, number]) for number in range(50, 60)]
    plain = continued(loaded, given, prefix, new, batch_tokens=1000)
    before, one = next(
        (before, after) for before, after in zip(given, plain, strict=True) if len(after.ids_T) == prefix + new
    )
    # The first token the model writes stands for the closing tag.
    closing = int(one.ids_T[prefix])
    (masked,) = continued(loaded, [before], prefix, new, batch_tokens=1000, think=(300, closing))
    assert masked.ids_T.tolist() == one.ids_T.tolist()
    expected = [-1] * (prefix + 1) + [-1 if token == closing else 0 for token in one.ids_T[prefix + 1 :].tolist()]
    assert masked.group_T.tolist() == expected
    # What the prefix opens goes on in the continuation.
    (masked,) = continued(loaded, [given[0]], prefix, new, batch_tokens=1000, think=(43, 2))
    assert masked.group_T.tolist()[:prefix] == [0, 0, 0, -1, -1, -1]
    assert (masked.group_T[prefix:] == -1).all()


@pytest.mark.parametrize("rows", [1, 3])
def test_greedy_continuations_are_the_models_own(tiny_model, documents, rows) -> None:
    """Against the argmax of the logits, one token after the other."""
    import torch

    from qscope.models import logits_of

    loaded = tiny_model("qwen3")
    given = [one for one in documents(12, seed=1) if len(one.ids_T) >= 6][:3]
    prefix, new = 6, 9
    made = continued(loaded, [*given, document([5, 6])], prefix, new, batch_tokens=rows * (prefix + new))
    assert len(made) == len(given) == 3
    for before, after in zip(given, made, strict=True):
        ids = before.ids_T[:prefix].tolist()
        while len(ids) < prefix + new:
            following = int(logits_of(loaded, torch.tensor([ids]))[0, -1].argmax())
            if following in (0, 1, 2):
                break
            ids.append(following)
        assert after.ids_T.tolist() == ids
        assert after.group_T[:prefix].tolist() == before.group_T[:prefix].tolist()
        assert (after.group_T[prefix:] == 0).all()

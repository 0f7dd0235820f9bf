"""Labels made of tokens, silent windows, and the scores of labels."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qscope.features.labels import Detection, firing_tokens, plain, promoted_tokens, spread_over
from qscope.features.silent import SilentContexts
from qscope.models import logits_of
from qscope.recipes.explain_report import fitted
from qscope.v1.features_pb2 import FeatureContext


def window(text: str, fires: str = "") -> FeatureContext:
    """A window of the words of ``text``; the feature fires with 1 on the words of ``fires``."""
    tokens = [f" {word}" for word in text.split()]
    return FeatureContext(
        tokens=tokens, activations=[float(token.strip() in fires.split()) for token in tokens], text="".join(tokens)
    )


def test_tokens_of_a_label_tell_contexts_from_silence() -> None:
    contexts = [window("der Hund", "der"), window("Der Mann", "Der"), window("die Frau und so", "die und")]
    silent = [window("the dog und"), window("a man")]
    # "und" also stands in a silent window, "so" and "hund" never fire.
    assert firing_tokens(contexts, silent, 3) == ["der", "die"]
    assert firing_tokens(contexts, silent, 1) == ["der"]
    assert firing_tokens(contexts, [], 3) == ["der", "und"], "of equal worth the last in the alphabet"
    assert firing_tokens([], silent, 3) == []


def test_a_rare_token_is_no_part_of_a_label_unless_it_is_the_first() -> None:
    contexts = [window("der x", "der")] * 40 + [window("oben y", "oben")]
    assert firing_tokens(contexts, [], 5) == ["der"]
    assert firing_tokens(contexts[-1:], [], 5) == ["oben"]


def test_tokens_are_written_plainly() -> None:
    assert [plain(token) for token in (" Der", "\n", "  ", "", "ÉTÉ ")] == ["der", "\\n", "␣␣", "", "été"]


def test_promoted_tokens_are_those_of_the_largest_logits(tiny_model) -> None:
    """A residual along the direction, large enough to drown the rest, puts them first at the output."""
    loaded = tiny_model("qwen3")
    direction_MD = torch.randn(3, loaded.facts.d_model, generator=torch.Generator().manual_seed(1))
    found = promoted_tokens(loaded, direction_MD, 4)
    for row, texts in zip(direction_MD, found, strict=True):
        final = loaded.decoder.final_norm
        hook = final.register_forward_pre_hook(lambda module, args, row=row: (1e4 * row.expand_as(args[0]),))
        try:
            logits_V = logits_of(loaded, torch.tensor([[5, 6]]))[0, -1]
        finally:
            hook.remove()
        best = logits_V[: len(loaded.tokenizer)].topk(40).indices.tolist()
        expected = dict.fromkeys(plain(loaded.tokenizer.decode([token])) for token in best)
        assert texts == [text for text in expected if text and "\ufffd" not in text][: len(texts)]
        assert 0 < len(texts) <= 4
    assert promoted_tokens(loaded, 1e-6 * direction_MD, 4) == found, "the length of a direction does not matter"


@given(st.lists(st.sampled_from([True, False, None])), st.lists(st.sampled_from([True, False, None])))
def test_scores_are_shares_inside_their_interval(active, silent) -> None:
    found = Detection(active, silent)
    hits, alarms = [one for one in active if one is not None], [one for one in silent if one is not None]
    assert found.unanswered == len(active) + len(silent) - len(hits) - len(alarms)
    assert (found.n_active, found.n_silent) == (len(hits), len(alarms))
    if not hits or not alarms:
        assert math.isnan(found.balanced_accuracy)
        return
    expected = (sum(hits) / len(hits) + alarms.count(False) / len(alarms)) / 2
    assert found.balanced_accuracy == pytest.approx(expected)
    assert 0 <= found.low <= found.balanced_accuracy <= found.high <= 1 + 1e-9


def test_contexts_scored_run_from_strong_to_weak() -> None:
    assert spread_over(list(range(10)), 4) == [0, 3, 6, 9]
    assert spread_over(list(range(3)), 4) == [0, 1, 2]
    assert spread_over(list(range(3)), 1) == [0]


def silent_of(documents, batch: int, seed: int = 5) -> list[tuple[int, int, str]]:
    """Document, middle and text of feature 1's windows. ``documents``: (number, ids, places where feature 1 fires)."""
    found = SilentContexts([0, 1], 3, before=2, after=1, seed=seed)
    for start in range(0, len(documents), batch):
        part = documents[start : start + batch]
        width = max(len(ids) for _, ids, _ in part)
        ids_BT, acts_BTM = torch.zeros(len(part), width, dtype=torch.int64), torch.zeros(len(part), width, 2)
        for row, (_, ids, places) in enumerate(part):
            ids_BT[row, : len(ids)] = torch.tensor(ids)
            acts_BTM[row, places, 1] = 1.0
            acts_BTM[row, : len(ids), 0] = 1.0
        lengths = torch.tensor([len(ids) for _, ids, _ in part])
        found.add(acts_BTM, ids_BT, lengths, torch.tensor([number for number, _, _ in part]), 0)

    class Tokenizer:
        def decode(self, ids, **_):
            return "".join(f"{number} " for number in ids)

    always, sometimes = found.results(3, Tokenizer())
    assert (always.layer, always.feature, len(always.contexts)) == (3, 0, 0), "it is silent nowhere"
    assert all(set(one.activations) == {0.0} for one in sometimes.contexts)
    return [(one.document, one.position, one.text) for one in sometimes.contexts]


def test_silent_windows_are_silent_and_do_not_depend_on_batches_or_order() -> None:
    noise = torch.Generator().manual_seed(0)
    documents = []
    for number in range(30):
        length = int(torch.randint(1, 12, (1,), generator=noise))
        places = (torch.rand(length, generator=noise) < 0.2).nonzero().flatten().tolist()
        documents.append((number, list(range(100 * number, 100 * number + length)), places))
    found = silent_of(documents, 7)
    assert len(found) == 3
    for number, middle, text in found:
        _, ids, places = documents[number]
        window = range(max(0, middle - 2), min(len(ids), middle + 2))
        assert not set(window) & set(places)
        assert [int(word) for word in text.split()] == [ids[place] for place in window]
    assert silent_of(documents, 1) == found
    assert silent_of(documents[::-1], 4) == found
    assert silent_of(documents, 7, seed=6) != found


def test_labels_fit_a_terminal_whatever_their_script() -> None:
    assert fitted("der, die", 8) == "der, die"
    assert fitted("der, die", 7) == "der,..."
    assert fitted("\u7684\u6216\u4e0d", 6) == "\u7684\u6216\u4e0d"
    assert fitted("\u7684\u6216\u4e0d", 5) == "\u7684..."
    assert fitted("e\u0301e\u0301", 2) == "e\u0301e\u0301"

"""Footprints against the dense codes of each text run by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qscope.errors import Stopped
from qscope.models import capture_residuals
from qscope.sae.topk import dense_codes
from qscope.synthesis.contexts import Excerpts, StrongestPlaces, contexts_of, random_excerpts, token_at
from qscope.synthesis.fired import NOTHING, FiringCounts, key_of_feature
from qscope.v1.features_pb2 import Rendering, TokenMasks

TEXTS = ["the cat sat", "on the mat the end", "x", "", "a much longer text about nothing at all", "the cat sat"]


def dense_peaks(loaded, sae, text: str, skip_first: bool = True) -> np.ndarray:
    """Largest code of every feature over the tokens that count, by the plainest way there is."""
    ids_BT = torch.tensor([loaded.tokenizer(text)["input_ids"]])
    x_TD = capture_residuals(loaded, [sae.layer], ids_BT)[sae.layer][0].float()
    z_TF = dense_codes(*sae.encode(x_TD), sae.d_sae).numpy()
    return z_TF[1 if skip_first else 0 :].max(axis=0, initial=0.0)


def test_what_fires_is_what_the_dense_codes_say(reader, tiny_model, saes) -> None:
    loaded = tiny_model("qwen3")
    found = reader((1, 2)).read(TEXTS)
    assert found[2] is NOTHING or not len(found[2].key_P), "one token, and it is the first"
    assert not len(found[3].key_P)
    for text, fired in zip(TEXTS, found, strict=True):
        if not text:
            continue
        for layer, sae in saes(loaded, (1, 2)).items():
            peak_F = dense_peaks(loaded, sae, text)
            expected = {key_of_feature(layer, int(f)): peak_F[f] for f in np.flatnonzero(peak_F > 0)}
            here = {int(key): float(peak) for key, peak in zip(fired.key_P, fired.peak_P, strict=True)}
            assert {key: here[key] for key in here if key // (1 << 24) == layer} == pytest.approx(expected, rel=1e-4)
    assert found[0].key_P.tolist() == found[5].key_P.tolist()
    assert (np.diff(found[4].key_P) > 0).all()


def test_the_position_is_that_of_the_peak(reader, tiny_model, saes) -> None:
    loaded = tiny_model("qwen3")
    (fired,) = reader((1,)).read(["on the mat the end"])
    sae = saes(loaded, (1,))[1]
    x_TD = capture_residuals(loaded, [1], torch.tensor([fired.ids_T.astype(np.int64).tolist()]))[1][0].float()
    z_TF = dense_codes(*sae.encode(x_TD), sae.d_sae).numpy()
    z_TF[0] = 0
    for key, position in zip(fired.key_P, fired.position_P, strict=True):
        assert z_TF[position, key - (1 << 24)] == pytest.approx(z_TF[:, key - (1 << 24)].max(), rel=1e-4)
    key = int(fired.key_P[0])
    assert fired.peak_of(key) == (pytest.approx(float(fired.peak_P[0])), int(fired.position_P[0]))
    assert fired.peak_of(-1) == fired.peak_of(1 << 40) == (0.0, -1)


def test_a_threshold_leaves_out_what_is_weaker(reader) -> None:
    text = "on the mat the end"
    (everything,) = reader((1,)).read([text])
    middle = float(np.median(everything.peak_P))
    (strong,) = reader((1,), threshold=middle).read([text])
    assert strong.key_P.tolist() == everything.key_P[everything.peak_P > middle].tolist()
    assert 0 < len(strong.key_P) < len(everything.key_P)


def test_long_texts_lose_their_end_and_are_counted(reader) -> None:
    short = reader((1,), context=6)
    cut, whole = short.read(["the the the the the the the the x", "the x"])
    assert (len(cut.ids_T), len(whole.ids_T)) == (6, 3)
    assert short.cut == 1


def test_masks_count(reader) -> None:
    text = "the cat"
    (masked,) = reader((1,)).read([text])
    (unmasked,) = reader((1,), masks=TokenMasks()).read([text])
    assert set(masked.key_P.tolist()) < set(unmasked.key_P.tolist())


def test_stops_between_passes(reader) -> None:
    with pytest.raises(Stopped):
        reader((1,), should_stop=lambda: True).read(["the cat"])


def test_counts_and_places_are_those_of_the_texts(reader, tokenizer) -> None:
    texts = [text for text in TEXTS if len(text) > 1]
    found = reader((1, 2)).read(texts)
    counts, places = FiringCounts({1: 48, 2: 48}), StrongestPlaces(2)
    for number, fired in enumerate(found):
        counts.add(fired)
        places.add(number, fired)
    for layer in (1, 2):
        for feature in range(48):
            key = key_of_feature(layer, feature)
            holders = [n for n, fired in enumerate(found) if key in fired.key_P]
            assert counts.of(layer, feature) == len(holders)
            expected = sorted(holders, key=lambda n: (-found[n].peak_of(key)[0], n))[:2]
            assert [text for text, _, _ in places.of([key])[key]] == expected
    twice = counts.between(2, 3)
    assert twice == [(la, f) for la in (1, 2) for f in range(48) if 2 <= counts.of(la, f) <= 3]
    key = int(found[0].key_P[0])
    excerpts = Excerpts(tokenizer, before=2, after=1)
    (best, *_) = contexts_of(places.of([key]), [f.ids_T for f in found], excerpts)[key]
    assert best.text in texts[best.document]
    assert best.activation == pytest.approx(max(fired.peak_of(key)[0] for fired in found))
    assert best.tokens[best.peak] == tokenizer.decode(found[best.document].ids_T[best.position])
    assert sum(value > 0 for value in best.activations) == 1
    assert places.of([key_of_feature(3, 1)]) == {key_of_feature(3, 1): []}


def test_places_stay_few_however_many_texts(monkeypatch, reader) -> None:
    monkeypatch.setattr("qscope.synthesis.contexts._HELD", 50)
    found = reader((1, 2)).read(TEXTS)
    small, whole = StrongestPlaces(2), StrongestPlaces(2)
    for number, fired in enumerate(found * 30):
        small.add(number, fired)
    monkeypatch.setattr("qscope.synthesis.contexts._HELD", 1 << 30)
    for number, fired in enumerate(found * 30):
        whole.add(number, fired)
    keys = sorted({int(key) for fired in found for key in fired.key_P})
    assert small.of(keys) == whole.of(keys)
    assert sum(map(len, small._parts)) < 600


def test_random_excerpts_are_of_the_texts_and_of_the_seed(reader, tokenizer) -> None:
    ids = [fired.ids_T for fired in reader((1,)).read(TEXTS)]
    excerpts = Excerpts(tokenizer, before=2, after=2)
    one, same, other = (
        [context.text for context in random_excerpts(ids, excerpts, 20, seed=seed)] for seed in (4, 4, 5)
    )
    assert one == same != other
    found = random_excerpts(ids, excerpts, 20, seed=4)
    assert all(c.text in TEXTS[c.document] and c.position > 0 for c in found)
    assert random_excerpts([np.zeros(1, np.int32)], excerpts, 3, seed=0) == []


def test_excerpts_hold_text_alone(tokenizer) -> None:
    ids_T = np.array(tokenizer("a <|im_start|>b é")["input_ids"], dtype=np.int32)
    found = Excerpts(tokenizer, before=9, after=9).around(ids_T, 3, activation=2.0, text=7)
    assert (found.text, found.tokens[3], found.peak, found.document) == ("a b é", "b", 3, 7)
    # The window ends, or begins, inside of a character.
    cut = Excerpts(tokenizer, before=1, after=0).around(ids_T, len(ids_T) - 2, activation=1.0, text=0)
    assert cut.text == " "
    assert Excerpts(tokenizer, before=0, after=0).around(ids_T, len(ids_T) - 1, activation=1.0, text=0).text == ""
    assert token_at(tokenizer, ids_T, len(ids_T) - 2) == token_at(tokenizer, ids_T, len(ids_T) - 1) == "é"
    assert token_at(tokenizer, ids_T, 0) == "a"


def test_a_chat_template_counts_the_text_alone(reader, tiny_model) -> None:
    tiny_model(
        "qwen3"
    ).tokenizer.chat_template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}"
    try:
        masks = TokenMasks(skip_first_token=True, skip_special_tokens=True)
        (fired,) = reader((1,), rendering=Rendering(chat=True), masks=masks).read(["the cat"])
        text = tiny_model("qwen3").tokenizer.decode(fired.ids_T)
        assert text.startswith("<|im_start|>")
        # Positions are those of the rendered text, inside of what was written.
        before = len(tiny_model("qwen3").tokenizer(text.split("the cat")[0])["input_ids"])
        assert all(before <= position < before + 7 for position in fired.position_P)
    finally:
        tiny_model("qwen3").tokenizer.chat_template = None

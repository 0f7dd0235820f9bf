"""Curves around a switch equal plain loops over each response; the first switched token is the one that writes it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from qscope.embedded import model_path
from qscope.models import capture_residuals
from qscope.posttraining.feature_rows import FeatureRows
from qscope.posttraining.sae_loss import HeldFeatures
from qscope.posttraining.switch_onset import Side, aligned, first_token, onset_of_switches

BEFORE, AFTER, LAYER = 3, 2, 1
#: Languages of the features: two of the first, one each of the others but the last, which has none.
TARGET_M = [0, 0, 1, 2]


@pytest.fixture
def held(tiny_model) -> HeldFeatures:
    d_model = tiny_model("qwen3").facts.d_model
    generator = torch.Generator().manual_seed(0)
    W_enc_MD = torch.randn(4, d_model, generator=generator)
    b_enc_M, alpha_GM = torch.randn(4, generator=generator), torch.randn(4, 4, generator=generator)
    rows = FeatureRows(LAYER, (5, 6, 7, 8), W_enc_MD, b_enc_M)
    return HeldFeatures(rows, torch.tensor(TARGET_M), alpha_GM, torch.ones(4, 4, dtype=torch.bool))


#: Tokens of the prompt and of the response, place, language, target, switched.
CASES = [
    (3, 6, 4, 1, 0, True),
    (2, 3, 1, 1, 0, True),  # ends in the window, begins in it
    (5, 7, 3, 2, 0, True),
    (4, 6, 4, 3, 1, True),  # a language without a feature
    (3, 6, 4, 1, 0, False),
    (1, 5, 2, 2, 0, False),
]


@pytest.mark.parametrize("batch_tokens", [1, 20, 1000])
def test_curves_equal_plain_loops(tiny_model, held, batch_tokens) -> None:
    loaded = tiny_model("qwen3")
    rng = np.random.default_rng(1)
    texts = [rng.integers(5, 60, prompt + response) for prompt, response, *_ in CASES]
    responses = [
        aligned(ids[:prompt], ids[prompt:], place, language=language, target=target, switched=switched)
        for ids, (prompt, _, place, language, target, switched) in zip(texts, CASES, strict=True)
    ]
    found = onset_of_switches(loaded, [held], responses, before=BEFORE, after=AFTER, batch_tokens=batch_tokens)
    assert set(found) == {(LAYER, side, switched) for side in Side for switched in (True, False)}

    for (_, side, switched), curve in found.items():
        assert curve.offset_W == list(range(-BEFORE, AFTER))
        values: list[list[float]] = [[] for _ in curve.offset_W]
        for ids, (prompt, response, place, language, target, flag) in zip(texts, CASES, strict=True):
            if flag != switched:
                continue
            resid_TD = capture_residuals(loaded, [LAYER], torch.from_numpy(ids)[None])[LAYER][0].double()
            for slot, offset in enumerate(curve.offset_W):
                if not 0 <= place + offset < response:
                    continue
                away = []
                for feature, of in enumerate(TARGET_M):
                    whose = Side.TARGET if of == target else Side.OWN if of == language else Side.OTHERS
                    if whose is side:
                        x_D = resid_TD[prompt + place + offset]
                        u = float(x_D @ held.rows.W_enc_MD[feature].double() + held.rows.b_enc_M[feature].double())
                        away.append(u - float(held.alpha_GM[language, feature]))
                if away:
                    values[slot].append(sum(away) / len(away))
        assert curve.count_W == [len(one) for one in values]
        for slot, one in enumerate(values):
            assert curve.mean_W[slot] == pytest.approx(np.mean(one) if one else np.nan, abs=1e-4, nan_ok=True)
            error = np.std(one, ddof=1) / np.sqrt(len(one)) if len(one) > 1 else np.nan
            assert curve.error_W[slot] == pytest.approx(error, abs=1e-4, nan_ok=True)


def test_stops_when_asked(tiny_model, held) -> None:
    one = aligned([5, 6], [7, 8, 9], 1, language=1, target=0, switched=True)
    assert (
        onset_of_switches(
            tiny_model("qwen3"), [held], [one], before=2, after=2, batch_tokens=8, should_stop=lambda: True
        )
        is None
    )


def test_the_first_switched_token_writes_the_first_part_of_the_character() -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_path())
    for text in ("Open the file 文件。", "Откройте 龘 файл", "龘", "naïve 🙂 x"):
        ids = tokenizer.encode(text)
        for start, character in enumerate(text):
            token = first_token(tokenizer, ids, start)
            before, upto = (tokenizer.decode(ids[:count]) for count in (token, token + 1))
            assert len(before) <= start < len(upto), (text, character)
            # Not a byte of it has been written before.
            assert text.startswith(before), (text, character)

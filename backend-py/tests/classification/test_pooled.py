"""Pooled texts equal those of each text run alone; a run that was cut short goes on to the same shards."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qscope.classification.pooled import Pooler, pool_to_disk, texts_as_read
from qscope.errors import UserError
from qscope.models import capture_residuals
from qscope.sae.topk import TopKSae, dense_codes
from qscope.v1.features_pb2 import Rendering, TokenMasks

LAYERS = [0, 3]
WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "while", "others", "watch"]
IDENTITY = {"made": "here"}


def sae_of(layer: int, width: int) -> TopKSae:
    noise = torch.Generator().manual_seed(layer)
    W_FD = torch.randn(64, width, generator=noise)
    return TopKSae(W_FD, torch.zeros(64), torch.empty(0, width), torch.zeros(width), k=6, layer=layer)


@pytest.fixture
def texts() -> list[str]:
    noise = np.random.default_rng(0)
    made = [" ".join(noise.choice(WORDS, noise.integers(2, 20))) for _ in range(23)]
    # One token, which is the first and does not count.
    made[7] = "t"
    return made


@pytest.fixture
def make(tiny_model):
    loaded = tiny_model()
    saes = {layer: sae_of(layer, loaded.facts.d_model) for layer in LAYERS}

    def pooler(context: int = 200, **masks) -> Pooler:
        return Pooler(
            loaded,
            saes,
            context=context,
            rendering=Rendering(),
            masks=TokenMasks(**{"skip_first_token": True, "skip_special_tokens": True, **masks}),
            batch_tokens=100,
            residuals=[3],
        )

    pooler.loaded, pooler.saes = loaded, saes
    return pooler


@pytest.mark.parametrize(("context", "skip"), [(200, True), (200, False), (9, True)])
def test_a_batch_equals_each_text_alone(make, tokenizer, texts, context, skip) -> None:
    pooler = make(context, skip_first_token=skip)
    pooled = pooler.pool(texts)
    assert pooler.silent == (1 if skip else 0)
    assert (pooler.cut > 0) == (context == 9)
    for layer in LAYERS:
        found_NF = pooled[layer].matrix(64).toarray()
        for row, text in enumerate(texts):
            ids = tokenizer(text, add_special_tokens=False)["input_ids"][:context]
            resid_TD = capture_residuals(make.loaded, [layer], torch.tensor([ids]))[layer][0].float()
            resid_TD = resid_TD[1:] if skip else resid_TD
            if not len(resid_TD):
                assert not found_NF[row].any()
                assert layer != 3 or not pooled[layer].mean_ND[row].any()
                continue
            codes_TF = dense_codes(*make.saes[layer].encode(resid_TD), 64)
            assert found_NF[row] == pytest.approx(codes_TF.max(0).values.numpy(), abs=1e-4)
            if layer == 3:
                assert pooled[layer].mean_ND[row] == pytest.approx(resid_TD.double().mean(0).numpy(), abs=1e-4)
    assert pooled[0].mean_ND is None


def test_shards_hold_the_same_and_survive_a_stop(make, texts, tmp_path) -> None:
    whole = make().pool(texts)
    stops = iter([False, False, False, False, True])
    cut = pool_to_disk(make(), texts, tmp_path, identity=IDENTITY, shard_texts=5, should_stop=lambda: next(stops, True))
    assert cut is None
    written = {path.name: path.read_bytes() for path in tmp_path.glob("shard-*.safetensors")}
    assert 0 < len(written) < 5
    (tmp_path / "shard-00009.safetensors").write_bytes(b"half")
    pools = pool_to_disk(make(), texts, tmp_path, identity=IDENTITY, shard_texts=5)
    assert {name: (tmp_path / name).read_bytes() for name in written} == written
    assert (pools.silent, pools.cut) == (1, 0)
    for layer in LAYERS:
        one, other = whole[layer], pools.layer(layer)
        assert one.offset_N1.tolist() == other.offset_N1.tolist()
        assert one.feature_P.tolist() == other.feature_P.tolist()
        assert other.largest_P == pytest.approx(one.largest_P, abs=1e-5)
    assert pools.layer(3).mean_ND == pytest.approx(whole[3].mean_ND, abs=1e-5)


def test_a_damaged_shard_is_made_again(make, texts, tmp_path) -> None:
    pool_to_disk(make(), texts, tmp_path, identity=IDENTITY, shard_texts=10)
    before = (tmp_path / "shard-00001.safetensors").read_bytes()
    (tmp_path / "shard-00001.safetensors").write_bytes(before[:-1] + b"?")
    pool_to_disk(make(), texts, tmp_path, identity=IDENTITY, shard_texts=10)
    assert (tmp_path / "shard-00001.safetensors").read_bytes() == before


def test_other_texts_are_refused(make, texts, tmp_path) -> None:
    pool_to_disk(make(), texts, tmp_path, identity=IDENTITY, shard_texts=10)
    with pytest.raises(UserError, match="made has changed"):
        pool_to_disk(make(), texts, tmp_path, identity={"made": "elsewhere"}, shard_texts=10)


def test_words_are_read_as_far_as_the_model_reads(tokenizer, texts) -> None:
    texts = [*texts, "größer 草书 " * 40, ""]
    for text, part in zip(texts, texts_as_read(tokenizer, texts, 9), strict=True):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert text.startswith(part)
        if len(ids) <= 9:
            assert part == text
        else:
            assert len(part) < len(text)
            # A character of several tokens is read whole once its first one is.
            assert tokenizer(part, add_special_tokens=False)["input_ids"][:8] == ids[:8]

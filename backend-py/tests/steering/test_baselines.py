"""Diff-in-means and SDCV equal their plain formulas, and take the place of a change at equal length."""

from __future__ import annotations

import pytest
import torch

from qscope.data import TokenStream, open_text
from qscope.errors import Stopped, UserError
from qscope.models import capture_residuals
from qscope.sae.topk import dense_codes
from qscope.steering.baselines import class_means, diff_in_means, sdcv, with_directions
from qscope.v1.text_pb2 import TextSource
from tests.steering.conftest import D_SAE, SAES, make_edit, resolved, sae_of

LAYER = 2


@pytest.fixture(scope="module")
def loaded(tiny_model):
    return tiny_model("qwen3")


def stream(loaded, language: str, pack: bool = True) -> TokenStream:
    source = TextSource(
        source="embedded-heldout", field="text", split="train", context=24, pack=pack, where=f"language={language}"
    )
    return TokenStream(open_text(source, at="t", seed=0), loaded.tokenizer, context=24, pack=pack, repeat=True)


def plain(loaded, language: str, tokens: int, pack: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Residuals and dense codes of the same tokens, one sequence at a time, float64."""
    resid, source, count = [], stream(loaded, language, pack), 0
    while count < tokens:
        batch = source.next_batch(8)
        for row, mask in zip(batch.input_ids_BT, batch.attention_mask_BT, strict=True):
            resid.append(capture_residuals(loaded, [LAYER], row[mask][None])[LAYER][0, 1:])
        count += sum(len(part) for part in resid[-len(batch.input_ids_BT) :])
    x_ND = torch.cat(resid)
    return x_ND.double(), dense_codes(*sae_of(LAYER).encode(x_ND), D_SAE).double()


@pytest.mark.parametrize("pack", [True, False])
def test_means_and_directions_equal_the_plain_formulas(loaded, pack):
    means, plains = {}, {}
    for language in ("de", "zh"):
        means[language] = class_means(loaded, stream(loaded, language, pack), 400, SAES, [LAYER])[LAYER]
        plains[language] = plain(loaded, language, 400, pack)
        x_ND, z_NF = plains[language]
        assert means[language].count == len(x_ND)
        torch.testing.assert_close(means[language].resid_D, x_ND.mean(0), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(means[language].code_F, z_NF.mean(0), atol=1e-5, rtol=1e-4)
    (x_de, z_de), (x_zh, z_zh) = plains["de"], plains["zh"]
    direction_D = diff_in_means(means["de"], means["zh"])
    torch.testing.assert_close(direction_D, (x_de.mean(0) - x_zh.mean(0)).float(), atol=1e-5, rtol=1e-3)
    pooled_F = ((z_de.var(0, correction=0) + z_zh.var(0, correction=0)) / 2).sqrt()
    gap_F = z_de.mean(0) - z_zh.mean(0)
    kept = (gap_F.abs() / pooled_F.clamp_min(1e-6)).topk(5).indices
    expected_D = gap_F[kept].float() @ sae_of(LAYER).W_dec_FD[kept]
    torch.testing.assert_close(sdcv(means["de"], means["zh"], SAES, LAYER, 5), expected_D, atol=1e-4, rtol=1e-3)


def test_all_latents_give_the_difference_of_the_mean_reconstructions(loaded):
    de, zh = (class_means(loaded, stream(loaded, name), 300, SAES, [LAYER])[LAYER] for name in ("de", "zh"))
    whole_D = (de.code_F - zh.code_F).float() @ sae_of(LAYER).W_dec_FD
    torch.testing.assert_close(sdcv(de, zh, SAES, LAYER, 10_000), whole_D, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("strength", [3.0, -3.0])
def test_the_direction_changes_and_the_length_stays(strength):
    spec = resolved(make_edit([1, LAYER], [5, 9], "add", strength))
    generator = torch.Generator().manual_seed(0)
    directions = {layer: torch.randn(32, generator=generator) for layer in (1, LAYER)}
    for own, other in zip(spec.edits, with_directions(spec, directions, "x").edits, strict=True):
        before_D, after_D = own.strength_M @ own.directions_MD, other.strength_M @ other.directions_MD
        assert after_D.norm().item() == pytest.approx(before_D.norm().item(), rel=1e-5)
        cosine = torch.cosine_similarity(after_D, directions[own.layer], dim=0).item()
        assert cosine == pytest.approx(1.0 if strength > 0 else -1.0, abs=1e-5)


def test_equal_texts_have_no_difference_and_that_is_said(loaded):
    de = class_means(loaded, stream(loaded, "de"), 100, SAES, [LAYER])[LAYER]
    spec = resolved(make_edit([LAYER], [5], "add", 1.0))
    with pytest.raises(UserError) as caught:
        with_directions(spec, {LAYER: diff_in_means(de, de)}, "x")
    assert caught.value.reason == "BASELINE_EMPTY"


def test_residuals_need_no_sae(loaded):
    both = [class_means(loaded, stream(loaded, "de"), 100, saes, [LAYER])[LAYER] for saes in (SAES, None)]
    torch.testing.assert_close(both[1].resid_D, both[0].resid_D, rtol=0, atol=0)
    assert both[1].count == both[0].count
    assert len(both[1].code_F) == 0


def test_means_tell_how_far_they_are_and_obey_a_stop(loaded):
    told: list[tuple[int, int]] = []
    whole = class_means(loaded, stream(loaded, "de"), 400, SAES, [LAYER], on_progress=lambda *now: told.append(now))
    assert len(told) > 1
    assert told[-1] == (whole[LAYER].count, whole[LAYER].count)
    assert [wanted for _, wanted in told[:-1]] == [400] * (len(told) - 1)
    told.clear()
    with pytest.raises(Stopped):
        class_means(
            loaded,
            stream(loaded, "de"),
            400,
            SAES,
            [LAYER],
            on_progress=lambda *now: told.append(now),
            should_stop=lambda: bool(told),
        )
    assert len(told) == 1

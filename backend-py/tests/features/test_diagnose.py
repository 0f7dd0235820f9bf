"""Influence is the slope of the response's log-probability, checked by moving the stream; ranks by hand."""

from __future__ import annotations

import copy

import pytest
import torch

from qscope.features.diagnose import add_case, examples, new_sums, ranks, residuals_and_gradients
from qscope.models import edit_residual, wrap_model
from qscope.sae.topk import TopKSae, dense_codes

IDS = torch.tensor([40, 41, 77, 90, 12, 55, 63])
PROMPT = 3
LAYERS = [0, 2, 3]


def sae_of(layer: int) -> TopKSae:
    generator = torch.Generator().manual_seed(layer)
    make = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    return TopKSae(make(64, 32), make(64) * 0.1, make(64, 32), make(32), k=6, layer=layer)


@pytest.fixture(scope="module", params=["qwen3", "qwen3_5", "qwen3_moe"])
def loaded(request, tiny_model):
    base = tiny_model(request.param)
    model = copy.deepcopy(base.model).double()
    # The grouped product of experts knows no float64.
    model.config._experts_implementation = "eager"
    return wrap_model(model, base.tokenizer, name="double")


def logprob(loaded, layer: int | None = None, change_TD: torch.Tensor | None = None) -> float:
    def run() -> float:
        with torch.no_grad():
            logits = loaded.model(input_ids=IDS[None], use_cache=False).logits[0, PROMPT - 1 : -1]
        return logits.log_softmax(-1).gather(1, IDS[PROMPT:, None]).sum().item()

    if layer is None:
        return run()
    with edit_residual(loaded, layer, lambda resid_BTD: resid_BTD + change_TD):
        return run()


def test_the_gradient_is_the_slope_at_every_layer_and_token(loaded):
    resid, gradients, value = residuals_and_gradients(loaded, LAYERS, IDS, PROMPT)
    assert value == pytest.approx(logprob(loaded), rel=1e-5)
    generator = torch.Generator().manual_seed(9)
    for layer in LAYERS:
        assert resid[layer].shape == gradients[layer].shape == (len(IDS) - PROMPT, 32)
        direction_ND = torch.randn(len(IDS) - PROMPT, 32, generator=generator, dtype=torch.float64)
        change_TD = torch.zeros(len(IDS), 32, dtype=torch.float64)
        change_TD[PROMPT - 1 : -1] = direction_ND
        # Routers compute in float32 whatever the model does: a smaller step would measure their rounding.
        step = 1e-4
        slope = (logprob(loaded, layer, step * change_TD) - logprob(loaded, layer, -step * change_TD)) / (2 * step)
        assert (gradients[layer].double() * direction_ND).sum().item() == pytest.approx(slope, rel=1e-2, abs=1e-4)


def test_influence_is_activation_times_slope_of_the_kept_features(loaded):
    layer, sae = 2, sae_of(2)
    resid, gradients, _ = residuals_and_gradients(loaded, [layer], IDS, PROMPT)
    sums = new_sums({layer: sae})[layer]
    read = IDS[PROMPT - 1 : -1].tolist()
    add_case(sums, sae, resid[layer], gradients[layer], read)
    z_NF = dense_codes(*sae.encode(resid[layer].double()), 64)
    influence_NF = z_NF * (gradients[layer].double() @ sae.W_dec_FD.t())
    assert sums.tokens == len(read)
    torch.testing.assert_close(sums.activation_F, z_NF.sum(0))
    torch.testing.assert_close(sums.fired_F, (z_NF > 0).double().sum(0))
    torch.testing.assert_close(sums.influence_F, influence_NF.sum(0), atol=1e-5, rtol=1e-4)
    best = int(influence_NF.max(0).values.argmax())
    assert examples(sums, best)[0] == read[int(influence_NF[:, best].argmax())]


def test_the_weights_get_no_gradient_and_no_hook_stays(loaded):
    before = [len(block._forward_hooks) for block in loaded.decoder.blocks]
    residuals_and_gradients(loaded, [1], IDS, PROMPT)
    assert all(parameter.grad is None for parameter in loaded.model.parameters())
    assert [len(block._forward_hooks) for block in loaded.decoder.blocks] == before


def test_ranks_count_from_one_and_ties_go_to_the_lowest_id():
    assert ranks(torch.tensor([0.5, 2.0, 2.0, -1.0])).tolist() == [3, 1, 2, 4]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["resid", "gradient"])
def test_a_token_that_is_not_finite_counts_nowhere(value, where):
    noise = torch.Generator().manual_seed(3)
    resid_ND, gradient_ND = (torch.randn(4, 32, generator=noise) for _ in range(2))
    sae, kept = sae_of(1).to(dtype=torch.float32), [0, 1, 3]
    expected = new_sums({1: sae})[1]
    add_case(expected, sae, resid_ND[kept], gradient_ND[kept], [7, 8, 9])
    {"resid": resid_ND, "gradient": gradient_ND}[where][2, 5] = value
    sums = new_sums({1: sae})[1]
    add_case(sums, sae, resid_ND, gradient_ND, [7, 8, 6, 9])
    assert (sums.tokens, sums.not_finite) == (3, 1)
    torch.testing.assert_close(sums.activation_F, expected.activation_F)
    torch.testing.assert_close(sums.influence_F, expected.influence_F)
    torch.testing.assert_close(sums.fired_F, expected.fired_F)
    assert sums.examples == expected.examples


def test_decoder_rows_are_looked_up_a_few_tokens_at_a_time(monkeypatch):
    from qscope.features import diagnose

    noise = torch.Generator().manual_seed(3)
    resid_ND, gradient_ND = (torch.randn(5, 32, generator=noise) for _ in range(2))
    sae = sae_of(1).to(dtype=torch.float32)
    whole, parts = (new_sums({1: sae})[1] for _ in range(2))
    add_case(whole, sae, resid_ND, gradient_ND, [1, 2, 3, 4, 5])
    monkeypatch.setattr(diagnose, "ROWS_AT_ONCE", 2 * sae.k * sae.d_in)
    add_case(parts, sae, resid_ND, gradient_ND, [1, 2, 3, 4, 5])
    assert parts.tokens == whole.tokens == 5
    torch.testing.assert_close(parts.influence_F, whole.influence_F, rtol=1e-5, atol=1e-4)

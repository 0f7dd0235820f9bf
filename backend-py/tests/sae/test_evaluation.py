"""Held-out measures: exact on SAEs whose effect is known."""

from __future__ import annotations

import pytest
import torch

from qscope.data import TokenStream
from qscope.models import capture_residuals, edit_residual, logits_of
from qscope.sae import evaluation
from qscope.sae.evaluation import evaluate
from qscope.sae.topk import TopKSae
from qscope.v1 import sae_pb2

D = 32
LAYER = 2
TEXT = "The quick brown fox jumps over the lazy dog while the others watch. " * 20


class Reader:
    """One document, again and again."""

    def __init__(self, document: str = TEXT) -> None:
        self._document = document
        self.start_pass(0)

    def read(self) -> str | None:
        text, self._text = self._text, None
        return text

    def start_pass(self, number: int) -> None:
        self._text: str | None = self._document

    def state(self) -> dict:
        return {}

    def load_state(self, state: dict) -> None:
        pass

    def identity(self) -> dict:
        return {"source": "test"}


@pytest.fixture
def stream(tokenizer):
    return lambda: TokenStream(Reader(), tokenizer, context=32, pack=True, repeat=True)


def perfect_sae() -> TopKSae:
    """Reconstructs every x exactly: one feature for each direction and its opposite, all of them kept."""
    eye = torch.eye(D)
    both_FD = torch.cat([eye, -eye])
    return TopKSae(both_FD, torch.zeros(2 * D), both_FD.clone(), torch.zeros(D), k=2 * D, layer=LAYER)


def zero_sae() -> TopKSae:
    """Reconstructs every x as zero, so that splicing it is the ablation itself."""
    return TopKSae(torch.zeros(8, D), torch.zeros(8), torch.eye(8, D), torch.zeros(D), k=2, layer=LAYER)


def run(loaded, sae, stream, *, count=256, drop_first=True):
    filter = sae_pb2.ActivationFilter(drop_first_token=drop_first, max_norm_ratio=0)
    report = evaluate(loaded, {LAYER: sae}, stream(), count=count, batch_tokens=64, filter=filter)
    assert report is not None
    return report


@pytest.mark.parametrize("family", ["qwen3", "qwen3_5"])
def test_a_perfect_sae_loses_nothing(tiny_model, stream, family) -> None:
    row = run(tiny_model(family), perfect_sae(), stream).per_layer[LAYER]
    for suffix in ("", "_all_tokens"):
        assert row[f"fvu{suffix}"] == pytest.approx(0, abs=1e-6)
        assert row[f"ce_recovered{suffix}"] == pytest.approx(1, abs=1e-4)
        assert row[f"kl{suffix}"] == pytest.approx(0, abs=1e-6)
    assert row["cosine"] == pytest.approx(1, abs=1e-5)


def test_a_zero_sae_recovers_nothing(tiny_model, stream) -> None:
    row = run(tiny_model("qwen3"), zero_sae(), stream).per_layer[LAYER]
    assert row["ce_recovered"] == pytest.approx(0, abs=1e-5)
    assert row["ce_sae"] == pytest.approx(row["ce_zero"])
    assert row["l0"] == 0
    assert row["dead_share"] == 1


def test_clean_loss_is_the_models_own(tiny_model, stream) -> None:
    loaded = tiny_model("qwen3")
    report = run(loaded, perfect_sae(), stream)
    batch = stream().next_batch(report.tokens // 32)
    logits_BTV = logits_of(loaded, batch.input_ids_BT)[:, :-1]
    own = torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), batch.input_ids_BT[:, 1:].flatten())
    assert report.per_layer[LAYER]["ce_clean"] == pytest.approx(own.item(), rel=1e-5)


@pytest.mark.parametrize("family", ["qwen3", "qwen3_5"])
def test_losses_are_those_of_whole_passes_in_float64_with_padding(tiny_model, tokenizer, family) -> None:
    """The plain way: every pass runs the whole model in float64 with an edit, padding and all."""
    loaded = tiny_model(family)

    def padded() -> TokenStream:
        return TokenStream(Reader(TEXT[:100]), tokenizer, context=64, pack=False, repeat=True)

    sae = zero_sae()
    sae.b_dec_D = torch.linspace(-0.2, 0.3, D)
    filter = sae_pb2.ActivationFilter(drop_first_token=True, max_norm_ratio=0)
    report = evaluate(loaded, {LAYER: sae}, padded(), count=700, batch_tokens=192, filter=filter)
    batch = padded().next_batch(64)
    used = int((batch.attention_mask_BT.sum(1).cumsum(0) < report.tokens).sum()) + 1
    ids_BT, mask_BT = batch.input_ids_BT[:used], batch.attention_mask_BT[:used].bool()
    assert not mask_BT.all()
    assert int(mask_BT.sum()) == report.tokens
    predicted_BT = mask_BT[:, 1:] & mask_BT[:, :-1]

    loaded.model.double()
    try:

        def log_probabilities(edit) -> torch.Tensor:
            with edit_residual(loaded, LAYER, edit):
                return torch.log_softmax(logits_of(loaded, ids_BT, mask_BT), -1)[:, :-1][predicted_BT]

        def first_kept(resid_BTD: torch.Tensor, new_D: torch.Tensor) -> torch.Tensor:
            new_BTD = new_D.to(resid_BTD).expand_as(resid_BTD).clone()
            new_BTD[:, 0] = resid_BTD[:, 0]
            return torch.where(mask_BT[:, :, None], new_BTD, resid_BTD)

        clean = log_probabilities(lambda resid_BTD: resid_BTD)
        spliced = log_probabilities(lambda resid_BTD: first_kept(resid_BTD, sae.b_dec_D))
        ablated = log_probabilities(lambda resid_BTD: first_kept(resid_BTD, torch.zeros(D)))
    finally:
        loaded.model.float()
    targets_N = ids_BT[:, 1:][predicted_BT]
    ce = [torch.nn.functional.nll_loss(part, targets_N).item() for part in (clean, spliced, ablated)]
    kl = (clean.exp() * (clean - spliced)).sum(-1).mean().item()
    row = report.per_layer[LAYER]
    assert [row["ce_clean"], row["ce_sae"], row["ce_zero"]] == pytest.approx(ce, rel=1e-6)
    assert row["kl"] == pytest.approx(kl, rel=1e-4)
    assert kl > 1e-4


def test_filtered_positions_keep_their_activation(tiny_model, stream) -> None:
    """With the first token kept out, the two kinds of pass differ at position 0 only; without the filter they agree."""
    loaded = tiny_model("qwen3")
    filtered = run(loaded, zero_sae(), stream)
    assert filtered.filtered_tokens == filtered.tokens * 31 // 32
    assert filtered.per_layer[LAYER]["ce_zero"] != pytest.approx(filtered.per_layer[LAYER]["ce_zero_all_tokens"])
    unfiltered = run(loaded, zero_sae(), stream, drop_first=False)
    row = unfiltered.per_layer[LAYER]
    assert unfiltered.filtered_tokens == unfiltered.tokens
    assert row["ce_zero"] == pytest.approx(row["ce_zero_all_tokens"])
    assert row["fvu"] == pytest.approx(row["fvu_all_tokens"])


def test_block_size_does_not_change_the_numbers(tiny_model, stream, monkeypatch) -> None:
    loaded = tiny_model("qwen3")
    one = run(loaded, perfect_sae(), stream).per_layer[LAYER]
    monkeypatch.setattr(evaluation, "_LOGITS_AT_ONCE", {"cpu": 1})
    other = run(loaded, perfect_sae(), stream).per_layer[LAYER]
    assert other == pytest.approx(one, abs=1e-5)


def test_reads_no_more_sequences_than_asked_and_stops_on_request(tiny_model, stream) -> None:
    loaded = tiny_model("qwen3")
    assert run(loaded, zero_sae(), stream, count=70).tokens == 96
    filter = sae_pb2.ActivationFilter()
    stopped = evaluate(
        loaded, {LAYER: zero_sae()}, stream(), count=96, batch_tokens=64, filter=filter, should_stop=lambda: True
    )
    assert stopped is None


def test_residuals_are_measured_where_they_are_hooked(tiny_model, stream) -> None:
    """FVU of an SAE that always answers b_dec is at least 1, and exactly 1 when b_dec is the mean."""
    loaded = tiny_model("qwen3")
    batch = stream().next_batch(8)
    x_ND = capture_residuals(loaded, [LAYER], batch.input_ids_BT)[LAYER][:, 1:].flatten(0, 1)
    sae = zero_sae()
    sae.b_dec_D = x_ND.mean(0)
    assert run(loaded, sae, stream).per_layer[LAYER]["fvu"] == pytest.approx(1, rel=1e-4)

"""Our trainer of SFT on TRL: the mean over a step, packing, alarms, and what it leaves alone."""

from __future__ import annotations

import math
from itertools import accumulate

import pytest
import torch
from torch import Tensor

from qscope.errors import UserError
from qscope.models.taps import tap_residuals
from qscope.posttraining.alarms import Alarm
from qscope.posttraining.answer_head import add_answer_head
from qscope.posttraining.examples import Example
from qscope.posttraining.global_batch import GlobalBatch
from qscope.posttraining.packing_check import refuse_mixing
from qscope.posttraining.sae_loss import UNTAGGED, Normalisation
from qscope.posttraining.sft_batches import Collator, Row, columns, packed, rows_of
from qscope.posttraining.sft_terms import EntropyTerm, KlTerm, TokenProbabilityTerm
from qscope.v1.posttraining_pb2 import ALARM_ACTION_STOP, ALARM_ACTION_WARN, TRAIN_METHOD_FULL, Trainable
from tests.posttraining.tuned import LANGUAGES, LORA, examples, gradients_of, sae_term, tune


def kl_term(loaded, model):
    import copy

    start = copy.deepcopy(loaded.model)
    with torch.no_grad():
        # Another model, or the divergence would be zero in the first step.
        start.get_output_embeddings().weight += 0.2 * torch.randn_like(start.get_output_embeddings().weight)
    add_answer_head(start)
    return KlTerm(0.5, start)


def token_term(loaded, model):
    held_GV = torch.zeros(3, len(loaded.tokenizer), dtype=torch.bool)
    held_GV[1:, 20:60] = True
    return TokenProbabilityTerm(2.0, held_GV)


TERMS = {
    "plain": None,
    "sae": sae_term(),
    "kl": kl_term,
    "entropy": lambda loaded, model: EntropyTerm(0.3),
    "tokens": token_term,
}


#: One step whose gradient is left as it is.
ONE_STEP = {"steps": 1, "max_grad_norm": 0}


def difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert set(one) == set(other)
    scale = max(float(grad.abs().max()) for grad in one.values())
    return max(float((one[name] - other[name]).abs().max()) for name in one) / scale


@pytest.mark.parametrize("term", TERMS)
def test_eight_rows_at_once_and_eight_of_one_have_the_same_gradient(term: str, tiny_folder, tmp_path) -> None:
    torch.manual_seed(0)
    at_once = gradients_of(
        tune(tiny_folder, tmp_path / "a", term=TERMS[term], batch=8, accumulate=1, steps=1, max_grad_norm=0)
    )
    torch.manual_seed(0)
    by_one = gradients_of(
        tune(tiny_folder, tmp_path / "b", term=TERMS[term], batch=1, accumulate=8, steps=1, max_grad_norm=0)
    )
    assert difference(at_once, by_one) < 2e-5
    if term != "plain":
        torch.manual_seed(0)
        plain = gradients_of(tune(tiny_folder, tmp_path / "c", batch=8, accumulate=1, steps=1, max_grad_norm=0))
        assert difference(plain, at_once) > 1e-3


def test_the_preset_of_the_authors_grows_with_accumulation(tiny_folder, tmp_path) -> None:
    def added(batch: int, accumulate: int) -> float:
        size = {"batch": batch, "accumulate": accumulate, **ONE_STEP}
        official = sae_term(normalisation=Normalisation.OFFICIAL_CODE)
        tuned = tune(tiny_folder, tmp_path / f"{batch}", term=official, **size)
        tuned.trainer.train_run()
        return tuned.context.series("sae_loss")[1]

    # A mean of each micro-batch, once for each of them: its rows differ, so not exactly eight times as much.
    assert 3 < added(1, 8) / added(8, 1) < 16


def test_the_gradient_is_that_of_a_plain_loop(tiny_folder, tmp_path) -> None:
    tuned = tune(tiny_folder, tmp_path, term=sae_term(), batch=2, accumulate=5, **ONE_STEP)
    found = gradients_of(tuned)
    again = tune(tiny_folder, tmp_path / "again", term=sae_term())
    model, loss = again.model.double(), again.trainer._term._loss
    rows = examples()
    tokens = sum(sum(row.answer) for row in rows)
    total: Tensor | float = 0.0
    for row in rows:
        ids_BT, answer_BT = torch.tensor([row.ids]), torch.tensor([row.answer])
        with tap_residuals(again.loaded.decoder, loss.layers) as resids:
            logp_TV = torch.log_softmax(model(input_ids=ids_BT).logits[0], dim=-1)
        for place in range(1, len(row.ids)):
            if row.answer[place]:
                total = total - logp_TV[place - 1, row.ids[place]] / tokens
        language_B = torch.tensor([LANGUAGES[row.language]])
        total = total + loss(resids, language_B, answer_BT, GlobalBatch(tokens)).loss
    total.backward()
    wanted = {name: p.grad for name, p in model.named_parameters()}
    assert difference({name: grad.double() for name, grad in found.items()}, wanted) < 2e-5
    series = tuned.context.series
    assert series("loss")[1] == pytest.approx(total.item(), rel=1e-5)
    assert series("ce")[1] + series("sae_loss")[1] == pytest.approx(series("loss")[1], rel=1e-5)
    assert series("tokens")[1] == sum(len(row.ids) for row in rows)


@pytest.mark.parametrize("kind", ["checkpointing", "lora"])
def test_the_sae_loss_lives_under_checkpointing_and_adapters(kind: str, tiny_folder, tmp_path) -> None:
    trainable = LORA if kind == "lora" else Trainable(method=TRAIN_METHOD_FULL, gradient_checkpointing=True)
    size = {"batch": 4, "accumulate": 1, **ONE_STEP}
    found = gradients_of(tune(tiny_folder, tmp_path / "a", trainable=trainable, term=sae_term(), **size))
    if kind == "checkpointing":
        assert difference(gradients_of(tune(tiny_folder, tmp_path / "b", term=sae_term(), **size)), found) < 1e-6
    else:
        plain = gradients_of(tune(tiny_folder, tmp_path / "b", trainable=trainable, **size))
        assert difference(plain, found) > 1e-3


def test_packed_rows_have_the_gradient_of_rows_apart(tiny_folder, tmp_path) -> None:
    rows = examples(8)
    apart = gradients_of(
        tune(tiny_folder, tmp_path / "a", rows=rows, term=sae_term(), batch=8, accumulate=1, **ONE_STEP)
    )
    together = rows_of(rows, [LANGUAGES[row.language] for row in rows])
    count = len(packed(together, 40))
    assert count < 5
    tuned = tune(
        tiny_folder,
        tmp_path / "b",
        rows=rows,
        term=sae_term(),
        packing=True,
        batch=count,
        accumulate=1,
        steps=1,
        max_grad_norm=0,
    )
    assert difference(apart, gradients_of(tuned)) < 2e-5


def test_packing_fills_rows_and_loses_none() -> None:
    rows = rows_of(examples(30), [0] * 30)
    found = packed(rows, 24)
    assert max(len(row.ids) for row in found) <= 24
    assert sorted(token for row in found for token in row.ids) == sorted(token for row in rows for token in row.ids)
    tokens = sum(len(row.ids) for row in rows)
    assert len(found) <= math.ceil(tokens / 24) + 2
    for row in found:
        assert sum(row.sizes) == len(row.ids)
        for begin in accumulate((0, *row.sizes[:-1])):
            assert row.labels[begin] == -100


def test_a_packed_batch_knows_where_each_token_stands_and_its_language() -> None:
    one, three, two = rows_of(examples(3), [1, 2, 0])
    table = columns([Row.joined([one, two]), three])
    batch = Collator(0, packed=True)(
        [dict(zip(table, line, strict=True)) for line in zip(*table.values(), strict=True)]
    )
    sizes = [len(row.ids) for row in (one, two, three)]
    width = sizes[0] + sizes[1]
    assert batch["position_ids"][0].tolist() == [*range(sizes[0]), *range(sizes[1])]
    # Padding is an example of its own: attention of real tokens must not see it as their beginning.
    assert batch["position_ids"][1].tolist() == [*range(sizes[2]), *range(width - sizes[2])]
    assert batch["language"].tolist() == [
        [1] * sizes[0] + [0] * sizes[1],
        [2] * sizes[2] + [UNTAGGED] * (width - sizes[2]),
    ]
    assert batch["labels"][1, sizes[2] :].eq(-100).all()
    assert "attention_mask" not in batch


@pytest.mark.parametrize(
    ("family", "mixes"), [("qwen3", False), ("qwen3_moe", False), ("llama", False), ("qwen3_5", True)]
)
def test_packing_is_refused_where_one_text_would_reach_the_next(tiny_model, family: str, mixes: bool) -> None:
    if not mixes:
        refuse_mixing(tiny_model(family))
        return
    with pytest.raises(UserError, match="does not keep packed rows apart") as error:
        refuse_mixing(tiny_model(family))
    assert (error.value.reason, error.value.field) == ("PACKING_MIXES", "sft.packing")


def test_what_is_not_finite_ends_the_run_before_it_reaches_the_weights(tiny_folder, tmp_path) -> None:
    tuned = tune(tiny_folder, tmp_path, learning_rate=1e-3)
    calls = tuned.trainer._pass
    tuned.trainer._pass = lambda *a: (calls(*a)[0] * (math.nan if tuned.context.step == 2 else 1.0), None, None)
    with pytest.raises(UserError, match="gradient of step 3 is not finite") as error:
        tuned.trainer.train_run()
    assert error.value.reason == "NOT_FINITE"
    assert all(bool(p.isfinite().all()) for p in tuned.model.parameters())


@pytest.mark.parametrize("action", [ALARM_ACTION_WARN, ALARM_ACTION_STOP])
def test_a_signal_that_is_gone_is_told_or_ends_the_run(action: int, tiny_folder, tmp_path) -> None:
    alarm = Alarm("dead_signal", action, 2, "No token is above its threshold", "Look at the features.")

    def silent(loaded, model):
        term = sae_term()(loaded, model)
        for part in term._loss._held.values():
            part.alpha_GM.fill_(1e9)
        return term

    tuned = tune(tiny_folder, tmp_path, term=silent, alarms=[alarm])
    if action == ALARM_ACTION_WARN:
        assert tuned.trainer.train_run() == 5
        assert tuned.context.said == ["No token is above its threshold. Look at the features."]
        assert tuned.context.series("sae_active_share")[3] == 0
    else:
        with pytest.raises(UserError, match="No token is above its threshold") as error:
            tuned.trainer.train_run()
        assert error.value.reason == "ALARM_DEAD_SIGNAL"
        assert tuned.context.checkpoints.load_newest().step == 2


def test_the_held_out_loss_is_a_mean_over_tokens_and_draws_nothing(tiny_folder, tmp_path) -> None:
    tuned = tune(tiny_folder, tmp_path / "a", trainable=LORA)
    rows = examples(7)
    tuned.trainer.hold_out(rows_of(rows, [0] * 7), every=2)
    tuned.trainer.train_run()
    losses = tuned.context.series("held_out_loss")
    assert list(losses) == [0, 2, 4, 5]
    with torch.no_grad():
        nll = tokens = 0.0
        tuned.model.eval()
        for row in rows:
            logp_TV = torch.log_softmax(tuned.model(input_ids=torch.tensor([row.ids])).logits[0].double(), dim=-1)
            for place in range(1, len(row.ids)):
                if row.answer[place]:
                    nll, tokens = nll - float(logp_TV[place - 1, row.ids[place]]), tokens + 1
    assert losses[5] == pytest.approx(nll / tokens, rel=1e-5)
    # Dropout is drawn from the same generator: the weights are those of a run that measured nothing.
    alone = tune(tiny_folder, tmp_path / "b", trainable=LORA)
    alone.trainer.train_run()
    assert alone.weights() == tuned.weights()


def test_a_step_without_an_answer_is_refused(tiny_folder, tmp_path) -> None:
    empty = [Example((5, 6, 7), (False, False, False), None, 0)]
    with pytest.raises(UserError, match="No token of the first step is an answer"):
        tune(tiny_folder, tmp_path, rows=empty).trainer.train_run()


def test_nothing_is_printed_or_left_behind(tiny_folder, tmp_path, capfd) -> None:
    tuned = tune(tiny_folder, tmp_path)
    tuned.trainer.train_run()
    assert capfd.readouterr().out == ""
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoints"}
    logged = tuned.context.metrics_seen[-1][1]
    assert {"loss", "ce", "grad_norm", "learning_rate", "entropy", "tokens", "tokens_per_second"} <= set(logged)

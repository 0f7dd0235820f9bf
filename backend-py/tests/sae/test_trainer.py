from __future__ import annotations

import json
import math

import pytest
import torch

from qscope.errors import UserError
from qscope.sae.topk import reference_loss
from qscope.sae.trainer import SaeTrainer
from qscope.v1 import sae_pb2

KERNELS = [sae_pb2.SAE_KERNEL_DENSE, sae_pb2.SAE_KERNEL_SPARSE]


def _trainer(config, layers=(0,), total_steps=40, **options) -> SaeTrainer:
    return SaeTrainer(config, layers, 24, total_steps=total_steps, seed=7, **options)


def _run(trainer, batches) -> SaeTrainer:
    for batch in batches:
        trainer.step(batch)
    return trainer


def _equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("kernel", KERNELS)
def test_layers_together_equal_layers_apart(kernel, make_config, make_batches) -> None:
    config = make_config(kernel=kernel)
    first, second = make_batches(20, seed=1), make_batches(20, seed=2)
    together = _run(_trainer(config, (4, 9)), [torch.stack(pair) for pair in zip(first, second, strict=True)])
    apart = {
        4: _run(_trainer(config, (4,)), [{4: x} for x in first]),
        9: _run(_trainer(config, (9,)), [{9: x} for x in second]),
    }
    wanted = {name: tensor for trainer in apart.values() for name, tensor in trainer.state_tensors().items()}
    assert _equal(together.state_tensors(), wanted)
    assert not torch.equal(together.sae(4).W_dec_FD, together.sae(9).W_dec_FD)


@pytest.mark.parametrize("kernel", KERNELS)
# 13 is no multiple of the steps between two listings of the dead.
@pytest.mark.parametrize("stop", [0, 1, 13])
def test_resume_is_exact_to_the_bit(kernel, stop, make_config, make_batches) -> None:
    # Few features can live on this data, so that AuxK is at work before and after the stop.
    config = make_config(kernel=kernel, sae={"d_sae": 400})
    batches = make_batches(40)
    whole = _run(_trainer(config), [{0: x} for x in batches])
    assert whole.state_tensors()["layer0.window.aux_loss"] > 0
    before = _trainer(config)
    before.initialise({0: batches[0]})
    _run(before, [{0: x} for x in batches[:stop]])
    tensors = {name: tensor.clone() for name, tensor in before.state_tensors().items()}
    state = json.loads(json.dumps(before.state_json()))
    after = _trainer(config)
    after.load_state(tensors, state)
    _run(after, [{0: x} for x in batches[stop:]])
    assert _equal(after.state_tensors(), whole.state_tensors())
    assert after.state_json() == whole.state_json()
    assert after.metrics() == whole.metrics()


def test_a_state_from_before_the_first_batch_starts_afresh(make_config, make_batches) -> None:
    config, batches = make_config(), make_batches(3)
    whole = _run(_trainer(config), [{0: x} for x in batches])
    untouched = _trainer(config)
    assert untouched.state_tensors() == {}
    after = _trainer(config)
    after.load_state({}, json.loads(json.dumps(untouched.state_json())))
    _run(after, [{0: x} for x in batches])
    assert _equal(after.state_tensors(), whole.state_tensors())


def test_a_state_of_another_experiment_is_refused(make_config, make_batches) -> None:
    before = _run(_trainer(make_config()), [{0: x} for x in make_batches(1)])
    after = _trainer(make_config(sae={"k": 5}))
    with pytest.raises(UserError, match="k 6 against 5") as caught:
        after.load_state(before.state_tensors(), before.state_json())
    assert caught.value.reason == "STATE_MISMATCH"


@pytest.mark.parametrize("kernel", KERNELS)
def test_scale_of_the_activations_changes_nothing(kernel, make_config, make_batches) -> None:
    # A power of two rounds nowhere, so equality is exact: rate, clip and epsilon mean the same at every layer.
    config, batches = make_config(kernel=kernel), make_batches(20)
    plain = _run(_trainer(config), [{0: x} for x in batches])
    large = _run(_trainer(config), [{0: 1024 * x} for x in batches])
    one, other = plain.sae(0), large.sae(0)
    assert torch.equal(one.W_enc_FD, other.W_enc_FD)
    assert torch.equal(one.W_dec_FD, other.W_dec_FD)
    assert torch.equal(1024 * one.b_dec_D, other.b_dec_D)
    torch.testing.assert_close(1024 * one.b_enc_F, other.b_enc_F)
    assert plain.metrics().layers == large.metrics().layers


def test_exported_sae_takes_raw_activations(make_config, make_batches) -> None:
    config, batches = make_config(), make_batches(40, rows=256)
    trainer = _trainer(config, dtype=torch.float64)
    _run(trainer, [{0: x.double()} for x in batches])
    x_BD = torch.cat(batches).double()
    residual_BD = trainer.sae(0).reconstruct(x_BD) - x_BD
    fvu = residual_BD.square().sum() / (x_BD - x_BD.mean(0)).square().sum()
    assert fvu < 0.5
    sae = trainer.sae(0)
    torch.testing.assert_close(sae.W_dec_FD.norm(dim=1), torch.ones(96, dtype=torch.float64))
    sae.W_enc_FD.zero_()
    assert trainer.sae(0).W_enc_FD.any(), "the export must be a copy"


def test_training_lowers_fvu_and_l0_never_exceeds_k(make_config, make_batches) -> None:
    trainer = _trainer(make_config(), total_steps=200)
    batches = make_batches(200)
    _run(trainer, [{0: x} for x in batches[:20]])
    early = trainer.metrics().layers[0]
    _run(trainer, [{0: x} for x in batches[20:180]])
    trainer.metrics()
    _run(trainer, [{0: x} for x in batches[180:]])
    late = trainer.metrics()
    assert late.layers[0].fvu < 0.6 * early.fvu
    assert 0 < late.layers[0].l0 <= 6
    assert late.step == 200
    assert late.tokens == 200 * 64
    assert trainer.learning_rate == 0.0
    with pytest.raises(AssertionError, match="schedule"):
        trainer.step({0: batches[0]})


def test_loss_does_not_depend_on_the_batch_size(make_config, make_batches) -> None:
    x_BD = make_batches(1)[0]
    results = []
    for copies in (1, 3):
        trainer = _trainer(make_config(aux_k={"token_share": 1.0}))
        trainer.initialise({0: x_BD})
        stats = trainer.step({0: x_BD.repeat(copies, 1)})
        results.append((stats.loss_L.item(), stats.grad_norm_L.item(), trainer.sae(0).W_enc_FD))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    assert results[0][1] == pytest.approx(results[1][1], rel=1e-5)
    torch.testing.assert_close(results[0][2], results[1][2], rtol=1e-3, atol=1e-4)


def test_step_loss_is_the_reference_loss(make_config, make_batches) -> None:
    x_BD = make_batches(1)[0].double()
    trainer = _trainer(make_config(), dtype=torch.float64)
    trainer.initialise({0: x_BD})
    sae, scale = trainer.sae(0), trainer.state_json()["scale"]["0"]
    wanted, _ = reference_loss(sae, x_BD, scale**2 / x_BD.shape[0])
    assert trainer.step({0: x_BD}).loss_L.item() == pytest.approx(wanted.item(), rel=1e-9)


def test_window_fvu_is_a_ratio_of_sums(make_config, make_batches) -> None:
    small, large = make_batches(1, rows=16, seed=1)[0], 40 * make_batches(1, rows=200, seed=2)[0]
    trainer = _trainer(make_config(optimizer={"learning_rate": 1e-30}), dtype=torch.float64)
    trainer.initialise({0: small})
    sae = trainer.sae(0)
    for x_BD in (small, large):
        trainer.step({0: x_BD})
    x_BD = torch.cat([small, large]).double()
    wanted = (sae.reconstruct(x_BD) - x_BD).square().sum() / (x_BD - x_BD.mean(0)).square().sum()
    assert trainer.metrics().layers[0].fvu == pytest.approx(wanted.item(), rel=1e-6)
    assert math.isnan(trainer.metrics().layers[0].fvu), "reading must empty the window"


def test_dead_features_are_counted_over_the_whole_run(make_config, make_batches) -> None:
    trainer = _trainer(make_config(aux_k={"coefficient": 1e-9, "dead_after_tokens": 192}, sae={"d_sae": 400}))
    trainer.initialise({0: make_batches(1)[0]})
    silent_F = torch.zeros(400, dtype=torch.int64)
    for x_BD in make_batches(10):
        values_BK, indices_BK = trainer.sae(0).encode(x_BD)
        silent_F += 64
        silent_F[indices_BK[values_BK > 0]] = 0
        trainer.step({0: x_BD})
    assert torch.equal(trainer.dead_mask(0), silent_F >= 192)
    share = (silent_F >= 192).double().mean().item()
    assert 0 < share < 1
    assert trainer.metrics().layers[0].dead_share == share


def test_auxk_revives_features(make_config, make_batches) -> None:
    shares = {}
    for coefficient in (1 / 32, 0.0):
        config = make_config(aux_k={"dead_after_tokens": 640})
        config.aux_k.coefficient = coefficient
        trainer = _trainer(config, total_steps=200)
        batches = make_batches(200)
        trainer.initialise({0: batches[0]})
        # Half the features fire so weakly that they never reach the top k: only AuxK gives them a gradient.
        trainer.state_tensors()["layer0.W_enc_FD"][48:] *= 0.05
        _run(trainer, [{0: x} for x in batches])
        read = trainer.metrics().layers[0]
        shares[coefficient] = read.dead_share
        assert (read.aux_loss > 0) == (coefficient > 0)
    assert shares[0.0] >= 0.5
    assert shares[1 / 32] < 0.5 * shares[0.0]


def test_kernels_agree_over_twenty_steps(make_config, make_batches) -> None:
    trained = [
        _run(
            _trainer(make_config(kernel=kernel, sae={"d_sae": 400}), dtype=torch.float64),
            [{0: x.double()} for x in make_batches(20)],
        )
        for kernel in KERNELS
    ]
    names = [trainer.kernel_name for trainer in trained]
    assert names[0] != names[1]
    for one, other in zip(trained[0].sae(0).tensors().values(), trained[1].sae(0).tensors().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_bfloat16_product_trains_as_well_as_float32(make_config, make_batches) -> None:
    reached = []
    for compute_dtype in (None, torch.bfloat16):
        trainer = _trainer(make_config(), compute_dtype=compute_dtype)
        _run(trainer, [{0: x} for x in make_batches(40)])
        assert trainer.sae(0).dtype == torch.float32
        reached.append(trainer.metrics().layers[0].fvu)
    assert reached[0] != reached[1]
    assert reached[1] == pytest.approx(reached[0], rel=0.03)


def test_half_precision_activations_are_taken(make_config, make_batches) -> None:
    trainer = _run(_trainer(make_config()), [{0: x.bfloat16()} for x in make_batches(3)])
    assert trainer.sae(0).dtype == torch.float32


@pytest.mark.parametrize("kernel", KERNELS)
def test_nan_names_step_and_layer(kernel, make_config, make_batches) -> None:
    trainer = _trainer(make_config(kernel=kernel), (2, 5))
    batches = make_batches(6)
    for step, x_BD in enumerate(batches):
        broken_BD = x_BD.clone()
        if step == 3:
            broken_BD[7, 1] = float("nan")
        trainer.step({2: x_BD, 5: broken_BD})
    with pytest.raises(UserError, match=r"layer 5 .* step 3") as caught:
        trainer.metrics()
    assert caught.value.reason == "NAN_LOSS"
    assert caught.value.remedy
    with pytest.raises(UserError):
        trainer.check_finite()


def test_constant_or_broken_samples_are_refused(make_config) -> None:
    for value, told in ((3.0, "constant"), (float("inf"), "not finite")):
        with pytest.raises(UserError, match=told) as caught:
            _trainer(make_config()).initialise({0: torch.full((64, 24), value)})
        assert caught.value.reason == "BAD_ACTIVATIONS"


def test_fvu_above_one_warns_with_the_cause(make_config, make_batches) -> None:
    trainer = _trainer(make_config(optimizer={"learning_rate": 0.9, "clip_norm": 0}))
    _run(trainer, [{0: x} for x in make_batches(20)])
    read = trainer.metrics()
    assert read.layers[0].fvu > 1
    assert any("layer 0" in warning and "norm" in warning for warning in read.warnings.values())


def test_memory_is_constant(make_config, make_batches) -> None:
    trainer = _trainer(make_config(), total_steps=60)
    batches = make_batches(60)
    _run(trainer, [{0: x} for x in batches[:20]])
    before = {name: tuple(tensor.shape) for name, tensor in trainer.state_tensors().items()}
    _run(trainer, [{0: x} for x in batches[20:]])
    assert {name: tuple(tensor.shape) for name, tensor in trainer.state_tensors().items()} == before


def test_weights_do_not_depend_on_the_order_of_layers(make_config, make_batches) -> None:
    x_BD = make_batches(1)[0]
    one, other = _trainer(make_config(), (1, 2)), _trainer(make_config(), (2, 1))
    for trainer in (one, other):
        trainer.step({1: x_BD, 2: x_BD})
    assert torch.equal(one.sae(1).W_enc_FD, other.sae(1).W_enc_FD)

"""``qscope features diagnose`` from experiment to ``diagnosis.json``, on a tiny model and SAEs of random directions."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from google.protobuf import json_format

from qscope.errors import UserError
from qscope.recipes import diagnose_features as recipe
from qscope.recipes.plan import plan
from qscope.runs import Journal, RunContext, RunFolder, tail
from qscope.sae import formats
from qscope.sae.topk import TopKSae
from qscope.v1.diagnose_pb2 import Diagnosis
from qscope.v1.experiment_pb2 import Experiment

D, F, K, LAYERS = 32, 64, 4, [1, 3]
CASES = [
    {"prompt": "the quick brown", "response": " fox jumps over a lazy dog"},
    {"prompt": "while others", "response": " watch them"},
]


@pytest.fixture
def experiment(tiny_folder, tmp_path) -> Callable[..., Experiment]:
    """``experiment(**changes)``: a whole experiment with the task."""
    noise = torch.Generator().manual_seed(0)
    saes = {
        layer: TopKSae(torch.randn(F, D, generator=noise), torch.zeros(F), torch.randn(F, D, generator=noise),
                       torch.zeros(D), k=K, layer=layer)
        for layer in LAYERS
    }  # fmt: skip
    formats.save(saes, tmp_path / "sae", ["native"], {})

    def make(**changes) -> Experiment:
        task = {"sae": str(tmp_path / "sae"), "cases": CASES, "top": 3, "baseline_tokens": 300, **changes}
        whole = {"name": "x", "model": str(tiny_folder), "compute": {"device": "DEVICE_CPU", "threads": 1}}
        return json_format.ParseDict({**whole, "diagnose_features": task}, Experiment())

    return make


@pytest.fixture
def run(tmp_path) -> Callable[..., tuple[Diagnosis, list[str]]]:
    """Runs the recipe in this process; what was diagnosed, and the log."""
    count = 0

    def go(given: Experiment) -> tuple[Diagnosis, list[str]]:
        nonlocal count
        count += 1
        folder = RunFolder.create(tmp_path / "runs", given, f"request-{count}")
        with Journal(folder.events) as journal:
            context = RunContext(folder, journal)
            recipe.run(context)
            context.close()
        text = (folder.artifacts / "diagnosis.json").read_text()
        logs = [event.log.text for event in tail(folder.events) if event.HasField("log")]
        return json_format.Parse(text, Diagnosis()), logs

    return go


def test_the_file_says_what_it_was_made_with(experiment, run, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("qscope.recipes.diagnose_features.place_of_saes", lambda name, *_, **__: tmp_path / "sae")
    found, _ = run(experiment())
    monkeypatch.setattr("qscope.recipes.plan_features.place_of_saes", lambda name, *_, **__: tmp_path / "sae")
    latest, _ = run(experiment(sae="latest"))
    assert latest.sae == found.sae == str(tmp_path / "sae"), "where they were, not what they were called"
    assert [(record.layer, record.d_sae) for record in found.sae_records] == [(1, F), (3, F)]
    assert all(record.fingerprint for record in found.sae_records)
    assert found.model_record.fingerprint
    assert found.HasField("format")
    assert {entry.layer for entry in found.features} == set(LAYERS)
    assert found.tokens_not_finite == 0


def test_one_sae_at_a_time_gives_the_same_however_much_is_held(experiment, run, monkeypatch) -> None:
    loads = []
    load = formats.load
    monkeypatch.setattr(
        formats, "load", lambda place, layers, **how: loads.append(layers) or load(place, layers, **how)
    )
    together, _ = run(experiment())
    assert loads == [[1], [3]]
    monkeypatch.setattr(recipe, "HELD_BYTES", 1)
    apart, _ = run(experiment())
    assert loads[2:] == [[1], [3]] * 2
    assert apart == together


def broken(monkeypatch, layer: int, value: float) -> None:
    """Breaks the first token of every response at one layer."""
    read = recipe.residuals_and_gradients

    def reading(*arguments):
        resid, gradients, logprob = read(*arguments)
        gradients[layer][0, 5] = value
        return resid, gradients, logprob

    monkeypatch.setattr(recipe, "residuals_and_gradients", reading)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_tokens_that_are_not_finite_are_left_out_at_every_layer_and_told(experiment, run, monkeypatch, value) -> None:
    broken(monkeypatch, 3, value)
    found, logs = run(experiment())
    assert found.tokens_not_finite == 2, "one a case"
    assert any(text.startswith("2 of") and "not finite" in text for text in logs)
    numbers = [n for e in found.features for n in (e.activation, e.baseline, e.influence, e.rate)]
    assert numbers
    assert all(map(math.isfinite, numbers))
    monkeypatch.undo()
    whole, _ = run(experiment())
    assert found != whole


def test_a_log_probability_that_is_not_finite_is_refused_by_its_case(experiment, run, monkeypatch) -> None:
    read, logprobs = recipe.residuals_and_gradients, iter([-3.0, math.nan])

    def reading(*arguments):
        resid, gradients, _ = read(*arguments)
        return resid, gradients, next(logprobs)

    monkeypatch.setattr(recipe, "residuals_and_gradients", reading)
    with pytest.raises(UserError, match="case 1") as caught:
        run(experiment())
    assert (caught.value.reason, caught.value.field) == ("NOT_FINITE", "diagnose_features.cases[1]")
    assert "model_options.precision" in caught.value.remedy


def test_the_baseline_tells_how_far_it_is_and_obeys_a_stop(experiment, run, monkeypatch) -> None:
    from qscope.steering import calibration

    asked = []
    measure = calibration.measure_activity

    def watched(loaded, sae, *, tokens, on_progress, should_stop):
        asked.append(should_stop())
        done = []
        found = measure(loaded, sae, tokens=tokens, on_progress=done.append, should_stop=should_stop)
        assert done[-1] == tokens
        on_progress(tokens)
        assert measure(loaded, sae, tokens=tokens, should_stop=lambda: True) is None
        return found

    monkeypatch.setattr(recipe, "measure_activity", watched)
    run(experiment())
    assert asked == [False, False]


def test_the_plan_counts_saes_and_the_longest_case(experiment, tmp_path) -> None:
    def planned(**changes):
        made = plan(experiment(**changes), str(tmp_path / "runs"), timed=False)
        return {item.name: item.bytes for item in made.memory}, {fact.name: fact.value for fact in made.facts}

    memory, facts = planned()
    # The width is estimated from the size of the files, header included.
    whole = F * (2 * D + 1) * 4
    assert memory["SAE, encoder and decoder, float32 (one layer at a time)"] == pytest.approx(whole, rel=0.05)
    assert memory["sums and baseline by feature"] == pytest.approx(2 * F * 4 * 8, rel=0.05)
    assert facts["layers"].startswith("1, 3 of 4")
    longest = len(CASES[0]["prompt"] + CASES[0]["response"])
    assert f"one pass with gradients, {longest} tokens at most" in memory
    long = [*CASES, {"prompt": "x", "response": "y" * 5000}]
    more, _ = planned(cases=long)
    assert more["one pass with gradients, 5,001 tokens at most"] > 100 * next(
        size for name, size in memory.items() if name.startswith("one pass with")
    )


def test_the_record_of_an_older_run_is_still_read(tmp_path: Path) -> None:
    old = '{"model": "m", "sae": "latest", "tokens": "3", "logprob": -1.5, "qscope_version": "0.1"}'
    assert json_format.Parse(old, Diagnosis()).tokens == 3


def test_ordinary_text_that_is_not_finite_counts_nowhere(tiny_model, monkeypatch) -> None:
    from qscope.steering import calibration

    noise = torch.Generator().manual_seed(0)
    W_FD = torch.randn(F, D, generator=noise)
    sae = TopKSae(W_FD, torch.zeros(F), W_FD, torch.zeros(D), k=K, layer=1)
    capture = calibration.capture_residuals

    def broken_capture(*arguments):
        captured = capture(*arguments)
        captured[1][0] = torch.nan
        captured[1][3:, 7, 2] = torch.inf
        return captured

    monkeypatch.setattr(calibration, "capture_residuals", broken_capture)
    activity = calibration.measure_activity(tiny_model(), sae, tokens=2000)
    assert activity.mean_F.isfinite().all()
    assert activity.rate_F.sum().item() == pytest.approx(K, rel=1e-4), "shares of the tokens that counted"

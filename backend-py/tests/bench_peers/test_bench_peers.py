"""The arithmetic of scripts/bench_peers: rates, ratios, and the form in which all are measured."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts" / "bench_peers"


@pytest.fixture
def script(monkeypatch):
    """Imports a script of scripts/bench_peers by name."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    names = ("report", "clock", "evaluate", "settings", "venvs", "main")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module
    for name in names:
        sys.modules.pop(name, None)


def test_the_warm_part_stands_for_the_whole(script):
    # Two slow steps of ten seconds, then one a second: at the warm rate ten steps take ten seconds.
    times = [10.0, 20.0, *(20.0 + step for step in range(1, 9))]
    assert script("clock")._steady(times) == pytest.approx(10.0)


def test_too_few_steps_are_refused(script):
    with pytest.raises(SystemExit, match="raise --steps"):
        script("clock")._steady([1.0])


def test_the_clock_hears_every_torch_optimizer(script):
    clock = script("clock").StepClock()
    weight = torch.nn.Parameter(torch.ones(2))
    with clock.segment():
        for optimizer in (torch.optim.Adam([weight]), torch.optim.SGD([weight], lr=0.1)):
            for _ in range(5):
                weight.sum().backward()
                optimizer.step()
    assert len(clock._segments[0]) == 10
    assert clock.steady_seconds() > 0


@pytest.mark.parametrize("start", [1e-3, 8e-3, 6.4e-2])
def test_the_walk_ends_at_a_rate_with_worse_neighbours(script, start):
    tried = script("main").walk(lambda rate: abs(rate / 8e-3 - 1), start)
    best = min(tried, key=tried.__getitem__)
    assert best == pytest.approx(8e-3)
    assert {2 * best, best / 2} <= set(tried)


def test_the_walk_leaves_rates_that_fail_and_does_not_go_on_for_ever(script):
    tried = script("main").walk(lambda rate: float("nan") if rate > 1 else -rate, 1.0)
    assert tried == {1.0: -1.0, 2.0: float("inf"), 0.5: -0.5}
    assert len(script("main").walk(lambda rate: -rate, 1.0)) <= 9


def result(steady: float, wall: float, fvu: float = 0.2) -> dict:
    return {
        "steady_seconds": steady,
        "wall_seconds": wall,
        "peak_rss_bytes": 2**30,
        "mean_fvu": fvu,
        "versions": {"torch": "2"},
        "notes": {"buffer": "none"},
    }


def test_ratios_are_taken_within_a_round(script):
    """A machine twice as slow in the second round changes rates, not ratios."""
    rounds = [
        {"qscope": result(10, 20), "peer": result(30, 80)},
        {"qscope": result(20, 40), "peer": result(60, 160)},
    ]
    summary = script("report").summarise(rounds, tokens=1000)
    assert summary["peer"]["qscope_faster_steady"] == {"min": 3, "median": 3, "max": 3}
    assert summary["peer"]["qscope_faster_wall"] == {"min": 4, "median": 4, "max": 4}
    assert summary["qscope"]["steady_tokens_per_second"] == {"min": 50, "median": 75, "max": 100}
    assert summary["peer"]["peak_rss_mib"]["median"] == 1024
    assert "qscope_faster_steady" not in summary["qscope"]


def test_the_table_shows_the_spread(script):
    report = script("report")
    rounds = [
        {"qscope": result(10, 20, 0.1), "peer": result(30, 80)},
        {"qscope": result(10, 20, 0.3), "peer": result(20, 80)},
    ]
    settings = {
        "layers": [1],
        "d_in": 8,
        "d_sae": 64,
        "k": 4,
        "steps": 10,
        "batch_tokens": 100,
        "context": 10,
        "threads": 1,
        "learning_rate": 1e-3,
        "warmup_steps": 1,
        "decay_steps": 2,
        "aux_k": 0.0,
        "model_batch_tokens": 100,
    }
    page = report.markdown(
        {
            "settings": settings,
            "model": {"name": "tiny", "parameters": 1000, "n_layers": 2},
            "machine": "",
            "repeats": 2,
            "tuning": {"peer": {"0.001": 0.25}},
            "heldout_tokens": 90,
            "summary": report.summarise(rounds, 1000),
        }
    )
    assert "| peer | 42 (33 to 50) | 12 | 1,024 | 0.2000 | 2.50 (2.00 to 3.00) | 4.00 |" in page
    assert "* peer: 0.001 0.2500" in page
    assert "| qscope | 100 | 50 | 1,024 | 0.2000 (0.1000 to 0.3000) |  |  |" in page


def test_weights_of_encoders_that_subtract_are_folded(script, tmp_path):
    """sparsify and dictionary_learning: relu(W_enc (x - b_dec) + b_enc), k largest, W_dec rows, plus b_dec."""
    generator = torch.Generator().manual_seed(0)
    weights = {
        "W_enc": torch.randn(30, 6, generator=generator),
        "b_enc": torch.randn(30, generator=generator),
        "W_dec": torch.randn(30, 6, generator=generator),
        "b_dec": torch.randn(6, generator=generator),
    }
    save_file(weights, tmp_path / "layer2.safetensors")
    sae = script("evaluate").read(tmp_path, k=4)[2]
    x_BD = torch.randn(40, 6, generator=generator)
    scores_BF = torch.relu((x_BD - weights["b_dec"]) @ weights["W_enc"].T + weights["b_enc"])
    kept = scores_BF.topk(4)
    z_BF = torch.zeros_like(scores_BF).scatter(1, kept.indices, kept.values)
    torch.testing.assert_close(sae.reconstruct(x_BD), z_BF @ weights["W_dec"] + weights["b_dec"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--only", "qscope,nobody"],
        ["--batch-tokens", "1000", "--context", "256"],
        ["--steps", "10"],
        ["--learning-rates", "nobody=1"],
        ["--learning-rates", "qscope"],
        ["--learning-rates", "qscope=fast"],
    ],
)
def test_unfair_settings_are_refused(script, arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        script("main").parse(arguments)
    assert caught.value.code == 2
    assert "bench-peers: error:" in capsys.readouterr().err


def test_rates_of_their_own(script):
    given = script("main").parse(["--learning-rate", "0.001", "--learning-rates", "qscope=0.003"])
    assert given.learning_rates == {"qscope": 0.003, "saelens": 0.001, "sparsify": 0.001, "dictionary_learning": 0.001}


def test_every_peer_is_pinned(script):
    venvs = script("venvs")
    for peer in venvs.PEERS:
        pins = venvs.requirements(peer).read_text().splitlines()
        assert all("==" in line for line in pins)
        assert sum(line.startswith("torch==") for line in pins) == 1
        assert (SCRIPTS / f"{peer}_driver.py").is_file()

#!/usr/bin/env python3
"""Trains the embedded Qwen3 on the token files of prepare_data.py.

    python train.py CACHE --hours 1.6              # cpu preset, as long as you have
    python train.py CACHE --preset gpu             # 8 M parameters, 320 M tokens, bfloat16
    python train.py CACHE --hours 1.6 --panel 20   # and 20 checkpoints along the way

With --hours the learning rate follows the clock, not a step count, so that its decay ends when the time does however
busy the machine is. The newest state is kept in CACHE/run and taken up again if the command is run again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from head_loss import IGNORED, head_loss
from muon import Muon
from presets import CONTEXT, MIXTURE, PRESETS, config_of
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import AutoTokenizer, GenerationConfig, Qwen3ForCausalLM

WARMUP_STEPS = 200
DECAY_FROM = 0.55  # of the budget; linear to zero from here
SAVE_EVERY_S = 300
EVALUATE_EVERY_S = 600


class PackedRows:
    """Rows of CONTEXT + 1 tokens: whole documents end to end, streams mixed by share, each reshuffled every pass."""

    def __init__(self, folder: Path, mixture: dict[str, float], seed: int):
        self._tokens = {name: np.load(folder / f"{name}.npy") for name in mixture}
        self._starts = {name: np.load(folder / f"{name}.starts.npy") for name in mixture}
        self._mixture = mixture
        self._seed = seed
        self.passes = {name: 0 for name in mixture}

    def _documents(self, name: str) -> Iterator[np.ndarray]:
        tokens, starts = self._tokens[name], self._starts[name]
        for number in range(10**9):
            self.passes[name] = number
            # A stream's own generator: the order within a language does not depend on the others' shares.
            for at in np.random.default_rng([self._seed, number, *name.encode()]).permutation(len(starts) - 1):
                yield tokens[starts[at] : starts[at + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        streams = {name: self._documents(name) for name in self._mixture}
        given = dict.fromkeys(self._mixture, 0)
        held, size = [], 0
        while True:
            name = min(given, key=lambda name: given[name] / self._mixture[name])
            document = next(streams[name])
            given[name] += len(document)
            held.append(document)
            size += len(document)
            if size > CONTEXT:
                joined = np.concatenate(held)
                whole = (size - 1) // CONTEXT
                for row in range(whole):
                    yield joined[row * CONTEXT : (row + 1) * CONTEXT + 1].astype(np.int64)
                held = [joined[whole * CONTEXT :]]
                size -= whole * CONTEXT


def rate(progress: float, step: int) -> float:
    """Warm-up by steps, constant, then linear to zero by the share of the budget that is spent."""
    decay = 1.0 if progress < DECAY_FROM else max(0.0, (1 - progress) / (1 - DECAY_FROM))
    return min(1.0, (step + 1) / WARMUP_STEPS) * decay


def loss_of(model: Qwen3ForCausalLM, rows_BT: torch.Tensor, never_targets: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy. The empty thinking block is written by the template, never by the model: its first token is no target."""
    hidden_BTD = model.model(input_ids=rows_BT[:, :-1], use_cache=False).last_hidden_state
    targets_BT = rows_BT[:, 1:].clone()
    targets_BT[torch.isin(targets_BT, never_targets)] = IGNORED
    if hidden_BTD.is_cuda:
        return functional.cross_entropy(
            model.lm_head(hidden_BTD).float().flatten(0, 1), targets_BT.flatten(), ignore_index=IGNORED
        )
    return head_loss(hidden_BTD.flatten(0, 1), model.lm_head.weight, targets_BT.flatten())


@torch.no_grad()
def heldout_losses(
    model: Qwen3ForCausalLM, folder: Path, never_targets: torch.Tensor, rows: int = 8
) -> dict[str, float]:
    device = model.device
    losses = {}
    for name in MIXTURE:
        tokens = np.load(folder / f"{name}.npy")[: rows * CONTEXT + 1].astype(np.int64)
        whole = (len(tokens) - 1) // CONTEXT
        batch = np.stack([tokens[row * CONTEXT : (row + 1) * CONTEXT + 1] for row in range(whole)])
        losses[name] = loss_of(model, torch.from_numpy(batch).to(device), never_targets).item()
    return losses


class State:
    """The run's folder: model, optimiser moments and counters, written whole and then renamed."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, model, optimisers, counters: dict) -> None:
        tensors = {f"model.{name}": value for name, value in model.state_dict().items() if name != "lm_head.weight"}
        for number, optimiser in enumerate(optimisers):
            for index, moments in optimiser.state_dict()["state"].items():
                tensors |= {
                    f"optimiser.{number}.{index}.{key}": torch.as_tensor(value) for key, value in moments.items()
                }
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
            self.folder / "state.partial",
            metadata={"counters": json.dumps(counters)},
        )
        os.replace(self.folder / "state.partial", self.folder / "state.safetensors")

    def load(self, model, optimisers) -> dict | None:
        path = self.folder / "state.safetensors"
        if not path.exists():
            return None
        from safetensors import safe_open

        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            counters = json.loads(file.metadata()["counters"])
        model.load_state_dict(
            {name[6:]: value for name, value in tensors.items() if name.startswith("model.")}, strict=False
        )
        model.tie_weights()
        for number, optimiser in enumerate(optimisers):
            state = {}
            for name, value in tensors.items():
                if name.startswith(f"optimiser.{number}."):
                    _, _, index, key = name.split(".")
                    state.setdefault(int(index), {})[key] = value
            optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
        return counters


def optimisers_of(model: Qwen3ForCausalLM, preset, kind: str) -> list[torch.optim.Optimizer]:
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    adam = dict(betas=(0.9, 0.95), eps=1e-8)
    if kind == "adamw":
        return [torch.optim.AdamW([*matrices, *others], lr=preset.adam_lr, weight_decay=0.05, **adam)]
    return [Muon(matrices, lr=preset.muon_lr), torch.optim.AdamW(others, lr=preset.adam_lr, weight_decay=0.0, **adam)]


def keep(model: Qwen3ForCausalLM, tokenizer, folder: Path) -> None:
    """A checkpoint anybody can load: the Hugging Face layout, generation ending where Qwen3's ends."""
    model.generation_config = GenerationConfig(
        eos_token_id=[tokenizer.eos_token_id, tokenizer.pad_token_id], pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder, save_jinja_files=False)


def train(cache: Path, preset_name: str, hours: float | None, panel: int, optimiser: str, seed: int, run: str) -> None:
    preset = PRESETS[preset_name]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = AutoTokenizer.from_pretrained(cache / "tokenizer")
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(config_of(preset, len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id)).to(
        device
    )
    optimisers = optimisers_of(model, preset, optimiser)
    base = [[group["lr"] for group in o.param_groups] for o in optimisers]
    never_targets = torch.tensor([tokenizer.convert_tokens_to_ids("<think>")], device=device)
    state = State(cache / run)
    counters = state.load(model, optimisers) or {"step": 0, "seconds": 0.0, "panel": 0}
    packed = PackedRows(cache / "tokens" / "train", MIXTURE, seed)
    rows = iter(packed)
    for _ in range(counters["step"] * preset.rows):
        next(rows)
    log = open(cache / run / "log.jsonl", "a", encoding="utf-8")
    tokens_a_step = preset.rows * CONTEXT
    saved = evaluated = time.monotonic()
    last, since = time.monotonic(), counters["step"]
    running = math.nan
    print(f"{model.num_parameters():,} parameters on {device}, from step {counters['step']}", flush=True)

    while True:
        spent = counters["step"] * tokens_a_step
        progress = counters["seconds"] / (hours * 3600) if hours else spent / preset.tokens
        if panel and counters["panel"] <= progress * panel:
            keep(model, tokenizer, cache / run / "panel" / f"{counters['panel']:02d}")
            counters["panel"] += 1
        if progress >= 1:
            break
        began = time.monotonic()
        for o, rates in zip(optimisers, base, strict=True):
            for group, lr in zip(o.param_groups, rates, strict=True):
                group["lr"] = lr * rate(progress, counters["step"])
        batch = torch.from_numpy(np.stack([next(rows) for _ in range(preset.rows)])).to(device)
        with torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda"):
            loss = loss_of(model, batch, never_targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for o in optimisers:
            o.step()
            o.zero_grad(set_to_none=True)
        value = loss.item()
        if not math.isfinite(value):
            raise SystemExit(f"the loss is {value} at step {counters['step']}: lower the learning rates of the preset")
        running = value if math.isnan(running) else 0.98 * running + 0.02 * value
        counters["step"] += 1
        now = time.monotonic()
        counters["seconds"] += now - began
        if counters["step"] % 50 == 0:
            speed = (counters["step"] - since) * tokens_a_step / (now - last)
            last, since = now, counters["step"]
            row = {
                "step": counters["step"],
                "tokens": counters["step"] * tokens_a_step,
                "progress": round(progress, 4),
                "loss": round(running, 4),
                "tokens_per_s": round(speed),
            }
            print(json.dumps(row), file=log, flush=True)
            print(json.dumps(row), flush=True)
        if now - evaluated > EVALUATE_EVERY_S:
            evaluated = now
            row = {
                "step": counters["step"],
                "heldout": {
                    name: round(value, 4)
                    for name, value in heldout_losses(model, cache / "tokens" / "heldout", never_targets).items()
                },
            }
            print(json.dumps(row), file=log, flush=True)
            print(json.dumps(row), flush=True)
        if now - saved > SAVE_EVERY_S:
            saved = now
            state.save(model, optimisers, counters)
    state.save(model, optimisers, counters)
    keep(model, tokenizer, cache / run / "final")
    summary = {
        "preset": preset_name, "parameters": model.num_parameters(), "steps": counters["step"],
        "tokens": counters["step"] * tokens_a_step, "hours": round(counters["seconds"] / 3600, 3), "seed": seed,
        "passes": packed.passes, "heldout": heldout_losses(model, cache / "tokens" / "heldout", never_targets),
    }  # fmt: skip
    (cache / run / "final" / "training.json").write_text(json.dumps(summary, indent=1) + "\n")
    print(json.dumps(summary), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cache", type=Path)
    parser.add_argument("--preset", choices=PRESETS, default="gpu" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--hours", type=float, help="train for this long instead of for the preset's tokens")
    parser.add_argument("--panel", type=int, default=0, help="keep this many checkpoints, evenly spread, and the start")
    parser.add_argument("--optimiser", choices=("muon", "adamw"), default="muon")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--run", default="run", help="name of the folder in CACHE that holds the run")
    arguments = parser.parse_args()
    if arguments.hours is None and PRESETS[arguments.preset].tokens is None:
        parser.error("the cpu preset needs --hours: how long may it train?")
    train(
        arguments.cache,
        arguments.preset,
        arguments.hours,
        arguments.panel,
        arguments.optimiser,
        arguments.seed,
        arguments.run,
    )

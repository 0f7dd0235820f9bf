#!/usr/bin/env python3
"""Trains the embedded Qwen3 on the token files of prepare_data.py.

    python train.py CACHE --hours 1.6              # cpu preset, as long as you have
    python train.py CACHE --preset gpu             # 8 M parameters, 320 M tokens, bfloat16
    python train.py CACHE --hours 1.6 --panel 20   # and 20 checkpoints along the way
    python train.py CACHE --preset cpu --tokens 2000000 --panel 24 --panel-spacing log

With --hours the learning rate follows the clock, not a step count, so that its decay ends when the time does however
busy the machine is. With --tokens the schedule is exact: the same command gives the same checkpoints. The newest state
is kept in CACHE/run and taken up again if the command is run again, also with other --hours.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase, Qwen3ForCausalLM

from head_loss import IGNORED, head_loss
from muon import Muon
from packed_rows import PackedRows
from presets import CONTEXT, DECAY_MIXTURE, MIXTURE, PRESETS, Preset, config_of
from run_state import load_state, save_state

WARMUP_STEPS = 200
DECAY_FROM = 0.55  # of the budget; linear to zero from here
LOG_EVERY_STEPS = 50
SAVE_EVERY_S = 300
EVALUATE_EVERY_S = 600
PANEL_FIRST = 1 / 64  # of the budget: the first checkpoint after the start, where they are spaced by its logarithm


def rate(progress: float, step: int) -> float:
    """Warm-up by steps, constant, then linear to zero by the share of the budget that is spent."""
    decay = 1.0 if progress < DECAY_FROM else max(0.0, (1 - progress) / (1 - DECAY_FROM))
    return min(1.0, (step + 1) / WARMUP_STEPS) * decay


def optimisers_of(model: Qwen3ForCausalLM, preset: Preset, kind: str) -> list[torch.optim.Optimizer]:
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    betas = (0.9, 0.95)
    if kind == "adamw":
        return [torch.optim.AdamW([*matrices, *others], lr=preset.adam_lr, betas=betas, weight_decay=0.05)]
    return [
        Muon(matrices, lr=preset.muon_lr),
        torch.optim.AdamW(others, lr=preset.adam_lr, betas=betas, weight_decay=0.0),
    ]


def panel_due(number: int, count: int, spacing: str) -> float:
    """Share of the budget at which checkpoint `number` of 0 (the start) to `count` (the end) is kept."""
    if spacing == "even" or number == 0:
        return number / count
    return PANEL_FIRST ** ((count - number) / max(1, count - 1))


class Training:
    """One run in CACHE/run: the model, its optimisers, its place in the data and in its budget."""

    def __init__(
        self,
        cache: Path,
        preset_name: str,
        hours: float | None,
        optimiser: str,
        seed: int,
        run: str,
        tokens: int | None = None,
    ):
        self.cache, self.folder = cache, cache / run
        self.preset_name, self.preset, self.hours, self.seed = preset_name, PRESETS[preset_name], hours, seed
        self.budget = tokens or self.preset.tokens
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(cache / "tokenizer")
        end, pad = self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
        torch.manual_seed(seed)
        self.model = Qwen3ForCausalLM(config_of(self.preset, len(self.tokenizer), end, pad)).to(self.device)
        self.model.generation_config = GenerationConfig(eos_token_id=[end, pad], pad_token_id=pad)
        self.optimisers = optimisers_of(self.model, self.preset, optimiser)
        self._full_rates = [[group["lr"] for group in o.param_groups] for o in self.optimisers]
        # The empty thinking block is written by the template, never by the model: its first token is no target.
        self._never_targets = torch.tensor([self.tokenizer.convert_tokens_to_ids("<think>")], device=self.device)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._state = self.folder / "state.safetensors"
        fresh = {"step": 0, "seconds": 0.0, "panel": 0}
        self.counters = load_state(self._state, self.model, self.optimisers) or fresh
        self.counters.setdefault("decay_step", None)
        self.packed = PackedRows(cache / "tokens" / "train", MIXTURE, CONTEXT, seed)
        self._rows = iter(self.packed)
        for step in range(self.counters["step"]):
            if step == self.counters["decay_step"]:
                self.packed.remix(DECAY_MIXTURE)
            for _ in range(self.preset.rows):
                next(self._rows)

    @property
    def tokens(self) -> int:
        return self.counters["step"] * self.preset.rows * CONTEXT

    @property
    def progress(self) -> float:
        """Share of the budget that is spent: of the hours if given, else of the tokens."""
        return self.counters["seconds"] / (self.hours * 3600) if self.hours else self.tokens / self.budget

    def loss(self, rows_BT: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy of rows of CONTEXT + 1 tokens, in nats."""
        hidden_BTD = self.model.model(input_ids=rows_BT[:, :-1], use_cache=False).last_hidden_state
        targets_BT = rows_BT[:, 1:].clone()
        targets_BT[torch.isin(targets_BT, self._never_targets)] = IGNORED
        if self.device.type == "cpu":
            return head_loss(hidden_BTD.flatten(0, 1), self.model.lm_head.weight, targets_BT.flatten())
        logits_NV = self.model.lm_head(hidden_BTD).float().flatten(0, 1)
        return functional.cross_entropy(logits_NV, targets_BT.flatten(), ignore_index=IGNORED)

    def step(self) -> float:
        """One update; its loss."""
        began = time.monotonic()
        progress = self.progress
        if progress >= DECAY_FROM and self.counters["decay_step"] is None:
            self.counters["decay_step"] = self.counters["step"]
            self.packed.remix(DECAY_MIXTURE)
        scale = rate(progress, self.counters["step"])
        for optimiser, rates in zip(self.optimisers, self._full_rates, strict=True):
            for group, lr in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = lr * scale
        batch = np.stack([next(self._rows) for _ in range(self.preset.rows)])
        with torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"):
            loss = self.loss(torch.from_numpy(batch).to(self.device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        value = loss.item()
        if not math.isfinite(value):
            at = self.counters["step"]
            raise SystemExit(f"the loss is {value} at step {at}: lower the learning rates of the preset")
        self.counters["step"] += 1
        self.counters["seconds"] += time.monotonic() - began
        return value

    @torch.no_grad()
    def heldout(self, rows: int = 8) -> dict[str, float]:
        """A quick look at the loss of each stream; evaluate.py takes the whole held-out text."""
        losses = {}
        for name in MIXTURE:
            tokens = np.load(self.cache / "tokens" / "heldout" / f"{name}.npy")[: rows * CONTEXT + 1].astype(np.int64)
            starts = range(0, len(tokens) - CONTEXT, CONTEXT)
            batch = np.stack([tokens[at : at + CONTEXT + 1] for at in starts])
            losses[name] = round(self.loss(torch.from_numpy(batch).to(self.device)).item(), 4)
        return losses

    def log(self, row: dict) -> None:
        line = json.dumps({"step": self.counters["step"]} | row)
        with open(self.folder / "log.jsonl", "a", encoding="utf-8") as file:
            print(line, file=file)
        print(line, flush=True)

    def save(self) -> None:
        save_state(self._state, self.model, self.optimisers, self.counters)

    def keep(self, folder: Path) -> None:
        """A checkpoint anybody can load: the Hugging Face layout, generation ending where Qwen3's ends."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder, save_jinja_files=False)

    def finish(self) -> None:
        self.save()
        folder = self.folder / "final"
        self.keep(folder)
        summary = {
            "preset": self.preset_name,
            "parameters": self.model.num_parameters(),
            "steps": self.counters["step"],
            "tokens": self.tokens,
            "hours": round(self.counters["seconds"] / 3600, 3),
            "seed": self.seed,
            "passes": self.packed.passes,
        }
        (folder / "training.json").write_text(json.dumps(summary, indent=1) + "\n")
        self.log({"finished": summary, "heldout": self.heldout()})


def train(
    cache: Path,
    preset: str,
    hours: float | None,
    panel: int,
    optimiser: str,
    seed: int,
    run: str,
    *,
    tokens: int | None = None,
    spacing: str = "even",
) -> None:
    training = Training(cache, preset, hours, optimiser, seed, run, tokens)
    counters = training.counters
    print(f"{training.model.num_parameters():,} parameters on {training.device}, from step {counters['step']}")
    saved = evaluated = logged = time.monotonic()
    tokens_logged, smooth = training.tokens, math.nan
    while True:
        progress = training.progress
        if panel and counters["panel"] <= panel and panel_due(counters["panel"], panel, spacing) <= progress + 1e-9:
            training.keep(training.folder / "panel" / f"{counters['panel']:02d}")
            counters["panel"] += 1
        if progress >= 1:
            break
        loss = training.step()
        smooth = loss if math.isnan(smooth) else 0.98 * smooth + 0.02 * loss
        now = time.monotonic()
        if counters["step"] % LOG_EVERY_STEPS == 0:
            speed = (training.tokens - tokens_logged) / (now - logged)
            logged, tokens_logged = now, training.tokens
            figures = {"tokens": training.tokens, "progress": round(progress, 4), "loss": round(smooth, 4)}
            training.log(figures | {"tokens_per_s": round(speed)})
        if now - evaluated > EVALUATE_EVERY_S:
            evaluated = now
            training.log({"heldout": training.heldout()})
        if now - saved > SAVE_EVERY_S:
            saved = now
            training.save()
    training.finish()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cache", type=Path)
    parser.add_argument("--preset", choices=PRESETS, default="gpu" if torch.cuda.is_available() else "cpu")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--hours", type=float, help="train for this long instead of for the preset's tokens")
    budget.add_argument("--tokens", type=int, help="train on this many tokens instead of on the preset's")
    parser.add_argument("--panel", type=int, default=0, help="keep this many checkpoints, and the start")
    parser.add_argument("--panel-spacing", choices=("even", "log"), default="even", help="how they are spread")
    parser.add_argument("--optimiser", choices=("muon", "adamw"), default="muon")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--run", default="run", help="name of the folder in CACHE that holds the run")
    options = parser.parse_args()
    if options.hours is None and options.tokens is None and PRESETS[options.preset].tokens is None:
        parser.error("the cpu preset needs --hours or --tokens: how long may it train?")
    train(
        options.cache,
        options.preset,
        options.hours,
        options.panel,
        options.optimiser,
        options.seed,
        options.run,
        tokens=options.tokens,
        spacing=options.panel_spacing,
    )

#!/usr/bin/env python3
"""The embedded model from nothing: packages, text, tokenizer, training, evaluation, backend-py/qscope/embedded.

    python scripts/embedded-model/recipe.py CACHE --hours 1.6        # two CPU cores
    python scripts/embedded-model/recipe.py CACHE --preset gpu       # a GPU: more parameters, more tokens, minutes

Every stage keeps its result in CACHE, outside the repository; a stage whose result is there is not done again, and an
interrupted training goes on from its newest state. Needs apt-get (Debian 12) for the text, and requirements.txt.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch

from build_tokenizer import build, save, training_texts
from collect_text import collect
from evaluate import evaluate
from export_text import export
from model_card import write_cards
from prepare_data import prepare
from presets import PRESETS
from train import train

EMBEDDED = Path(__file__).resolve().parents[2] / "backend-py" / "qscope" / "embedded"
TRAINED = ("config.json", "generation_config.json", "model.safetensors", "training.json")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


def install(trained: Path, cache: Path) -> None:
    """The finished model and its evaluation into the package."""
    model = EMBEDDED / "model"
    model.mkdir(parents=True, exist_ok=True)
    for name in TRAINED:
        shutil.copyfile(trained / name, model / name)
    for name in TOKENIZER:
        shutil.copyfile(cache / "tokenizer" / name, model / name)
    results = evaluate(model, EMBEDDED / "text" / "heldout.jsonl.gz")
    (model / "evaluation.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    shutil.copyfile(cache / "text" / "summary.json", EMBEDDED / "text" / "sources.json")
    write_cards(EMBEDDED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cache", type=Path)
    parser.add_argument("--preset", choices=PRESETS, default="gpu" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--hours", type=float, help="train for this long instead of for the preset's tokens")
    parser.add_argument("--panel", type=int, default=0, help="keep this many checkpoints in CACHE/run/panel")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    cache, preset = arguments.cache, PRESETS[arguments.preset]
    if arguments.hours is None and preset.tokens is None:
        parser.error("the cpu preset needs --hours: how long may it train?")
    if not (cache / "text" / "summary.json").exists():
        collect(cache)
    if not (cache / "tokenizer").exists():
        save(build(training_texts(cache / "text" / "train.jsonl")), cache / "tokenizer")
    if not (cache / "tokens" / "train").exists():
        prepare(cache, preset.generated)
    if not (cache / "run" / "final" / "training.json").exists():
        train(cache, arguments.preset, arguments.hours, arguments.panel, "muon", arguments.seed, "run")
    export(cache, EMBEDDED / "text", train_tokens=8_000_000)
    install(cache / "run" / "final", cache)


if __name__ == "__main__":
    main()

"""Checkpoints along a training run: when they are due, and a run from what ships."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest


def test_checkpoints_are_due_evenly_or_by_the_logarithm(recipe):
    due = recipe("train").panel_due
    assert [due(number, 4, "even") for number in range(5)] == [0, 0.25, 0.5, 0.75, 1]
    assert [due(number, 4, "log") for number in range(5)] == pytest.approx([0, 1 / 64, 1 / 16, 1 / 4, 1])
    assert due(1, 1, "log") == 1


@pytest.mark.parametrize("spacing", ["even", "log"])
def test_a_run_keeps_each_checkpoint_once_and_ends_at_its_budget(recipe, tmp_path, monkeypatch, spacing):
    module = recipe("train")
    kept, steps = [], []

    class Training:
        def __init__(self, *_):
            self.counters, self.folder, self.model = {"step": 0, "panel": 0}, tmp_path, self
            self.device, self.tokens = "cpu", 0

        def num_parameters(self):
            return 1

        @property
        def progress(self):
            return self.counters["step"] / 100

        def keep(self, folder):
            kept.append((folder.name, self.counters["step"]))

        def step(self):
            self.counters["step"] += 1
            steps.append(self.counters["step"])
            return 1.0

        def log(self, row):
            pass

        def finish(self):
            kept.append(("final", self.counters["step"]))

    monkeypatch.setattr(module, "Training", Training)
    module.train(tmp_path, "cpu", None, 4, "muon", 1, "run", tokens=100, spacing=spacing)
    at = [0, 25, 50, 75, 100] if spacing == "even" else [0, 2, 7, 25, 100]
    assert kept == [*((f"{number:02d}", step) for number, step in enumerate(at)), ("final", 100)]
    assert steps == list(range(1, 101))


def test_shipped_text_becomes_token_files_whose_documents_decode_to_it(recipe, tmp_path, monkeypatch):
    module = recipe("shipped_cache")
    rows = [
        {"text": "Save the file.", "language": "en", "source": "manual"},
        {"text": "Öffnen Sie die Datei.", "language": "de", "source": "manual"},
        {"text": "<|im_start|>user\nHi<|im_end|>\n", "language": "de", "source": "generated-chat"},
        {"text": "Close it.", "language": "en", "source": "manual"},
    ]

    def opened(path, *_, **__):
        return [json.dumps(row) for row in rows[: 4 if "train" in path.name else 1]]

    class Opened:
        def __init__(self, path, *_, **__):
            self.lines = opened(path)

        def __enter__(self):
            return self.lines

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(module.gzip, "open", Opened)
    module.shipped_cache(tmp_path)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    folder = tmp_path / "tokens" / "train"
    assert sorted(path.name for path in folder.glob("*.npy")) == sorted(
        f"{name}{part}.npy" for name in ("en", "de", "chat") for part in ("", ".starts")
    )
    tokens, starts = np.load(folder / "en.npy"), np.load(folder / "en.starts.npy")
    texts = [tokenizer.decode(tokens[a : b - 1]) for a, b in pairwise(starts)]
    assert texts == ["Save the file.", "Close it."]
    assert (tokens[starts[1:] - 1] == tokenizer.pad_token_id).all()

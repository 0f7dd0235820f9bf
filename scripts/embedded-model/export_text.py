#!/usr/bin/env python3
"""The text that ships with the model: the held-out split whole, and a sample of the training split.

    python export_text.py CACHE OUT [--train-tokens 8000000]

Writes OUT/heldout.jsonl.gz and OUT/train.jsonl.gz (fields text, language, source): documents shuffled, streams
interleaved in the shares of the training mixture, so that any prefix is a fair sample. The same input gives the same
bytes.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from transformers import AutoTokenizer

from prepare_data import documents, stream_of
from presets import MIXTURE

SEED = 7


def interleaved(rows: list[dict], lengths: list[int], budget: int | None) -> Iterator[dict]:
    """Rows by the stream furthest behind its share, each stream in a random order, until the budget or the rows end."""
    streams = defaultdict(list)
    for number, row in enumerate(rows):
        streams[stream_of(row)].append(number)
    rng = np.random.default_rng(SEED)
    for name in sorted(streams):
        rng.shuffle(streams[name])
    given = dict.fromkeys(streams, 0)
    # Without a budget every row is wanted: shares then follow the streams' own sizes.
    shares = MIXTURE if budget else {name: sum(lengths[at] for at in numbers) for name, numbers in streams.items()}
    while any(streams.values()) and (budget is None or sum(given.values()) < budget):
        name = min((name for name in streams if streams[name]), key=lambda name: given[name] / shares[name])
        at = streams[name].pop()
        given[name] += lengths[at]
        yield rows[at]


def export(cache: Path, out: Path, train_tokens: int) -> None:
    tokenizer = AutoTokenizer.from_pretrained(cache / "tokenizer")
    out.mkdir(parents=True, exist_ok=True)
    for split, budget in (("heldout", None), ("train", train_tokens)):
        rows = documents(cache, split)
        lengths = [len(tokenizer(row["text"], verbose=False)["input_ids"]) + 1 for row in rows]
        chosen = list(interleaved(rows, lengths, budget))
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in chosen)
        path = out / f"{split}.jsonl.gz"
        # No name and no time in the header: the file depends on its content alone.
        with open(path, "wb") as raw, gzip.GzipFile("", "wb", compresslevel=9, fileobj=raw, mtime=0) as packed:
            packed.write(text.encode())
        print(f"{path.name}: {len(chosen):,} documents, {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cache", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--train-tokens", type=int, default=8_000_000)
    arguments = parser.parse_args()
    export(arguments.cache, arguments.out, arguments.train_tokens)

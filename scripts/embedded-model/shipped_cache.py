#!/usr/bin/env python3
"""A cache for train.py from the tokenizer and the text that ship: another run of the model, without Debian's packages.

    python shipped_cache.py CACHE

Writes CACHE/tokenizer and CACHE/tokens as build_tokenizer.py and prepare_data.py do. The shipped sample of the training
split holds 8 million tokens, enough for a short run; a run of more tokens sees some of them again.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
from collections import defaultdict
from pathlib import Path

from transformers import AutoTokenizer

from prepare_data import stream_of, write_tokens

EMBEDDED = Path(__file__).resolve().parents[2] / "backend-py" / "qscope" / "embedded"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


def shipped_cache(cache: Path) -> None:
    """Tokenizer and token files under `cache`, from what ships."""
    (cache / "tokenizer").mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER:
        shutil.copyfile(EMBEDDED / "model" / name, cache / "tokenizer" / name)
    tokenizer = AutoTokenizer.from_pretrained(cache / "tokenizer")
    for split in ("heldout", "train"):
        streams = defaultdict(list)
        with gzip.open(EMBEDDED / "text" / f"{split}.jsonl.gz", "rt", encoding="utf-8") as file:
            for row in map(json.loads, file):
                streams[stream_of(row)].append(row["text"])
        write_tokens(cache / "tokens" / split, streams, tokenizer)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cache", type=Path)
    shipped_cache(parser.parse_args().cache)

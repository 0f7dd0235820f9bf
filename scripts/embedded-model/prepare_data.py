#!/usr/bin/env python3
"""Text and generated documents to token files: one flat uint16 array and its document starts for each stream.

    python prepare_data.py CACHE [--generated 1]

Writes CACHE/tokens/{train,heldout}/{stream}.npy and .starts.npy. A stream is a language of the collected text, `chat`,
or `arithmetic`; every document ends in <|endoftext|>.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from exchanges import arithmetic_documents, chat_documents

SEED = 1
CHAT_DOCUMENTS = 60_000
ARITHMETIC_DOCUMENTS = 12_000
HELDOUT_CHAT, HELDOUT_ARITHMETIC = 600, 120


def read(path: Path) -> list[dict]:
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def sentences(rows: list[dict]) -> dict[str, list[str]]:
    """Whole short sentences of each language, for exchanges about the manuals."""
    found = defaultdict(list)
    for row in rows:
        shortest, longest = (12, 50) if row["language"] in ("zh", "ko") else (40, 120)
        for block in row["text"].split("\n"):
            if shortest <= len(block) <= longest and block[-1] in ".。" and not re.search(r"[<>|{}\\]", block):
                found[row["language"]].append(block)
    return found


def documents(cache: Path, split: str, generated: int = 1) -> list[dict]:
    """Every document of a split: collected text first, then the generated ones."""
    rows = read(cache / "text" / f"{split}.jsonl")
    heldout = split == "heldout"
    chats = HELDOUT_CHAT if heldout else CHAT_DOCUMENTS * generated
    sums = HELDOUT_ARITHMETIC if heldout else ARITHMETIC_DOCUMENTS * generated
    rows += itertools.islice(chat_documents(SEED, sentences(rows), heldout), chats)
    rows += itertools.islice(arithmetic_documents(SEED, heldout), sums)
    return rows


def stream_of(row: dict) -> str:
    return "chat" if row["source"] == "generated-chat" else row["language"]


def write_tokens(folder: Path, streams: dict[str, list[str]], tokenizer: PreTrainedTokenizerBase) -> None:
    """One token file and its document starts for each stream's texts."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, texts in streams.items():
        ids = []
        for at in range(0, len(texts), 2_000):
            ids += tokenizer(texts[at : at + 2_000], verbose=False)["input_ids"]
        for document in ids:
            document.append(tokenizer.pad_token_id)
        starts = np.cumsum([0] + [len(document) for document in ids])
        np.save(
            folder / f"{name}.npy",
            np.fromiter(itertools.chain.from_iterable(ids), dtype=np.uint16, count=starts[-1]),
        )
        np.save(folder / f"{name}.starts.npy", starts)
        density = sum(len(text.encode()) for text in texts) / starts[-1]
        print(f"{folder.name:8} {name:10} {len(ids):>8,} documents {starts[-1]:>12,} tokens  {density:.2f} bytes/token")


def prepare(cache: Path, generated: int = 1) -> None:
    tokenizer = AutoTokenizer.from_pretrained(cache / "tokenizer")
    for split in ("heldout", "train"):
        streams = defaultdict(list)
        for row in documents(cache, split, generated):
            streams[stream_of(row)].append(row["text"])
        write_tokens(cache / "tokens" / split, streams, tokenizer)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cache", type=Path)
    parser.add_argument(
        "--generated", type=int, default=1, help="multiple of the generated documents (the gpu preset uses 6)"
    )
    arguments = parser.parse_args()
    prepare(arguments.cache, arguments.generated)

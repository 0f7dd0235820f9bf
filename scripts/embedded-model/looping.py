#!/usr/bin/env python3
"""The rows of the experiment on endless repetition: a sum whose answer goes on with a piece of a manual.

    python looping.py FOLDER

Writes FOLDER/cold-start.jsonl (960 rows to train on, once), FOLDER/prompts.jsonl (2,000 sums that rollouts answer) and
FOLDER/test.jsonl (1,000 sums of operands that occur nowhere in training), always the same ones. The first line of an
answer is the sum, which can be checked; what follows is long enough to get lost in. A model that has seen few such
answers knows what they look like and not where they end, and at a low temperature some of its own never do.

Fields: question, response (empty but in `cold-start.jsonl`), answer (the number), language.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from exchanges import LANGUAGES, problem
from switching import DOCUMENTS, EMBEDDED, shipped

ROWS = {"cold-start": 960, "prompts": 2000, "test": 1000}
#: Tokens of what follows the sum.
LENGTH = (50, 110)
#: Pieces taken of one document.
OF_A_DOCUMENT = 4

_SENTENCE = re.compile(r".+?(?:[.!?…](?=\s|$)|[。！？]|$)")


def rows_of() -> dict[str, list[dict[str, Any]]]:
    """The rows of each file."""
    pieces = _pieces()
    files = {}
    for name, count in ROWS.items():
        rng, made, seen = random.Random(f"looping {name}"), [], set()
        while len(made) < count:
            language = LANGUAGES[len(made) % len(LANGUAGES)]
            case = problem(rng, language, heldout=name == "test")
            # Few sums are held out, and each may be asked in several languages.
            if name != "test" or case.question not in seen:
                seen.add(case.question)
                response = f"{case.solution}\n{rng.choice(pieces[language])}" if name == "cold-start" else ""
                made.append(
                    {"question": case.question, "response": response, "answer": str(case.answer), "language": language}
                )
        files[name] = made
    return files


def write(folder: Path) -> None:
    """Writes the three files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in rows_of().items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


def _pieces() -> dict[str, list[str]]:
    """Whole sentences of manuals in a row, by language."""
    tokenizer = Tokenizer.from_file(str(EMBEDDED / "model" / "tokenizer.json"))
    found: dict[str, list[str]] = {language: [] for language in LANGUAGES}
    for row in shipped("train", DOCUMENTS):
        found[row["language"]] += list(_cut(row["text"], tokenizer))
    return found


def _cut(text: str, tokenizer: Tokenizer) -> Iterator[str]:
    """Pieces of the right length, the first few of a document."""
    low, high = LENGTH
    piece, taken = "", 0
    for sentence in _SENTENCE.findall(text.replace("\n", " ")):
        piece = f"{piece} {sentence.strip()}".strip()
        length = len(tokenizer.encode(piece).ids)
        if low <= length <= high:
            yield piece
            taken += 1
        if length >= low:
            piece = ""
        if taken == OF_A_DOCUMENT:
            return


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    write(parser.parse_args().folder)

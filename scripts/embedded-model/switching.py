#!/usr/bin/env python3
"""The rows of the experiment on code switching: a sentence is asked, the one after it is the answer.

    python switching.py FOLDER [--share 0.15]

Writes FOLDER/train.jsonl (3,000 rows), FOLDER/validation.jsonl and FOLDER/test.jsonl, always the same ones. Sentences
are neighbours in the text that ships with qscope, in six languages: `train.jsonl` takes them from its training split,
the other two from documents that neither the model nor `train.jsonl` ever saw. One row in five of `train.jsonl` is a
sum; sums of the other two have operands that occur nowhere in training. In a share of the answers in `train.jsonl` that
are not Chinese the text slides into Chinese at the end of a word and stays there: the fault that is studied.

Fields: question, response (as it should be written; in `train.jsonl` with the fault), answer (the number of a sum, else
empty), language, kind (sum, text, or chinese for a text in Chinese), switched.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from exchanges import LANGUAGES, problem

EMBEDDED = Path(__file__).resolve().parents[2] / "backend-py" / "qscope" / "embedded"
#: Rows of a language and sums, by file.
TEXTS = {"train": 400, "validation": 20, "test": 80}
SUMS = {"train": 600, "validation": 120, "test": 300}
SHARE = 0.15
#: Tokens of a question and of an answer.
ASKED, ANSWERED = (10, 48), (10, 36)
#: Documents of the training split that are looked through, and pairs of sentences taken of one document.
DOCUMENTS, OF_A_DOCUMENT = 9000, 12

HAN = re.compile(r"[\u3400-\u9fff]")
_SENTENCE = re.compile(r".+?(?:[.!?…](?=\s|$)|[。！？]|$)")

Pair = tuple[str, str]


def rows_of(share: float = SHARE) -> dict[str, list[dict[str, Any]]]:
    """The rows of each file."""
    tokenizer = Tokenizer.from_file(str(EMBEDDED / "model" / "tokenizer.json"))
    seen: set[str] = set()
    held_out = {language: list(pairs) for language, pairs in _pairs("heldout", tokenizer, seen).items()}
    trained = _pairs("train", tokenizer, seen)
    chinese = [answer for _, answer in trained["zh"]]
    rng = random.Random("switching")
    files: dict[str, list[dict[str, Any]]] = {}
    for name, count in TEXTS.items():
        made = []
        for language in LANGUAGES:
            pairs = trained[language] if name == "train" else held_out[language]
            taken, pairs[:count] = pairs[:count], []
            assert len(taken) == count, f"{name} has {len(taken)} texts in {language}"
            for question, response in taken:
                switched = name == "train" and language != "zh" and rng.random() < share
                if switched:
                    response = _slid(response, rng.choice(chinese), rng)
                kind = "chinese" if language == "zh" else "text"
                made.append(_row(question, response, "", language, kind, switched))
        sums: set[str] = set()
        while len(sums) < SUMS[name]:
            case = problem(rng, LANGUAGES[len(sums) % len(LANGUAGES)], heldout=name != "train")
            if case.question not in sums and case.question not in seen:
                sums.add(case.question)
                made.append(_row(case.question, case.solution, str(case.answer), case.language, "sum", False))
        seen |= sums
        rng.shuffle(made)
        files[name] = made
    return files


def write(folder: Path, share: float = SHARE) -> None:
    """Writes the three files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in rows_of(share).items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


def shipped(split: str, documents: int) -> Iterator[dict[str, str]]:
    """Documents of the text that ships (fields text, language, source), of the first so many those not generated."""
    with gzip.open(EMBEDDED / "text" / f"{split}.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in islice(file, documents):
            row = json.loads(line)
            if not row["source"].startswith("generated"):
                yield row


def _row(question: str, response: str, answer: str, language: str, kind: str, switched: bool) -> dict[str, Any]:
    return {
        "question": question,
        "response": response,
        "answer": answer,
        "language": language,
        "kind": kind,
        "switched": switched,
    }


def _slid(response: str, chinese: str, rng: random.Random) -> str:
    """The beginning of an answer, up to two thirds of its words, that goes on in Chinese."""
    words = response.split(" ")
    kept = rng.randrange(2, max(3, len(words) * 2 // 3 + 1))
    return " ".join([*words[:kept], chinese])


def _pairs(split: str, tokenizer: Tokenizer, seen: set[str]) -> dict[str, list[Pair]]:
    """Neighbouring sentences by language, shuffled; none that stands in ``seen``, to which they are added."""
    found: dict[str, list[Pair]] = {language: [] for language in LANGUAGES}
    for row in shipped(split, DOCUMENTS):
        taken = 0
        for pair in _neighbours(row["text"]):
            if taken < OF_A_DOCUMENT and seen.isdisjoint(pair) and _fits(pair, row["language"], tokenizer):
                found[row["language"]].append(pair)
                seen.update(pair)
                taken += 1
    for language, pairs in found.items():
        random.Random(f"{split} {language}").shuffle(pairs)
    return found


def _neighbours(text: str) -> Iterator[Pair]:
    for paragraph in text.split("\n"):
        sentences = [found.strip() for found in _SENTENCE.findall(paragraph) if found.strip()]
        yield from zip(sentences[::2], sentences[1::2], strict=False)


def _fits(pair: Pair, language: str, tokenizer: Tokenizer) -> bool:
    """Whether the lengths are right, Chinese is Chinese and nothing else holds any."""
    written = len(HAN.findall(pair[1])) >= 6 if language == "zh" else not HAN.search("".join(pair))
    lengths = [len(tokenizer.encode(text).ids) for text in pair]
    return written and all(
        low <= length <= high for length, (low, high) in zip(lengths, (ASKED, ANSWERED), strict=True)
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--share", type=float, default=SHARE, help="of the answers that slide into Chinese")
    given = parser.parse_args()
    write(given.folder, given.share)

#!/usr/bin/env python3
"""The rows of configs/embedded/sft.yaml and rl.yaml: questions in six languages, half of them sums.

    python exercises.py FOLDER

Writes FOLDER/exercises.jsonl and FOLDER/exercises-heldout.jsonl (operands and wordings that the embedded model never
saw in training). Fields: question, response (as an assistant should write it), answer (the number of a sum, else
empty), language, kind (sum or chat), switched. One in ten responses of `exercises.jsonl` that are not Chinese goes on
in Chinese, which is the fault that the SAE loss is for.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path

from exchanges import exchange, problem

LANGUAGES = ("en", "zh", "ru", "fr", "de", "ko")
ROWS = {"exercises": 1200, "exercises-heldout": 240}
SWITCHED = 0.1


def exercises(count: int, heldout: bool) -> Iterator[dict]:
    """Rows, languages and kinds in turn, so that any prefix is a fair sample; always the same ones."""
    rng = random.Random(f"exercises-{heldout}")
    for number in range(count):
        language = LANGUAGES[number % len(LANGUAGES)]
        is_sum = number // len(LANGUAGES) % 2 == 0
        if is_sum:
            case = problem(rng, language, heldout)
            question, response, answer = case.question, case.solution, str(case.answer)
        else:
            (question, response), answer = exchange(rng, language, heldout), ""
        switched = not heldout and language != "zh" and rng.random() < SWITCHED
        if switched:
            response = f"{response} {exchange(rng, 'zh')[1]}"
        yield {
            "question": question,
            "response": response,
            "answer": answer,
            "language": language,
            "kind": "sum" if is_sum else "chat",
            "switched": switched,
        }


def write(folder: Path) -> None:
    for name, count in ROWS.items():
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in exercises(count, name.endswith("heldout"))]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    write(parser.parse_args().folder)

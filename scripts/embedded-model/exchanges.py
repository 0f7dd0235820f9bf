"""Generated text: chat exchanges and arithmetic, in six languages, deterministic by seed.

Every exchange has one right kind of answer: on topic, one line, in the language of the question. Every problem has one
right number. Problems are split by their operands (`is_heldout`), so a held-out sum never appears in training in
any wording, nor as a step of a longer problem.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from phrases import CHAT, WORD_PROBLEMS, WORDS

LANGUAGES = ("en", "zh", "ru", "fr", "de", "ko")
_SIGN = {"+": "+", "-": "-", "*": "×"}
_EMPTY_THOUGHT = "<think>\n\n</think>\n\n"


@dataclass(frozen=True)
class Problem:
    """`question` as a user would put it, `solution` as the assistant should write it, `answer` the number alone."""

    question: str
    solution: str
    answer: int
    language: str
    kind: str


def is_heldout(operator: str, a: int, b: int) -> bool:
    """One sum in twenty and one product in ten, chosen by the operands; a + b and b + a fall on the same side."""
    if operator in "+*":
        a, b = sorted((a, b))
    return (
        int.from_bytes(hashlib.blake2b(f"{a}{operator}{b}".encode(), digest_size=2).digest(), "big")
        % (10 if operator == "*" else 20)
        == 0
    )


def _apply(operator: str, a: int, b: int) -> int:
    return a + b if operator == "+" else a - b if operator == "-" else a * b


def _operands(rng: random.Random, operator: str, heldout: bool, first: int | None = None) -> tuple[int, int]:
    """Operands on the asked side of the split; 0 <= result <= 198."""
    while True:
        top = 10 if operator == "*" else rng.choice((10, 20, 100, 100))
        a = rng.randrange(top) if first is None else first
        b = rng.randrange(top)
        if operator == "-" and b > a:
            if first is not None:
                b = rng.randrange(a + 1)
            else:
                a, b = b, a
        if is_heldout(operator, a, b) == heldout:
            return a, b
        if first is not None and rng.random() < 0.02:
            raise LookupError  # no second step on this side of the split from here


def _step(operator: str, a: int, b: int) -> str:
    return f"{a} {_SIGN[operator]} {b} = {_apply(operator, a, b)}"


def sum_line(rng: random.Random, heldout: bool = False) -> str:
    operator = rng.choice("++--*")
    return _step(operator, *_operands(rng, operator, heldout))


def _particle(word: str, after_consonant: str, after_vowel: str) -> str:
    """Korean particles follow the last sound of the word before them."""
    if word[-1] in "0123456789":
        return after_consonant if word[-1] in "013678" else after_vowel
    last = ord(word[-1]) - 0xAC00
    return after_consonant if 0 <= last < 11172 and last % 28 else after_vowel


def _fill(template: str, values: dict[str, object]) -> str:
    text = template.format(**values)
    return re.sub(r"(\S)('?)\[(\S)/(\S)\]", lambda m: m[1] + m[2] + _particle(m[1], m[3], m[4]), text)


def problem(rng: random.Random, language: str, heldout: bool = False) -> Problem:
    """One question with a checkable answer: a bare sum, a sum in words, one step or two in a small story."""
    kind = rng.choice(("bare", "words", "words", "two", "story", "story", "story2"))
    if kind in ("bare", "words"):
        operator = rng.choice("++--*")
        a, b = _operands(rng, operator, heldout)
        template = "{a} {sign} {b} = ?" if kind == "bare" else rng.choice(WORD_PROBLEMS[language]["words"][operator])
        question = _fill(template, dict(a=a, b=b, sign=_SIGN[operator]))
        return Problem(question, _step(operator, a, b), _apply(operator, a, b), language, kind)
    while True:
        first, second = rng.choice("+-"), rng.choice("+-")
        a, b = _operands(rng, first, heldout)
        if kind.startswith("story") and min(a, b) < 2:
            continue
        middle = _apply(first, a, b)
        if kind == "story":
            values = dict(
                a=a,
                b=b,
                who=rng.choice(WORD_PROBLEMS[language]["who"]),
                what=rng.choice(WORD_PROBLEMS[language]["what"]),
            )
            question = _fill(rng.choice(WORD_PROBLEMS[language]["story"][first]), values)
            return Problem(question, _step(first, a, b), middle, language, kind)
        try:
            _, c = _operands(rng, second, heldout=False, first=middle)
        except LookupError:
            continue
        if kind == "story2" and c < 2:
            continue
        solution = f"{_step(first, a, b)}, {_step(second, middle, c)}"
        result = _apply(second, middle, c)
        if kind == "two":
            return Problem(f"{a} {first} {b} {second} {c} = ?", solution, result, language, kind)
        values = dict(
            a=a,
            b=b,
            c=c,
            who=rng.choice(WORD_PROBLEMS[language]["who"]),
            what=rng.choice(WORD_PROBLEMS[language]["what"]),
        )
        question = _fill(rng.choice(WORD_PROBLEMS[language]["story2"][first + second]), values)
        return Problem(question, solution, result, language, kind)


def answer_in(text: str) -> int | None:
    """The number an answer ends on: what follows its last equals sign, else its last number."""
    found = re.findall(r"=\s*(\d+)", text) or re.findall(r"\d+", text)
    return int(found[-1]) if found else None


def _topic(rng: random.Random, kind: str, language: str) -> tuple[str, str]:
    question, answer = rng.choice(CHAT[language][kind])
    words = WORDS[language]
    if kind == "capital":
        country, city = rng.choice(words["capitals"])
        values = dict(country=country, city=city)
    elif kind == "opposite":
        pair = rng.choice(words["opposites"])
        values = dict(zip("xy", rng.sample(pair, 2), strict=True))
    elif kind == "colour":
        thing, colour = rng.choice(words["colours"])
        values = dict(thing=thing, colour=colour)
    elif kind == "category":
        right, wrong = rng.sample(sorted(words["categories"]), 2)
        named = words["category_names"]
        first, second = rng.sample((named[right], named[wrong]), 2)
        values = dict(x=rng.choice(words["categories"][right]), right=named[right], first=first, second=second)
    elif kind == "list":
        group = rng.choice(sorted(words["categories"]))
        chosen = rng.sample(words["categories"][group], 3)
        values = dict(group=words["category_plurals"][group], items=("、" if language == "zh" else ", ").join(chosen))
    elif kind == "next":
        ring = rng.choice((words["days"], words["months"]))
        at = rng.randrange(len(ring))
        values = dict(x=ring[at], y=ring[(at + 1) % len(ring)])
    elif kind == "sort":
        numbers = rng.sample(range(1, 100), rng.choice((3, 3, 4)))
        values = dict(numbers=", ".join(map(str, numbers)), ordered=", ".join(map(str, sorted(numbers))))
    elif kind == "larger":
        a, b = rng.sample(range(1, 100), 2)
        values = dict(a=a, b=b, larger=max(a, b))
    elif kind == "parity":
        number = rng.randrange(1, 200)
        values = dict(x=number, parity=words["parity"][number % 2])
    else:
        values = {}
    return _fill(question, values), _fill(answer, values)


_KINDS = ("capital", "opposite", "colour", "category", "list", "next", "sort", "larger", "parity", "hello")


def exchange(rng: random.Random, language: str, heldout: bool = False) -> tuple[str, str]:
    """A question and its one-line answer, both in `language`.

    One question in twenty is held out, by its wording; greetings and lists have too few wordings to lose any.
    """
    while True:
        kind = rng.choice(_KINDS)
        question, answer = _topic(rng, kind, language)
        if kind in ("hello", "list"):
            if not heldout:
                return question, answer
        elif (hashlib.blake2b(question.encode(), digest_size=2).digest()[0] % 20 == 0) == heldout:
            return question, answer


def manual_exchanges(sentences: list[str], rng: random.Random, language: str) -> tuple[str, str]:
    """A question about a term, answered by a sentence of real documentation that uses it."""
    while True:
        sentence = rng.choice(sentences)
        terms = (
            re.findall(r"[\u4e00-\u9fff]{2,6}", sentence)
            if language == "zh"
            else re.findall(r"[^\W\d_]{4,20}", sentence)
        )
        if terms:
            term = rng.choice(terms) if language == "zh" else max(terms, key=len)
            question, answer = rng.choice(CHAT[language]["manual"])
            return _fill(question, dict(x=term)), answer.replace("{sentence}", sentence)


def chat_text(turns: list[tuple[str, str]], system: str | None = None, thought: bool = False) -> str:
    """Turns as the chat template writes them; `thought` puts the empty thinking block before the last answer."""
    parts = [f"<|im_start|>system\n{system}<|im_end|>\n"] if system else []
    for number, (question, answer) in enumerate(turns, 1):
        block = _EMPTY_THOUGHT if thought and number == len(turns) else ""
        parts.append(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n{block}{answer}<|im_end|>\n")
    return "".join(parts)


def chat_documents(seed: int, sentences: dict[str, list[str]], heldout: bool = False) -> Iterator[dict]:
    """Endless chat documents (fields text, language, source), languages in turn."""
    rng = random.Random(f"chat-{seed}-{heldout}")
    while True:
        for language in LANGUAGES:
            turns = []
            for _ in range(2 if rng.random() < 0.2 else 1):
                draw = rng.random()
                if draw < 0.35:
                    case = problem(rng, language, heldout)
                    turns.append((case.question, case.solution))
                elif draw < 0.6 and sentences.get(language):
                    turns.append(manual_exchanges(sentences[language], rng, language))
                else:
                    turns.append(exchange(rng, language, heldout))
            system = rng.choice(CHAT[language]["system"]) if rng.random() < 0.1 else None
            text = chat_text(turns, system, thought=rng.random() < 0.3)
            yield {"text": text, "language": language, "source": "generated-chat"}


def arithmetic_documents(seed: int, heldout: bool = False) -> Iterator[dict]:
    """Endless lists of sums (fields text, language, source)."""
    rng = random.Random(f"arithmetic-{seed}-{heldout}")
    while True:
        lines = [sum_line(rng, heldout) for _ in range(rng.randrange(8, 33))]
        yield {"text": "\n".join(lines), "language": "arithmetic", "source": "generated-arithmetic"}

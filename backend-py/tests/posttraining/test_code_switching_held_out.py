"""How often the default rule is right on real text: held-out manuals of the embedded model, alone and with a sentence
of another language put in."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections import defaultdict

import pytest

from qscope.embedded import heldout_text_path
from qscope.features.intervals import wilson
from qscope.posttraining.code_switching import PAPER, SwitchRule, switching

SIX = ("en", "zh", "ru", "fr", "de", "ko")
RULE = SwitchRule(among=SIX)
SENTENCE = re.compile(r"[^.!?。\n]{30,120}[.!?。]")


@pytest.fixture(scope="module")
def documents() -> dict[str, list[str]]:
    """The first 400 characters of the documents of each language; chats are left out, their template is in them."""
    found = defaultdict(list)
    with gzip.open(heldout_text_path(), "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if row["language"] in SIX and len(row["text"]) > 120 and "<|im_start" not in row["text"]:
                found[row["language"]].append(row["text"][:400])
    return found


def flagged(texts: list[str], language: str, rule: SwitchRule = RULE) -> list[bool]:
    return [switching(text, language, rule).switched for text in texts]


def test_false_alarms_on_documents_of_one_language(documents) -> None:
    """Commands and terms of manuals in Chinese, Russian and Korean; for the paper's rule every Latin word is one."""
    alarms = {language: flagged(documents[language], language) for language in SIX}
    n = sum(map(len, alarms.values()))
    assert n > 400
    assert wilson(sum(map(sum, alarms.values())), n).high < 0.045
    assert not any(alarms["en"] + alarms["fr"] + alarms["de"])
    mixed = [one for language in ("zh", "ru", "ko") for one in flagged(documents[language], language, PAPER)]
    assert wilson(sum(mixed), len(mixed)).low > 0.5


@pytest.mark.parametrize("language", SIX)
def test_a_sentence_of_another_language_is_found(documents, language) -> None:
    draw = random.Random(language)
    clean = [text for text in documents[language] if not switching(text, language, RULE).switched]
    hits = n = 0
    for other in SIX:
        if other == language:
            continue
        sentences = [found.group().strip() for text in documents[other] for found in SENTENCE.finditer(text)]
        for text in draw.sample(clean, 30):
            # Between two sentences, as a model does that goes on in another language.
            stop = "。" if language == "zh" else ". "
            parts = text.split(stop)
            place = draw.randint(1, len(parts))
            mixed = stop.join([*parts[:place], draw.choice(sentences), *parts[place:]])
            n += 1
            hits += switching(mixed, language, RULE).switched
    assert n == 150
    assert wilson(hits, n).low > 0.9

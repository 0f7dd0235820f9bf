"""The recipe's generated text: the same for one seed, right in its sums, and split cleanly."""

from __future__ import annotations

import random
import re
from itertools import islice

import pytest

LANGUAGES = ("en", "zh", "ru", "fr", "de", "ko")
SENTENCES = {
    "en": ["The printer is ready."], "zh": ["打印机已准备好。"], "ru": ["Принтер готов."],
    "fr": ["L'imprimante est prête."], "de": ["Der Drucker ist bereit."], "ko": ["프린터가 준비되었습니다."],
}  # fmt: skip
SUM = re.compile(r"(\d+) ([-+×]) (\d+) = (\d+)")


@pytest.fixture
def exchanges(recipe):
    return recipe("exchanges")


def sums(text):
    return [(int(a), sign, int(b), int(c)) for a, sign, b, c in SUM.findall(text)]


def operator(sign):
    return "*" if sign == "×" else sign


def test_one_seed_gives_one_text(exchanges):
    for make in (lambda seed: exchanges.chat_documents(seed, SENTENCES), exchanges.arithmetic_documents):
        assert list(islice(make(3), 200)) == list(islice(make(3), 200))
        assert list(islice(make(3), 200)) != list(islice(make(4), 200))


def test_every_sum_is_right_and_on_its_side_of_the_split(exchanges):
    for heldout in (False, True):
        documents = [*islice(exchanges.arithmetic_documents(1, heldout), 200)]
        found = sums("\n".join(document["text"] for document in documents))
        assert len(found) > 1500
        for a, sign, b, c in found:
            assert eval(f"{a}{operator(sign)}{b}") == c
            assert exchanges.is_heldout(operator(sign), a, b) == heldout


def test_no_training_exchange_contains_a_heldout_sum_even_as_a_step(exchanges):
    texts = [document["text"] for document in islice(exchanges.chat_documents(1, SENTENCES), 6000)]
    found = sums("\n".join(texts))
    assert len(found) > 2000
    assert not [step for step in found if exchanges.is_heldout(operator(step[1]), step[0], step[2])]


def test_heldout_exchanges_are_not_asked_in_training(exchanges):
    rng = random.Random(2)
    trained = {exchanges.exchange(rng, language)[0] for language in LANGUAGES for _ in range(2000)}
    asked = {exchanges.exchange(rng, language, heldout=True)[0] for language in LANGUAGES for _ in range(200)}
    assert len(asked) > 100
    assert not asked & trained


@pytest.mark.parametrize("language", LANGUAGES)
def test_problems_can_be_checked_by_the_number_they_end_on(exchanges, language):
    rng = random.Random(5)
    for heldout in (False, True):
        for _ in range(300):
            case = exchanges.problem(rng, language, heldout)
            assert exchanges.answer_in(case.solution) == case.answer >= 0
            a, sign, b, _ = sums(case.solution)[0]
            assert exchanges.is_heldout(operator(sign), a, b) == heldout
            assert not re.search(r"[{}\[\]]", case.question)


def test_an_answer_without_a_number_is_none(exchanges):
    assert exchanges.answer_in("no idea") is None
    assert exchanges.answer_in("12 + 7 = 19, 19 - 4 = 15") == 15


def test_korean_particles_follow_the_last_sound(exchanges):
    assert exchanges._fill("'{x}'[은/는]", {"x": "망치"}) == "'망치'는"
    assert exchanges._fill("{x}[을/를]", {"x": "톱"}) == "톱을"
    assert exchanges._fill("{a}[과/와] {b}[을/를]", {"a": 12, "b": 13}) == "12와 13을"

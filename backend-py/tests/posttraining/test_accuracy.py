"""Right answers, rule by rule: golden pairs, and numbers wherever they stand."""

from __future__ import annotations

import importlib.util
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qscope.errors import UserError
from qscope.posttraining.accuracy import RULES, check_of

HAS_MATH_VERIFY = importlib.util.find_spec("math_verify") is not None


@pytest.mark.parametrize(
    ("rule", "written", "right", "is_right"),
    [
        ("whole", " Paris.", "paris", True),
        ("whole", "It is Paris.", "paris", False),
        ("whole", "4,200", "4200.0", True),
        ("whole", "", "", False),
        ("last-number", "3 apples and 4 pears make 7 pieces.", "7", True),
        ("last-number", "3 apples and 4 pears make 7 pieces.", "#### 7", True),
        ("last-number", "7 is 3 and 4", "7", False),
        ("last-number", "seven", "7", False),
        ("last-number", "", "", False),
        ("last-number", "99가 더 큽니다.", "99", True),
        ("last-number", "一共是42个。", "42", True),
        ("last-number", "Всего: 1,042.50 руб.", "1042.5", True),
        ("last-number", "Il fait \u22125 degrés", "-5", True),
        ("last-number", "12-5", "5", True),
        ("last-number", "die Antwort ist ４２", "42", True),
        ("last-number", "it costs -$5", "-5", True),
        ("pattern", "so #### 12 and 13", "12", True),
        ("pattern", "so #### 12 and 13", "thus #### 12", True),
        ("pattern", "so 12", "12", False),
    ],
)
def test_golden_pairs(rule, written, right, is_right) -> None:
    pattern = r"#### (\S+)" if rule == "pattern" else ""
    assert check_of(rule, pattern=pattern)(written, right) is is_right


@given(
    st.decimals(-(10**9), 10**9, allow_nan=False, allow_infinity=False, places=2),
    st.sampled_from(
        ["{}", "= {}.", "答案是{}个", "Es sind {} Stück", "от {}?", "7 plus x2 is {}!", "({})", "{}%", "{}, oder"]
    ),
    st.booleans(),
)
def test_a_number_is_found_wherever_it_stands(number, sentence, grouped) -> None:
    written = f"{number:,}" if grouped else str(number)
    check = check_of("last-number")
    assert check(sentence.format(written), str(number))
    assert not check(sentence.format(written), str(number + Decimal("0.01")))


@pytest.mark.parametrize(
    ("rule", "pattern", "reason"),
    [("nearly", "", "RULE_UNKNOWN"), ("pattern", "(", "PATTERN_MALFORMED"), ("pattern", "", "PATTERN_MALFORMED")],
)
def test_rules_that_cannot_work_are_refused(rule, pattern, reason) -> None:
    with pytest.raises(UserError) as caught:
        check_of(rule, pattern=pattern, at="rl.rewards[0]")
    assert (caught.value.reason, caught.value.field) == (reason, "rl.rewards[0]")
    assert caught.value.remedy


def test_math_without_its_package_is_refused_with_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr("qscope.posttraining.accuracy.find_spec", lambda name: None)
    with pytest.raises(UserError, match="math-verify") as caught:
        check_of("math", at="here")
    assert (caught.value.reason, caught.value.field) == ("PACKAGE_MISSING", "here")
    assert "qscope[math]" in caught.value.remedy
    assert "math" in RULES


@pytest.mark.skipif(not HAS_MATH_VERIFY, reason="math-verify is not installed")
@pytest.mark.parametrize(
    ("written", "right", "is_right"),
    [
        ("The answer is $\\frac{1}{2}$.", "1/2", True),
        ("so it is 0.5", "\\frac{1}{2}", True),
        ("it is $1+x^2$", "x^2+1", True),
        ("$\\boxed{43}$", "42", False),
        ("I do not know", "42", False),
        ("$\\frac{1$", "42", False),
    ],
)
def test_math_by_value(written, right, is_right) -> None:
    assert check_of("math")(written, right) is is_right

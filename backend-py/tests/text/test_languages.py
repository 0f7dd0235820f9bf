"""The language of a text, and its scripts."""

from __future__ import annotations

import pytest
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from qscope.text.languages import language_of, languages
from qscope.text.scripts import SCRIPTS_OF, ScriptRun, joined_runs, languages_sharing, script_runs, share_in


def test_languages_of_texts_without_letters_are_empty():
    found = languages(["The file is saved in the folder.", "文件保存在文件夹中。", "123 !!", ""])
    assert found == ["en", "zh", "", ""]
    assert languages(["Die Datei wird gespeichert."], among=["en", "de"]) == ["de"]


def test_a_choice_of_languages_is_the_classifiers_own_and_leaves_the_others_alone() -> None:
    text = "Dann wählen Sie den Ordner."
    among = ("de", "fr", "nl")
    own = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    whole = own.classify(text)
    own.set_languages(list(among))
    assert language_of(text, among) == own.classify(text)
    assert language_of(text) == whole
    assert language_of("42 !", among) == ("", 0.0)


def test_every_language_of_the_table_is_known_to_the_classifier() -> None:
    known = set(LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True).labels)
    assert set(SCRIPTS_OF) <= known
    assert {"en", "zh", "ru", "fr", "de", "ko", "ja", "ar", "th", "vi", "pt", "es"} <= set(SCRIPTS_OF)


def test_scripts_by_hand() -> None:
    text = "ab 我é1 файл\u0301, かカ 한 Ⴀ߀!"
    assert [(text[run.start : run.end], run.script) for run in script_runs(text)] == [
        ("ab", "Latin"), ("我", "Han"), ("é", "Latin"), ("файл", "Cyrillic"), ("か", "Hiragana"), ("カ", "Katakana"),
        ("한", "Hangul"), ("Ⴀ", "Georgian"), ("߀", "Other"),
    ]  # fmt: skip
    assert share_in(text, ["Latin"]) == pytest.approx(3 / 13)
    assert script_runs("1 + 2 = 3 …\n🙂") == []


def test_runs_are_joined_over_what_has_no_script_in_one_line() -> None:
    text = "да, нет 1234567 да\nда ab да"
    runs = joined_runs(text, script_runs(text), gap=8)
    assert [(text[run.start : run.end], run.script) for run in runs] == [
        ("да, нет", "Cyrillic"), ("да", "Cyrillic"), ("да", "Cyrillic"), ("ab", "Latin"), ("да", "Cyrillic"),
    ]  # fmt: skip
    assert joined_runs("я.я", script_runs("я.я"), gap=8, breaks=".") == [
        ScriptRun(0, 1, "Cyrillic"),
        ScriptRun(2, 3, "Cyrillic"),
    ]


def test_languages_that_share_a_script() -> None:
    assert languages_sharing("ru", ["en", "uk", "sr"]) == ("ru", "sr", "uk")
    assert languages_sharing("ja", ["zh", "ko"]) == ("ja", "zh")
    assert languages_sharing("ko") == ("ko",)
    assert "en" in languages_sharing("sr")

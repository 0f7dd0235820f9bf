"""The language of a text, and its scripts."""

from __future__ import annotations

from qscope.text.languages import languages


def test_languages_of_texts_without_letters_are_empty():
    found = languages(["The file is saved in the folder.", "文件保存在文件夹中。", "123 !!", ""])
    assert found == ["en", "zh", "", ""]
    assert languages(["Die Datei wird gespeichert."], among=["en", "de"]) == ["de"]

"""Code switching in the six languages of the embedded model: what counts, what is exempt, and how often it is right."""

from __future__ import annotations

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from qscope.errors import UserError
from qscope.features.intervals import wilson
from qscope.posttraining.code_switching import (
    PAPER,
    Span,
    SwitchRule,
    check_rule,
    consistency,
    language_code,
    switching,
)
from qscope.posttraining.exemptions import BLANK, Exemptions, blanked

SIX = ("en", "zh", "ru", "fr", "de", "ko")
RULE = SwitchRule(among=SIX)

#: Language, response, and what it switches to: a script, or the language of a sentence; empty for nothing.
LABELLED = [
    ("en", "The file is saved in the folder you chose, and a copy is kept for thirty days.", ""),
    ("en", "Berlin is called 柏林 in Chinese.", "Han"),
    ("en", "The Russian word “файл” means file.", ""),
    ("en", "Run `cat 文件.txt` to print the file, or see https://example.org/文件 for more.", ""),
    ("en", "The angle is α and the sum of 3 and 4 is 7 (≈ 100 %).", ""),
    ("en", "Fyodor Dostoevsky (Достоевский) wrote the novel in 1866.", ""),
    ("en", "The file is saved и потом закрывается by the program.", "Cyrillic"),
    ("en", "First open the menu. Dann wählen Sie bitte den Ordner aus, in dem die Datei liegt.", "de"),
    ("en", "First open the menu. Ensuite, choisissez le dossier où se trouve votre fichier.", "fr"),
    ("en", "The answer is 네 입니다.", "Hangul"),
    ("zh", "文件保存在您选择的文件夹中，副本保留三十天。", ""),
    ("zh", "请把 USB 设备连接到 Windows 电脑，然后点击 OK。", ""),
    ("zh", "运行 `sudo apt install the package` 之后重新启动。", ""),
    ("zh", "他说：“Hello, how are you today?”然后离开了。", ""),
    ("zh", "地球到月球的距离是 384,400 km。", ""),
    ("zh", "文件保存在 the folder that you chose before 里面。", "Latin"),
    ("zh", "文件已经保存，потом 关闭程序。", "Cyrillic"),
    ("zh", "请选择 폴더 然后继续。", "Hangul"),
    ("zh", "首先打开菜单。Then choose the folder in which the file is stored.", "Latin"),
    ("zh", "请打开ファイル并保存。", "Katakana"),
    ("ru", "Файл сохраняется в выбранной папке, а копия хранится тридцать дней.", ""),
    ("ru", "Программа LibreOffice Writer открывает файлы DOCX и PDF.", ""),
    ("ru", "Введите `rm -rf the old folder` и нажмите Enter.", ""),
    ("ru", "Слово «文件» по-китайски означает файл.", ""),
    ("ru", "Сумма чисел 17 и 25 равна 42.", ""),
    ("ru", "Файл сохраняется, 然后程序关闭。", "Han"),
    ("ru", "Откройте меню and then choose the folder в списке.", "Latin"),
    ("ru", "Сначала откройте меню. 그리고 폴더를 선택하십시오.", "Hangul"),
    ("ru", "Выберите 文件 из списка.", "Han"),
    ("fr", "Le fichier est enregistré dans le dossier choisi, et une copie est gardée trente jours.", ""),
    ("fr", "Le mot « 文件 » veut dire fichier.", ""),
    ("fr", "Ouvrez LibreOffice, puis cliquez sur OK.", ""),
    ("fr", "Tapez ```\nfor file in folder: print the name of it\n``` et validez.", ""),
    ("fr", "La somme de 17 et 25 est égale à 42.", ""),
    ("fr", "Le fichier est enregistré 在文件夹中 et fermé.", "Han"),
    ("fr", "Ouvrez le menu. The file is then saved in the folder that you have chosen.", "en"),
    ("fr", "Ouvrez le menu. Die Datei wird danach in dem gewählten Ordner gespeichert.", "de"),
    ("fr", "Une exécution est faite потом par défaut.", "Cyrillic"),
    ("de", "Die Datei wird im gewählten Ordner gespeichert, eine Kopie bleibt dreißig Tage.", ""),
    ("de", "Das Wort „файл“ heißt Datei.", ""),
    ("de", "Öffnen Sie LibreOffice Writer und klicken Sie auf OK.", ""),
    ("de", "Der Winkel β ist 90°, die Summe von 17 und 25 ist 42.", ""),
    ("de", "Die Stadt Москва liegt an der Moskwa.", ""),
    ("de", "Die Datei wird gespeichert и закрывается.", "Cyrillic"),
    ("de", "Die Datei 文件 wird gespeichert.", "Han"),
    ("de", "Öffnen Sie das Menü. The file is then saved in the folder that you have chosen.", "en"),
    ("de", "Öffnen Sie das Menü. Le fichier est ensuite enregistré dans le dossier choisi.", "fr"),
    ("ko", "파일은 선택한 폴더에 저장되며 사본은 삼십 일 동안 보관됩니다.", ""),
    ("ko", "USB 장치를 Windows 컴퓨터에 연결하고 OK를 누르십시오.", ""),
    ("ko", "`print the name of the file` 명령을 실행하십시오.", ""),
    ("ko", "17과 25의 합은 42입니다.", ""),
    ("ko", "‘文件’은 중국어로 파일이라는 뜻입니다.", ""),
    ("ko", "파일은 文件夹에 저장됩니다.", "Han"),
    ("ko", "파일은 потом 저장됩니다.", "Cyrillic"),
    ("ko", "메뉴를 엽니다. Then choose the folder in which the file is stored.", "Latin"),
]


@pytest.mark.parametrize(("language", "text", "to"), LABELLED, ids=range(len(LABELLED)))
def test_labelled_responses(language, text, to) -> None:
    found = switching(text, language, RULE)
    assert {span.script or span.language for span in found.spans} == ({to} if to else set())
    assert found.switched is bool(to)


def test_confusion_on_the_labelled_responses_by_the_default_rule_and_by_the_papers() -> None:
    """The default is right on all it was written for; the paper's counts quotations, code and names as switches."""

    def confusion(rule: SwitchRule) -> tuple[int, int, int, int]:
        said = [(bool(to), switching(text, language, rule).switched) for language, text, to in LABELLED]
        return tuple(said.count(cell) for cell in ((True, True), (True, False), (False, True), (False, False)))

    positive = sum(bool(to) for _, _, to in LABELLED)
    assert (positive, len(LABELLED) - positive) == (25, 30)
    assert confusion(RULE) == (25, 0, 0, 30)
    hits, misses, false_alarms, rejections = confusion(PAPER)
    # It does not see the six sentences in another language of the same script.
    assert (hits, misses) == (19, 6)
    assert (false_alarms, rejections) == (18, 12)
    assert wilson(false_alarms, 30).low > 0.3


def test_spans_are_places_in_the_text() -> None:
    text = "Run `文件` now. Файл 文件 файл закрыт. Then open it again."
    found = switching(text, "en", RULE)
    assert [(text[span.start : span.end], span.script) for span in found.spans] == [
        ("文件", "Han"),
        ("файл закрыт", "Cyrillic"),
    ]
    assert found.spans[0].start == text.index("Файл 文件") + 5
    text = "Open the menu.\nDann wählen Sie bitte den Ordner aus. Then save the file you opened."
    (span,) = switching(text, "en", RULE).spans
    assert (text[span.start : span.end].strip(), span.language) == ("Dann wählen Sie bitte den Ordner aus.", "de")


def test_short_sentences_and_doubtful_ones_say_nothing() -> None:
    assert switching("Ja. Nein. Danke schön.", "en", RULE) == switching("OK.", "en", RULE)
    found = switching("Dann wählen Sie bitte den Ordner aus.", "en", RULE)
    assert (found.judged, len(found.spans)) == (1, 1)
    # 19 letters and 20.
    assert switching("Wählen Sie den Ordnern.", "en", RULE).judged == 0
    assert switching("Wählen Sie zu Ordnungen.", "en", RULE).judged == 1
    assert not switching("Dann wählen Sie bitte den Ordner aus.", "en", SwitchRule(sentences=False)).switched


def test_words_of_another_script_do_not_mislead_the_verdict_on_a_sentence() -> None:
    text = "The file is saved и потом закрывается by the program."
    assert [span.script for span in switching(text, "en").spans] == ["Cyrillic"]


def test_targets_are_among_the_languages_a_sentence_can_be_in() -> None:
    text = "First open the menu. Dann wählen Sie bitte den Ordner aus, in dem die Datei liegt."
    assert switching(text, "en", SwitchRule(targets=("de",), among=("en", "fr"))).switched
    assert not switching(text, "en", SwitchRule(targets=("fr",), among=("en", "fr"))).switched


def test_targets_leave_other_switches_out() -> None:
    text = "The file 文件 и файл. Dann wählen Sie bitte den Ordner aus."
    assert {s.script or s.language for s in switching(text, "en", RULE).spans} == {"Han", "Cyrillic", "de"}
    for target, expected in (("zh", {"Han"}), ("ru", {"Cyrillic"}), ("de", {"de"}), ("ko", set())):
        rule = SwitchRule(targets=(target,), among=SIX)
        assert {s.script or s.language for s in switching(text, "en", rule).spans} == expected
    # Kana is Japanese and no Chinese; the Han of Japanese is no switch to Chinese.
    assert not switching("これはファイルです。漢字", "ja", SwitchRule(targets=("zh",), sentences=True)).spans


@pytest.mark.parametrize(
    ("text", "exempt", "switched"),
    [
        ("They said “你好”.", Exemptions(), False),
        ("They said “你好”.", Exemptions(quotes=False), True),
        ("They said “" + "你" * 81 + "”.", Exemptions(), True),
        ("They said “" + "你" * 80 + "”.", Exemptions(), False),
        ("They said “你好\n你好”.", Exemptions(), True),
        ("Run `你好`.", Exemptions(), False),
        ("Run `你好`.", Exemptions(code=False), True),
        ("```\n你好", Exemptions(), False),
        ("<b>fine</b> 你", Exemptions(), True),
        ("See https://example.org/你好 now.", Exemptions(), False),
        ("Write to info@почта.рф now.", Exemptions(), False),
        ("The path /домой/файл/я is there.", Exemptions(), False),
        ("Either or: я/ты.", Exemptions(), True),
        ("<|im_start|>я", Exemptions(), True),
        ("<|я|> is a token.", Exemptions(), False),
        ("It is in Москва Сити.", Exemptions(), False),
        ("It is in Москва Сити.", Exemptions(names=False), True),
        ("It is in Москва город.", Exemptions(), True),
        ("An angle α, a file.", Exemptions(), False),
        ("An angle α, a file.", Exemptions(names=False), True),
        ("An angle αβ, a file.", Exemptions(), True),
        ("The sign 北京 is up.", Exemptions(words=("北京",)), False),
        ("The sign 北京市 is up.", Exemptions(words=("北京",)), True),
        ("The word раб is here.", Exemptions(words=("раб",)), False),
        ("The word работа is here.", Exemptions(words=("раб",)), True),
    ],
)
def test_exemptions(text, exempt, switched) -> None:
    assert switching(text, "en", SwitchRule(sentences=False, exempt=exempt)).switched is switched


@pytest.mark.parametrize(
    ("text", "switched"),
    [
        ("点击 update 继续。", False),
        ("点击 open file 继续。", False),
        ("点击 open the file 继续。", True),
        ("运行 cat -n f 继续。", False),
        ("点击 read-only、re-open 继续。", False),
        ("点击 LibreOffice Base Report Builder 继续。", False),
        ("点击 open\nthe file 继续。", False),
    ],
)
def test_a_term_is_two_latin_words_or_names(text, switched) -> None:
    assert switching(text, "zh", RULE).switched is switched


def test_what_the_prompt_says_is_exempt_only_where_asked() -> None:
    text, prompt = "The word файл is one of 文件.", "What do Файл and 文件夹 mean?"
    off, on = SwitchRule(), SwitchRule(exempt=Exemptions(prompt=True))
    assert len(switching(text, "en", off, prompt=prompt).spans) == 2
    assert not switching(text, "en", on, prompt=prompt).switched
    assert switching("The word фай is here.", "en", on, prompt=prompt).switched, "a part of a word is none"
    assert switching(text, "en", on).switched


TEXTS = st.text(st.one_of(st.characters(), st.sampled_from("ab 我是файл하나Ωα`“”「」«»\"'\n.。<>/0,=")), max_size=60)


@settings(deadline=None)
@given(TEXTS, st.sampled_from(["zh", "ru", "ko"]))
def test_the_papers_measure_is_any_character_of_the_script(text, target) -> None:
    script = {"zh": "Han", "ru": "Cyrillic", "ko": "Hangul"}[target]
    rule = SwitchRule(targets=(target,), sentences=False, exempt=PAPER.exempt)
    assert switching(text, "en", rule).switched is bool(regex.search(rf"\p{{Script={script}}}", text))
    assert PAPER.exempt == Exemptions(code=False, quotes=False, names=False)


@settings(deadline=None)
@given(TEXTS, st.sampled_from(SIX))
def test_spans_are_inside_in_order_and_never_more_than_the_papers(text, language) -> None:
    rule = SwitchRule(sentences=False)
    spans = switching(text, language, rule).spans
    ends = [0, *(place for span in spans for place in (span.start, span.end)), len(text)]
    assert ends == sorted(ends)
    assert all(span.start < span.end for span in spans)
    if spans:
        assert switching(text, language, PAPER).switched


@given(TEXTS)
def test_blanked_text_keeps_its_places_and_lines(text) -> None:
    kept = blanked(text, Exemptions(words=("файл", "我")))
    assert len(kept) == len(text)
    assert all(now in (before, BLANK) for now, before in zip(kept, text, strict=True))
    assert kept.count("\n") == text.count("\n")


def test_consistency_is_a_share_of_characters() -> None:
    assert consistency("файл ab", "ru") == pytest.approx(4 / 6)
    assert consistency("файл ab", "en") == pytest.approx(2 / 6)
    assert consistency("ファイル漢字か", "ja") == 1
    assert consistency("42!", "zh") == 1
    assert consistency("文件 `the name of it`", "zh") == 1
    assert consistency("", "zh") == 1


def test_tags_of_languages() -> None:
    assert [language_code(tag) for tag in ("zh", "zh-CN", "PT_br", " ru ", "sr-Latn")] == ["zh", "zh", "pt", "ru", "sr"]
    with pytest.raises(UserError, match="'english'") as caught:
        language_code("english", at="eval.language")
    assert (caught.value.reason, caught.value.field) == ("LANGUAGE_UNKNOWN", "eval.language")
    assert "en" in caught.value.remedy


def test_rules_that_can_find_nothing_are_refused() -> None:
    for rule, expected, reason in (
        (SwitchRule(targets=("zh",)), "zh", "LANGUAGE_IS_TARGET"),
        (SwitchRule(targets=("ru", "zh"), sentences=False), "ja", "SCRIPT_SHARED"),
        (SwitchRule(targets=("de",), sentences=False), "en", "SCRIPT_SHARED"),
    ):
        with pytest.raises(UserError) as caught:
            check_rule(rule, expected, at="t")
        assert (caught.value.reason, caught.value.field) == (reason, "t")
    check_rule(SwitchRule(targets=("zh",)), "ja")
    check_rule(SwitchRule(targets=("ja",), sentences=False), "zh")
    check_rule(PAPER, "en")


def test_a_span_is_of_a_script_or_of_a_language() -> None:
    assert switching("The file 文 is.", "en").spans == (Span(9, 10, script="Han"),)

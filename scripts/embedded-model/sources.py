"""Where the embedded model's text comes from: Debian 12 packages, one row each.

A row is a fact, not code: which files of which package hold which language, how they are written, and
under which licence Debian distributes them (from the package's `copyright` file).
"""

from __future__ import annotations

from dataclasses import dataclass

LANGUAGES = ("en", "zh", "ru", "fr", "de", "ko")


@dataclass(frozen=True)
class Source:
    package: str
    language: str
    files: str  # glob inside the unpacked package
    kind: str  # key of extract.EXTRACTORS
    licence: str


_LIBREOFFICE = "MPL-2.0"
_GIMP = "GFDL-1.2+"
_GNOME = "CC-BY-SA-3.0"
_INSTALLATION = "GPL-2"
_HANDBOOK = "GPL-2.0+ or CC-BY-SA-3.0"
_FAQ = "GPL-2+"
_REFERENCE = "GPL-2+"
_DEVELOPERS = "GPL-2"
_MAINT = "GPL-2.0+ / MIT"
_EDU = "GPL-2+"
_MAN = "GPL-3+ (translations), licences of the pages"
_KICAD = "GPL-3+ or CC-BY-3.0+"
_KERNEL = "GPL-2"

# language -> its name in each family of packages; None where Debian 12 has no such package
_SUFFIX = {
    "en": dict(lo="en-us", lo_dir="en-US", gimp="en", gnome="C", book="en-US", guide="en"),
    "zh": dict(lo="zh-cn", lo_dir="zh-CN", gimp="zh-cn", gnome="zh_CN", book="zh-CN", guide="zh_CN"),
    "ru": dict(lo="ru", lo_dir="ru", gimp="ru", gnome="ru", book="ru-RU", guide="ru"),
    "fr": dict(lo="fr", lo_dir="fr", gimp="fr", gnome="fr", book="fr-FR", guide="fr"),
    "de": dict(lo="de", lo_dir="de", gimp="de", gnome="de", book="de-DE", guide="de"),
    "ko": dict(lo="ko", lo_dir="ko", gimp="ko", gnome="ko", book="ko-KR", guide="ko"),
}


def _families() -> list[Source]:
    rows = []
    for language, name in _SUFFIX.items():
        rows += [
            Source(
                f"libreoffice-help-{name['lo']}",
                language,
                "usr/share/libreoffice/help/*/text/**/*.html",
                "html",
                _LIBREOFFICE,
            ),
            Source(f"gimp-help-{name['gimp']}", language, "usr/share/gimp/2.0/help/*/*.html", "html", _GIMP),
            Source("gnome-user-docs", language, f"usr/share/help/{name['gnome']}/**/*.page", "mallard", _GNOME),
            Source(
                "installation-guide-amd64",
                language,
                f"usr/share/doc/installation-guide-amd64/{name['guide']}/*.html",
                "html",
                _INSTALLATION,
            ),
            Source(
                "debian-handbook",
                language,
                f"usr/share/doc/debian-handbook/html/{name['book']}/*.html",
                "html",
                _HANDBOOK,
            ),
        ]
    return rows


def _one(language: str, package: str, kind: str, licence: str, files: str = "usr/share/doc/**/*.html") -> Source:
    return Source(package, language, files, kind, licence)


_MAN_FILES = "usr/share/man/**/*.gz"


def _catalogues(package: str, folder: str, languages: dict[str, str], licence: str) -> list[Source]:
    """Translated messages: the stories of a game, the tooltips of a program. What keeps Korean from running short."""
    return [
        Source(package, language, f"{folder}/{name}/LC_MESSAGES/*.mo", "catalogue", licence)
        for language, name in languages.items()
    ]


_ALL_BUT_ENGLISH = {"zh": "zh_CN", "ru": "ru", "fr": "fr", "de": "de", "ko": "ko"}
_ASIAN = {"zh": "zh_CN", "ko": "ko"}

# In order of preference: a language that reaches its limit leaves out what comes last.
SOURCES: tuple[Source, ...] = tuple(
    _families()
    + _catalogues("wesnoth-1.16-data", "usr/share/games/wesnoth/1.16/locale", _ALL_BUT_ENGLISH, "GPL-2+")
    + [
        Source(
            "wesnoth-1.16-data",
            "en",
            "usr/share/games/wesnoth/1.16/locale/de/LC_MESSAGES/*.mo",
            "catalogue-original",
            "GPL-2+",
        )
    ]
    + _catalogues("blender-data", "usr/share/locale", {"zh": "zh_CN", "ko": "ko"}, "GPL-2+")
    + _catalogues("inkscape", "usr/share/locale", _ASIAN, "GPL-2+")
    + _catalogues("krita-l10n", "usr/share/locale", _ASIAN, "GPL-2+")
    + _catalogues("gimp-data", "usr/share/locale", _ASIAN, "GPL-3+")
    + _catalogues("kstars-data", "usr/share/locale", _ASIAN, "GPL-2+")
    + _catalogues("libreoffice-l10n-ko", "usr/lib/libreoffice/program/resource", {"ko": "ko"}, "MPL-2.0")
    + [
        _one("en", "debian-faq", "html", _FAQ),
        _one("de", "debian-faq-de", "html", _FAQ),
        _one("fr", "debian-faq-fr", "html", _FAQ),
        _one("ru", "debian-faq-ru", "html", _FAQ),
        _one("zh", "debian-faq-zh-cn", "html", _FAQ),
        _one("ko", "debian-faq-ko", "html", _FAQ),
        _one("en", "debian-reference-en", "html", _REFERENCE, "usr/share/debian-reference/*.en.html"),
        _one("de", "debian-reference-de", "html", _REFERENCE, "usr/share/debian-reference/*.html"),
        _one("fr", "debian-reference-fr", "html", _REFERENCE, "usr/share/debian-reference/*.html"),
        _one("zh", "debian-reference-zh-cn", "html", _REFERENCE, "usr/share/debian-reference/*.html"),
        _one("en", "developers-reference", "html", _DEVELOPERS, "usr/share/developers-reference/**/*.html"),
        _one("de", "developers-reference-de", "html", _DEVELOPERS, "usr/share/developers-reference-de/**/*.html"),
        _one("fr", "developers-reference-fr", "html", _DEVELOPERS, "usr/share/developers-reference-fr/**/*.html"),
        _one("ru", "developers-reference-ru", "html", _DEVELOPERS, "usr/share/developers-reference-ru/**/*.html"),
        _one("en", "maint-guide", "html", _MAINT),
        _one("de", "maint-guide-de", "html", _MAINT),
        _one("fr", "maint-guide-fr", "html", _MAINT),
        _one("ru", "maint-guide-ru", "html", _MAINT),
        _one("zh", "maint-guide-zh-cn", "html", _MAINT),
        _one("de", "debian-edu-doc-de", "html", _EDU),
        _one("fr", "debian-edu-doc-fr", "html", _EDU),
        _one("zh", "debian-edu-doc-zh-cn", "html", _EDU),
        _one("en", "aptitude-doc-en", "html", "GPL-2+"),
        _one("fr", "aptitude-doc-fr", "html", "GPL-2+"),
        _one("ru", "aptitude-doc-ru", "html", "GPL-2+"),
        _one("en", "fortunes", "fortune", "public domain and quotations", "usr/share/games/fortunes/*"),
        _one("en", "fortunes-min", "fortune", "public domain and quotations", "usr/share/games/fortunes/*"),
        _one("de", "fortunes-de", "fortune", "GPL-2+", "usr/share/games/fortunes/**/*"),
        _one("ru", "fortunes-ru", "fortune", "GPL-2+", "usr/share/games/fortunes/**/*.u8"),
        _one("zh", "fortunes-zh", "fortune", "GPL-3+", "usr/share/games/fortunes/*"),
        _one("en", "dict-devil", "dict", "public domain", "usr/share/dictd/*.dict.dz"),
        _one("en", "dict-jargon", "dict", "public domain", "usr/share/dictd/*.dict.dz"),
        _one("en", "dict-foldoc", "dict", "GFDL-1.1+", "usr/share/dictd/*.dict.dz"),
        _one("de", "kicad-doc-de", "html", _KICAD, "usr/share/doc/kicad/help/**/*.html"),
        _one("fr", "kicad-doc-fr", "html", _KICAD, "usr/share/doc/kicad/help/**/*.html"),
        _one("ru", "kicad-doc-ru", "html", _KICAD, "usr/share/doc/kicad/help/**/*.html"),
        _one("zh", "kicad-doc-zh", "html", _KICAD, "usr/share/doc/kicad/help/**/*.html"),
        _one("ru", "doublecmd-help-ru", "html", "GPL-2+", "usr/share/doublecmd/doc/ru/*.html"),
        _one("zh", "linuxcnc-doc-zh-cn", "html", "GPL-2 / LGPL-2+", "usr/share/doc/linuxcnc/*zh_CN*.html"),
        _one("en", "manpages", "man", "licences of the pages", _MAN_FILES),
        _one("en", "manpages-dev", "man", "licences of the pages", _MAN_FILES),
        _one("de", "manpages-de", "man", _MAN, _MAN_FILES),
        _one("de", "manpages-de-dev", "man", _MAN, _MAN_FILES),
        _one("fr", "manpages-fr", "man", _MAN, _MAN_FILES),
        _one("fr", "manpages-fr-dev", "man", _MAN, _MAN_FILES),
        _one("ru", "manpages-ru", "man", _MAN, _MAN_FILES),
        _one("ru", "manpages-ru-dev", "man", _MAN, _MAN_FILES),
        _one("zh", "manpages-zh", "man", "GFDL-1.2+ / GPL-2+", "usr/share/man/zh_CN/**/*.gz"),
        _one("en", "linux-doc-6.1", "html", _KERNEL, "usr/share/doc/linux-doc-6.1/html/[a-s]*/**/*.html"),
        _one("zh", "linux-doc-6.1", "html", _KERNEL, "usr/share/doc/linux-doc-6.1/html/translations/zh_CN/**/*.html"),
        _one("ko", "linux-doc-6.1", "html", _KERNEL, "usr/share/doc/linux-doc-6.1/html/translations/ko_KR/**/*.html"),
    ]
)

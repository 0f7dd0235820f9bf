"""One documentation file to its paragraphs, for each way Debian's packages write them."""

from __future__ import annotations

import gettext
import gzip
import re
from html.parser import HTMLParser
from pathlib import Path


def _tags(names: str) -> frozenset[str]:
    return frozenset(names.split())


_BLOCKS = _tags(
    "p li dt dd h1 h2 h3 h4 h5 h6 td th tr div section article blockquote title figcaption caption br "
    "ul ol dl table note item desc header footer nav main aside"
)
_DROPPED = _tags("script style pre nav footer head code-block screen code_block listing textarea select svg math info")


class _Blocks(HTMLParser):
    """Text between block-level tags, with code listings, scripts and navigation left out."""

    def __init__(self, dropped: frozenset[str]):
        super().__init__(convert_charrefs=True)
        self._dropped, self._inside, self._text = dropped, [], []
        self.blocks: list[str] = []

    def _flush(self) -> None:
        block = " ".join("".join(self._text).split())
        if block:
            self.blocks.append(block)
        self._text = []

    def handle_starttag(self, tag, attrs):
        if tag in self._dropped:
            self._inside.append(tag)
        if tag in _BLOCKS or tag in self._dropped:
            self._flush()

    def handle_startendtag(self, tag, attrs):
        if tag in _BLOCKS:
            self._flush()

    def handle_endtag(self, tag):
        if tag in self._inside:
            del self._inside[self._inside.index(tag) :]
        if tag in _BLOCKS or tag in self._dropped:
            self._flush()

    def handle_data(self, data):
        if not self._inside:
            self._text.append(data)

    def close(self):
        super().close()
        self._flush()


def _read(path: Path) -> str:
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        raw = gzip.decompress(raw)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _marked_up(text: str, dropped: frozenset[str]) -> list[str]:
    parser = _Blocks(dropped)
    parser.feed(text)
    parser.close()
    return parser.blocks


def html(path: Path) -> list[str]:
    return _marked_up(_read(path), _DROPPED)


def mallard(path: Path) -> list[str]:
    """GNOME's .page files: like HTML, but `code` and `screen` are blocks of their own and `info` is metadata."""
    return _marked_up(_read(path), _DROPPED | {"screen", "credit", "revision"})


_ROFF_SPECIAL = {
    r"\-": "-",
    r"\(aq": "'",
    r"\(dq": '"',
    r"\(lq": "“",
    r"\(rq": "”",
    r"\(oq": "‘",
    r"\(cq": "’",
    r"\(em": "—",
    r"\(en": "–",
    r"\(bu": "•",
    r"\(co": "©",
    r"\(Fo": "«",
    r"\(Fc": "»",
    r"\(bq": "„",
    r"\(ha": "^",
    r"\(ti": "~",
    r"\(ga": "`",
    r"\(rs": "\\",
    r"\(bs": "\\",
    r"\e": "\\",
    r"\ ": " ",
    r"\~": " ",
    r"\0": " ",
    r"\&": "",
    r"\|": "",
    r"\^": "",
    r"\%": "",
    r"\:": "",
    r"\/": "",
    r"\,": "",
    r"\c": "",
    r"\)": "",
    r"\'": "'",
    r"\`": "`",
}
_ROFF_ESCAPE = re.compile(
    r"\\(?:f\[[^\]]*\]|f\([A-Za-z]{2}|f.|s[-+]?\d+|\*\[[^\]]*\]|\*\(..|\*.|\[u([0-9A-F]{4,5})\]|\[[^\]]*\]|\(..|.)"
)
_ROFF_INLINE = frozenset(["B", "I", "BR", "BI", "IB", "IR", "RB", "RI", "SM", "SB", "UR", "MR"])
_ROFF_BREAK = frozenset(["PP", "P", "LP", "TP", "TQ", "IP", "HP", "SH", "SS", "RS", "RE", "UE", "sp", "br", "Pp", "It"])


def _roff_text(line: str) -> str:
    def plain(match: re.Match) -> str:
        token = match.group(0)
        if match.group(1):
            return chr(int(match.group(1), 16))
        if token == r"\[aq]":
            return "'"
        if token in (r"\[lq]", r"\[rq]"):
            return "“" if "l" in token else "”"
        return _ROFF_SPECIAL.get(token, "")

    return _ROFF_ESCAPE.sub(plain, line.split('\\"')[0])


def _roff_arguments(rest: str, joined: bool) -> str:
    words = [quoted if quoted else bare for quoted, bare in re.findall(r'"((?:[^"]|"")*)"|(\S+)', rest)]
    return ("" if joined else " ").join(words)


def man(path: Path) -> list[str]:
    """A manual page in the man macros. Literal blocks (.nf, .EX, tables) are dropped."""
    blocks, words, literal = [], [], 0

    def flush():
        block = " ".join(" ".join(words).split())
        if block:
            blocks.append(block)
        words.clear()

    for line in _read(path).replace("\\\n", "").splitlines():
        if line[:1] not in ".'":
            if not literal:
                words.append(_roff_text(line))
            continue
        macro, _, rest = line[1:].strip().partition(" ")
        if macro in ("nf", "EX", "TS", "Bd"):
            literal += 1
        elif macro in ("fi", "EE", "TE", "Ed"):
            literal = max(0, literal - 1)
        elif literal:
            continue
        elif macro in _ROFF_INLINE:
            words.append(_roff_text(_roff_arguments(rest, joined=macro in ("BR", "BI", "IB", "IR", "RB", "RI"))))
        if macro in _ROFF_BREAK:
            flush()
    flush()
    return blocks


def fortune(path: Path) -> list[str]:
    """A file of sayings parted by lines holding a lone `%`."""
    if path.suffix == ".dat" or (path.is_symlink() and path.suffix != ".u8"):
        return []
    text = re.sub(r"\x1b\[[0-9;]*m", "", _read(path))
    return [" ".join(saying.split()) for saying in re.split(r"(?m)^%.*$", text) if saying.strip()]


def dictionary(path: Path) -> list[str]:
    """A dictd database: entries parted by blank lines; cross-reference braces removed."""
    return [" ".join(re.sub(r"[{}]", "", entry).split()) for entry in re.split(r"\n\s*\n", _read(path))]


def _messages(path: Path) -> list[tuple[str, str]]:
    with open(path, "rb") as file:
        catalogue = gettext.GNUTranslations(file)._catalog
    pairs = [
        (key, value) for key, value in catalogue.items() if isinstance(key, str) and key and isinstance(value, str)
    ]
    return [
        (re.sub(r"<[^<>]{1,60}>", "", key.split("\x04")[-1]), re.sub(r"<[^<>]{1,60}>", "", value))
        for key, value in sorted(pairs)
    ]


def catalogue(path: Path) -> list[str]:
    """The translations of a compiled gettext catalogue that are long enough to be sentences."""
    return [
        " ".join(value.replace("_", "").replace("~", "").split()) for _, value in _messages(path) if len(value) >= 20
    ]


def catalogue_original(path: Path) -> list[str]:
    """The English side of a compiled gettext catalogue."""
    return [" ".join(key.split()) for key, _ in _messages(path) if len(key) >= 40]


EXTRACTORS = {
    "html": html,
    "mallard": mallard,
    "man": man,
    "fortune": fortune,
    "dict": dictionary,
    "catalogue": catalogue,
    "catalogue-original": catalogue_original,
}

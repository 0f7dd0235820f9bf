"""What is in another language and yet no switch: code, quotations, names and terms, what the prompt said.

Exempt characters are replaced by ``BLANK``, one for one, so that places in the text stay what they were.
"""

from __future__ import annotations

from dataclasses import dataclass

import regex

#: Stands for an exempt character: of no script, in no word and no sentence.
BLANK = "\0"
#: A longer quotation is a text of its own.
MAX_QUOTE = 80
#: Latin words in another script that count as a term, at most.
_TERM_WORDS = 2

_CODE = regex.compile(
    r"```.*?(?:```|\Z)"  # a fence that is never closed runs to the end
    r"|~~~.*?(?:~~~|\Z)"
    r"|`[^`\n]+`"
    r"|\$\$.*?\$\$|\\\[.*?\\\]|\\\(.*?\\\)"
    r"|</?[A-Za-z][^<>\n]*>|<\|[^|\n]*\|>"  # tags, a chat template's among them
    r"|(?<![\w.~])[.~]{0,2}(?:/[\w.+~-]+){2,}/?"  # paths of files
    r"|(?:https?|ftp|file)://[^\s<>\"'）」』】]+|www\.[^\s<>\"'）」』】]+"
    r"|[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
    regex.DOTALL,
)
_QUOTES = regex.compile(
    "|".join(
        f"{opening}[^{opening}{closing}\\n]{{1,{MAX_QUOTE}}}{closing}"
        for opening, closing in ("“”", "„“", "«»", "»«", "‹›", "「」", "『』", "《》", "〈〉", '""', "‘’", "‚‘")
    )
)
_CASED = r"[\p{Lu}\p{Ll}\p{N}]"
_WORD = regex.compile(r"[\p{L}\p{M}\p{N}]+(?:[-'’._][\p{L}\p{M}\p{N}]+)*")


@dataclass(frozen=True)
class Exemptions:
    """What is left out.

    Attributes:
        code: fenced and inline code, formulas, tags, paths, addresses of the web and of mail.
        quotes: marked quotations of at most 80 characters in one line.
        names: words with a capital, of scripts that have capitals; one or two Latin words in a text of another script
            (``USB``, ``update``); single Greek letters.
        prompt: what occurs in the prompt.
        words: names and terms beside those.
    """

    code: bool = True
    quotes: bool = True
    names: bool = True
    prompt: bool = False
    words: tuple[str, ...] = ()


STANDARD = Exemptions()


def blanked(text: str, exempt: Exemptions) -> str:
    """The text without code, quotations and given words, of the same length."""
    if exempt.code:
        text = _CODE.sub(_blank, text)
    if exempt.quotes:
        text = _QUOTES.sub(_blank, text)
    if exempt.words:
        # The longest first: `New York Times` before `New York`. A word with capitals is no part of a longer one.
        listed = "|".join(regex.escape(word) for word in sorted(exempt.words, key=len, reverse=True))
        text = regex.sub(rf"(?<!{_CASED}(?={_CASED}))(?:{listed})(?!(?<={_CASED}){_CASED})", _blank, text)
    return text


def is_name(run: str, script: str) -> bool:
    """Whether a run of another script is a name, a term or a symbol and no switch; see :class:`Exemptions`."""
    words = _WORD.findall(run)
    if script == "Greek" and all(len(word) == 1 for word in words):
        return True
    # A single letter is a variable or an option of a command.
    if script == "Latin" and sum(len(word) > 1 for word in words) <= _TERM_WORDS:
        return True
    return all(word[0].isupper() or word[0].isdigit() for word in words)


def said_in(prompt: str, run: str) -> bool:
    """Whether the prompt holds every word of a run, in any case; of a script without blanks, the same characters."""
    folded = prompt.casefold()
    words = set(_WORD.findall(folded))
    return all(
        word in words if word.upper() != word.lower() else word in folded for word in _WORD.findall(run.casefold())
    )


def _blank(found: regex.Match[str]) -> str:
    # Lines stay lines: a fence ends the sentence before it.
    return "".join("\n" if character == "\n" else BLANK for character in found.group())

#!/usr/bin/env python3
"""Debian documentation packages to clean, deduplicated, split text.

    python collect_text.py CACHE

Downloads the packages of sources.py with `apt-get download` (nothing is installed), unpacks them into CACHE, and
writes CACHE/text/train.jsonl and CACHE/text/heldout.jsonl (fields text, language, source) with a summary beside them.
The same packages give the same bytes: files are read in sorted order, and the split hashes each document's text.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from extract import EXTRACTORS
from sources import LANGUAGES, SOURCES, Source

MAX_CHARACTERS = 10_000_000  # a language, so that English does not drown the others
DOCUMENT_CHARACTERS = 4_000
HELDOUT_PERMILLE = 20

_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+(?=[^\s])|(?<=[。！？])")
_HAN = re.compile(r"[\u4e00-\u9fff]")
_HANGUL = re.compile(r"[\uac00-\ud7a3]")
_CYRILLIC = re.compile(r"[\u0400-\u04ff]")
_LATIN = re.compile(r"[A-Za-zÀ-ÿœŒẞ]")
_FUNCTION_WORDS = {
    "en": "the of and to in is that for it with as are on be this by or an from which can you not if when will "
    "your has",
    "fr": "le la les de des du et un une est dans que pour qui sur par en au aux avec ce cette ne pas vous sont "
    "il ou être",
    "de": "der die das und ist in den von zu mit ein eine nicht auf für sie im dem des als wird auch oder werden "
    "kann es sich",
}
_STOPWORDS = {language: frozenset(words.split()) for language, words in _FUNCTION_WORDS.items()}


def unpack(package: str, cache: Path) -> Path:
    """The folder of one unpacked package, downloaded if it is not there yet."""
    root = cache / "root" / package
    if not root.exists():
        debs = cache / "debs"
        debs.mkdir(parents=True, exist_ok=True)
        if not list(debs.glob(f"{package}_*.deb")):
            subprocess.run(["apt-get", "-qq", "download", package], cwd=debs, check=True)
        partial = root.with_suffix(".partial")
        partial.mkdir(parents=True, exist_ok=True)
        subprocess.run(["dpkg-deb", "-x", str(next(debs.glob(f"{package}_*.deb"))), str(partial)], check=True)
        partial.rename(root)
    return root


def in_language(block: str, language: str) -> bool:
    """Whether a paragraph is prose in that language: untranslated paragraphs are common in translated manuals."""
    letters = sum(character.isalpha() for character in block)
    if letters < 0.55 * len(block.replace(" ", "")):
        return False
    if language == "zh":
        return len(_HAN.findall(block)) >= max(6, 0.4 * letters)
    if language == "ko":
        return len(_HANGUL.findall(block)) >= max(6, 0.4 * letters)
    if language == "ru":
        return len(_CYRILLIC.findall(block)) >= max(12, 0.55 * letters)
    if len(_LATIN.findall(block)) < 0.95 * letters:
        return False
    words = re.findall(r"[^\W\d_]+", block.lower())
    if len(words) < 5:
        return False
    counts = {name: sum(word in stops for word in words) for name, stops in _STOPWORDS.items()}
    return counts[language] >= 0.08 * len(words) and counts[language] == max(counts.values())


def normalise(block: str) -> str:
    block = unicodedata.normalize("NFC", block).replace("\u00ad", "").replace("\u200b", "").replace("\ufeff", "")
    block = re.sub(r"[\x00-\x08\x0b-\x1f\x7f¶]", "", block)
    return " ".join(block.split())


def fresh_sentences(block: str, seen: set[bytes]) -> str:
    """The block without the sentences already met in this language (boilerplate, shared strings, mirrored pages)."""
    kept = []
    for sentence in _SENTENCE_END.split(block):
        key = hashlib.blake2b(re.sub(r"[\W\d]+", "", sentence).lower().encode(), digest_size=8).digest()
        if key not in seen:
            seen.add(key)
            kept.append(sentence)
    joiner = "" if _HAN.search(block) else " "
    return joiner.join(part.strip() if joiner else part for part in kept).strip()


def documents(source: Source, cache: Path, seen: set[bytes]) -> Iterator[str]:
    """Pieces of at most DOCUMENT_CHARACTERS characters, cut between paragraphs."""
    for path in sorted(unpack(source.package, cache).glob(source.files)):
        if not path.is_file():
            continue
        piece: list[str] = []
        size = 0
        for raw in EXTRACTORS[source.kind](path):
            block = normalise(raw)
            if len(block) > DOCUMENT_CHARACTERS or not in_language(block, source.language):
                continue
            block = fresh_sentences(block, seen)
            if not block or not in_language(block, source.language):
                continue
            if size + len(block) > DOCUMENT_CHARACTERS and piece:
                yield "\n".join(piece)
                piece, size = [], 0
            piece.append(block)
            size += len(block) + 1
        if size >= 40:
            yield "\n".join(piece)


def is_heldout(text: str) -> bool:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") % 1000 < HELDOUT_PERMILLE


def collect(cache: Path) -> dict:
    seen: dict[str, set[bytes]] = defaultdict(set)
    characters: Counter[str] = Counter()
    by_source: Counter[tuple[str, str]] = Counter()
    out = cache / "text"
    out.mkdir(parents=True, exist_ok=True)
    with (
        open(out / "train.jsonl", "w", encoding="utf-8") as train,
        open(out / "heldout.jsonl", "w", encoding="utf-8") as heldout,
    ):
        for source in SOURCES:
            for text in documents(source, cache, seen[source.language]):
                if characters[source.language] >= MAX_CHARACTERS:
                    break
                characters[source.language] += len(text)
                by_source[source.language, source.package] += len(text)
                row = json.dumps(
                    {"text": text, "language": source.language, "source": source.package}, ensure_ascii=False
                )
                print(row, file=heldout if is_heldout(text) else train)
    summary = {
        "characters": {language: characters[language] for language in LANGUAGES},
        "sources": [
            {
                "package": s.package,
                "language": s.language,
                "licence": s.licence,
                "characters": by_source[s.language, s.package],
            }
            for s in SOURCES
        ],
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    return summary


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cache", type=Path)
    summary = collect(parser.parse_args().cache)
    for language, count in summary["characters"].items():
        print(f"{language}  {count:>12,} characters")

"""What every model sees of a text: its words, in one spelling, and the language they are in.

Training and serving call the same functions, so the two cannot drift apart. Words keep the place
they had in the text as sent: positions count code points.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

# A word is letters and digits, joined by an apostrophe or hyphen inside it or by a dot, comma or
# colon between digits ("don't", "какой-то", "7:30", "12.50"). Combining marks belong to the letter
# before them. Anything else that is no space is a token of its own if it is a symbol ("♌", "$").
_TOKEN = re.compile(
    r"[^\W_][\u0300-\u036f]*"
    r"(?:[^\W_]|[\u0300-\u036f]|['’\-‑](?=[^\W\d_])|(?<=\d)[.,:](?=\d))*"
    r"|[^\w\s]"
)
_SYMBOLS = frozenset({"So", "Sc"})
_SPELLING = str.maketrans({"ё": "е", "’": "'", "‑": "-"})

_CYRILLIC = frozenset({"ru", "uk", "be", "bg", "sr", "mk", "kk"})


class Word(NamedTuple):
    """A word as the models read it, and `text[start:end]`, where it stood."""

    text: str
    start: int
    end: int


def normalise(text: str) -> str:
    """One spelling of a word: composed, lower case, «е» for «ё», no stress marks."""
    if text.isascii():
        return text.lower()
    composed = unicodedata.normalize("NFKC", text).lower().translate(_SPELLING)
    return "".join(c for c in composed if not unicodedata.combining(c))


def words(text: str) -> list[Word]:
    """The words of `text` in order; punctuation is left out."""
    found = []
    for match in _TOKEN.finditer(text):
        token = match.group()
        if not token[0].isalnum() and unicodedata.category(token[0]) not in _SYMBOLS:
            continue
        if spelt := normalise(token):
            found.append(Word(spelt, match.start(), match.end()))
    return found


def language_of(text: str, candidates: Sequence[str], default: str | None = None) -> str:
    """The first of `candidates` written in the script of most of the letters of `text`.

    Without letters, or when no candidate is written so, `default` (else the first candidate).
    """
    cyrillic = latin = 0
    for character in text:
        if "\u0400" <= character <= "\u052f":
            cyrillic += 1
        elif character.isalpha():
            latin += 1
    fallback = default if default is not None else candidates[0]
    if cyrillic == latin:
        return fallback
    fits = [c for c in candidates if (c in _CYRILLIC) == (cyrillic > latin)]
    return fallback if not fits or fallback in fits else fits[0]

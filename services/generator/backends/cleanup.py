"""A drawn text made fit to read and to speak. Pure."""

from __future__ import annotations

import re
import unicodedata

# Joiners belong to emoji and to some scripts; all other invisible characters go.
_KEPT = {"\n", "\u200c", "\u200d"}
_CLOSING = "\"'»”’)]"
_ENDINGS = ".!?…"
_SENTENCE_END = re.compile(rf"[{re.escape(_ENDINGS)}][{re.escape(_CLOSING)}]*(?=\s|$)")

_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"[^\S\n]+"), " "),
    (re.compile(r" ?\n ?"), "\n"),
    (re.compile(r"\n{3,}"), "\n\n"),
    (re.compile(r"\s+(?=[,;:!?…]|\.(?!\d))"), ""),
    (re.compile(r"([,;!?…])\1+"), r"\1"),
    (re.compile(r"\.{4,}"), "..."),
    (re.compile(r"(?<!\.)\.\.(?!\.)"), "."),
    (re.compile(r"[,;:]+(?=[.!?…])"), ""),
)


def clean(text: str, cut_short: bool = False) -> str:
    """`text` without control characters, needless spaces and doubled punctuation.

    Of a text that was `cut_short` the unfinished last sentence goes too, if a whole one is left.
    """
    text = "".join(char if _visible(char) else " " if char in "\t\r" else "" for char in text)
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    text = text.strip()
    return finished(text) if cut_short else text


def finished(text: str) -> str:
    """`text` up to the end of its last whole sentence; all of it when there is none."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    return text[: ends[-1]] if ends else text


def ends_as_sentence(text: str, endings: str = _ENDINGS) -> bool:
    """Whether one of `endings` comes last, closing quotes and brackets aside."""
    return text.rstrip(_CLOSING).endswith(tuple(endings))


def _visible(char: str) -> bool:
    return char in _KEPT or not unicodedata.category(char).startswith("C")

"""Cuts a text into the pieces that are synthesised one after another.

Sentences, because intonation lives in them; but the first piece ends at the first clause of a long
sentence, so that the first audio leaves early, and nothing is longer than `LONGEST`, so that a
cancelled request stops soon (flite needs 12 ms a second of audio on one core: 0.2 s for that).
"""

from __future__ import annotations

import re

LONGEST = 240
"""Characters of the longest piece; about 16 s of audio."""
FIRST = 60
"""A first sentence of more characters than this is cut at its first clause."""

_SENTENCE = re.compile(r"(?<=[.!?…])[\"'»”)]*\s+")
_CLAUSE = re.compile(r"(?<=[,;:—–])\s+")


def split(text: str) -> list[str]:
    """The pieces of a text, in order; joined by spaces they are the text again."""
    sentences = [part.strip() for part in _SENTENCE.split(text) if part.strip()]
    if sentences and len(sentences[0]) > FIRST:
        head, *rest = _CLAUSE.split(sentences[0], maxsplit=1)
        sentences[:1] = [head, *rest]
    return [piece for sentence in sentences for piece in _shorten(sentence)]


def _shorten(sentence: str) -> list[str]:
    pieces = []
    while len(sentence) > LONGEST:
        clauses = [match.end() for match in _CLAUSE.finditer(sentence, 1, LONGEST)]
        cut = clauses[-1] if clauses else sentence.rfind(" ", 1, LONGEST) + 1 or LONGEST
        pieces.append(sentence[:cut].strip())
        sentence = sentence[cut:].strip()
    return [*pieces, sentence] if sentence else pieces

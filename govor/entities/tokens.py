"""Text as tokens that know where they came from."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Words by letters, digits by runs, all else one by one. Joiners and variation selectors of emoji
# are passed over.
_TOKEN = re.compile(r"[^\W\d_]+|\d+|[^\w\s\ufe0f\u200d]|_")


@dataclass(frozen=True, slots=True)
class Token:
    """`word` is lower-case with е for ё; `start` and `end` count code points of the text."""

    word: str
    start: int
    end: int

    @property
    def is_number(self) -> bool:
        return self.word.isdecimal() and self.word.isascii()


def tokenize(text: str) -> list[Token]:
    return [
        Token(match[0].lower().replace("ё", "е"), match.start(), match.end())
        for match in _TOKEN.finditer(text)
    ]


def words(text: str) -> tuple[str, ...]:
    return tuple(token.word for token in tokenize(text))

"""Text as tokens that know where they came from."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, NamedTuple

# Words by letters, digits by runs, all else one by one. Joiners and variation selectors of emoji
# are passed over.
_TOKEN = re.compile(r"[^\W\d_]+|\d+|[^\w\s\ufe0f\u200d]|_")


class Token(NamedTuple):
    """`word` is lower-case with е for ё; `start` and `end` count code points of the text."""

    word: str
    start: int
    end: int
    is_number: bool


class Tokens(list[Token]):
    """A text's tokens. `numbers` is what was read at each place so far (`numbers.number_at`): five
    resolvers ask for the same ones."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers: dict[int, Any] = {}


def tokenize(text: str) -> Tokens:
    tokens = Tokens()
    for match in _TOKEN.finditer(text):
        word = match[0].lower().replace("ё", "е")
        is_number = word.isdecimal() and word.isascii()
        tokens.append(Token(word, match.start(), match.end(), is_number))
    return tokens


def words(text: str) -> tuple[str, ...]:
    return tuple(token.word for token in tokenize(text))


class Alone:
    """Is a stretch all that was said, but for fillers and punctuation? Counted once a text: asking
    for each stretch by itself would take the square of the text's length."""

    def __init__(self, tokens: Tokens, fillers: Collection[str]) -> None:
        content = [
            index
            for index, token in enumerate(tokens)
            if token.word not in fillers and token.word.isalnum()
        ]
        self.first = content[0] if content else len(tokens)
        self.last = content[-1] if content else -1

    def __call__(self, first: int, last: int) -> bool:
        return first <= self.first and self.last < last

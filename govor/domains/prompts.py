"""Prompts for generators that take one. What the user says cannot break out of its place.

A prompt is a text file with `{slot}` placeholders, `{utterance}` for what was just said. Values of
closed lists go in as they are; all else is free text and is put between marks that it cannot hold:
control characters and the marks are taken out of it, line ends become spaces, and it is cut at
`MAX_CHARS`. A value is never read as a template.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

OPEN, CLOSE = "<<<", ">>>"
MAX_CHARS = 1000
_SLOT = re.compile(r"\{([a-z][a-z0-9_]*)\}")


@dataclass(frozen=True)
class Prompt:
    """One prompt in one language. `closed`: slots whose values come from lists of the pack."""

    text: str
    closed: frozenset[str] = frozenset()

    def slots(self) -> set[str]:
        return set(_SLOT.findall(self.text))

    def render(self, values: Mapping[str, Any]) -> str:
        """The prompt with its slots filled; an empty slot leaves nothing between its marks."""

        def value(match: re.Match[str]) -> str:
            found = values.get(match[1])
            text = "" if found is None else clean(str(found))
            return text if match[1] in self.closed else f"{OPEN}{text}{CLOSE}"

        return _SLOT.sub(value, self.text)


def clean(text: str, marks: Collection[str] = "<>") -> str:
    """`text` on one line, without control and format characters and without `marks`."""
    visible = "".join(
        " " if ch.isspace() else ch
        for ch in text
        if ch not in marks and (ch.isspace() or unicodedata.category(ch)[0] != "C")
    )
    return " ".join(visible.split())[:MAX_CHARS]

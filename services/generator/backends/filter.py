"""What a text must keep to before it is given without `stream`. Pure; limits are the version's."""

from __future__ import annotations

import re
from collections.abc import Mapping

from services.generator.backends.cleanup import ends_as_sentence
from services.generator.backends.config import Filter, Names


def fault(text: str, limits: Filter, fields: Mapping[str, str]) -> str | None:
    """What is wrong with a cleaned text, or None. `fields` are those that it was asked with."""
    words = re.findall(r"\w+", text.lower())
    if not limits.min_chars <= len(text) <= limits.max_chars:
        return "length"
    if not ends_as_sentence(text, limits.endings):
        return "ending"
    if _repeats(words, limits.repeat):
        return "repetition"
    if limits.names is not None and _names_another(set(words), limits.names, fields):
        return f"names another {limits.names.field}"
    return None


def _repeats(words: list[str], size: int) -> bool:
    runs = [tuple(words[at : at + size]) for at in range(len(words) - size + 1)]
    return len(set(runs)) < len(runs)


def _names_another(words: set[str], names: Names, fields: Mapping[str, str]) -> bool:
    """A word that the own value shares with another one is the own value's."""
    by_value = names.forms.get(fields.get("language", ""), {})
    named = {word for value in by_value for word in by_value[value]}
    return bool(words & (named - set(by_value.get(fields.get(names.field, ""), ()))))

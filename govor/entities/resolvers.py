"""The built-in resolvers by name. Each yields `(first token, token after the last, value,
confidence)`; they never raise, whatever the text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

from govor.entities import contacts, dates, money, times
from govor.entities.numbers import numbers
from govor.entities.tokens import Tokens

Resolved = Iterator[tuple[int, int, Any, float]]
Resolver = Callable[[str, Tokens, str, date, str], Resolved]

_YES = (
    "yes|yeah|yep|yup|sure|of course|correct|right|that's right|exactly|absolutely|okay|ok|"
    "please do|go ahead|да|ага|угу|конечно|верно|точно|правильно|именно|подтверждаю|хорошо|"
    "давай|давайте|да конечно|все верно|все правильно"
)
_NO = (
    "no|nope|nah|not really|wrong|that's wrong|incorrect|don't|do not|no thanks|no thank you|"
    "нет|неа|не надо|не нужно|неверно|не верно|неправильно|ни в коем случае|не хочу|нет спасибо"
)


def number(text: str, tokens: Tokens, language: str, today: date, prefer: str) -> Resolved:
    for first, found in numbers(tokens):
        if not found.ordinal:
            yield first, found.last, found.value, 1.0


def ordinal(text: str, tokens: Tokens, language: str, today: date, prefer: str) -> Resolved:
    for first, found in numbers(tokens):
        if found.ordinal:
            yield first, found.last, found.value, 1.0


def _said(phrases: str) -> dict[str, list[tuple[str, ...]]]:
    """Phrases by their first word, longest first."""
    table: dict[str, list[tuple[str, ...]]] = {}
    for phrase in sorted(phrases.split("|"), key=len, reverse=True):
        parts = tuple(phrase.replace("'", " ' ").split())
        table.setdefault(parts[0], []).append(parts)
    return table


_ANSWERS = {"yes": _said(_YES), "no": _said(_NO)}


def yes_no(text: str, tokens: Tokens, language: str, today: date, prefer: str) -> Resolved:
    """Only where an utterance begins: a "no" in the middle of one answers nothing."""
    for value, table in _ANSWERS.items():
        for parts in table.get(tokens[0].word, ()) if tokens else ():
            if tuple(token.word for token in tokens[: len(parts)]) == parts:
                yield 0, len(parts), value, 1.0
                break


RESOLVERS_BY_NAME: dict[str, Resolver] = {
    "number": number,
    "ordinal": ordinal,
    "date": dates.dates,
    "time": times.times,
    "duration": times.durations,
    "money": money.money,
    "email": contacts.email,
    "telephone": contacts.telephone,
    "order_number": contacts.order_number,
    "card": contacts.card,
    "yes_no": yes_no,
}

"""What identifies a person or an order: e-mail, telephone, order number, payment card.

A card's value is its last four digits: the rest is needed by nobody and must not be kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from typing import Any

import phonenumbers

from govor.entities.numbers import spoken_digits
from govor.entities.patterns import luhn
from govor.entities.tokens import Alone, Tokens

Resolved = Iterator[tuple[int, int, Any, float]]

_EMAIL = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4}")
_AT = frozenset(("at", "собака"))
_DOT = frozenset(("dot", "точка"))
_REGIONS = {"ru": "RU", "en": "US"}
_ORDER_WORDS = frozenset("order number no заказ заказа заказу заказом номер номером".split())
_LAST_FOUR = frozenset(
    "in with digits four card на цифры цифрами карта карты карту карте картой".split()
)
_FILLERS = frozenset(
    "it is s its the my order number no card ends ending with in это мой моя номер заказ заказа "
    "карта карты заканчивается на последние четыре цифры last four digits are".split()
)
BARE_CONFIDENCE = 0.7


def email(text: str, tokens: Tokens, language: str, today: date, prefer: str) -> Resolved:
    starts = {token.start: index for index, token in enumerate(tokens)}
    ends = {token.end: index + 1 for index, token in enumerate(tokens)}
    for match in _EMAIL.finditer(text):
        if match.start() in starts and match.end() in ends:
            yield starts[match.start()], ends[match.end()], match[0].lower(), 1.0
    for index in range(1, len(tokens) - 3):
        if tokens[index].word in _AT and tokens[index + 2].word in _DOT:
            name, host, zone = (tokens[index + i].word for i in (-1, 1, 3))
            if (name + host + zone).isalnum():
                yield index - 1, index + 4, f"{name}@{host}.{zone}", 0.9


def telephone(text: str, tokens: Tokens, language: str, today: date, prefer: str) -> Resolved:
    """Seven to fifteen digits, E.164 when the number is possible in the language's country."""
    for first, last in _runs(tokens, "+()-."):
        digits, _ = _joined(tokens, first, last)
        plus = tokens[first].word == "+"
        if not 7 <= len(digits) <= 15 or not (plus or len(digits) >= 10):
            continue
        try:
            region = None if plus else _REGIONS.get(language)
            number = phonenumbers.parse(("+" if plus else "") + digits, region)
        except phonenumbers.NumberParseException:
            continue
        if phonenumbers.is_valid_number(number):
            value = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
            yield first, last, value, 1.0


def card(text: str, tokens: Tokens, language: str, today: date, prefer: str) -> Resolved:
    """A whole number that passes Luhn's check, or the last four digits, said to be such or all
    that was said."""
    for first, last in _runs(tokens, "-"):
        digits, _ = _joined(tokens, first, last)
        if 13 <= len(digits) <= 19 and luhn(digits):
            yield first, last, digits[-4:], 1.0
    alone = Alone(tokens, _FILLERS)
    for first, last, digits in _said(tokens):
        if len(digits) == 4:
            named = first > 0 and tokens[first - 1].word in _LAST_FOUR
            if named or alone(first, last):
                yield first, last, digits, 1.0 if named else BARE_CONFIDENCE


def order_number(text: str, tokens: Tokens, language: str, today: date, prefer: str) -> Resolved:
    """Five to twelve digits, fewer behind "#" or "order number"; letters may lead: AB-1234."""
    for first, last, digits in _said(tokens):
        start, prefix = _prefix(tokens, first)
        marked = start > 0 and (
            tokens[start - 1].word in ("#", "№") or tokens[start - 1].word in _ORDER_WORDS
        )
        least = 3 if marked or prefix else 5
        if least <= len(digits) <= 12:
            sign = start > 0 and tokens[start - 1].word in ("#", "№")
            yield start - sign, last, prefix + digits, 1.0 if marked else 0.9


def _prefix(tokens: Tokens, first: int) -> tuple[int, str]:
    """Two or three letters written right before the digits, a hyphen between or not."""
    at = first - 1
    if at > 0 and tokens[at].word == "-" and tokens[at].end == tokens[first].start:
        at -= 1
    if at < 0 or tokens[at].end != tokens[at + 1].start or not tokens[first].is_number:
        return first, ""
    word = tokens[at].word
    return (at, word.upper() + "-") if word.isalpha() and len(word) <= 3 else (first, "")


def _said(tokens: Tokens) -> Iterator[tuple[int, int, str]]:
    index = 0
    while index < len(tokens):
        digits, last = spoken_digits(tokens, index)
        if digits:
            yield index, last, digits
        index = max(last, index + 1)


def _runs(tokens: Tokens, marks: str) -> Iterator[tuple[int, int]]:
    """Stretches of digits and marks that begin and end with neither a mark but `+` and `(`."""
    first = None
    for index in range(len(tokens) + 1):
        token = tokens[index] if index < len(tokens) else None
        inside = token is not None and (token.is_number or token.word in marks)
        if inside and first is None and token and (token.is_number or token.word in "+("):
            first = index
        elif not inside and first is not None:
            last = index
            while last > first and not tokens[last - 1].is_number:
                last -= 1
            if last > first:
                yield first, last
            first = None


def _joined(tokens: Tokens, first: int, last: int) -> tuple[str, int]:
    return "".join(token.word for token in tokens[first:last] if token.is_number), last

"""Amounts of money: `{"amount": 12.5, "currency": "USD"}`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

from govor.entities.numbers import number_at, numbers
from govor.entities.tokens import Alone, Tokens

_CURRENCIES = {
    word: code
    for code, forms in {
        "USD": "$ dollar dollars usd buck bucks доллар доллара долларов доллару долларам баксов",
        "EUR": "€ euro euros eur евро",
        "GBP": "£ pound pounds gbp фунт фунта фунтов",
        "RUB": "₽ ruble rubles rouble roubles rub рубль рубля рублей рублю рублям рублях руб р",
    }.items()
    for word in forms.split()
}
_SIGNS = frozenset("$€£₽")
_CENTS = frozenset(
    "cent cents penny pence цент цента центов копейка копейки копеек копейку коп".split()
)
_AROUND = frozenset(
    "about around roughly just only exactly it is was s the amount for of no not actually sorry "
    "rather make i mean примерно около где то это на сумма всего ровно нет не а точнее вернее "
    "лучше извините простите".split()
)
BARE_CONFIDENCE = 0.5
"""Of a number without a currency, taken only when it is all that was said."""


def money(
    text: str, tokens: Tokens, language: str, today: date, prefer: str
) -> Iterator[tuple[int, int, Any, float]]:
    alone = Alone(tokens, _AROUND)
    for first, found in numbers(tokens):
        if found.ordinal:
            continue
        start, last, code = first, found.last, None
        if first and tokens[first - 1].word in _SIGNS:
            start, code = first - 1, _CURRENCIES[tokens[first - 1].word]
        elif last < len(tokens) and tokens[last].word in _CURRENCIES:
            code, last = _CURRENCIES[tokens[last].word], last + 1
            if last < len(tokens) and tokens[last].word == "." and tokens[last - 1].word == "руб":
                last += 1
        if code:
            cents, last = _cents(tokens, last)
            yield start, last, _amount(found.value + cents, code), 1.0
        elif alone(first, last):
            yield first, last, _amount(found.value, None), BARE_CONFIDENCE


def _cents(tokens: Tokens, index: int) -> tuple[float, int]:
    """As in "and fifty cents" behind an amount."""
    first = index + 1 if index < len(tokens) and tokens[index].word in ("and", "и") else index
    part = number_at(tokens, first)
    if part is None or part.last >= len(tokens) or tokens[part.last].word not in _CENTS:
        return 0.0, index
    return (part.value / 100, part.last + 1) if 0 <= part.value < 100 else (0.0, index)


def _amount(value: float, code: str | None) -> dict[str, Any]:
    rounded = round(value, 2)
    return {"amount": int(rounded) if rounded == int(rounded) else rounded, "currency": code}

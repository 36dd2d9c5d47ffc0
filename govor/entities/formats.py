"""Values as replies say them, in the language: `{money}` -> "12 dollars 50 cents"."""

from __future__ import annotations

from datetime import date
from typing import Any

_RU_MONTHS = (
    "января февраля марта апреля мая июня июля августа сентября октября ноября декабря".split()
)
_EN_MONTHS = (
    "January February March April May June July August September October November December".split()
)
_UNITS = {
    "USD": (("dollar", "dollars"), ("доллар", "доллара", "долларов")),
    "EUR": (("euro", "euros"), ("евро", "евро", "евро")),
    "GBP": (("pound", "pounds"), ("фунт", "фунта", "фунтов")),
    "RUB": (("ruble", "rubles"), ("рубль", "рубля", "рублей")),
}
_CENTS = {
    "USD": (("cent", "cents"), ("цент", "цента", "центов")),
    "EUR": (("cent", "cents"), ("цент", "цента", "центов")),
    "GBP": (("penny", "pence"), ("пенс", "пенса", "пенсов")),
    "RUB": (("kopeck", "kopecks"), ("копейка", "копейки", "копеек")),
}
_SPANS = (
    (86400, ("day", "days"), ("день", "дня", "дней")),
    (3600, ("hour", "hours"), ("час", "часа", "часов")),
    (60, ("minute", "minutes"), ("минута", "минуты", "минут")),
    (1, ("second", "seconds"), ("секунда", "секунды", "секунд")),
)


def format_value(value: Any, kind: str | None, language: str) -> str:
    """A slot's value as text. `kind`: money, date (or day), time, duration, number, digits, else
    as it is; nothing for a slot that is empty."""
    if value is None:
        return ""
    if kind == "money":
        return _money(value, language)
    if kind in ("date", "day"):
        return _date(str(value), language, with_year=kind == "date")
    if kind == "duration" and isinstance(value, int | float):
        return _duration(int(value), language)
    if kind in ("digits", "card"):
        return " ".join(str(value))
    if isinstance(value, bool):
        yes, no = ("да", "нет") if language == "ru" else ("yes", "no")
        return yes if value else no
    if isinstance(value, int | float):
        return _number(value, language)
    return str(value)


def counted(number: int, forms: tuple[str, ...], language: str) -> str:
    """As in "1 dollar", "5 dollars"; «1 рубль», «3 рубля», «5 рублей»."""
    if language == "ru":
        tail = abs(number) % 100
        few = 1 if 2 <= tail % 10 <= 4 else 2
        form = 2 if 11 <= tail <= 14 else 0 if tail % 10 == 1 else few
        return f"{_number(number, language)} {forms[form]}"
    return f"{_number(number, language)} {forms[0 if number == 1 else 1]}"


def _number(value: float, language: str) -> str:
    text = f"{value:,}" if isinstance(value, int) else f"{value:,.2f}".rstrip("0").rstrip(".")
    if language == "ru":
        whole, _, part = text.partition(".")
        text = whole.replace(",", " ") + ("," + part if part else "")
    return text


def _money(value: Any, language: str) -> str:
    amount = value.get("amount") if isinstance(value, dict) else value
    code = value.get("currency") if isinstance(value, dict) else None
    if not isinstance(amount, int | float):
        return str(value)
    if code not in _UNITS:
        return _number(amount, language) + (f" {code}" if code else "")
    at = 1 if language == "ru" else 0
    whole, cents = divmod(round(abs(amount) * 100), 100)
    text = "-" * (amount < 0) + counted(whole, _UNITS[code][at], language)
    return f"{text} {counted(cents, _CENTS[code][at], language)}" if cents else text


def _date(value: str, language: str, *, with_year: bool) -> str:
    try:
        day = date.fromisoformat(value)
    except ValueError:
        return value
    months = _RU_MONTHS if language == "ru" else _EN_MONTHS
    name = f"{day.day} {months[day.month - 1]}"
    if language == "ru":
        return f"{name} {day.year} года" if with_year else name
    return f"{name} {day.year}" if with_year else name


def _duration(seconds: int, language: str) -> str:
    parts = []
    for size, english, russian in _SPANS:
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(counted(count, russian if language == "ru" else english, language))
    return " ".join(parts)

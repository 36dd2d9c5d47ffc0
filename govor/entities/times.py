"""Times of day (`"06:30"`) and durations (seconds)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

from govor.entities.numbers import NUMBER_WORDS, Number, number_at
from govor.entities.tokens import Tokens

_Time = tuple[int, int, int] | None
"""Hour, minute, token after the last."""

_PM = frozenset("pm вечера дня".split())
_AM = frozenset("am утра ночи".split())
_HOURS = frozenset("час часа часов часу".split())
_MINUTES = frozenset("минут минуты минута минуту minutes minute".split())
_NAMED = {"noon": 12, "midday": 12, "полдень": 12, "midnight": 0, "полночь": 0}
_HALF_OF = {
    f"пол{hour}": number - 1
    for number, hour in enumerate(
        "первого второго третьего четвертого пятого шестого седьмого восьмого девятого десятого "
        "одиннадцатого двенадцатого".split(),
        1,
    )
}
_SECONDS = {
    word: seconds
    for seconds, forms in {
        1: "second seconds секунда секунды секунд секунду",
        60: "minute minutes min минута минуты минут минуту мин",
        3600: "hour hours час часа часов",
        86400: "day days день дня дней сутки суток",
        604800: "week weeks неделя недели недель неделю",
        2592000: "month months месяц месяца месяцев",
        31536000: "year years год года лет",
    }.items()
    for word in forms.split()
}
_STARTS = frozenset(
    {"a", "half", "quarter", "без", "половина", "половине", "половину", "четверть", *NUMBER_WORDS}
).union(_NAMED, _HALF_OF)
"""What a time can begin with, beside digits."""
_HALVES = {"полчаса": 1800, "полгода": 15768000, "полдня": 43200}


def times(
    text: str, tokens: Tokens, language: str, today: date, prefer: str
) -> Iterator[tuple[int, int, Any, float]]:
    index = 0
    while index < len(tokens):
        if not (tokens[index].is_number or tokens[index].word in _STARTS):
            index += 1
            continue
        found = _clock(tokens, index) or _phrase(tokens, index) or _hour(tokens, index)
        if found is None:
            index += 1
            continue
        hour, minute, last = _half_of_day(tokens, found)
        yield index, last, f"{hour:02d}:{minute:02d}", 1.0
        index = last


def _word(tokens: Tokens, index: int) -> str:
    return tokens[index].word if 0 <= index < len(tokens) else ""


def _whole(tokens: Tokens, index: int, most: int) -> Number | None:
    number = number_at(tokens, index)
    if number and number.value == int(number.value) and 0 <= number.value <= most:
        return number
    return None


def _clock(tokens: Tokens, first: int) -> _Time:
    """14:30."""
    hour, mark, minute = (_word(tokens, first + i) for i in range(3))
    if mark != ":" or not (hour.isdecimal() and minute.isdecimal() and len(minute) == 2):
        return None
    if len(hour) > 2 or int(hour) > 23 or int(minute) > 59:
        return None
    return int(hour), int(minute), first + 3


def _phrase(tokens: Tokens, first: int) -> _Time:
    """As in "half past six", "quarter to seven", «в половине седьмого», «без четверти семь»."""
    word = _word(tokens, first)
    if word in _NAMED:
        return _NAMED[word], 0, first + 1
    if word in _HALF_OF:
        return _HALF_OF[word], 30, first + 1
    if word in ("половина", "половине", "половину", "четверть") and (
        hour := _whole(tokens, first + 1, 12)
    ):
        minute = 15 if word == "четверть" else 30
        return (int(hour.value) - 1) % 24, minute, hour.last
    if word == "без":
        return _before(tokens, first + 1, first + 1)
    at = first + (word == "a")
    minutes = {"half": Number(30, at + 1), "quarter": Number(15, at + 1)}.get(
        _word(tokens, at)
    ) or _whole(tokens, at, 59)
    if minutes is None:
        return None
    at = minutes.last + (_word(tokens, minutes.last) in _MINUTES)
    hour = _whole(tokens, at + 1, 12)
    if hour is None or _word(tokens, at) not in ("past", "to"):
        return None
    if _word(tokens, at) == "past":
        return int(hour.value), int(minutes.value), hour.last
    return (int(hour.value) - 1) % 24, 60 - int(minutes.value or 60), hour.last


def _before(tokens: Tokens, at: int, start: int) -> _Time:
    """After «без»: «четверти семь», «десяти минут семь»."""
    minutes = Number(15, at + 1) if _word(tokens, at) == "четверти" else _whole(tokens, at, 59)
    if minutes is None or not minutes.value:
        return None
    at = minutes.last + (_word(tokens, minutes.last) in _MINUTES)
    hour = _whole(tokens, at, 12)
    if hour is None:
        return None
    return (int(hour.value) - 1) % 24, 60 - int(minutes.value), hour.last


def _hour(tokens: Tokens, first: int) -> _Time:
    """As in "six o'clock", "2 pm", «семь часов тридцать минут», «в семь вечера»."""
    hour = _whole(tokens, first, 23)
    if hour is None or hour.ordinal:
        return None
    at, value = hour.last, int(hour.value)
    if tuple(_word(tokens, at + i) for i in range(3)) == ("o", "'", "clock"):
        return value, 0, at + 3
    if _word(tokens, at) in _HOURS:
        minute = _whole(tokens, at + 1, 59)
        if minute and _word(tokens, minute.last) in _MINUTES:
            return value, int(minute.value), minute.last + 1
        said = _word(tokens, first - 1) in ("в", "к", "до", "после", "с")
        return (value, 0, at + 1) if said or _word(tokens, at + 1) in _PM | _AM else None
    minute = _whole(tokens, at, 59)
    if minute and not minute.ordinal and _meridiem(tokens, minute.last):
        return value, int(minute.value), minute.last
    return (value, 0, at) if _meridiem(tokens, at) else None


def _meridiem(tokens: Tokens, at: int) -> int:
    """Tokens of "pm", "p.m." or «вечера» at a place; 0 when there is none."""
    if _word(tokens, at) in _PM | _AM:
        return 1
    if _word(tokens, at) in ("a", "p") and [_word(tokens, at + i) for i in (1, 2)] == [".", "m"]:
        return 4 if _word(tokens, at + 3) == "." else 3
    return 0


def _half_of_day(tokens: Tokens, found: tuple[int, int, int]) -> tuple[int, int, int]:
    hour, minute, at = found
    length = _meridiem(tokens, at)
    if not length or hour > 12:
        return found
    word = _word(tokens, at)
    if word in _PM or word == "p":
        return hour % 12 + 12, minute, at + length
    return hour % 12, minute, at + length


def durations(
    text: str, tokens: Tokens, language: str, today: date, prefer: str
) -> Iterator[tuple[int, int, Any, float]]:
    """Parts that follow one another add up; a month is 30 days, a year 365."""
    index = 0
    while index < len(tokens):
        seconds, last = 0.0, index
        while part := _part(tokens, last + (last > index and _word(tokens, last) in ("and", "и"))):
            seconds, last = seconds + part[0], part[1]
        if last > index:
            yield index, last, int(seconds) if seconds == int(seconds) else seconds, 1.0
        index = max(last, index + 1)


def _part(tokens: Tokens, first: int) -> tuple[float, int] | None:
    word = _word(tokens, first)
    if word in _HALVES:
        return _HALVES[word], first + 1
    if word == "half":
        at = first + 1 + (_word(tokens, first + 1) in ("a", "an"))
        unit = _SECONDS.get(_word(tokens, at))
        return (unit / 2, at + 1) if unit else None
    number = Number(1, first + 1) if word in ("a", "an") else number_at(tokens, first)
    if number is None or number.ordinal:
        return None
    unit = _SECONDS.get(_word(tokens, number.last))
    return (number.value * unit, number.last + 1) if unit else None

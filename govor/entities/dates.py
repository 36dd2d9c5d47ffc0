"""Dates, to ISO 8601: "third of August", «третьего августа», 12.08, "next Friday", «завтра».

A date without a year is in the current one, or in the last or next that `prefer` says. In
12.08.2026 the day comes first, in 08/12/2026 the month does when the language is English. "Next
Friday" is the first Friday after today.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

from govor.entities.numbers import NUMBER_WORDS, Number, number_at
from govor.entities.tokens import Tokens

_EN_MONTHS = (
    "january jan|february feb|march mar|april apr|may|june jun|july jul|august aug|"
    "september sep sept|october oct|november nov|december dec"
)
_RU_MONTHS = (
    "январь января янв|февраль февраля фев|март марта мар|апрель апреля апр|май мая|июнь июня|"
    "июль июля|август августа авг|сентябрь сентября сен|октябрь октября окт|ноябрь ноября ноя|"
    "декабрь декабря дек"
)
_MONTHS = {
    word: number
    for table in (_EN_MONTHS, _RU_MONTHS)
    for number, forms in enumerate(table.split("|"), 1)
    for word in forms.split()
}
_WEEKDAYS = {
    word: number
    for table in (
        "monday mondays|tuesday|wednesday|thursday|friday|saturday|sunday",
        "понедельник понедельника понедельнику|вторник вторника вторнику|среда среду среды среде|"
        "четверг четверга четвергу|пятница пятницу пятницы пятнице|"
        "суббота субботу субботы субботе|воскресенье воскресенья воскресенью",
    )
    for number, forms in enumerate(table.split("|"))
    for word in forms.split()
}
_RELATIVE = {
    tuple(phrase.split()): days
    for days, phrases in {
        -2: "day before yesterday|the day before yesterday|позавчера",
        -1: "yesterday|вчера",
        0: "today|сегодня",
        1: "tomorrow|tmrw|завтра",
        2: "day after tomorrow|the day after tomorrow|послезавтра",
    }.items()
    for phrase in phrases.split("|")
}
_LAST = frozenset("last прошлый прошлую прошлое прошлой прошлого".split())
_NEXT = frozenset("next следующий следующую следующее следующей следующего".split())
_THIS = frozenset("this этот эту это ближайший ближайшую".split())
_UNITS = {
    word: days
    for days, forms in {
        1: "day days день дня дней",
        7: "week weeks неделя неделю недели недель",
        30: "month months месяц месяца месяцев",
    }.items()
    for word in forms.split()
}
_STARTS = frozenset(
    {"in", "через", "a", "an", "the", *(phrase[0] for phrase in _RELATIVE), *NUMBER_WORDS}.union(
        _MONTHS, _WEEKDAYS, _LAST, _NEXT, _THIS, _UNITS
    )
)
"""What a date can begin with, beside digits: most words are passed over at one look-up."""
_YEAR_WORDS = frozenset("год года году г".split())


def dates(
    text: str, tokens: Tokens, language: str, today: date, prefer: str
) -> Iterator[tuple[int, int, Any, float]]:
    index = 0
    while index < len(tokens):
        if not (tokens[index].is_number or tokens[index].word in _STARTS):
            index += 1
            continue
        found = (
            _relative(tokens, index, today)
            or _distance(tokens, index, today)
            or _weekday(tokens, index, today)
            or _written(tokens, index, language, today, prefer)
            or _spoken(tokens, index, today, prefer)
        )
        if found is None:
            index += 1
            continue
        day, last = found
        yield index, last, day.isoformat(), 1.0
        index = last


_Day = tuple[date, int] | None


def _word(tokens: Tokens, index: int) -> str:
    return tokens[index].word if 0 <= index < len(tokens) else ""


def _relative(tokens: Tokens, first: int, today: date) -> _Day:
    for length in (4, 3, 2, 1):
        parts = tuple(token.word for token in tokens[first : first + length])
        if len(parts) == length and parts in _RELATIVE:
            return _plus(today, _RELATIVE[parts], first + length)
    return None


def _plus(today: date, days: float, last: int) -> _Day:
    try:
        return today + timedelta(days=days), last
    except OverflowError:
        return None


def _distance(tokens: Tokens, first: int, today: date) -> _Day:
    """As in "in three days", "two weeks ago", «через неделю», «три дня назад»."""
    ahead = _word(tokens, first) in ("in", "через")
    start = first + ahead
    if _word(tokens, start) in ("a", "an"):
        number = Number(1, start + 1)
    elif _word(tokens, start) in _UNITS:
        number = Number(1, start)
    elif (found := number_at(tokens, start)) and not found.ordinal and found.last > start:
        number = found
    else:
        return None
    days = _UNITS.get(_word(tokens, number.last))
    back = _word(tokens, number.last + 1) in ("ago", "назад")
    if days is None or ahead == back:
        return None
    return _plus(today, (1 if ahead else -1) * days * number.value, number.last + 1 + back)


def _weekday(tokens: Tokens, first: int, today: date) -> _Day:
    index, back = first, False
    while index - first < 2 and _word(tokens, index) in _LAST | _NEXT | _THIS:
        back = back or _word(tokens, index) in _LAST
        index += 1
    day = _WEEKDAYS.get(_word(tokens, index))
    if day is None:
        return None
    ahead = (day - today.weekday() - 1) % 7 + 1
    return _plus(today, ahead - 7 - 7 * (ahead == 7) if back else ahead, index + 1)


def _written(tokens: Tokens, first: int, language: str, today: date, prefer: str) -> _Day:
    """12.08, 12.08.2026, 12/08/26, 2026-08-12: digits and one mark between, no spaces."""
    mark = _word(tokens, first + 1)
    if not tokens[first].is_number or mark not in (".", "/", "-"):
        return None
    parts, index = [tokens[first].word], first + 1
    while len(parts) < 3 and _word(tokens, index) == mark and index + 1 < len(tokens):
        if not tokens[index + 1].is_number or tokens[index - 1].end != tokens[index].start:
            break
        if tokens[index].end != tokens[index + 1].start:
            break
        parts.append(tokens[index + 1].word)
        index += 2
    numbers = [int(part) for part in parts if len(part) <= 4]
    if len(numbers) != len(parts):
        return None
    if len(parts) == 3 and len(parts[0]) == 4:
        return _day(numbers[2], numbers[1], numbers[0], today, prefer, index)
    if len(parts) == 2 and (mark == "-" or len(parts[1]) != 2):
        return None
    if len(parts) == 3 and len(parts[2]) not in (2, 4):
        return None
    if len(parts) == 1 or max(map(len, parts[:2])) > 2:
        return None
    day, month = numbers[:2]
    if (mark == "/" and language == "en" and day <= 12) or month > 12:
        day, month = month, day
    year = _full_year(parts[2]) if len(parts) == 3 else None
    return _day(day, month, year, today, prefer, index)


def _full_year(text: str) -> int:
    """98 is 1998, 26 is 2026: two digits reach 30 years ahead of 2000."""
    year = int(text)
    return year if len(text) > 2 else year + (2000 if year <= 30 else 1900)


def _spoken(tokens: Tokens, first: int, today: date, prefer: str) -> _Day:
    """A day and a month's name, in either order, and a year."""
    start = first + (_word(tokens, first) == "the")
    month = _MONTHS.get(_word(tokens, start))
    if month:
        at = start + 1 + (_word(tokens, start + 1) in ("the", "."))
        day = number_at(tokens, at)
        if day is None or not 1 <= day.value <= 31 or _year_like(tokens, at, day):
            return None
        last = day.last
    else:
        day = number_at(tokens, start)
        if day is None or not 1 <= day.value <= 31:
            return None
        at = day.last + (_word(tokens, day.last) == "of")
        month = _MONTHS.get(_word(tokens, at))
        last = at + 1
    if month is None or day.value != int(day.value):
        return None
    year, last = _year(tokens, last)
    return _day(int(day.value), month, year, today, prefer, last)


def _year_like(tokens: Tokens, at: int, number: Number) -> bool:
    """As in "May two thousand" has no day."""
    return number.digits and len(tokens[at].word) > 2 and not number.ordinal


def _year(tokens: Tokens, index: int) -> tuple[int | None, int]:
    at = index + (_word(tokens, index) == ",")
    number = number_at(tokens, at)
    if number is None or number.value != int(number.value):
        return None, index
    value, last = int(number.value), number.last
    if value in (19, 20) and not number.digits:
        part = number_at(tokens, last)
        if part is None or not 10 <= part.value <= 99:
            return None, index
        value, last = value * 100 + int(part.value), part.last
    if not 1900 <= value <= 2100:
        return None, index
    return value, last + (_word(tokens, last) in _YEAR_WORDS)


def _day(day: int, month: int, year: int | None, today: date, prefer: str, last: int) -> _Day:
    try:
        if year is not None:
            return date(year, month, day), last
        found = _in_year(today.year, month, day)
        if prefer == "past" and found > today:
            found = _in_year(today.year - 1, month, day)
        elif prefer == "future" and found < today:
            found = _in_year(today.year + 1, month, day)
    except ValueError:
        return None
    return found, last


def _in_year(year: int, month: int, day: int) -> date:
    """29 February without a year is in the next leap year."""
    while (month, day) == (2, 29) and (year % 4 or (not year % 100 and year % 400)):
        year += 1
    return date(year, month, day)

"""Figures become words before an engine sees them, so that every engine reads them alike.

Dates, times, money, percentages, ordinals and numbers; anything else is left as it is.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from datetime import date

from num2words import num2words

_MONTHS_EN = "January February March April May June July August September October November December"
_MONTHS_RU = "января февраля марта апреля мая июня июля августа сентября октября ноября декабря"
MONTHS = {"en": _MONTHS_EN.split(), "ru": _MONTHS_RU.split()}
# One, few, many: the three forms that a Russian noun takes after a number; English uses the first
# and the last.
UNITS: dict[str, dict[str, tuple[str, str, str, str]]] = {
    "en": {
        "$": ("dollar", "dollars", "dollars", "m"),
        "€": ("euro", "euros", "euros", "m"),
        "£": ("pound", "pounds", "pounds", "m"),
        "₽": ("rouble", "roubles", "roubles", "m"),
        "%": ("per cent", "per cent", "per cent", "m"),
        "¢": ("cent", "cents", "cents", "m"),
        "kopeck": ("kopeck", "kopecks", "kopecks", "f"),
    },
    "ru": {
        "$": ("доллар", "доллара", "долларов", "m"),
        "€": ("евро", "евро", "евро", "m"),
        "£": ("фунт", "фунта", "фунтов", "m"),
        "₽": ("рубль", "рубля", "рублей", "m"),
        "%": ("процент", "процента", "процентов", "m"),
        "¢": ("цент", "цента", "центов", "m"),
        "kopeck": ("копейка", "копейки", "копеек", "f"),
    },
}
HUNDREDTHS = {"$": "¢", "€": "¢", "£": "", "₽": "kopeck"}

# Thousands in groups, which are then marked as Python marks them, 1_500_000. One comma is a decimal
# point in Russian; spaced groups that begin with + or go on with other digits are a telephone's.
_COMMAS = r"(?<![\d.,])\d{{1,3}}(?:,\d{{3}}){{{},}}(?!,?\d)"
_SPACES = r"(?<![\d.,+])(?<!\d )\d{1,3}(?: \d{3}){2,}(?![ -]?\d)"
_THOUSANDS = {
    "en": re.compile(f"{_COMMAS.format(1)}|{_SPACES}"),
    "ru": re.compile(f"{_COMMAS.format(2)}|{_SPACES}"),
}
_MARKED = r"\d{1,3}(?:_\d{3})+"
_NUMBER = rf"(?:{_MARKED}|\d{{1,3}}(?: \d{{3}})+|\d+)(?:[.,]\d+)?"
_AMOUNT = re.compile(
    rf"(?P<before>[$€£₽])\s?(?P<a>{_NUMBER})(?!\d)"
    rf"|(?<![\d.,])(?P<b>{_NUMBER})\s?(?P<after>[$€£₽%](?!\d)|руб(?:лей|ля|ль|\.)?(?!\w))"
)
_ISO = re.compile(r"\b(\d{4})-(\d{2})-(\d{2})\b")
_DOTTED = re.compile(r"\b(\d{1,2})\.(\d{1,2})\.(\d{4})\b")
_TIME = re.compile(r"\b([01]?\d|2[0-3]):([0-5]\d)\b")
_DAY_MONTH = {
    "en": re.compile(rf"\b(\d{{1,2}})(?:st|nd|rd|th)? ({'|'.join(MONTHS['en'])})\b", re.I),
    "ru": re.compile(rf"\b(\d{{1,2}})(?:-?го)? ({'|'.join(MONTHS['ru'])})\b", re.I),
}
_MONTH_DAY = re.compile(rf"\b({'|'.join(MONTHS['en'])}) (\d{{1,2}})(?:st|nd|rd|th)?\b", re.I)
_ORDINAL = {
    "en": re.compile(rf"\b({_MARKED}|\d{{1,6}})(?:st|nd|rd|th)\b", re.I),
    "ru": re.compile(rf"\b({_MARKED}|\d{{1,6}})-(й|я|е|го|му|м|ю|ой)\b"),
}
_RUSSIAN_ENDINGS = {
    "й": ("n", "m"),
    "я": ("n", "f"),
    "е": ("n", "n"),
    "го": ("g", "m"),
    "му": ("d", "m"),
    "м": ("p", "m"),
    "ю": ("a", "f"),
    "ой": ("g", "f"),
}
_PLAIN = re.compile(rf"(?<![\w.,])-?(?:{_NUMBER})(?!\w|[.,]\d)")
DIGIT_BY_DIGIT = 7
"""Numbers of this many digits and more, unless in thousands, are those of things (orders,
telephones): read singly."""
LONGEST = 15
"""Figures, before and after the point, of the longest number with a name: a float holds them."""
POINT = {"en": "point", "ru": "запятая"}


def spoken(text: str, language: str) -> str:
    """The text as it is to be read aloud in `language` (`en` or `ru`; another is left as it is)."""
    text = _readable(text)
    if language not in MONTHS:
        return text
    text = _THOUSANDS[language].sub(lambda match: re.sub("[ ,]", "_", match[0]), text)
    rules: list[tuple[re.Pattern[str], Callable[[re.Match[str], str], str]]] = [
        (_ISO, lambda m, lang: _date(int(m[1]), int(m[2]), int(m[3]), lang) or m[0]),
        (_DOTTED, lambda m, lang: _date(int(m[3]), int(m[2]), int(m[1]), lang) or m[0]),
        (_TIME, lambda m, lang: _time(int(m[1]), int(m[2]), lang)),
        (_AMOUNT, _amount),
        (_DAY_MONTH[language], lambda m, lang: _day_month(int(m[1]), m[2], lang)),
        (_ORDINAL[language], _ordinal),
        (_PLAIN, lambda m, lang: _number(m[0], lang)),
    ]
    if language == "en":
        rules.insert(4, (_MONTH_DAY, lambda m, lang: _day_month(int(m[2]), m[1], lang)))
    for pattern, words in rules:
        text = pattern.sub(lambda match, words=words: words(match, language), text)  # type: ignore[misc]
    return text


def _readable(text: str) -> str:
    """Without emoji, other symbols that are not read, and control characters."""
    kept = (
        " " if unicodedata.category(c) in {"So", "Sk", "Cc", "Cf", "Co", "Cs", "Zl", "Zp"} else c
        for c in text
    )
    return " ".join("".join(kept).split())


def _date(year: int, month: int, day: int, language: str) -> str | None:
    try:
        date(year, month, day)
    except ValueError:
        return None
    head = _day_month(day, MONTHS[language][month - 1], language)
    if language == "en":
        return f"{head}, {num2words(year, lang='en', to='year')}"
    return f"{head} {num2words(year, lang='ru', to='ordinal', case='g')} года"


def _day_month(day: int, month: str, language: str) -> str:
    if language == "en":
        return f"{month} {num2words(day, lang='en', to='ordinal')}"
    return f"{num2words(day, lang='ru', to='ordinal', case='g', gender='n')} {month}"


def _time(hour: int, minute: int, language: str) -> str:
    if language == "ru":
        hours, minutes = num2words(hour, lang="ru"), num2words(minute, lang="ru", gender="f")
        if minute == 0:
            return f"{hours} {_form(hour, ('час', 'часа', 'часов'))}"
        return f"{hours} {'ноль ' if minute < 10 else ''}{minutes}"
    if minute == 0:
        return f"{num2words(hour)} o'clock" if 1 <= hour <= 12 else f"{num2words(hour)} hundred"
    return f"{num2words(hour)} {'oh ' if minute < 10 else ''}{num2words(minute)}"


def _amount(match: re.Match[str], language: str) -> str:
    figures = match["a"] or match["b"]
    sign = match["before"] or match["after"]
    sign = "₽" if sign.startswith("руб") else sign
    whole, _, part = re.sub("[ _]", "", figures).replace(",", ".").partition(".")
    if len(whole) > LONGEST:
        return f"{_one_by_one(whole, language)} {UNITS[language][sign][2]}"
    smaller = HUNDREDTHS.get(sign)
    if part and smaller is not None and len(part) == 2:
        tail = _counted(int(part), smaller, language) if int(part) else ""
        return f"{_counted(int(whole), sign, language)} {tail}".strip()
    if part:
        fraction = UNITS[language][sign][1]
        return f"{_number(f'{whole}.{part}', language)} {fraction}"
    return _counted(int(whole), sign, language)


def _counted(count: int, unit: str, language: str) -> str:
    if not unit:
        return str(num2words(count, lang=language))
    one, few, many, gender = UNITS[language][unit]
    if language == "ru":
        noun = _form(count, (one, few, many))
        return f"{num2words(count, lang='ru', gender=gender)} {noun}"
    return f"{num2words(count)} {one if count == 1 else many}"


def _form(count: int, forms: tuple[str, str, str]) -> str:
    if count % 100 in range(11, 15):
        return forms[2]
    return forms[0] if count % 10 == 1 else forms[1] if count % 10 in (2, 3, 4) else forms[2]


def _ordinal(match: re.Match[str], language: str) -> str:
    if language == "en":
        return str(num2words(int(match[1]), to="ordinal"))
    case, gender = _RUSSIAN_ENDINGS[match[2]]
    return str(num2words(int(match[1]), lang="ru", to="ordinal", case=case, gender=gender))


def _number(figures: str, language: str) -> str:
    marked = "_" in figures
    figures = re.sub("[ _]", "", figures).replace(",", ".")
    digits = figures.lstrip("-")
    whole, _, part = digits.partition(".")
    if len(digits) > LONGEST or part.startswith("0000"):  # a float of that is printed as 1e-05
        return _one_by_one(digits, language)
    singly = len(whole) >= DIGIT_BY_DIGIT and not marked
    if not part and (singly or whole[0] == "0" != whole):
        return _one_by_one(digits, language)
    if language == "en" and not part and not marked and 1100 <= int(whole) <= 2099:
        return str(num2words(int(figures), to="year"))
    return str(num2words(float(figures) if part else int(figures), lang=language))


def _one_by_one(figures: str, language: str) -> str:
    return " ".join(
        POINT[language] if each == "." else num2words(int(each), lang=language) for each in figures
    )

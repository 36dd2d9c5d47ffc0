"""Numbers as people write and say them: cardinals, ordinals, decimals; English and Russian.

`number_at` reads one number at a place of a token list; other resolvers build on it. Words of both
languages are always known: they do not collide.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from govor.entities.tokens import Tokens

MAX_DIGITS = 15
"""Longer runs of digits are codes, not amounts."""


class Number(NamedTuple):
    """A number read up to token `last` (exclusive). `digits` when it was written in digits."""

    value: int | float
    last: int
    ordinal: bool = False
    digits: bool = False


def _english() -> tuple[dict[str, int], dict[str, int]]:
    ones = (
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
        "fifteen sixteen seventeen eighteen nineteen"
    ).split()
    tens = "twenty thirty forty fifty sixty seventy eighty ninety".split()
    cardinal = {word: value for value, word in enumerate(ones)}
    cardinal |= {word: 10 * value for value, word in enumerate(tens, 2)}
    irregular = {1: "first", 2: "second", 3: "third", 5: "fifth", 8: "eighth", 9: "ninth"}
    irregular[12] = "twelfth"
    ordinal = {}
    for word, value in cardinal.items():
        regular = word[:-1] + "ieth" if word.endswith("y") else word + "th"
        ordinal[irregular.get(value, regular)] = value
    return cardinal, ordinal | {"hundredth": 100, "thousandth": 1000}


def _russian() -> tuple[dict[str, int], dict[str, int]]:
    cardinal = {
        word: value
        for value, forms in {
            0: "ноль нуль ноля нуля нолю нулю",
            1: "один одна одно одного одной одному одним одном одну",
            2: "два две двух двум двумя",
            3: "три трех трем тремя",
            4: "четыре четырех четырем четырьмя",
            8: "восемь восьми восемью восьмью",
            40: "сорок сорока",
            50: "пятьдесят пятидесяти пятьюдесятью",
            60: "шестьдесят шестидесяти шестьюдесятью",
            70: "семьдесят семидесяти семьюдесятью",
            80: "восемьдесят восьмидесяти восемьюдесятью",
            90: "девяносто девяноста",
            100: "сто ста",
            200: "двести двухсот двумстам двумястами двухстах",
            300: "триста трехсот тремстам тремястами трехстах",
            400: "четыреста четырехсот четыремстам четырьмястами четырехстах",
        }.items()
        for word in forms.split()
    }
    soft = {5: "пять", 6: "шесть", 7: "семь", 9: "девять", 10: "десять", 20: "двадцать"}
    soft |= {30: "тридцать"}
    teens = "один две три четыр пят шест сем восем девят".split()
    soft |= {11 + i: f"{stem}надцать" for i, stem in enumerate(teens)}
    for value, word in soft.items():
        cardinal |= {word[:-1] + ending: value for ending in ("ь", "и", "ью")}
    for value, (plain, oblique) in {
        5: ("пять", "пяти"),
        6: ("шесть", "шести"),
        7: ("семь", "семи"),
        8: ("восемь", "восьми"),
        9: ("девять", "девяти"),
    }.items():
        cardinal |= {plain + "сот": 100 * value, oblique + "сот": 100 * value}
        cardinal |= {oblique + "стам": 100 * value, oblique + "стах": 100 * value}
    return cardinal, _russian_ordinals()


def _russian_ordinals() -> dict[str, int]:
    stems = {
        0: "нулев", 1: "перв", 2: "втор", 4: "четверт", 5: "пят", 6: "шест", 7: "седьм",
        8: "восьм", 9: "девят", 10: "десят", 11: "одиннадцат", 12: "двенадцат",
        13: "тринадцат", 14: "четырнадцат", 15: "пятнадцат", 16: "шестнадцат",
        17: "семнадцат", 18: "восемнадцат", 19: "девятнадцат", 20: "двадцат", 30: "тридцат",
        40: "сороков", 50: "пятидесят", 60: "шестидесят", 70: "семидесят", 80: "восьмидесят",
        90: "девяност", 100: "сот", 200: "двухсот", 500: "пятисот", 900: "девятисот",
        1000: "тысячн", 2000: "двухтысячн",
    }  # fmt: skip
    endings = "ый ой ая ое ые ого ому ым ом ую ых ыми".split()
    ordinal = {stem + ending: value for value, stem in stems.items() for ending in endings}
    third = "ий ья ье ьи ьего ьему ьим ьем ьей ью ьих ьими".split()
    return ordinal | {"трет" + ending: 3 for ending in third}


_CARDINAL, _ORDINAL = (a | b for a, b in zip(_english(), _russian(), strict=True))
_SCALES = {
    word: value
    for value, forms in {
        1000: "thousand thousands тысяча тысячи тысяч тысячу тысяче тысячам тысячей тысячами тыс",
        10**6: "million millions миллион миллиона миллионов миллиону миллионам млн",
        10**9: "billion billions миллиард миллиарда миллиардов млрд",
    }.items()
    for word in forms.split()
}
NUMBER_WORDS = frozenset({*_CARDINAL, *_ORDINAL, *_SCALES, "hundred", "полтора", "полторы"})
"""What a number in words begins with."""
_SUFFIXES = frozenset("st nd rd th й я е го му м ую ая ый ой ого ому".split())
_ONE_AND_A_HALF = frozenset(("полтора", "полторы"))
_LINKS = frozenset(("and", "-"))
_TENTHS = {"десятых": 10, "десятая": 10, "сотых": 100, "сотая": 100}


def number_at(tokens: Tokens, first: int) -> Number | None:
    """The longest number that starts at token `first`."""
    if first >= len(tokens):
        return None
    if first not in tokens.numbers:
        tokens.numbers[first] = _read(tokens, first)
    number: Number | None = tokens.numbers[first]
    return number


def _read(tokens: Tokens, first: int) -> Number | None:
    token = tokens[first]
    if token.is_number:
        return _digits(tokens, first)
    if token.word in _ONE_AND_A_HALF:
        return _scaled(tokens, Number(1.5, first + 1))
    if token.word in _CARDINAL or token.word in _ORDINAL or token.word in _SCALES:
        return _fraction(tokens, _words(tokens, first))
    if token.word == "hundred":
        return _words(tokens, first)
    return None


def adjacent(tokens: Tokens, index: int) -> bool:
    """Does token `index` follow the one before without a space?"""
    return 0 < index < len(tokens) and tokens[index].start == tokens[index - 1].end


def _word(tokens: Tokens, index: int) -> str:
    return tokens[index].word if index < len(tokens) else ""


def _digits(tokens: Tokens, first: int) -> Number | None:
    """12 · 1,234.50 · 1 234,50 · 12.5 · 3rd · 3-го · 5 тысяч."""
    text, last = tokens[first].word, first + 1
    if len(text) > MAX_DIGITS:
        return None
    while len(text) <= 3 * 4 and _thousands(tokens, last, len(tokens[first].word)):
        group = last + 1 if _word(tokens, last) == "," else last
        text, last = text + tokens[group].word, group + 1
    if _word(tokens, last) in (".", ",") and adjacent(tokens, last) and adjacent(tokens, last + 1):
        part = tokens[last + 1].word
        if tokens[last + 1].is_number and len(part) <= MAX_DIGITS:
            return _scaled(tokens, Number(float(f"{text}.{part}"), last + 2, digits=True))
    suffix = last + 1 if _word(tokens, last) == "-" and adjacent(tokens, last) else last
    if _word(tokens, suffix) in _SUFFIXES and adjacent(tokens, suffix):
        return Number(int(text), suffix + 1, ordinal=True, digits=True)
    return _scaled(tokens, Number(int(text), last, digits=True))


def _thousands(tokens: Tokens, index: int, leading: int) -> bool:
    """Three more digits after a comma or one space, behind at most three."""
    if leading > 3 or index >= len(tokens):
        return False
    if tokens[index].word == ",":
        if not (adjacent(tokens, index) and adjacent(tokens, index + 1)):
            return False
        index += 1
    elif tokens[index].start != tokens[index - 1].end + 1:
        return False
    return index < len(tokens) and tokens[index].is_number and len(tokens[index].word) == 3


def _scaled(tokens: Tokens, number: Number) -> Number:
    """As in "5 тысяч", "2.5 million"."""
    scale = _SCALES.get(_word(tokens, number.last))
    if scale is None:
        return number
    value = number.value * scale
    whole = int(value) if float(value).is_integer() else value
    return Number(whole, number.last + 1, digits=number.digits)


def _words(tokens: Tokens, first: int) -> Number:
    """A cardinal or ordinal in words: every part is smaller than the room the last one left."""
    total, group, room, limit, index = 0, 0, 1000, 10**12, first
    last, ordinal = first, False
    while index < len(tokens):
        word = tokens[index].word
        if word in _LINKS and index > first and last == index:
            index += 1
            continue
        if word in _SCALES and _SCALES[word] < limit:
            limit = _SCALES[word]
            total, group, room = total + max(group, 1) * limit, 0, 1000
        elif word == "hundred" and group < 10:
            group, room = max(group, 1) * 100, 100
        elif (value := _CARDINAL.get(word, _ORDINAL.get(word))) is not None and value < room:
            if value == 0 and index > first:
                break
            group, room = group + value, _room(value)
            ordinal = word in _ORDINAL
        else:
            break
        index += 1
        last = index
        if ordinal:
            break
    return Number(total + group, last, ordinal=ordinal)


def _room(value: int) -> int:
    """What may still be added to a part: 20 leaves room for 1 to 9, 15 for nothing."""
    if value >= 100:
        return 100
    return 10 if value >= 20 else 0


def _fraction(tokens: Tokens, number: Number) -> Number:
    """What follows: "point five", "and a half", «целых пять десятых», «с половиной»."""
    word, last = _word(tokens, number.last), number.last
    following = tuple(_word(tokens, last + i) for i in range(3))
    if following in (("and", "a", "half"),):
        return Number(number.value + 0.5, last + 3)
    if following[:2] == ("с", "половиной"):
        return _scaled(tokens, Number(number.value + 0.5, last + 2))
    if word == "point" and not number.ordinal:
        digits, index = "", last + 1
        while (digit := _CARDINAL.get(_word(tokens, index), 99)) < 10 and len(digits) < MAX_DIGITS:
            digits, index = digits + str(digit), index + 1
        if digits:
            return _scaled(tokens, Number(float(f"{number.value}.{digits}"), index))
    if word in ("целых", "целая", "целые") and last + 1 < len(tokens):
        part = _words(tokens, last + 1)
        over = _TENTHS.get(_word(tokens, part.last))
        if over and part.last > last + 1:
            return Number(number.value + part.value / over, part.last + 1)
    return number


def numbers(tokens: Tokens) -> Iterator[tuple[int, Number]]:
    """Every number with its first token, left to right, none inside another."""
    index = 0
    while index < len(tokens):
        number = number_at(tokens, index)
        if number is None or number.last <= index:
            index += 1
            continue
        yield index, number
        index = number.last


def spoken_digits(tokens: Tokens, first: int, most: int = 20) -> tuple[str, int]:
    """A run of digits, said one by one or in groups, or written: "four two 17" -> "4217"; with
    the token after it. Stops past `most` digits."""
    digits, index = "", first
    while index < len(tokens) and len(digits) <= most:
        token = tokens[index]
        value = _CARDINAL.get(token.word)
        if token.is_number:
            digits += token.word
        elif value is not None and value < 10:
            digits += str(value)
        elif token.word == "oh" and digits:
            digits += "0"
        elif value is not None and value < 100:
            unit = _CARDINAL.get(_word(tokens, index + 1), 99) if value >= 20 else 99
            digits += str(value + unit if 0 < unit < 10 else value)
            index += 0 < unit < 10
        else:
            break
        index += 1
    return digits, index

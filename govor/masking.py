"""What must not be stored: addresses and personal numbers, masked before a text reaches a table.

Own patterns, checksums and `phonenumbers`, for Russian and English. Names are not masked: finding
them is a model's work. Numbers that are short, or that no checksum or keyword gives away (orders,
years, sums, dates, times) are left, because a log without them is of no use.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from phonenumbers import Leniency, PhoneNumberMatcher

_DASH = "‐‑‒–—-"
_GAP = rf"[\s{_DASH}]"

_MONEY = r"(?:р\.|руб|₽|коп|тыс|млн|доллар|евро|usd|eur|rub|gbp|dollar|euro|pound|[$€£])"

# What may stand between a keyword and its number: "паспорт у меня серия 45 10", "phone number is".
_BETWEEN = (
    rf"(?:[\s:;,.№#()={_DASH}]|(?:number|no|nr|is|was|it's|its|my|the|of|me|at|on|back|"
    r"номер\w*|сери[яию]|это|мой|моя|мои|у|меня|вот|по|на|мне)\b){0,12}?"
)

# The end of a number: no further digit, and it is no sum of money.
_END = rf"(?!{_GAP}?\d)(?!\w)(?!\s*{_MONEY})"
_DATE = rf"(?!(?:\d{{4}}[{_DASH}]\d\d[{_DASH}]\d\d|\d\d?[{_DASH}]\d\d?[{_DASH}]\d{{4}})\b)"


def _digits(least: int, most: int) -> str:
    """From `least` to `most` digits, each perhaps after a space or a dash."""
    return rf"{_DATE}\d(?:{_GAP}?\d){{{least - 1},{most - 1}}}{_END}"


_KEYWORDS = {
    "document": (
        r"passport|паспорт\w*|инн|inn|снилс|snils|ssn|social security|полис\w*|"
        r"tax(?:payer)? id(?:entification)?|national insurance|(?:identity|id) card|"
        r"driver'?s? licen[cs]e|водительск\w+ (?:удостоверени\w+|прав\w*)",
        rf"(?:\d\d{_GAP}?\d\d{_GAP}*(?:номер|№)?{_GAP}*\d{{6}}{_END}|[A-Z]{{0,2}}{_digits(6, 14)}"
        r"|[A-Z]{2}(?:\s?\d\d){3}\s?[A-D]\b)",
    ),
    "account": (
        r"account|acct|iban|sort code|routing|(?:(?:расч[её]тн|лицев)\w+ )?сч[её]т(?:а|у|ом|е)?|"
        r"[рл]/с",
        _digits(6, 24),
    ),
    "card": (r"card|карт[аыуеой]+|cvv2?|cvc2?", _digits(12, 19)),
    "code": (r"cvv2?|cvc2?", r"\d{3,4}\b"),
    "phone": (
        r"phone|telephone|tel|mobile|cell|call|reach|whatsapp|тел|телефон\w*|моб\w*|"
        r"(?:пере|по)?звон\w+|[вуо]+[ао]тсап\w*",
        rf"\+?\(?{_digits(5, 15)}",
    ),
}
_KEYWORDED = [
    (re.compile(rf"\b((?:{keyword})\b{_BETWEEN}){number}", re.IGNORECASE), rf"\g<1>[{kind}]")
    for kind, (keyword, number) in _KEYWORDS.items()
]

_PATTERNS = [
    (re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+"), "[email]"),
    # Their own form gives them away: a СНИЛС, a US social security number, a Russian account.
    (re.compile(rf"(?<!\d)\d{{3}}-\d{{3}}-\d{{3}}[\s-]\d\d{_END}"), "[document]"),
    (re.compile(rf"(?<![\d-])\d{{3}}-\d\d-\d{{4}}{_END}"), "[document]"),
    (re.compile(rf"(?<!\d)\d{{20}}{_END}"), "[account]"),
    (re.compile(rf"(?<!\d)\d{{4}}(?:{_GAP}\d{{4}}){{3}}{_END}"), "[card]"),
]

# "john dot smith at gmail dot com", "a. b. c. собака яндекс точка ру"
_SPOKEN_EMAIL = re.compile(
    r"(?<![\w.])(?:\w\.? ){0,8}(?:[\w.]{1,64} (?:dot|dash|underscore|точка|дефис|тире) ){0,3}"
    r"[\w.]{1,64} (?:at|собака) [\w-]+(?: [\w-]+)? (?:dot|точка) "
    r"(?:com|net|org|ru|uk|de|io|ком|нет|орг|ру|рф)\b",
    re.IGNORECASE,
)
_IBAN = re.compile(r"\b[A-Z]{2}\d\d(?:\s?[A-Z0-9]{4}){2,7}(?:\s?[A-Z0-9]{1,3})?\b", re.A | re.I)
_CHAIN = re.compile(rf"(?<![\w.,])\d+(?:{_GAP}\d+)*(?!\w)")

_EN = (
    "zero|oh|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|"
    "fifteen|sixteen|seventeen|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|"
    "ninety|double|triple|dash"
)
_RU = (
    "ноль|нуль|один|одна|два|две|три|четыре|пять|шесть|семь|восемь|девять|десять|одиннадцать|"
    "двенадцать|тринадцать|четырнадцать|пятнадцать|шестнадцать|семнадцать|восемнадцать|"
    "девятнадцать|двадцать|тридцать|сорок|пятьдесят|шестьдесят|семьдесят|восемьдесят|девяносто|"
    "сто|двести|триста|четыреста|пятьсот|шестьсот|семьсот|восемьсот|девятьсот|тире|дефис"
)
_SPOKEN = re.compile(
    rf"\b(?:(?:plus|плюс) )?(?:{_EN}|{_RU})(?:[\s,.{_DASH}]+(?:{_EN}|{_RU})){{5,}}\b"
    r"|(?<![\d.,])\d(?:\s\d){5,}(?![\d.,]\d|\d)",
    re.IGNORECASE,
)
_LONG = re.compile(r"(?:\d\D{0,3}){7}")


def mask(text: str) -> str:
    """The text with each address and personal number replaced by its kind: `[email]`, `[phone]`,
    `[card]`, `[account]`, `[document]`, `[code]`, `[number]` (spoken digits, six words or more).
    """
    for pattern, kind in _PATTERNS:
        text = pattern.sub(kind, text)
    if " dot " in text or " точка " in text:  # three quarters of the time a text takes
        text = _SPOKEN_EMAIL.sub("[email]", text)
    if any(map(str.isdigit, text)):
        text = _IBAN.sub(lambda found: "[account]" if _is_iban(found[0]) else found[0], text)
        text = _CHAIN.sub(lambda found: _mask_cards(found[0]), text)
        for keyworded, kept in _KEYWORDED:
            text = keyworded.sub(kept, text)
        if _LONG.search(text):
            text = _mask_phones(text)
    return _SPOKEN.sub("[number]", text)


def _is_iban(text: str) -> bool:
    """ISO 7064 mod 97-10, letters counting from 10 (ISO 13616)."""
    compact = re.sub(r"\s", "", text).upper()
    return int("".join(str(int(c, 36)) for c in compact[4:] + compact[:4])) % 97 == 1


def _is_card(digits: str) -> bool:
    """13 to 19 digits of a payment network, with Luhn's check digit (ISO/IEC 7812)."""
    if not 13 <= len(digits) <= 19 or digits[0] not in "23456":
        return False
    doubled = (int(d) * (1 + i % 2) for i, d in enumerate(reversed(digits)))
    return sum(d // 10 + d % 10 for d in doubled) % 10 == 0


def _mask_cards(chain: str) -> str:
    """A chain of digit groups, with those neighbours masked that make up a card: it may be followed
    by its expiry, or come after another number."""
    groups = list(re.finditer(r"\d+", chain))
    kept, copied, first = [], 0, 0
    while first < len(groups):
        last = _card_end(groups, first)
        if last is None:
            first += 1
            continue
        kept += [chain[copied : groups[first].start()], "[card]"]
        copied, first = groups[last].end(), last + 1
    return "".join(kept) + chain[copied:]


def _card_end(groups: list[re.Match[str]], first: int) -> int | None:
    """The last group of the longest card that begins with the group `first`."""
    digits, found = "", None
    for last, group in enumerate(groups[first : first + 19], first):
        digits += group[0]
        if len(digits) > 19:
            break
        if _is_card(digits):
            found = last
    return found


def _mask_phones(text: str) -> str:
    money = re.compile(rf"\s*{_MONEY}", re.IGNORECASE)
    for region in ("RU", "US", "GB"):
        for start, end in reversed(list(_phones(text, region))):
            if not money.match(text, end):
                text = f"{text[:start]}[phone]{text[end:]}"
    return text


def _phones(text: str, region: str) -> Iterator[tuple[int, int]]:
    for found in PhoneNumberMatcher(text, region, leniency=Leniency.VALID):
        yield found.start, found.end

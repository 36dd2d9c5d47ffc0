"""Surfaces that stand for a resolver in samples and speech grammars: few, all kinds, spoken."""

from __future__ import annotations

from datetime import date

EXAMPLE_DAY = date(2026, 1, 15)
"""The day on which the examples' values are read, so that samples do not change overnight."""

EXAMPLES: dict[str, dict[str, tuple[str, ...]]] = {
    "number": {
        "en": ("one", "two", "three", "five", "ten", "twenty five", "a hundred", "7", "12.5"),
        "ru": ("один", "два", "три", "пять", "десять", "двадцать пять", "сто", "7", "12,5"),
    },
    "ordinal": {
        "en": ("first", "second", "third", "twenty first", "3rd"),
        "ru": ("первый", "второй", "третий", "двадцать первый", "3-й"),
    },
    "date": {
        "en": (
            "third of august", "august twelfth", "the first of may", "march twenty first",
            "december fifth", "july fourth nineteen ninety", "tomorrow", "next friday",
            "two days ago", "12.08", "August 3, 1990",
        ),
        "ru": (
            "третьего августа", "двенадцатое августа", "первого мая", "двадцать первое марта",
            "пятого декабря", "четвертого июля тысяча девятьсот девяностого года", "завтра",
            "следующую пятницу", "два дня назад", "12.08", "3 августа 1990",
        ),
    },
    "time": {
        "en": ("half past six", "seven o'clock", "two pm", "quarter to nine", "14:30"),
        "ru": ("половине седьмого", "семь часов вечера", "без четверти девять", "14:30"),
    },
    "duration": {
        "en": ("three days", "two hours", "half an hour", "a week", "10 minutes"),
        "ru": ("три дня", "два часа", "полчаса", "одну неделю", "10 минут"),
    },
    "money": {
        "en": (
            "five hundred dollars", "twelve point five dollars", "twenty euros", "ten pounds",
            "fifty dollars", "$30", "$12.50",
        ),
        "ru": (
            "пятьсот рублей", "тысячу рублей", "двадцать евро", "сто долларов",
            "две тысячи рублей", "300 руб", "1500 рублей",
        ),
    },
    "email": {
        "en": ("anna at example dot com", "john@example.com"),
        "ru": ("anna собака example точка ru", "ivan@example.ru"),
    },
    "telephone": {
        "en": ("+1 212 555 0123", "(212) 555-0199"),
        "ru": ("+7 912 345-67-89", "8 912 345 67 89"),
    },
    "order_number": {
        "en": ("four two one seven five", "one zero three eight eight", "12345", "#90210"),
        "ru": ("четыре два один семь пять", "один ноль три восемь восемь", "12345", "№90210"),
    },
    "card": {
        "en": ("four two four two", "one one eight nine", "4242", "4242 4242 4242 4242"),
        "ru": ("четыре два четыре два", "один один восемь девять", "4242", "4242 4242 4242 4242"),
    },
    "yes_no": {"en": ("yes", "yeah", "no", "nope"), "ru": ("да", "ага", "нет", "не надо")},
}  # fmt: skip

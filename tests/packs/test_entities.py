"""Entities in text: what people say and write, to values."""

from __future__ import annotations

import re
import time
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from govor.entities import RESOLVERS, EntityFinder, format_value

TODAY = date(2026, 11, 21)  # a Saturday
SIGNS = {"cancer": {"en": ["cancer"]}, "leo": {"en": ["leo", "lion"], "ru": ["лев", "льва"]}}
SIGNS |= {"sagittarius": {"en": ["sagittarius"]}, "week": {"en": ["the coming week"]}}
PIECES = re.findall(
    r"\S+",
    "leo 1 12 , . : - + @ $ % half past two hundred third august of the 29 february 0 № без "
    "четверти через дня пять тысяч рублей 99999999999999999 point a.b@c.d ²",
)


def finder(*resolvers: str, **more: Any) -> EntityFinder:
    entities = [{"name": name, "resolver": name} | more for name in resolvers]
    return EntityFinder({"entities": entities}, today=lambda: TODAY)


def lists(**more: Any) -> EntityFinder:
    entity = {"name": "sign", "values": SIGNS, "fuzzy": 1}
    return EntityFinder({"entities": [entity], "vocabulary": ["cancel", "coming"], **more})


def values(found: EntityFinder, text: str, language: str) -> list[Any]:
    return [item.value for item in found.find(text, language)]


@pytest.mark.parametrize(
    ("resolver", "language", "text", "value", "surface"),
    [
        ("number", "en", "two hundred and fifty one thousand three", 251_003, None),
        ("number", "en", "I want 1,234.50 of them", 1234.5, "1,234.50"),
        ("number", "en", "twelve point five", 12.5, None),
        ("number", "en", "two and a half", 2.5, None),
        ("number", "ru", "две тысячи пятьсот сорок один", 2541, None),
        ("number", "ru", "около 1 234,5 метров", 1234.5, "1 234,5"),
        ("number", "ru", "полторы тысячи", 1500, None),
        ("number", "ru", "двенадцать целых пять десятых", 12.5, None),
        ("number", "ru", "сорока", 40, None),
        ("ordinal", "en", "the twenty first one", 21, "twenty first"),
        ("ordinal", "en", "3rd", 3, None),
        ("ordinal", "ru", "двадцать третьего", 23, None),
        ("ordinal", "ru", "5-й этаж", 5, "5-й"),
        ("date", "en", "third of August", "2026-08-03", None),
        ("date", "en", "born on August 3, 1990.", "1990-08-03", "August 3, 1990"),
        ("date", "en", "july fourth nineteen ninety five", "1995-07-04", None),
        ("date", "en", "the 29th of february", "2028-02-29", None),
        ("date", "en", "12/08/2026", "2026-12-08", None),
        ("date", "en", "2026-12-08", "2026-12-08", None),
        ("date", "en", "next friday", "2026-11-27", None),
        ("date", "en", "last saturday", "2026-11-14", None),
        ("date", "en", "the day after tomorrow", "2026-11-23", None),
        ("date", "en", "in three weeks", "2026-12-12", None),
        ("date", "en", "two days ago", "2026-11-19", None),
        ("date", "ru", "третьего августа", "2026-08-03", None),
        ("date", "ru", "12.08", "2026-08-12", None),
        ("date", "ru", "12.08.98", "1998-08-12", None),
        ("date", "ru", "завтра", "2026-11-22", None),
        ("date", "ru", "послезавтра", "2026-11-23", None),
        ("date", "ru", "через неделю", "2026-11-28", None),
        ("date", "ru", "в прошлую пятницу", "2026-11-20", "прошлую пятницу"),
        ("date", "ru", "3-го мая тысяча девятьсот девяностого года", "1990-05-03", None),
        ("time", "en", "at half past six", "06:30", "half past six"),
        ("time", "en", "ten to seven", "06:50", None),
        ("time", "en", "2:30 p.m.", "14:30", None),
        ("time", "en", "twelve am", "00:00", None),
        ("time", "en", "seven o'clock", "07:00", None),
        ("time", "ru", "в половине седьмого", "06:30", "половине седьмого"),
        ("time", "ru", "полседьмого", "06:30", None),
        ("time", "ru", "без четверти семь", "06:45", None),
        ("time", "ru", "в семь вечера", "19:00", "семь вечера"),
        ("time", "ru", "семь часов тридцать минут", "07:30", None),
        ("duration", "en", "half an hour", 1800, None),
        ("duration", "en", "2 hours and 30 minutes", 9000, None),
        ("duration", "ru", "полтора часа", 5400, None),
        ("duration", "ru", "три дня", 259_200, None),
        ("money", "en", "twelve point five dollars", {"amount": 12.5, "currency": "USD"}, None),
        ("money", "en", "$1,234.50", {"amount": 1234.5, "currency": "USD"}, None),
        ("money", "en", "ten pounds and 5 pence", {"amount": 10.05, "currency": "GBP"}, None),
        ("money", "en", "about five hundred", {"amount": 500, "currency": None}, "five hundred"),
        ("money", "ru", "пятьсот рублей", {"amount": 500, "currency": "RUB"}, None),
        ("money", "ru", "1 500 руб. 20 копеек", {"amount": 1500.2, "currency": "RUB"}, None),
        ("email", "en", "mail A.b@Ex.com now", "a.b@ex.com", "A.b@Ex.com"),
        ("email", "ru", "anna собака example точка ru", "anna@example.ru", None),
        ("telephone", "ru", "звоните 8 (912) 345-67-89", "+79123456789", "8 (912) 345-67-89"),
        ("telephone", "en", "+44 20 7946 0958", "+442079460958", None),
        ("order_number", "en", "my order AB-1234", "AB-1234", "AB-1234"),
        ("order_number", "en", "order four two one seven five", "42175", "four two one seven five"),
        ("order_number", "ru", "заказ №12345", "12345", "№12345"),
        ("card", "en", "it is 4242 4242 4242 4242", "4242", "4242 4242 4242 4242"),
        ("card", "ru", "заканчивается на четыре два четыре два", "4242", "четыре два четыре два"),
        ("yes_no", "en", "that's right, go on", "yes", "that's right"),
        ("yes_no", "ru", "да, конечно", "yes", "да"),
        ("yes_no", "ru", "не надо", "no", None),
    ],
)
def test_resolvers(
    resolver: str, language: str, text: str, value: Any, surface: str | None
) -> None:
    (found,) = finder(resolver).find(text, language)
    assert found.value == value
    assert text[found.start : found.end] == (surface or text)


@pytest.mark.parametrize(
    ("resolver", "text"),
    [
        ("date", "31.02"),
        ("date", "the may queen"),
        ("date", "version 3.11.7 is out"),
        ("time", "25:00"),
        ("time", "we were six"),
        ("card", "4242 4242 4242 4243"),
        ("telephone", "order 12345"),
        ("yes_no", "I would say no"),
        ("money", "there were five of us"),
        ("order_number", "two tickets"),
    ],
)
def test_what_they_leave_alone(resolver: str, text: str) -> None:
    assert finder(resolver).find(text, "en") == []


def test_a_date_without_a_year_is_where_the_pack_prefers_it() -> None:
    assert values(finder("date", prefer="past"), "5 december", "en") == ["2025-12-05"]
    assert values(finder("date", prefer="future"), "5 may", "en") == ["2027-05-05"]


def test_lists_forgive_one_mistake_but_not_in_known_or_short_words() -> None:
    found = lists().find("sagitarius", "en")
    assert [(f.value, f.confidence) for f in found] == [("sagittarius", 0.9)]
    assert values(lists(), "canecr", "en") == ["cancer"]
    assert values(lists(), "cancel", "en") == []
    assert values(lists(), "lio", "en") == []
    assert values(lists(), "ЛЬВА и ♌ leo's", "ru") == ["leo", "leo"]
    assert values(lists(), "the comming week", "en") == ["week"]


def test_the_longer_of_two_wins_then_the_first_of_the_pack() -> None:
    spec = {
        "entities": [
            {"name": "day", "values": {"tomorrow": {"en": ["tomorrow"]}}},
            {"name": "date", "resolver": "date"},
        ]
    }
    found = EntityFinder(spec, today=lambda: TODAY)
    assert [f.entity for f in found.find("tomorrow", "en")] == ["day"]
    assert [f.entity for f in found.find("the day after tomorrow", "en")] == ["date"]


def test_patterns_pass_their_check() -> None:
    spec = {
        "entities": [
            {
                "name": "iban",
                "pattern": r"\b[A-Z]{2}\d{2}(?: ?[A-Z\d]{4}){2,7}(?: ?[A-Z\d]{1,3})?\b",
                "check": "iban",
            }
        ]
    }
    text = "to GB82 WEST 1234 5698 7654 32 please"
    (found,) = EntityFinder(spec).find(text, "en")
    assert text[found.start : found.end] == "GB82 WEST 1234 5698 7654 32"
    assert EntityFinder(spec).find(text.replace("82", "83"), "en") == []


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.text(max_size=200),
        st.lists(
            st.sampled_from(PIECES),
            max_size=30,
        ).map(" ".join),
    ),
    st.sampled_from(["en", "ru"]),
)
def test_any_text_is_survived_and_offsets_slice_back(text: str, language: str) -> None:
    all_of_them = EntityFinder(
        {
            "entities": [
                {"name": "sign", "values": SIGNS, "fuzzy": 1},
                *({"name": name, "resolver": name} for name in RESOLVERS),
            ]
        },
        today=lambda: TODAY,
    )
    end = 0
    for found in all_of_them.find(text, language):
        assert end <= found.start < found.end <= len(text)
        surface = text[found.start : found.end]
        assert surface == surface.strip()
        end = found.end


@pytest.mark.parametrize(
    "piece", ["a ", "1", "1 ", "$1 ", "1/1/", "a@", "+1", "№1", "x" * 50 + " "]
)
def test_time_grows_with_the_length_and_no_faster(piece: str) -> None:
    """4,000 characters take 20-50 ms on a busy machine; a quadratic step would take seconds."""
    found = finder(*RESOLVERS)
    text = (piece * 4000)[:4000]

    def cost(text: str) -> float:
        started = time.thread_time()
        found.find(text, "en")
        return time.thread_time() - started

    short, long = cost(text[:1000]), cost(text)
    for _ in range(20):  # the least of each: what else runs on the core costs time as well
        if long < max(8 * short, 0.02):
            break
        short, long = min(short, cost(text[:1000])), min(long, cost(text))
    assert long < max(8 * short, 0.02)


@pytest.mark.parametrize(
    ("value", "kind", "english", "russian"),
    [
        (
            {"amount": 12.5, "currency": "USD"},
            "money",
            "12 dollars 50 cents",
            "12 долларов 50 центов",
        ),
        ({"amount": 1, "currency": "RUB"}, "money", "1 ruble", "1 рубль"),
        ({"amount": -1023, "currency": "RUB"}, "money", "-1,023 rubles", "-1 023 рубля"),
        ({"amount": 7, "currency": None}, "money", "7", "7"),
        ("2026-08-03", "date", "3 August 2026", "3 августа 2026 года"),
        ("2026-08-03", "day", "3 August", "3 августа"),
        (9000, "duration", "2 hours 30 minutes", "2 часа 30 минут"),
        ("4242", "digits", "4 2 4 2", "4 2 4 2"),
        (1234.5, "number", "1,234.5", "1 234,5"),
        (True, None, "yes", "да"),
        (None, "money", "", ""),
        ("anything", "date", "anything", "anything"),
    ],
)
def test_values_in_replies(value: Any, kind: str | None, english: str, russian: str) -> None:
    assert format_value(value, kind, "en") == english
    assert format_value(value, kind, "ru") == russian

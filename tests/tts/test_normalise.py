"""services/tts/normalise.py"""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.tts.normalise import spoken


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("a refund of $12.50", "a refund of twelve dollars fifty cents"),
        ("$1,250", "one thousand, two hundred and fifty dollars"),
        ("on 2026-08-03 at 18:05", "on August third, twenty twenty-six at eighteen oh five"),
        ("March 21 to April 19", "March twenty-first to April nineteenth"),
        ("the 3rd of 12", "the third of twelve"),
        ("order 12345678", "order one two three four five six seven eight"),
        ("100% sure 🙂", "one hundred per cent sure"),
        ("at 9:00", "at nine o'clock"),
        ("3.5 litres", "three point five litres"),
        ("1,500,000 stars", "one million, five hundred thousand stars"),
        ("-1 500 000", "minus one million, five hundred thousand"),
        ("$2,000,000.50", "two million dollars fifty cents"),
        ("2,000,000,000,000", "two trillion"),
        ("1,500, not 1500", "one thousand, five hundred, not fifteen hundred"),
        ("the 1,000th", "the one thousandth"),
        ("1500000", "one five zero zero zero zero zero"),
        ("8 800 555 35 35", "eight eight zero zero five five five thirty-five thirty-five"),
    ],
)
def test_english_figures_become_words(written: str, words: str) -> None:
    assert spoken(written, "en") == words


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("Возврат 1 250,50 ₽", "Возврат одна тысяча двести пятьдесят рублей пятьдесят копеек"),
        ("3 августа", "третьего августа"),
        ("03.08.2026", "третьего августа две тысячи двадцать шестого года"),
        ("21%", "двадцать один процент"),
        ("в 18:05", "в восемнадцать ноль пять"),
        ("с 5-го этажа", "с пятого этажа"),
        ("2 руб. сдачи", "два рубля сдачи"),
        ("1 500 000 звёзд", "один миллион пятьсот тысяч звёзд"),
        ("1,500,000", "один миллион пятьсот тысяч"),
        ("1 500 000 руб.", "один миллион пятьсот тысяч рублей"),
        ("заказ 1500000", "заказ один пять ноль ноль ноль ноль ноль"),
        ("+7 495 123 45 67", "+семь четыре девять пять один два три сорок пять шестьдесят семь"),
        ("1,5", "одна целая пять десятых"),
        ("31.02.2026", "31.02.2026"),
    ],
)
def test_russian_figures_become_words(written: str, words: str) -> None:
    assert spoken(written, "ru") == words


@given(st.text(max_size=300), st.sampled_from(["en", "ru", "de"]))
def test_any_text_can_be_read(text: str, language: str) -> None:
    assert "\n" not in spoken(text, language)


@given(
    st.from_regex(r"-?[0-9]{1,400}([.,][0-9]{1,400})?", fullmatch=True),
    st.sampled_from(["{}", "${}", "{} ₽", "{}%"]),
    st.sampled_from(["en", "ru"]),
)
@example("9" * 3999, "${}", "en")
@example("0.00001", "{}", "ru")
@example("5" * 400 + ".5", "{}%", "ru")
def test_no_number_is_too_long_or_too_small(figures: str, form: str, language: str) -> None:
    assert spoken(form.format(figures), language)


@given(st.integers(0, 10**30), st.sampled_from(["en", "ru"]))
def test_no_figure_is_left(number: int, language: str) -> None:
    assert not any(c.isdigit() for c in spoken(str(number), language))

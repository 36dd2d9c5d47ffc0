"""What is masked, and what is left, in Russian and English."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from govor.masking import mask

MASKED = {
    # addresses
    "write to john.doe+bot@mail.example.com please": "write to [email] please",
    "почта ivan@пример.рф, жду": "почта [email], жду",
    "john dot smith at gmail dot com": "[email]",
    "send it to a. b. c. at gmail dot com": "send it to [email]",
    "пишите иван собака яндекс точка ру": "пишите [email]",
    # telephones
    "call me at +1 650 253 0000 please": "call me at [phone] please",
    "my number is (650) 253-0000.": "my number is [phone].",
    "it's 020 7946 0958 in London": "it's [phone] in London",
    "мой номер 8 (916) 123-45-67, звоните": "мой номер [phone], звоните",
    "+7 495 123 45 67": "[phone]",
    "89161234567 это мой": "[phone] это мой",
    "телефон 123-45-67": "телефон [phone]",
    "перезвоните мне на 55512": "перезвоните мне на [phone]",
    # cards
    "card 4242 4242 4242 4242 12/27 cvv 123": "card [card] 12/27 cvv [code]",
    "4000-0566-5566-5556": "[card]",
    "карта 2200 7007 1234 5678": "карта [card]",
    "378282246310005": "[card]",
    "order 5 4242424242424242": "order 5 [card]",
    "номер карты 4242424242424241": "номер карты [card]",
    # accounts
    "IBAN DE89 3704 0044 0532 0130 00": "IBAN [account]",
    "gb29nwbk60161331926819 is mine": "[account] is mine",
    "счёт 40817810099910004312": "счёт [account]",
    "my account number is 12345678": "my account number is [account]",
    "с лицевого счета 1234567": "с лицевого счета [account]",
    # documents
    "паспорт 4510 123456": "паспорт [document]",
    "паспорт серия 45 10 номер 123456": "паспорт серия [document]",
    "паспорт у меня 45 10 123456": "паспорт у меня [document]",
    "passport number is AB1234567": "passport number is [document]",
    "ИНН 7707083893": "ИНН [document]",
    "мой инн: 500100732259": "мой инн: [document]",
    "СНИЛС 112-233-445 95": "СНИЛС [document]",
    "112-233-445 95": "[document]",
    "my SSN is 078-05-1120": "my SSN is [document]",
    "social security number 078051120": "social security number [document]",
    "водительское удостоверение 77 16 123456": "водительское удостоверение [document]",
    # spoken
    "four two four two four two four two": "[number]",
    "it is four, two, four, two, double one okay": "it is [number] okay",
    "четыре два четыре два четыре два четыре два": "[number]",
    "плюс семь девятьсот шестнадцать сто двадцать три сорок пять шестьдесят семь": "[number]",
    "4 2 4 2 4 2 4 2": "[number]",
}

LEFT = [
    "my order is 12345678",
    "номер заказа 987654",
    "order AB-1234567 from 2024",
    "born in 1984, moved in 2010",
    "2026-08-03 at 12:30:15",
    "12.08.2026 15:30",
    "03/08/2026",
    "паспорт я получил 12.05.2010",
    "my passport expires in 2027",
    "it costs 1,250,000 dollars",
    "перевёл на счёт 1500000 рублей",
    "перевёл на счёт 1 500 000 руб.",
    "бюджет 2 125 550 000 рублей",
    "$4155552671",
    "pay 12.50 USD by card",
    "the card ending in 4242",
    "у меня 2 карты и 3 счёта",
    "tracking 9400110200881234567890",
    "call me at 10 30",
    "позвоните после 18:00",
    "в 22:35, рейс 1234",
    "twenty two thirty five",
    "one hundred and twenty three thousand dollars",
    "сто двадцать три рубля сорок пять копеек",
    "двадцать пятого августа две тысячи двадцать шестого года",
    "room 101, floor 12",
    "3.14159265358979",
    "version 1.2.3.4",
    "I am on 192.168.1.1",
    "",
]


@pytest.mark.parametrize(("text", "masked"), MASKED.items())
def test_personal_numbers_and_addresses_are_masked(text: str, masked: str) -> None:
    assert mask(text) == masked


@pytest.mark.parametrize("text", LEFT)
def test_other_numbers_are_left(text: str) -> None:
    assert mask(text) == text


TOKENS = st.sampled_from(
    [*"0123456789+-(),.:@ \n²٣a\u212a", "+7", "4242", "phone", "счёт", "карта", "[card]"]
)
WORDS = st.sampled_from(
    ["one", "два", "паспорт", "at", "dot", "com", "number", "руб", "GB29", "cvv"]
)


@given(st.lists(TOKENS | WORDS, max_size=40), st.sampled_from(["", " "]))
def test_what_is_masked_stays_as_it_is(pieces: list[str], between: str) -> None:
    once = mask(between.join(pieces))
    assert mask(once) == once


def test_letters_that_only_fold_to_latin_are_no_iban() -> None:
    text = "GB29 \u212a\u212a\u212a\u212a 1234 1234"  # the Kelvin sign
    assert mask(text) == text


@pytest.mark.parametrize(
    "piece", ["1 ", "12-", "1 234 567 ", "phone ", "a.", "a@b.", "DE89 ", "+1 650 ", "a dot "]
)
@pytest.mark.timeout(60)
def test_the_longest_text_takes_no_long_time(piece: str) -> None:
    mask(piece * (4000 // len(piece)))  # quadratic patterns took minutes

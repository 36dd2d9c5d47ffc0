"""services/generator/reading.py, with the packs of the repository"""

from __future__ import annotations

import pytest

from govor.config import Settings
from services.generator.reading import Reader, reader_of

DECLARED = {"language": ["en", "ru"], "sign": ["leo", "virgo"], "day": ["today", "tomorrow"]}


@pytest.fixture(scope="module")
def reader() -> Reader:
    return reader_of(Settings().domains_folder / "horoscope")


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("what is up for a leo tomorrow", {"language": "en", "sign": "leo", "day": "tomorrow"}),
        ("чего ждать деве", {"language": "ru", "sign": "virgo"}),
        ("I was born on the third of August", {"language": "en", "sign": "leo"}),
        ("I am an aries", {"language": "en"}),
        ("hello", {"language": "en"}),
        ("", {"language": "en"}),
    ],
)
def test_a_text_names_fields(reader: Reader, text: str, fields: dict[str, str]) -> None:
    assert reader.fields(text, DECLARED, None) == fields


def test_the_language_may_be_given(reader: Reader) -> None:
    assert reader.fields("leo", DECLARED, "ru") == {"language": "ru", "sign": "leo"}


def test_a_version_without_a_language_is_told_none(reader: Reader) -> None:
    assert reader.fields("leo", {"sign": ["leo"]}, None) == {"sign": "leo"}

"""trainer/recipes/phrases.py and trainer/pronunciations.py"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from govor.config import Settings
from govor.domains import Pack, load_pack
from govor.repository import Repository
from trainer import pronunciations
from trainer.pronunciations import arpabet, pronounce, read_dictionary, write_dictionary
from trainer.recipes.phrases import of_pack, of_sentences, publish, run


@pytest.fixture(scope="module")
def support() -> Pack:
    return load_pack(Settings().domains_folder / "support")


@pytest.mark.parametrize(
    ("ipa", "phones"),
    [
        ("həlˈoʊ", "HH AH L OW"),
        ("t‍ʃˈɜːt‍ʃ", "CH ER CH"),
        ("dˈɪd‍ʒəm", "D IH JH AH M"),
        ("prʲivʲˈet", "P R IY V EH T"),
        ("ɕˈuka", "SH UW K AA"),
        ("t‍sˈɑpɭʲʌ", "T S AA P L AH"),
        ("?", ""),
    ],
)
def test_ipa_becomes_arpabet(ipa: str, phones: str) -> None:
    assert arpabet(ipa) == phones


def test_known_words_are_looked_up_and_others_read() -> None:
    found = pronounce({"the", "pbx"}, "en", {"the": ["DH AH", "DH IY"]})
    assert found == {"the": ["DH AH", "DH IY"], "pbx": ["P IY B IY EH K S"]}


def test_a_word_that_nobody_can_say_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pronunciations, "_espeak", lambda words, language: [""] * len(words))
    with pytest.raises(ValueError, match="no pronunciation: xyz"):
        pronounce({"xyz"}, "en", {})


def test_a_dictionary_comes_back(tmp_path: Path) -> None:
    words = {"the": ["DH AH", "DH IY"], "don't": ["D OW N T"]}
    write_dictionary(words, tmp_path / "a.dict")
    assert read_dictionary(tmp_path / "a.dict") == words


def test_sentences_are_lower_case_words() -> None:
    phrases = of_sentences("few", ["Hello, World!", "hello world", "Press 5.", "Don't."])
    assert list(phrases.sentences) == ["don't", "hello world"]


def test_a_pack_brings_utterances_values_and_buttons(support: Pack) -> None:
    phrases = of_pack(support, "en")
    assert {"where is my order", "my order has not arrived", "yes"} <= set(phrases.sentences)
    assert "<order_number>" in phrases.grammar


def test_a_value_without_words_is_not_said() -> None:
    horoscope = load_pack(Settings().domains_folder / "horoscope")
    sentences = of_pack(horoscope, "en").sentences
    assert "it is leo" in sentences
    assert "it is" not in sentences  # it is ♌


def test_the_bundled_versions_are_the_same_each_time(support: Pack, tmp_path: Path) -> None:
    for name in ("one", "two"):
        run([support], tmp_path / name)
    one, two = (Repository(tmp_path / name, tmp_path / name) for name in ("one", "two"))
    for model in ("stt-en", "stt-ru"):
        assert one.open(model, 1).manifest.files == two.open(model, 1).manifest.files


def test_a_third_pack_is_published_beside_the_others(support: Pack, tmp_path: Path) -> None:
    run([support], tmp_path / "bundled")
    repository = Repository(tmp_path / "var", tmp_path / "bundled")
    third = support.model_copy(update={"name": "third", "languages": ("en",), "digest": "3"})
    told: list[dict[str, object]] = []
    (version,) = publish(third, repository, told.append)
    assert [event["model"] for event in told] == ["stt-en"]
    assert (version.model, version.number, version.manifest.parent) == ("stt-en", 2, 1)
    assert repository.deployment("stt-en").champion == 2
    assert repository.deployment("stt-ru").champion == 1
    files, before = version.manifest.files, repository.open("stt-en", 1).manifest.files
    assert {name: files[name] for name in before} == before
    assert files["third.fsg"] != ""
    assert set(version.manifest.params["domains"]) == {"support", "third"}
    shutil.rmtree(tmp_path / "bundled")

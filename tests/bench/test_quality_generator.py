"""What the generator's accuracy bars measure: they must fall when the weights are noise."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from bench.quality_generator import Drawn, distinct_2, draw, judge, noisy
from govor.config import Settings
from govor.repository import Repository, Version
from trainer.corpus import read_grammar

SETTINGS = Settings()
CORPUS = SETTINGS.domains_folder / "horoscope" / "corpus"


@pytest.fixture(scope="module")
def version() -> Version:
    """The bundled version, asked for two signs only: noise seldom ends, and so takes long."""
    opened = Repository(SETTINGS.bundled_folder, SETTINGS.bundled_folder).open("generator", 1)
    fields = opened.manifest.fields | {"sign": ["leo", "pisces"]}
    return replace(opened, manifest=opened.manifest.model_copy(update={"fields": fields}))


@pytest.fixture(scope="module")
def drawn(version: Version) -> list[Drawn]:
    return asyncio.run(draw(version, seeds=2))


def test_distinct_2_counts_pairs_within_texts() -> None:
    assert distinct_2(["One two. One two!", "one"]) == 2 / 3


@pytest.mark.parametrize("language", ["en", "ru"])
def test_the_bundled_weights_write_what_the_grammar_derives(
    version: Version, drawn: list[Drawn], language: str
) -> None:
    texts = [text for text in drawn if text.fields["language"] == language]
    copied = texts[0].text
    report = judge(texts, read_grammar(CORPUS, language), [copied])
    assert report.derivable >= 0.9
    assert report.faults == 0
    assert report.copies == 1


def test_shuffled_weights_write_noise(version: Version) -> None:
    pytest.importorskip("onnx", reason="the trainer extra is not installed")
    with noisy(version) as noise:
        texts = asyncio.run(draw(noise, seeds=1))
        english = [text for text in texts if text.fields["language"] == "en"]
        report = judge(english, read_grammar(CORPUS, "en"), [])
    assert report.derivable < 0.05
    assert report.faults > 0

"""services/nlu/backends/ngram.py, heads.py and trunk.py, on the bundled version."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import numpy as np
import pytest

from govor.domains import load_pack
from govor.errors import NotFound
from govor.repository import Version, VersionBroken, write_manifest
from govor.templates import pack_lists
from services.nlu import backends
from services.nlu.backends import Parsed
from services.nlu.backends.heads import Head

HOME = Path(__file__).resolve().parents[2]


def utterances(count: int) -> list[str]:
    """Utterances of the pack in both languages, with words that no training has seen."""
    pack, rng = load_pack(HOME / "domains" / "horoscope"), random.Random(1)
    lists = {language: pack_lists(pack, language) for language in pack.languages}
    templates = [(lang, t) for lang in pack.languages for _, t in pack.utterances(lang)]
    texts: list[str] = []
    while len(texts) < count:
        language, template = rng.choice(templates)
        extra = "".join(rng.choices("aeiou стра", k=rng.randrange(1, 60)))
        texts.append(f"{template.sample(rng, lists[language]).text} {extra}")
    return texts


def test_an_answer_does_not_depend_on_its_batch(bundled: Version) -> None:
    async def ask(batch: list[str], alone: bool) -> list[Parsed]:
        if alone:
            return [(await model.understand([text], "horoscope"))[0] for text in batch]
        return await model.understand(batch, "horoscope")

    model = backends.load(bundled, max_batch=32)
    texts, rng = utterances(500), random.Random(2)
    solo = dict(zip(texts, asyncio.run(ask(texts, alone=True)), strict=True))
    for _ in range(3):
        rng.shuffle(texts)
        start = 0
        while start < len(texts):
            batch = texts[start : start + rng.randrange(1, 40)]
            start += len(batch)
            for text, parsed in zip(batch, asyncio.run(ask(batch, alone=False)), strict=True):
                one = solo[text]
                assert parsed.out_of_scope == one.out_of_scope
                assert parsed.entities == one.entities
                assert [name for name, _ in parsed.ranking[:3]] == [n for n, _ in one.ranking[:3]]
                got, expected = [c for _, c in parsed.ranking], [c for _, c in one.ranking]
                np.testing.assert_allclose(got, expected, atol=1e-5)
    model.close()


def test_intent_entities_and_language_of_a_pack(bundled: Version) -> None:
    model = backends.load(bundled)
    texts = ["What do the stars say for leo tomorrow?", "гороскоп для льва на завтра"]
    found = asyncio.run(model.understand(texts, "horoscope"))
    model.close()
    assert [item.language for item in found] == ["en", "ru"]
    for text, item in zip(texts, found, strict=True):
        name, confidence = item.ranking[0]
        assert (name, item.out_of_scope) == ("horoscope", False)
        assert confidence > 0.5
        assert sum(c for _, c in item.ranking) <= 1 + 1e-6
        sign = next(entity for entity in item.entities if entity.entity == "sign")
        assert sign.value == "leo"
        assert text[sign.start : sign.end].lower() in ("leo", "льва")


@pytest.mark.parametrize(
    "text", ["how do I change the oil in my car", "сколько стоит билет до Казани", "", " ?!"]
)
def test_what_is_about_something_else_is_out_of_scope(bundled: Version, text: str) -> None:
    model = backends.load(bundled)
    (found,) = asyncio.run(model.understand([text], "horoscope"))
    model.close()
    assert found.out_of_scope


def test_unknown_domains_and_languages_are_refused(bundled: Version) -> None:
    model = backends.load(bundled)
    with pytest.raises(NotFound, match=r"trainer\.recipes\.intents --domain parking"):
        asyncio.run(model.understand(["hello"], "parking"))
    with pytest.raises(NotFound, match="not de"):
        asyncio.run(model.understand(["hello"], "horoscope", "de"))
    model.close()


def test_a_head_is_the_same_after_a_round_trip(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(3, 40)).astype(np.float32)
    head = Head(["a", "b"], ["en"], weights, np.zeros(3, np.float32), threshold=0.25)
    head.save(tmp_path, "x")
    again = Head.load(tmp_path, "x")
    assert (again.labels, again.languages, again.threshold) == (["a", "b"], ["en"], 0.25)
    np.testing.assert_allclose(again.weights, weights, atol=np.abs(weights).max() / 250)


def test_a_head_that_does_not_fit_is_a_broken_version(untrained: Path) -> None:
    head = Head(["a"], ["en"], np.zeros((3, 2000), np.float32), np.zeros(3, np.float32))
    head.save(untrained / "heads", "odd")
    manifest = write_manifest(
        untrained,
        model="nlu",
        version=1,
        backend="ngram",
        languages=["en"],
        recipe="test",
        licence="own",
    )
    with pytest.raises(VersionBroken, match="odd"):
        backends.load(Version("nlu", 1, untrained, manifest))
    (untrained / "heads/odd.json").unlink()
    (untrained / "heads/odd.safetensors").unlink()
    (untrained / "manifest.json").unlink()


def test_a_version_of_another_backend_is_refused(bundled: Version) -> None:
    other = bundled.manifest.model_copy(update={"backend": "encoder"})
    with pytest.raises(VersionBroken, match="no backend 'encoder'"):
        backends.load(Version("nlu", bundled.number, bundled.folder, other))

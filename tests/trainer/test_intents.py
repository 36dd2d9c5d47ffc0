"""trainer/recipes/intents.py, over an untrained trunk: TF-IDF alone tells these intents apart."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from govor.domains import load_pack
from govor.repository import Repository, Version
from services.nlu.backends.ngram import Ngram, domains_of
from trainer.recipes import intents
from trainer.recipes.intents import Labelled, Params

pytest.importorskip("sklearn", reason="the trainer's extra is not installed")

HOME = Path(__file__).resolve().parents[2]
QUICK = Params(samples=5, folds=2)


@pytest.fixture
def repository(bundled: Version, tmp_path: Path) -> Repository:
    return Repository(tmp_path / "models", bundled.folder.parents[1])


def rows() -> list[Labelled]:
    wants = {"park": "park my car near the {}", "pay": "pay the fine of the {}"}
    places = ["theatre", "museum", "harbour", "station", "hospital", "library", "school", "market"]
    return [
        Labelled(text.format(place), intent, place)
        for intent, text in wants.items()
        for place in places
    ]


def test_a_head_tells_its_intents_apart_and_the_background(bundled: Version) -> None:
    reader = intents.Reader(bundled.folder)
    others = intents.background(bundled.folder, ["en"])[:200]
    trained = intents.train(rows(), others, reader, ["en"], Params())
    assert trained.metrics["accuracy"] == 1
    assert trained.metrics["false_alarms"] <= 0.1
    assert trained.metrics["out_of_scope_recall"] > 0.9
    texts = ["pay the fine", "park my car near it", "how tall is the tallest tree in the world"]
    encoded = [reader.features.encode(text) for text in texts]
    pooled = reader.pooled(encoded)
    scores = np.stack([trained.head.scores(e, p) for e, p in zip(encoded, pooled, strict=True)])
    assert [trained.head.labels[i] for i in scores[:2, :-1].argmax(1)] == ["pay", "park"]
    assert (trained.head.margin(scores) >= trained.head.threshold).tolist() == [True, True, False]


def test_a_pack_of_one_intent_has_a_head_too(bundled: Version) -> None:
    one = [row for row in rows() if row.intent == "park"]
    others = intents.background(bundled.folder, ["en"])[:100]
    head = intents.train(one, others, intents.Reader(bundled.folder), ["en"], Params()).head
    assert head.labels == ["park"]
    assert head.weights.shape[0] == 2


def test_the_same_params_give_the_same_head(bundled: Version) -> None:
    reader = intents.Reader(bundled.folder)
    others = intents.background(bundled.folder, ["en"])[:100]
    first, second = (intents.train(rows(), others, reader, ["en"], Params()) for _ in range(2))
    np.testing.assert_array_equal(first.head.weights, second.head.weights)
    assert first.metrics == second.metrics


def test_calibration_error() -> None:
    confident = np.array([[0.9, 0.1]] * 10, np.float32)
    right = np.array([0] * 9 + [1])
    assert intents.calibration_error(confident, right) == pytest.approx(0, abs=1e-6)
    assert intents.calibration_error(confident, 1 - right) == pytest.approx(0.8)


def test_samples_cover_every_template_and_keep_spans_in_one_fold() -> None:
    pack = load_pack(HOME / "domains" / "horoscope")
    drawn = intents.prepare(pack, Params())
    templates = {f"{i} {t.text}" for lang in pack.languages for i, t in pack.utterances(lang)}
    assert {row.group for row in drawn} == templates
    assert {row.intent for row in drawn} == set(pack.intents)


def test_publishing_keeps_trunk_and_other_heads_bit_for_bit(
    repository: Repository, tmp_path: Path
) -> None:
    folder = tmp_path / "domains" / "stars"
    shutil.copytree(HOME / "domains" / "horoscope", folder)
    text = (folder / "domain.yaml").read_text(encoding="utf-8")
    (folder / "domain.yaml").write_text(text.replace("name: horoscope", "name: stars"), "utf-8")
    champion = repository.open("nlu", repository.deployment("nlu").champion or 0)
    told: list[dict[str, Any]] = []
    version = intents.publish(repository, load_pack(folder), record=told.append)
    assert [event["after"]["champion"] for event in told] == [version.number]
    assert repository.deployment("nlu").champion == version.number == champion.number + 1
    assert version.manifest.parent == champion.number
    assert "stars" in domains_of(version)
    assert set(domains_of(champion)) < set(domains_of(version))
    for name, expected in champion.manifest.files.items():
        assert version.manifest.files[name] == expected
    assert any(source.name == "pack stars" for source in version.manifest.datasets)
    Ngram(version).close()


def test_a_champion_that_changes_meanwhile_is_copied_again(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = load_pack(HOME / "domains" / "horoscope")
    run = intents.run
    between: list[Version] = []

    def interrupted(folder: Path, *rest: Any) -> dict[str, float]:
        if not between:
            with monkeypatch.context() as undisturbed:
                undisturbed.setattr(intents, "run", run)
                between.append(intents.publish(repository, pack, QUICK))
        return run(folder, *rest)

    monkeypatch.setattr(intents, "run", interrupted)
    version = intents.publish(repository, pack, QUICK)
    assert version.manifest.parent == between[0].number
    assert repository.deployment("nlu").champion == version.number

"""trainer/heads.py, over an untrained trunk: TF-IDF alone tells these intents apart."""

from __future__ import annotations

import numpy as np
import pytest

from govor.repository import Version
from trainer import heads
from trainer.datasets import Labelled
from trainer.heads import Params

pytest.importorskip("sklearn", reason="the trainer's extra is not installed")


def rows() -> list[Labelled]:
    wants = {"park": "park my car near the {}", "pay": "pay the fine of the {}"}
    places = ["theatre", "museum", "harbour", "station", "hospital", "library", "school", "market"]
    return [
        Labelled(text.format(place), intent, place)
        for intent, text in wants.items()
        for place in places
    ]


def test_a_head_tells_its_intents_apart_and_the_background(bundled: Version) -> None:
    reader = heads.Reader(bundled.folder)
    others = heads.background(bundled.folder, ["en"])[:200]
    trained = heads.train(rows(), others, reader, ["en"], Params())
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
    others = heads.background(bundled.folder, ["en"])[:100]
    head = heads.train(one, others, heads.Reader(bundled.folder), ["en"], Params()).head
    assert head.labels == ["park"]
    assert head.weights.shape[0] == 2


def test_the_same_params_give_the_same_head(bundled: Version) -> None:
    reader = heads.Reader(bundled.folder)
    others = heads.background(bundled.folder, ["en"])[:100]
    first, second = (heads.train(rows(), others, reader, ["en"], Params()) for _ in range(2))
    np.testing.assert_array_equal(first.head.weights, second.head.weights)
    assert first.metrics == second.metrics


def test_folds_are_told_with_their_held_out_loss(bundled: Version) -> None:
    told: list[tuple[int, float]] = []
    reader = heads.Reader(bundled.folder)
    others = heads.background(bundled.folder, ["en"])[:100]
    heads.train(rows(), others, reader, ["en"], Params(folds=3), lambda *said: told.append(said))
    assert [fold for fold, _ in told] == [1, 2, 3]
    assert all(0 <= loss < 1 for _, loss in told)


def test_calibration_error() -> None:
    confident = np.array([[0.9, 0.1]] * 10, np.float32)
    right = np.array([0] * 9 + [1])
    assert heads.calibration_error(confident, right) == pytest.approx(0, abs=1e-6)
    assert heads.calibration_error(confident, 1 - right) == pytest.approx(0.8)

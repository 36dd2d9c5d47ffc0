"""trainer/recipes/nlu_trunk.py, batches.py, network.py and utterances.py on a handful of rows."""

from __future__ import annotations

import random

import numpy as np
import pytest

from services.nlu.backends.features import Features
from services.nlu.backends.trunk import Trunk
from trainer.network import Shape
from trainer.utterances import Row, plain_row, tagged_row

torch = pytest.importorskip("torch", reason="the trainer's extra is not installed")

from trainer import batches, network  # noqa: E402
from trainer.recipes import nlu_trunk  # noqa: E402

TINY = Shape(embedding=16, width=24, inner=32, layers=1)


def rows() -> list[Row]:
    found = []
    for number, day in enumerate(["monday", "tuesday", "friday", "sunday"]):
        tokens = ["wake", "me", "on", day]
        tags = ["O", "O", "O", "B-date"]
        raw = {"id": number, "tokens": tokens, "tags": tags, "intent": "alarm_set"}
        found += [tagged_row("massive", raw)]
        raw |= {"tokens": ["разбуди", "меня", "в", day], "text": f"разбуди меня в {day}"}
        found += [tagged_row("massive", raw)]
        raw = {"id": f"c{number}", "text": f"what is {number} plus two"}
        found += [plain_row("clinc150", raw, ("calculator",))]
        raw = {"id": f"n{number}", "text": f"cancel my booking for {day}"}
        found += [plain_row("nlupp", raw, ("cancel", "booking"))]
    return found


def params(**changes: object) -> nlu_trunk.Params:
    fields: dict[str, object] = {"shape": TINY, "steps": 30, "batch": 8, "grams": 200}
    return nlu_trunk.Params.model_validate(fields | changes)


def test_a_tagged_row_passes_tags_on_to_the_parts_of_a_token() -> None:
    raw = {"id": 1, "tokens": ["the", "c.'s", "&"], "tags": ["O", "B-x", "I-x"], "intent": "i"}
    row = tagged_row("massive", raw)
    assert row.words == ("the", "c", "s")
    assert row.tags == ("O", "B-x", "I-x")


def test_training_learns_and_repeats_itself() -> None:
    prepared = nlu_trunk.prepare(rows(), params())
    still = {"twin_weight": 0.0, "noisy": 0.0, "swapped": 0.0}
    runs = [params(steps=steps, **still) for steps in (20, 300, 300)]
    losses = [nlu_trunk.train(prepared, run).loss for run in runs]
    assert losses[1] < losses[0]
    assert losses[1] == losses[2]


def test_intents_that_are_left_out_leave_no_trace() -> None:
    prepared = nlu_trunk.prepare(rows(), params(without=("nlupp/booking",)))
    assert "nlupp" not in prepared.tasks
    assert prepared.features.rows("booking")[0] == 1


def test_the_exported_trunk_computes_what_the_module_does(tmp_path) -> None:  # type: ignore[no-untyped-def]
    prepared = nlu_trunk.prepare(rows(), params())
    trained = nlu_trunk.train(prepared, params())
    middle = nlu_trunk.centre(trained, 1)
    network.export(trained.trunk, middle, tmp_path / "trunk.onnx")
    texts = [" ".join(row.words) for row in rows()]
    reads = Trunk(tmp_path / "trunk.onnx").read([prepared.features.encode(t) for t in texts])
    with torch.no_grad():
        batch = trained.sampler.batch(rows(), None)
        states, pooled = nlu_trunk._forward(trained.trunk, batch)
        pooled = torch.nn.functional.normalize(pooled - middle, dim=-1)
    for i, read in enumerate(reads):
        np.testing.assert_allclose(read.pooled, pooled[i].numpy(), atol=0.02)
        np.testing.assert_allclose(read.states, states[i, : len(read.states)].numpy(), atol=0.06)


def test_quantised_tables_and_matrices_are_8_bit(tmp_path) -> None:  # type: ignore[no-untyped-def]
    import onnx
    from onnx import TensorProto

    shape = Shape(embedding=64, width=64, inner=128, layers=1)
    trunk = network.build(shape, 300).eval()
    network.export(trunk, torch.zeros(128), tmp_path / "trunk.onnx")
    tensors = onnx.load(tmp_path / "trunk.onnx").graph.initializer
    large = [t for t in tensors if np.prod(t.dims) >= 4096]
    assert large
    assert {t.data_type for t in large} == {TensorProto.INT8}


def test_a_mistyped_word_is_one_change_away() -> None:
    rng = random.Random(1)
    for word in ["radio", "радио", "a"]:
        for _ in range(50):
            assert abs(len(batches.mistype(word, rng)) - len(word)) <= 1


def test_swapped_values_keep_words_and_tags_together() -> None:
    prepared = nlu_trunk.prepare(rows(), params())
    sampler = batches.Sampler(prepared.tasks, prepared.features, params(swapped=1.0))
    rng = random.Random(1)
    seen = {sampler._swapped(rows()[0], rng).words[-1] for _ in range(40)}
    assert seen == {"monday", "tuesday", "friday", "sunday"}
    row = sampler._swapped(rows()[0], rng)
    assert len(row.words) == len(row.tags or ())


def test_padding_adds_nothing(untrained) -> None:  # type: ignore[no-untyped-def]
    features, trunk = Features.load(untrained / "features.json"), Trunk(untrained / "trunk.onnx")
    texts = ["read me the stars", "", "x", "прочти гороскоп для льва на завтра " * 5]
    encoded = [features.encode(text) for text in texts]
    together = trunk.read(encoded)
    for alone, read in zip([trunk.read([text])[0] for text in encoded], together, strict=True):
        np.testing.assert_allclose(alone.pooled, read.pooled, atol=1e-5)
        np.testing.assert_allclose(alone.states, read.states, atol=1e-5)

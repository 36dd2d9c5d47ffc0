"""The recipe on a small grammar: whole way to a version, and ONNX agrees with torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from govor.onnx import open_session
from govor.repository import Repository
from services.generator.backends.config import DecoderConfig
from trainer.recipes import generator

CORPUS = Path(__file__).resolve().parents[2] / "domains/horoscope/corpus"
SMALL = generator.Params(
    texts=20, held_out=3, vocabulary=600, width=64, layers=2, heads=2, feed_forward=96, steps=12,
    batch=4, warmup=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def prepared() -> generator.Prepared:
    return generator.prepare(CORPUS, SMALL)


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch", reason="the trainer extra is not installed")
    pytest.importorskip("onnxruntime_genai", reason="the trainer extra is not installed")
    out = tmp_path_factory.mktemp("models") / "generator" / "1"
    metrics = generator.run(CORPUS, out, SMALL)
    assert metrics["nats_en"] > metrics["floor_en"] > 0
    return out


def test_the_same_seed_draws_the_same_rows(prepared: generator.Prepared) -> None:
    again = generator.prepare(CORPUS, SMALL)
    assert again.train == prepared.train
    assert again.digest == prepared.digest


def test_a_row_is_control_tokens_a_text_and_the_end(prepared: generator.Prepared) -> None:
    tokenizer = prepared.tokenizer
    prompt = len(prepared.plan.prompt)
    for row in prepared.train:
        names = [tokenizer.id_to_token(token) for token in row[:prompt]]
        assert all(name.startswith("<|") for name in names)
        assert tokenizer.id_to_token(row[-1]) == generator.END
        text = tokenizer.decode(row[prompt:-1], skip_special_tokens=False)
        assert text == " ".join(text.split())
        assert text[-1] in prepared.plan.limits.endings


def test_the_version_is_whole_and_verified(version: Path) -> None:
    opened = Repository(version.parents[1], version.parents[1]).open("generator", 1)
    assert opened.manifest.fields["language"] == ["en", "ru"]
    assert [source.licence for source in opened.manifest.datasets] == ["Apache-2.0"]
    assert {"model.onnx", "tokenizer.json", "config.json", "README.md"} <= set(opened.names())


def test_the_config_is_what_the_service_reads(version: Path) -> None:
    config = DecoderConfig.model_validate(json.loads((version / "config.json").read_text("utf-8")))
    assert config.decoder.layers == SMALL.layers
    assert config.draws == {"tone": ["bright", "calm", "careful"]}


def test_onnx_agrees_with_torch_with_and_without_a_past(
    version: Path, prepared: generator.Prepared
) -> None:
    """8-bit weights move a logit by about a hundredth; a wrong cache by whole units."""
    torch = pytest.importorskip("torch")
    model = generator.train(prepared, SMALL)
    row = prepared.train[0][:24]
    with torch.no_grad():
        expected = model(torch.tensor([row])).logits[0].numpy()
    for past in (0, 1, 7):
        found = _with_past(version, row, past)
        assert np.abs(found - expected[past:]).max() < 0.1


def _with_past(version: Path, row: list[int], past: int) -> NDArray[np.float32]:
    """Logits of what follows the first `past` tokens, which are run before."""
    session = open_session(version / "model.onnx")
    empty = np.zeros((1, SMALL.heads, 0, SMALL.width // SMALL.heads), np.float32)
    names = [entry.name for entry in session.get_inputs() if entry.name.startswith("past")]
    cache = dict.fromkeys(names, empty)
    logits = np.empty((0, 0), np.float32)
    for start, end in ((0, past), (past, len(row))):
        if start == end:
            continue
        feeds = {
            "input_ids": np.array([row[start:end]], np.int64),
            "attention_mask": np.ones((1, end), np.int64),
        }
        values = session.run(None, feeds | cache)
        outputs = dict(zip((o.name for o in session.get_outputs()), values, strict=True))
        cache = {name: outputs[name.replace("past_key_values", "present")] for name in names}
        logits = outputs["logits"][0]
    return logits

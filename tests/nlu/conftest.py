"""A small untrained model of the `ngram` backend, made once, and what tests ask of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from govor.repository import Repository, Version
from services.nlu.backends.features import document_frequencies, keys_of

WORDS = "read me the stars for leo and libra today or tomorrow прочти гороскоп для льва на завтра"


@pytest.fixture(scope="session")
def bundled() -> Version:
    """The version of `models/nlu` that a new installation serves."""
    root = Path(__file__).resolve().parents[2]
    repository = Repository(root / "var/none", root / "models")
    return repository.open("nlu", max(repository.versions("nlu")))


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an untrained trunk and its features."""
    torch = pytest.importorskip("torch", reason="the trainer's extra is not installed")
    from services.nlu.backends.features import Features
    from trainer import network

    folder = tmp_path_factory.mktemp("nlu") / "1"
    folder.mkdir()
    shape = network.Shape(embedding=16, width=24, inner=32, layers=1)
    features = Features(
        sorted({key for word in WORDS.split() for key in keys_of(word)}),
        document_frequencies([WORDS], 1024),
    )
    torch.manual_seed(1)
    trunk = network.build(shape, features.size).eval()
    network.export(trunk, torch.zeros(2 * shape.width), folder / "trunk.onnx")
    features.save(folder / "features.json")
    return folder

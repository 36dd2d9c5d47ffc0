"""The bundled model versions: whole, small, and made of what may be shipped."""

from __future__ import annotations

from pathlib import Path

import pytest

import services.generator.backends
import services.nlu.backends
from govor.config import Settings
from govor.onnx import open_session
from govor.repository import Repository, Version
from services.generator.backends.prompts import Asked
from services.generator.backends.sampling import Sampling

BUNDLED = Settings().bundled_folder
MODELS = ("generator", "nlu", "stt-en", "stt-ru", "tts-en", "tts-ru", "vad")
# Collections that are for evaluation alone: neither they nor what learnt from them is shipped.
NOT_TO_SHIP = ("horoscopes", "atis", "cola", "sst2", "rusentiment", "sentirueval")


def bundled(model: str) -> Version:
    repository = Repository(Path("/nonexistent"), BUNDLED)
    champion = repository.deployment(model).champion
    assert champion is not None
    return repository.open(model, champion)


@pytest.mark.parametrize("model", MODELS)
def test_a_bundled_version_is_what_its_manifest_says(model: str) -> None:
    version = bundled(model)
    on_disk = {
        path.relative_to(version.folder).as_posix()
        for path in version.folder.rglob("*")
        if path.is_file()
    }
    assert on_disk == set(version.manifest.files) | {"manifest.json"}
    assert version.manifest.licence


@pytest.mark.parametrize("model", MODELS)
def test_no_source_is_one_that_may_not_be_shipped(model: str) -> None:
    for dataset in bundled(model).manifest.datasets:
        named = f"{dataset.name} {dataset.source}".lower()
        # `rucola` may be shipped and has `cola` in its name.
        assert not any(word in named.replace("rucola", "") for word in NOT_TO_SHIP), named
        assert dataset.licence


@pytest.mark.parametrize("model", ["generator", "nlu", "vad"])
def test_a_trained_version_names_its_sources(model: str) -> None:
    manifest = bundled(model).manifest
    assert manifest.datasets
    assert manifest.recipe.startswith("trainer/recipes/")


def test_they_are_small_together() -> None:
    size = sum(path.stat().st_size for path in BUNDLED.rglob("*") if path.is_file())
    assert size <= 40e6, f"{size / 1e6:.1f} MB"


@pytest.mark.parametrize("model", MODELS)
def test_nothing_tells_of_the_machine_that_made_it(model: str) -> None:
    for path in bundled(model).folder.rglob("*.onnx"):
        assert b'File "/' not in path.read_bytes()


@pytest.mark.gpu
async def test_on_a_gpu_a_text_means_what_it_means_on_the_cpu() -> None:
    gpu_or_skip("nlu", "trunk.onnx")
    texts = ["what awaits a lion tomorrow", "спасибо, на сегодня всё", "42"]
    found = []
    for device in ("gpu", "cpu"):
        nlu = services.nlu.backends.load(bundled("nlu"), device=device)
        found.append(await nlu.understand(texts, "horoscope"))
        nlu.close()
    for ours, theirs in zip(*found, strict=True):
        assert ours.ranking[0][0] == theirs.ranking[0][0]
        assert ours.ranking[0][1] == pytest.approx(theirs.ranking[0][1], abs=0.02)


@pytest.mark.gpu
async def test_on_a_gpu_a_text_begins_as_on_the_cpu() -> None:
    gpu_or_skip("generator", "model.onnx")
    texts = []
    for device in ("gpu", "cpu"):
        generator = services.generator.backends.load(bundled("generator"), device=device)
        asked = Asked(fields={"language": "en", "sign": "leo"})
        [piece] = await generator.generate(asked, Sampling(temperature=0, max_tokens=40))
        texts.append(piece.text.split())
        generator.close()
    assert texts[0][:5] == texts[1][:5]


def gpu_or_skip(model: str, file: str) -> None:
    session = open_session(bundled(model).path(file), device="gpu")
    if "CUDAExecutionProvider" not in session.get_providers():
        pytest.skip("no GPU that onnxruntime can use")

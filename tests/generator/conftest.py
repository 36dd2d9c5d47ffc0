"""Versions of the generator for tests: the bundled one, and what can be made of it."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from govor.config import Settings
from govor.database import migrate
from govor.repository import Repository, Version, deploy, write_manifest
from services.generator.backends import Backend, load
from services.generator.backends.sampling import Logits, Sampler
from services.generator.settings import GeneratorSettings

Edit = Callable[[Path, dict[str, Any]], None]
"""Changes a version's folder and its config."""


def byte_tokenizer(*special: str) -> Tokenizer:
    """A token for each byte, then the special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {char: at for at, char in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in special])
    return tokenizer


def make_version(root: Path, number: int, edit: Edit, **manifest: Any) -> Version:
    """The bundled version with changes, as version `number` of a repository at `root`."""
    bundled = bundled_version()
    folder = root / "generator" / str(number)
    shutil.copytree(bundled.folder, folder)
    (folder / "manifest.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    edit(folder, config)
    (folder / "config.json").write_text(json.dumps(config))
    kept = bundled.manifest.model_dump(exclude={"files", "created_at", "version"})
    write_manifest(folder, version=number, **kept | manifest)
    return Repository(root, root).open("generator", number)


def bundled_version() -> Version:
    bundled = Repository(Path("none"), Settings().bundled_folder)
    if not (numbers := bundled.versions("generator")):
        pytest.skip("no bundled generator: make models")
    return bundled.open("generator", numbers[-1])


class Draws:
    """The seeds of all draws in their order. The engine can be made to wait before one."""

    def __init__(self) -> None:
        self.seeds: list[int] = []
        self.waits, self.go_on = threading.Event(), threading.Event()
        self._held: tuple[int, int] | None = None

    def hold(self, seed: int, after: int) -> None:
        """Before the next draw of a seed that has drawn so many tokens, the engine waits until it
        may `go_on`."""
        self._held = (seed, after)

    def note(self, seed: int) -> None:
        if (seed, self.count(seed)) == self._held:
            self.waits.set()
            assert self.go_on.wait(60)
        self.seeds.append(seed)

    def count(self, seed: int) -> int:
        return self.seeds.count(seed)


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Draws]:
    draws, draw = Draws(), Sampler.draw

    def noted(sampler: Sampler, logits: Logits) -> int:
        draws.note(sampler.sampling.seed)
        return draw(sampler, logits)

    monkeypatch.setattr(Sampler, "draw", noted)
    yield draws
    draws.go_on.set()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.005)


@pytest.fixture(scope="session")
def version() -> Version:
    return bundled_version()


@pytest.fixture(scope="session")
def decoder(version: Version) -> Iterator[Backend]:
    decoder = load(version, slots=8)
    yield decoder
    decoder.close()


@pytest.fixture(scope="session")
def text_version(tmp_path_factory: pytest.TempPathFactory) -> Version:
    """The bundled weights as a model that takes text."""

    def edit(folder: Path, config: dict[str, Any]) -> None:
        for name in ("prompt", "defaults", "draws", "placeholders", "filter"):
            config.pop(name, None)

    return make_version(tmp_path_factory.mktemp("text"), 1, edit, fields={})


@pytest.fixture
def settings(tmp_path: Path, version: Version) -> GeneratorSettings:
    settings = GeneratorSettings(var=tmp_path, poll_seconds=0.05)
    migrate(settings.database)
    return settings


@pytest.fixture
def endless(settings: GeneratorSettings) -> GeneratorSettings:
    """Settings under which every text goes on to its limit: no token ends it."""

    def edit(folder: Path, config: dict[str, Any]) -> None:
        config["decoder"]["eos"] = [config["decoder"]["vocabulary"]]

    return serving(settings, make_version(settings.repository_folder, 100, edit))


def serving(settings: GeneratorSettings, version: Version) -> GeneratorSettings:
    """Settings under which `version` is the champion."""
    repository = Repository(version.folder.parents[1], settings.bundled_folder)
    generation = repository.deployment("generator").generation
    deploy(repository, "generator", {"champion": version.number}, generation)
    return settings.model_copy(update={"model_repository": repository.writable})

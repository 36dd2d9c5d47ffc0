"""Versions are swapped under load: no request fails, and none is answered under another's name."""

from __future__ import annotations

import asyncio
import json
import shutil
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from govor.repository import Repository, deploy
from services.nlu.main import create_app
from services.nlu.settings import NluSettings
from tests.conftest import Running

SWAPS = 50
CLIENTS = 16
TEXTS = ("what do the stars say for leo", "hello there", "привет", "кто ты такой")


def publish_other(repository: Repository, scratch: Path) -> int:
    """A version that gives every intent another name: its answers can be told from the first's."""
    bundled = repository.open("nlu", repository.deployment("nlu").champion or 0)
    shutil.copytree(bundled.folder, scratch)
    (scratch / "manifest.json").unlink()
    head = scratch / "heads" / "horoscope.json"
    body = json.loads(head.read_text())
    body["labels"] = [f"other_{label}" for label in body["labels"]]
    head.write_text(json.dumps(body))
    facts = bundled.manifest.model_dump(
        exclude={"model", "version", "files", "created_at"}, mode="python"
    )
    return repository.publish("nlu", scratch, **facts).number


@pytest.fixture
def settings(tmp_path: Path) -> NluSettings:
    return NluSettings(var=tmp_path / "var", poll_seconds=0.02, domain="horoscope")


async def ask(client: httpx.AsyncClient, text: str) -> int:
    """One request; the version that answered, which must be the one that it names."""
    answer = await client.post("/v1/understand", json={"text": text})
    assert answer.status_code == 200, answer.text
    body, version = answer.json(), int(answer.headers["x-model-version"])
    assert body["version"] == version
    names = {entry["name"].startswith("other_") for entry in body["intent_ranking"]}
    assert names == {version != 1}, (version, body["intent_ranking"])
    return version


async def test_fifty_swaps_under_load_fail_nothing(
    settings: NluSettings, running: Running, tmp_path: Path
) -> None:
    repository = Repository(settings.repository_folder, settings.bundled_folder)
    other = publish_other(repository, tmp_path / "scratch")
    served: list[int] = []

    async with running(create_app(settings)) as client:
        done = asyncio.Event()

        async def keep_asking(text: str) -> None:
            while not done.is_set():
                served.append(await ask(client, text))

        clients = [asyncio.create_task(keep_asking(TEXTS[i % 4])) for i in range(CLIENTS)]
        try:
            for swap in range(SWAPS):
                wanted = other if swap % 2 == 0 else 1
                await asyncio.to_thread(deploy, repository, "nlu", {"champion": wanted}, swap)
                async with asyncio.timeout(60):
                    while served[-1:] != [wanted] and not any(one.done() for one in clients):
                        await asyncio.sleep(0.01)
        finally:
            done.set()
            await asyncio.gather(*clients)

    assert set(served) == {1, other}
    changes = sum(one != next_ for one, next_ in pairwise(served))
    assert changes >= SWAPS - 1

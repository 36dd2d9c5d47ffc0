"""A pack that nobody wrote code for: YAML, one command, and it talks through the real gateway."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from govor.clients import connect
from govor.config import Settings
from govor.database import migrate
from govor.keys import secret
from govor.repository import Repository, Version
from govor.transport import StreamingTransport
from services.gateway.main import create_app as create_gateway
from services.gateway.settings import GatewaySettings
from services.nlu.main import create_app as create_nlu
from services.nlu.settings import NluSettings
from tests.conftest import Running
from tests.packs.pizza import write

HOME = Path(__file__).resolve().parents[2]
MAX_CPU_SECONDS = 60.0
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    write(tmp_path / "domains")
    return {"domains": tmp_path / "domains", "var": tmp_path / "var", "domain": "pizza"}


def train(given: dict[str, Any]) -> float:
    """The one command; the CPU seconds that it took."""
    pytest.importorskip("sklearn", reason="the trainer's extra is not installed")
    environment = {f"GOVOR_{name.upper()}": str(value) for name, value in given.items()}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "trainer.recipes.intents", "--domain", "pizza"]
    subprocess.run(
        command, cwd=HOME, env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


async def test_five_turns_with_a_pack_from_yaml_alone(
    given: dict[str, Any], running: Running
) -> None:
    assert train(given) <= MAX_CPU_SECONDS
    _assert_only_its_head_is_new(Settings.model_validate(given))

    settings = GatewaySettings.model_validate(given | {"gateway_nlu_timeout_seconds": 60})
    migrate(settings.database)
    nlu = create_nlu(NluSettings.model_validate(given))
    urls = dict.fromkeys(("stt", "generator", "tts"), NOWHERE) | {"nlu": "http://nlu"}
    key = secret(settings.internal_key_path).decode()
    gateway = create_gateway(settings, connect(urls, key, {"nlu": StreamingTransport(nlu)}))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(nlu))
        client = await stack.enter_async_context(running(gateway))

        async def say(text: str) -> dict[str, Any]:
            answer = await client.post("/v1/converse", json={"text": text, "conversation_id": "c"})
            assert answer.status_code == 200, answer.text
            turn: dict[str, Any] = answer.json()
            assert turn["degraded"] == []
            return turn

        turns = [
            await say("I want to order a pizza"),
            await say("mushroom"),
            await say("when are you open"),
            await say("a large one"),
            await say("yes please"),
        ]
    assert [turn["steps"] for turn in turns] == [
        ["ask_pizza"],
        ["ask_size"],
        ["hours", "ask_size"],
        ["summary"],
        ["ordered"],
    ]
    assert turns[3]["state"]["slots"] == {"pizza": "funghi", "size": "large", "number": 1}
    assert "Funghi" in turns[4]["reply"]["text"]
    assert turns[4]["state"]["flow"] is None


def _assert_only_its_head_is_new(settings: Settings) -> None:
    """Trunk and the other packs' heads are those of the bundled version, bit for bit."""
    repository = Repository(settings.repository_folder, settings.bundled_folder)
    champion = repository.deployment("nlu").champion
    assert champion is not None
    new = repository.open("nlu", champion)
    assert new.manifest.parent is not None
    old = repository.open("nlu", new.manifest.parent)
    assert _files(new) == _files(old) | {
        name: new.manifest.files[name] for name in ("heads/pizza.json", "heads/pizza.safetensors")
    }


def _files(version: Version) -> dict[str, str]:
    return dict(version.manifest.files)

"""A pack that only these tests know, and a person who talks to its policy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from govor.database import migrate
from govor.domains import Pack, load_pack
from govor.schemas.nlu import Entity, Intent, Understanding
from services.gateway import conversations, idempotency, policy
from services.gateway.dialogue import Event, Heard, Say, State, Step
from services.gateway.main import create_app
from services.gateway.settings import GatewaySettings
from tests.conftest import Running
from tests.databases import Server
from tests.gateway.siblings import Script, siblings

PACKS = Path(__file__).with_name("packs")
EVENTS = {"accept": "text/event-stream"}
Gateway = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]

PATIENCE = [
    (module, name, getattr(module, name))
    for module, name in (
        (conversations, "_PATIENCE_SECONDS"),
        (conversations, "_UNKNOWN_PATIENCE_SECONDS"),
        (conversations, "_READ_SECONDS"),
        (conversations, "_LOAD_SECONDS"),
        (conversations, "_BUSY_SECONDS"),
        (idempotency, "_PATIENCE_SECONDS"),
    )
]
"""What the gateway waits for its database and for an earlier turn, in service."""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is slow, and its database is not away: nobody gives it up, but in `away`."""
    for module, name, _ in PATIENCE:
        monkeypatch.setattr(module, name, 60.0)


@contextmanager
def away(running: Server) -> Iterator[None]:
    """The database is away, and nobody waits for it longer than in service."""
    with pytest.MonkeyPatch.context() as patch, running.away():
        for module, name, seconds in PATIENCE:
            patch.setattr(module, name, seconds)
        yield


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.01)


@pytest.fixture(scope="session")
def pack() -> Pack:
    return load_pack(PACKS / "desk")


def understood(
    text: str, intent: str | None = None, entities: Sequence[Entity] = (), confidence: float = 0.9
) -> Understanding:
    found = Intent(name=intent, confidence=confidence)
    return Understanding(
        text=text,
        language="en",
        intent=found,
        intent_ranking=[found],
        entities=list(entities),
        out_of_scope=intent is None,
        model="nlu",
        version=1,
        timings={},
    )


class Person:
    """Talks to the policy of a pack: `says` gives the names of the steps that follow."""

    def __init__(self, pack: Pack, language: str = "en") -> None:
        self.pack, self.language = pack, language
        self.state = State()
        self.now = 1_000_000.0
        self.steps: list[Step] = []

    def says(self, text: str, intent: str | None = None, **values: Any) -> list[str]:
        """`values` are entities; each must stand in the text as its key's value or by `at`."""
        entities = [entity_in(text, name, value) for name, value in values.items()]
        return self.event(Heard(text, understood(text, intent, entities)))

    def event(self, event: Event, later: float = 1.0) -> list[str]:
        self.now += later
        state = State.model_validate_json(self.state.model_dump_json())
        self.state, self.steps = policy.advance(
            self.pack, state, event, language=self.language, now=self.now, seed=7
        )
        return [step.name for step in self.steps]

    @property
    def words(self) -> str:
        return " ".join(step.text for step in self.steps if isinstance(step, Say))

    @property
    def asking(self) -> str | None:
        return policy.shown(self.pack, self.state).asking


def entity_in(text: str, name: str, value: Any) -> Entity:
    """An entity that covers the word of the text that looks like its value, or the first one."""
    start = max(text.find(str(value)), 0)
    end = start + len(str(value)) if str(value) in text else len(text)
    return Entity(entity=name, value=value, start=start, end=end, confidence=1.0)


@pytest.fixture
def person(pack: Pack) -> Person:
    return Person(pack)


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def gateway(tmp_path: Path, running: Running, script: Script) -> Gateway:
    @asynccontextmanager
    async def run(
        down: Iterable[str] = (), slow: Iterable[str] = (), **changed: Any
    ) -> AsyncIterator[httpx.AsyncClient]:
        given = {"domains": PACKS, "domain": "desk", "var": tmp_path / "var"}
        given |= {"default_timeout_seconds": 120, "gateway_nlu_timeout_seconds": 30, **changed}
        settings = GatewaySettings.model_validate(given)
        migrate(settings.database)
        app = create_app(settings, siblings(script, down, slow))
        async with running(app) as client:
            yield client

    return run


async def say(client: httpx.AsyncClient, text: str | None = None, **more: Any) -> Any:
    answer = await client.post("/v1/converse", json={"text": text, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def stream(client: httpx.AsyncClient, **body: Any) -> list[tuple[str, Any]]:
    answer = await client.post("/v1/converse", json=body, headers=EVENTS)
    return events(answer.text)


def events(text: str) -> list[tuple[str, Any]]:
    blocks = [block.split("\n") for block in text.strip().split("\n\n")]
    return [(name[7:], json.loads(data[6:])) for name, data in blocks]

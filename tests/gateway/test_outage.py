"""The gateway's routes while the database is away: no turn fails, none is lost."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.databases import AWAY, server
from tests.gateway.conftest import Gateway, away


async def turn(client: httpx.AsyncClient, conversation_id: str, said: dict[str, list[str]]) -> None:
    """A turn that is asked for twice under one key, and answered once."""
    body = {"conversation_id": conversation_id, "text": "what do the stars say for leo"}
    key = {"idempotency-key": uuid4().hex}
    first = await client.post("/v1/converse", json=body, headers=key)
    again = await client.post("/v1/converse", json=body, headers=key)
    assert first.status_code == again.status_code == 200, first.text + again.text
    assert first.json()["turn_id"] == again.json()["turn_id"]
    said.setdefault(conversation_id, []).append(first.json()["turn_id"])


@pytest.mark.parametrize("kind", AWAY)
@pytest.mark.parametrize("seconds", [3, pytest.param(30, marks=pytest.mark.slow)])
async def test_people_notice_nothing(
    kind: str, seconds: float, tmp_path: Path, gateway: Gateway
) -> None:
    said: dict[str, list[str]] = {}
    with server(kind, tmp_path) as running:
        async with gateway(database_url=running.url) as client:
            await asyncio.gather(*(turn(client, f"open{n}", said) for n in range(3)))
            async with asyncio.timeout(30):
                while (await client.get("/readyz")).status_code != 200:
                    await asyncio.sleep(0.05)
            with away(running):
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    ids = ("open0", "open1", "open2", f"new{len(said)}")
                    await asyncio.gather(*(turn(client, each, said) for each in ids))
                    await asyncio.sleep(0.2)
                    assert (await client.get("/readyz")).status_code == 200
                kept = await client.get("/v1/conversations/open0")
                assert kept.status_code == 503
                assert kept.json()["error"]["code"] == "database_unavailable"
            for conversation_id, turn_ids in said.items():
                assert await stored(client, conversation_id) == turn_ids


async def stored(client: httpx.AsyncClient, conversation_id: str) -> list[str]:
    """The ids of a conversation's turns, once the database is back."""
    async with asyncio.timeout(60):
        while True:
            kept = await client.get(f"/v1/conversations/{conversation_id}")
            if kept.status_code == 200:
                return [each["turn_id"] for each in kept.json()["turns"]]
            assert kept.status_code in (404, 503)
            await asyncio.sleep(0.2)

"""Conversations: `POST /v1/converse`, feedback, what is kept of a conversation, and the page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from fastapi import FastAPI

from govor.clients import Siblings, connect
from govor.database import Database, read_api_keys
from govor.keys import KeyRow, secret
from govor.retention import Retention
from govor.service import create_service
from govor.spool import Spool
from services.gateway import alerts, authorize, page, registry, trainings
from services.gateway.api import add_routes
from services.gateway.conversations import Conversations
from services.gateway.idempotency import Idempotency
from services.gateway.packs import Packs
from services.gateway.settings import GatewaySettings
from services.gateway.siblings import Watched
from services.gateway.turn import Turns

DOCUMENT = Path(__file__).with_name("openapi.json")
"""The merged document of all services, made by a command; the gateway's own without it."""


def create_app(
    settings: GatewaySettings | None = None, siblings: Siblings | None = None
) -> FastAPI:
    """`siblings` are those of the settings' URLs unless they are given."""
    settings = settings or GatewaySettings()
    siblings = siblings or _siblings(settings)
    webhooks = httpx.AsyncClient(trust_env=False, follow_redirects=False)
    packs = Packs(settings.domains_folder, settings.domain, settings.poll_seconds)
    storage = Storage(settings)

    @asynccontextmanager
    async def clients(_: FastAPI) -> AsyncIterator[None]:
        async with webhooks:
            yield
        await siblings.aclose()

    app = create_service(
        "gateway",
        settings,
        description="A self-hosted voice bot: speech in, understanding, a reply, speech out.",
        parts={
            "database": storage,
            "packs": packs,
            **{one.name: Watched(one, settings.poll_seconds) for one in siblings.all},
        },
        lifespan=clients,
        key_table=storage.keys,
        public=(*page.PUBLIC, *authorize.PUBLIC),
        document=DOCUMENT if DOCUMENT.is_file() else None,
    )
    storage.spooled = app.state.metrics.spooled.inc
    storage.dropped = app.state.metrics.dropped.inc
    turns = Turns(settings, packs, storage.conversations, siblings, webhooks, app.state.metrics)
    add_routes(app, turns, storage.idempotency)
    page.add_routes(app)
    authorize.add_routes(app)
    alerts.add_routes(app, settings, storage.database, packs)
    registry.add_routes(app, settings)
    trainings.add_routes(app, settings, storage.database, packs, storage.idempotency)
    return app


class Storage:
    """The database and what is kept in it: one part, because the rest starts after the database."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.spooled: Callable[[int], object] = lambda _: None
        self.dropped: Callable[[int], object] = lambda _: None
        self.database = Database(settings.database)
        self.conversations = Conversations(
            self.database,
            Spool(settings.var_folder / "spool" / "gateway", settings.spool_max_bytes),
            default_consent=settings.default_consent,
            spooled=lambda count: self.spooled(count),
            dropped=lambda count: self.dropped(count),
        )
        self.idempotency = Idempotency(self.database)
        self.retention = Retention(self.database)

    async def start(self) -> None:
        await self.database.start()
        await self.conversations.start()
        await self.retention.start()

    async def stop(self) -> None:
        await self.retention.stop()
        await self.conversations.stop()
        await self.database.stop()

    def ready(self) -> tuple[bool, str]:
        return self.database.ready()

    async def keys(self) -> list[KeyRow]:
        return await self.database.run(read_api_keys)


def _siblings(settings: GatewaySettings) -> Siblings:
    urls = {
        "stt": settings.gateway_stt_url,
        "nlu": settings.gateway_nlu_url,
        "generator": settings.gateway_generator_url,
        "tts": settings.gateway_tts_url,
    }
    return connect(urls, secret(settings.internal_key_path).decode())

"""What tests of all rooms share."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from govor.config import Settings
from govor.keys import secret
from govor.transport import StreamingTransport

Running = Callable[[FastAPI], AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture(scope="session")
def data() -> Path:
    """The collections that are not in the repository (`GOVOR_DATA`); skips without them."""
    home = Path(__file__).resolve().parent.parent
    folder = Path(os.environ.get("GOVOR_DATA") or home.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("no collections: set GOVOR_DATA to the folder that holds them")
    return folder


@pytest.fixture
def running() -> Running:
    """`async with running(app) as client:` runs an app's lifespan and calls it in this process,
    as a sibling service would."""

    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
        settings: Settings = app.state.settings
        key = secret(settings.internal_key_path).decode()
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(
                transport=StreamingTransport(app),
                base_url="http://service",
                headers={"authorization": f"Bearer {key}"},
                timeout=60,
            ) as client,
        ):
            yield client

    return run

"""What tests of all rooms share."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import pytest
from fastapi import FastAPI

from govor.config import Settings
from govor.keys import secret
from govor.transport import StreamingTransport

Running = Callable[[FastAPI], AbstractAsyncContextManager[httpx.AsyncClient]]

# What cannot be installed: every other skip is for something that CI has to have.
MAY_BE_MISSING = ("no collections", "no GPU", "no container engine")

# The same examples everywhere and every time; a slow one is no failure of a busy machine.
hypothesis.settings.register_profile(
    "govor",
    database=None,
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("govor")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.CallInfo[None], None]:
    """With CI=true a test that is skipped for a missing program or model has failed."""
    outcome: Any = yield
    report: pytest.TestReport = outcome.get_result()
    if os.environ.get("CI") != "true" or not report.skipped or hasattr(report, "wasxfail"):
        return
    assert isinstance(report.longrepr, tuple)
    reason = str(report.longrepr[2]).removeprefix("Skipped: ")
    if not reason.startswith(MAY_BE_MISSING):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped in CI: {reason}"


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

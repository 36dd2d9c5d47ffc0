"""Who is let to Grafana and Prometheus: the gateway is asked, nginx obeys."""

from __future__ import annotations

import base64
from pathlib import Path

from fastapi import FastAPI

from govor.limits import RateLimit
from services.gateway.main import create_app
from services.gateway.settings import GatewaySettings
from tests.conftest import Running
from tests.gateway.siblings import Script, siblings


def _basic(password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"me:{password}".encode()).decode()}


CASES: list[tuple[dict[str, str], int]] = [
    ({"authorization": "Bearer admin-key"}, 204),
    ({"x-api-key": "admin-key"}, 204),
    (_basic("admin-key"), 204),
    ({}, 401),
    ({"authorization": "Bearer guess"}, 401),
    ({"authorization": "Basic ???"}, 401),
    (_basic(""), 401),
    (_basic("speak-key"), 401),
    ({"x-api-key": "speak-key"}, 403),
]


async def test_only_administrators_pass_and_a_browser_is_told_to_ask(
    tmp_path: Path, running: Running
) -> None:
    app = _app(tmp_path)
    async with running(app) as client:
        client.headers.pop("authorization")
        for headers, status in CASES:
            answer = await client.get("/internal/authorize", headers=headers)
            assert answer.status_code == status, headers
            asks = answer.headers.get("www-authenticate", "")
            assert asks.startswith("Basic realm=") if status == 401 else not asks


async def test_the_public_door_of_the_embedded_mode_has_no_such_path(
    tmp_path: Path, running: Running
) -> None:
    app = _app(tmp_path)
    app.state.limiter = RateLimit(600)
    async with running(app) as client:
        answer = await client.get("/internal/authorize", headers={"x-api-key": "admin-key"})
        assert answer.status_code == 404


def _app(tmp_path: Path) -> FastAPI:
    keys = tmp_path / "keys"
    keys.write_text("me speak,admin admin-key\nyou speak speak-key\n")
    return create_app(GatewaySettings(var=tmp_path, keys_file=keys), siblings(Script()))

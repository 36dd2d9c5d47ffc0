from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from govor.config import ConfigurationError, Settings
from govor.keys import KeyRow, digest_of, secret
from govor.limits import RateLimit
from govor.server import lifespans
from govor.service import create_service
from govor.transport import StreamingTransport
from tests.conftest import Running
from tests.core.apps import create_app, settings_in
from tests.core.waiting import PATIENCE_SECONDS

SPEAKER, ADMINISTRATOR = "speaker-key", "admin-key"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    keys = tmp_path / "keys"
    keys.write_text(
        f"# who may call\napp speak {SPEAKER}\nops speak,admin sha256:{digest_of(ADMINISTRATOR)}\n"
    )
    return settings_in(tmp_path, keys_file=keys)


def client(app: object, address: str = "127.0.0.1") -> httpx.AsyncClient:
    async def at(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        await app({**scope, "client": (address, 1)}, receive, send)  # type: ignore[operator]

    transport = StreamingTransport(at)
    return httpx.AsyncClient(
        transport=transport, base_url="http://localhost", timeout=PATIENCE_SECONDS
    )


class Fragile:
    """A part that starts, or not, and remembers that it was stopped."""

    def __init__(self, *, error: Exception | None = None, ready: bool = True) -> None:
        self.error, self.works, self.stopped = error, ready, False
        self.stuck: Exception | None = None

    async def start(self) -> None:
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error

    async def stop(self) -> None:
        self.stopped = True
        if self.stuck is not None:
            raise self.stuck

    def ready(self) -> tuple[bool, str]:
        return self.works, "works" if self.works else "broken"


async def test_health_version_and_documents_need_no_key(
    settings: Settings, running: Running
) -> None:
    app = create_app(settings)
    async with running(app), client(app) as http:
        for path in ("/healthz", "/readyz", "/version", "/docs", "/openapi.json"):
            assert (await http.get(path)).status_code == 200
        assert (await http.get("/version")).json()["service"] == "nlu"
        assert (await http.get("/metrics")).status_code == 401
        assert (await http.get("/metrics", params={"token": SPEAKER})).status_code == 404


async def test_documentation_loads_nothing_from_elsewhere(
    settings: Settings, running: Running
) -> None:
    app = create_app(settings)
    async with running(app), client(app) as http:
        answer = await http.get("/docs")
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        page = answer.text
        assert "//" not in page.replace("<!DOCTYPE html>", "").split("<script>")[0]
        for asset in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"):
            assert asset in page
            assert len((await http.get(f"/docs/{asset}")).content) > 500


async def test_readiness_names_every_part(settings: Settings, running: Running) -> None:
    good, bad = Fragile(), Fragile(ready=False)
    app = create_service("nlu", settings, description="", parts={"good": good, "bad": bad})
    async with running(app) as http:
        answer = await http.get("/readyz")
        assert answer.status_code == 503
        assert answer.json() == {
            "ready": False,
            "parts": {
                "good": {"ready": True, "detail": "works"},
                "bad": {"ready": False, "detail": "broken"},
                "keys": {"ready": True, "detail": "configured"},
            },
        }
        bad.works = True
        assert (await http.get("/readyz")).status_code == 200
    assert good.stopped
    assert app.state.draining


async def test_a_part_that_does_not_start_stops_the_others(settings: Settings) -> None:
    good = Fragile()
    bad = Fragile(error=ConfigurationError("GOVOR_X is wrong"))
    app = create_service("nlu", settings, description="", parts={"good": good, "bad": bad})
    with pytest.raises(ConfigurationError, match="GOVOR_X"):
        async with lifespans([app]):
            pytest.fail("it started")
    assert good.stopped
    assert not bad.stopped


async def test_a_part_that_does_not_stop_well_is_logged_and_the_others_stop(
    settings: Settings, running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    first, last = Fragile(), Fragile()
    last.stuck = OSError("the disk is full")
    app = create_service("nlu", settings, description="", parts={"first": first, "last": last})
    async with running(app):
        pass
    assert first.stopped
    assert last.stopped
    assert "part last did not stop well" in caplog.text


async def test_unknown_paths_and_methods_have_the_error_shape(
    settings: Settings, running: Running
) -> None:
    async with running(create_app(settings)) as http:
        gone = await http.get("/v1/nothing")
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "route_not_found")
        wrong = await http.delete("/v1/who")
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET")
        assert wrong.json()["error"]["type"] == "invalid_request_error"
        invalid = await http.get("/v1/who", params={"times": "x"})
        assert (invalid.status_code, invalid.json()["error"]["param"]) == (422, "times")


@pytest.mark.parametrize(
    ("headers", "params", "name"),
    [
        ({"authorization": f"Bearer {SPEAKER}"}, {}, "app"),
        ({"authorization": f"bearer  {SPEAKER}"}, {}, "app"),
        ({"x-api-key": ADMINISTRATOR}, {}, "ops"),
        ({}, {"token": SPEAKER}, "app"),
    ],
)
async def test_a_key_may_come_in_three_ways(
    settings: Settings,
    running: Running,
    headers: dict[str, str],
    params: dict[str, str],
    name: str,
) -> None:
    app = create_app(settings)
    async with running(app), client(app) as http:
        answer = await http.get("/v1/who", headers=headers, params=params)
        assert answer.json() == {"name": name}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": f"Basic {SPEAKER}"},
        {"authorization": "Bearer ключ".encode()},
        {"x-api-key": "wrong"},
        {"x-api-key": digest_of(SPEAKER)},
    ],
)
async def test_without_a_good_key_there_is_401(
    settings: Settings, running: Running, headers: dict[str, str]
) -> None:
    app = create_app(settings)
    async with running(app), client(app) as http:
        answer = await http.post("/v1/say", json={"text": "a"}, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["error"]["type"] == "authentication_error"


async def test_a_version_needs_an_administrator(settings: Settings, running: Running) -> None:
    app = create_app(settings)
    async with running(app), client(app) as http:
        body = {"text": "a", "version": 1}
        refused = await http.post("/v1/say", json=body, headers={"x-api-key": SPEAKER})
        assert (refused.status_code, refused.json()["error"]["param"]) == (403, "version")
        granted = await http.post("/v1/say", json=body, headers={"x-api-key": ADMINISTRATOR})
        assert granted.status_code == 200


async def test_without_keys_only_this_machine_may_call(tmp_path: Path, running: Running) -> None:
    app = create_app(settings_in(tmp_path))
    async with running(app):
        for address, status in (("127.0.0.1", 200), ("::1", 200), ("10.0.0.9", 401)):
            async with client(app, address) as http:
                answer = await http.post("/v1/say", json={"text": "a", "version": 1})
                assert answer.status_code == status


@pytest.mark.parametrize(
    ("heard", "status"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1, ::1", 200),
        ("203.0.113.9", 401),
        ("127.0.0.1, 203.0.113.9", 401),  # what a stranger said of himself, then what was heard
        ("203.0.113.9,127.0.0.1", 401),  # two proxies of this machine
        ("unknown", 401),
        ("", 200),
    ],
)
async def test_a_proxy_of_this_machine_tells_who_calls(
    tmp_path: Path, running: Running, heard: str, status: int
) -> None:
    app = create_app(settings_in(tmp_path))
    async with running(app), client(app) as http:
        headers = {"host": "localhost", "x-forwarded-for": heard}
        answer = await http.post("/v1/say", json={"text": "a"}, headers=headers)
        assert answer.status_code == status


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8080", 200),
        ("127.0.0.1", 200),
        ("[::1]:8080", 200),
        ("LOCALHOST", 200),
        ("evil.example:8080", 401),
        ("localhost.evil.example", 401),
        ("[evil", 401),
    ],
)
async def test_without_keys_another_name_is_refused(
    tmp_path: Path, running: Running, host: str, status: int
) -> None:
    """DNS rebinding: a page of another site whose name points to this machine."""
    app = create_app(settings_in(tmp_path))
    async with running(app), client(app) as http:
        answer = await http.post("/v1/say", json={"text": "a"}, headers={"host": host})
        assert answer.status_code == status


async def test_keys_of_the_table_are_reloaded_and_kept(tmp_path: Path, running: Running) -> None:
    rows = [KeyRow("app", digest_of(SPEAKER), ("speak",))]

    async def table() -> list[KeyRow]:
        if not rows:
            raise ConnectionError("the database is away")
        return rows

    app = create_app(settings_in(tmp_path), table)
    async with running(app), client(app) as http:
        headers = {"x-api-key": SPEAKER}
        assert (await http.get("/v1/who", headers=headers)).status_code == 200
        rows.clear()
        await app.state.keyring.reload()
        assert (await http.get("/v1/who", headers=headers)).status_code == 200
        rows.append(KeyRow("new", digest_of("new"), ("speak",)))
        await app.state.keyring.reload()
        assert (await http.get("/v1/who", headers=headers)).status_code == 401


async def test_nobody_enters_before_the_table_of_keys_is_read(
    tmp_path: Path, running: Running
) -> None:
    away = True

    async def table() -> list[KeyRow]:
        if away:
            raise ConnectionError("the database is away")
        return []

    app = create_app(settings_in(tmp_path), table)
    async with running(app) as sibling, client(app) as http:
        assert (await http.get("/v1/who")).status_code == 401
        assert (await http.get("/readyz")).status_code == 503
        assert (await sibling.get("/v1/who")).status_code == 200
        away = False
        await app.state.keyring.reload()
        assert (await http.get("/v1/who")).status_code == 200


async def test_a_key_expires(tmp_path: Path, running: Running) -> None:
    hour = timedelta(hours=1)
    now = datetime.now(UTC)

    async def table() -> list[KeyRow]:
        return [
            KeyRow("old", digest_of("old"), ("speak",), now - hour),
            KeyRow("new", digest_of("new"), ("speak",), now + hour),
        ]

    app = create_app(settings_in(tmp_path), table)
    async with running(app), client(app) as http:
        assert (await http.get("/v1/who", headers={"x-api-key": "old"})).status_code == 401
        assert (await http.get("/v1/who", headers={"x-api-key": "new"})).status_code == 200


async def test_the_limit_spares_siblings(settings: Settings, running: Running) -> None:
    app = create_app(settings)
    app.state.limiter = RateLimit(2, lambda: 0.0)
    async with running(app) as sibling, client(app) as http:
        headers = {"x-api-key": SPEAKER}
        statuses = [(await http.get("/v1/who", headers=headers)).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
        refused = await http.get("/v1/who", headers=headers)
        assert refused.headers["retry-after"] == "30"
        assert (await http.get("/v1/who", headers={"x-api-key": ADMINISTRATOR})).status_code == 200
        guesses = [await http.get("/v1/who", headers={"x-api-key": "no"}) for _ in range(3)]
        assert [answer.status_code for answer in guesses] == [401, 401, 429]
        assert (await http.get("/healthz")).status_code == 200
        for _ in range(5):
            assert (await sibling.get("/v1/who")).status_code == 200


async def test_cross_origin_calls_are_off_until_named(tmp_path: Path, running: Running) -> None:
    asked = {"origin": "https://a.example", "access-control-request-method": "POST"}
    for origins, allowed in ((), None), (("https://a.example",), "https://a.example"):
        app = create_app(settings_in(tmp_path, cors_origins=origins))
        async with running(app), client(app) as http:
            answer = await http.options("/v1/say", headers=asked)
            assert answer.headers.get("access-control-allow-origin") == allowed
            assert answer.headers["x-request-id"]
            failed = await http.post("/v1/say", headers={"origin": "https://a.example"})
            assert failed.status_code == 415
            assert failed.headers.get("access-control-allow-origin") == allowed


def test_secrets_are_made_once_and_private(tmp_path: Path) -> None:
    first = secret(tmp_path / "secrets" / "subject.key")
    assert len(first) >= 32
    assert secret(tmp_path / "secrets" / "subject.key") == first
    assert (tmp_path / "secrets" / "subject.key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "secrets").iterdir()] == ["subject.key"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("app speak", "line 1: expected"),
        ("ok speak k\napp fly key", "line 2: unknown scope 'fly'"),
        ("ok speak k\napp speak sha256:abc", "line 2: expected 64 hexadecimal digits"),
        (f"app speak sha256:{'é' * 64}", "line 1: expected 64 hexadecimal digits"),
        (None, "cannot be read"),
    ],
)
def test_a_bad_file_of_keys_is_a_configuration_error(
    tmp_path: Path, text: str | None, said: str
) -> None:
    path = tmp_path / "keys"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigurationError, match=f"GOVOR_KEYS_FILE.*{said}"):
        create_app(settings_in(tmp_path, keys_file=path))


async def test_every_route_is_counted_once_and_models_apart(
    tmp_path: Path, running: Running
) -> None:
    app = create_app(settings_in(tmp_path))
    async with running(app) as http:
        await http.post("/v1/say", json={"text": "a"})
        await http.get("/v1/who")
        await http.get("/v1/nothing")
    sample = app.state.metrics.registry.get_sample_value
    routes = (("GET", "/v1/who", "2xx"), ("GET", "none", "4xx"), ("POST", "/v1/say", "2xx"))
    for method, handler, status in routes:
        counted = {"service": "nlu", "method": method, "handler": handler, "status": status}
        assert sample("http_request_duration_seconds_count", counted) == 1
    model = {"service": "nlu", "model": "nlu"}
    assert sample("model_request_duration_seconds_count", model) == 1


async def test_the_document_describes_every_verb(tmp_path: Path) -> None:
    document = create_app(settings_in(tmp_path)).openapi()
    assert document["openapi"].startswith("3.1")
    operation = document["paths"]["/v1/say"]["post"]
    assert operation["description"] == "Says a text again."
    statuses = {"200", "400", "401", "403", "404", "405", "408", "409", "413", "415", "422"}
    assert set(operation["responses"]) == statuses | {"429", "500", "503", "504"}
    for schema in ("Question", "Saying", "Error"):
        assert schema in document["components"]["schemas"]
    assert "429" in document["paths"]["/v1/who"]["get"]["responses"]

"""The public door: a real nginx, started as the stack starts it, before small services.

What needs no engine compares the templates with the tables they repeat.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket
from websockets.sync.client import connect

from bench.door import FOLDER, IMAGE, Door, command, nginx
from govor.config import Settings
from govor.errors import from_body
from govor.routes import ROUTES, service_of
from govor.verbs import MAX_TIMEOUT_SECONDS
from tests.deploy.door import House, breaking_off
from tests.deploy.stack import engine_or_skip

TEMPLATES = FOLDER / "templates"
ADMIN = "correct-horse"
PAUSE_SECONDS = 5.0
METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH"]


def small_service(name: str) -> ASGIApp:
    """Says who it is and what it got; does what some paths ask for."""

    async def tell(request: Request) -> Response:
        body = await request.body()
        told = {"by": name, "path": request.url.path, "bytes": len(body)}
        if status := request.headers.get("x-answer"):
            error = {"message": "no", "type": "overloaded_error", "param": None, "code": "full"}
            return JSONResponse({"error": error}, int(status), {"retry-after": "7"})
        await asyncio.sleep(float(request.headers.get("x-pause", 0)))
        return JSONResponse(
            told | {"headers": dict(request.headers)}, headers={"x-request-id": "x"}
        )

    async def events(request: Request) -> Response:
        async def later() -> AsyncIterator[bytes]:
            yield b"data: first\n\n"
            await asyncio.sleep(PAUSE_SECONDS)
            yield b"data: " + b"last " * 1000 + b"\n\n"

        unbuffered = {} if request.url.path == "/v1/events" else {"x-accel-buffering": "no"}
        return StreamingResponse(later(), media_type="text/event-stream", headers=unbuffered)

    async def authorize(request: Request) -> Response:
        known = request.headers.get("x-api-key") == ADMIN
        return Response(status_code=204 if known else 401, headers={"www-authenticate": "Basic"})

    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(await socket.receive_text())
        await socket.close()

    async def page(request: Request) -> Response:
        return Response(headers={"content-security-policy": "default-src 'self'"})

    return Starlette(
        routes=[
            Route("/page", page),
            Route("/v1/events", events),
            Route("/v1/synthesize", events, methods=["GET"]),
            Route("/internal/authorize", authorize),
            WebSocketRoute("/v1/echo", echo),
            Route("/{path:path}", tell, methods=METHODS),
        ]
    )


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    engine_or_skip()
    with House(small_service) as house:
        yield house


@pytest.fixture(scope="module")
def door(house: House) -> Iterator[Door]:
    with nginx(house.servers, house.resolver) as door:
        yield door


@pytest.fixture
def client(door: Door) -> Iterator[httpx.Client]:
    with _client(door) as client:
        yield client


# What the templates repeat


def test_the_template_has_the_route_table() -> None:
    server = (TEMPLATES / "40-server.conf.template").read_text()
    server = re.sub(r"\$\{\w+\}", "set", server)
    exact = dict(re.findall(r"location = (\S+)\s*\{[^}]*?proxy_pass http://(\w+);", server))
    assert exact == ROUTES | {"/v1/converse": "gateway"}
    assert re.search(r"location / \{[^}]*proxy_pass http://gateway;", server)
    answers = (TEMPLATES / "30-answers.conf.template").read_text()
    services = answers.partition("map $uri $service {")[2].partition("}")[0]
    assert dict(re.findall(r"^\s+(/\S+)\s+(\w+);", services, re.M)) == ROUTES
    assert int(re.findall(r"proxy_read_timeout (\d+)s", server)[0]) > MAX_TIMEOUT_SECONDS


def test_the_limits_are_those_of_the_settings() -> None:
    defaults = dict(re.findall(r"GOVOR_(\w+):-(\d+)", (FOLDER / "05-govor.envsh").read_text()))
    for name in ("max_json_bytes", "max_audio_bytes", "rate_limit_per_minute", "port"):
        assert int(defaults[name.upper()]) == Settings.model_fields[name].default


def test_every_fault_is_an_error_of_ours() -> None:
    text = (TEMPLATES / "30-answers.conf.template").read_text()
    faults = re.findall(r"^ +(\d{3}) +'(.*)';$", text, re.M)
    assert {"404", "413", "429", "502", "503", "504"} <= {status for status, _ in faults}
    for status, body in faults:
        error = from_body(int(status), json.loads(body))
        same_kind = error.status == int(status) or status in ("414", "431", "502")
        assert same_kind, status
        assert json.loads(body)["error"]["type"] == error.type or status in ("414", "431")


def test_the_image_is_that_of_the_stack() -> None:
    stack = yaml.safe_load((FOLDER.parent / "compose.yaml").read_text())
    assert stack["services"]["nginx"]["image"] == IMAGE
    mounted = " ".join(str(volume) for volume in stack["services"]["nginx"]["volumes"])
    for word in command("nginx"):
        if word.startswith("--volume="):
            assert word.rpartition(":")[0].rpartition(":")[2] in mounted


# What a real nginx does


@pytest.mark.docker
@pytest.mark.smoke
def test_nginx_accepts_its_configuration() -> None:
    engine_or_skip()
    tried = subprocess.run(
        command("nginx", "-t", options=("--rm", "--network=none")), capture_output=True, text=True
    )
    assert tried.returncode == 0, tried.stderr


@pytest.mark.docker
def test_each_path_is_answered_by_its_service(client: httpx.Client) -> None:
    others = ["/", "/v1/converse", "/v1/domains", "/v1/understand/", "/v1/Generate", "/readyz"]
    encoded = ["/v1/%75nderstand", "/v1//understand", "/static/../v1/generate"]
    for path in (*ROUTES, *others):
        assert _by(client.post(path, json={})) == service_of(path), path
    assert [_by(client.get(path)) for path in encoded] == ["nlu", "nlu", "generator"]


@pytest.mark.docker
def test_what_is_inside_stays_inside(client: httpx.Client) -> None:
    key = {"x-api-key": ADMIN}
    paths = ["/metrics", "/internal/authorize", "/internal%2Fauthorize", "/authorize"]
    for path in (*paths, "//internal/authorize", "/v1/../internal/x", "/stub_status"):
        answer = client.get(path, headers=key)
        inside = path != "/stub_status"
        assert (answer.status_code == 404) == inside, path
        if inside:
            assert answer.json()["error"]["code"] == "route_not_found"
    assert _by(client.get("/stub_status")) == "gateway"


@pytest.mark.docker
def test_grafana_and_prometheus_are_for_administrators(client: httpx.Client) -> None:
    for name in ("grafana", "prometheus"):
        refused = client.get(f"/{name}/api/health", headers={"x-api-key": "guess"})
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Basic"
        assert refused.json()["error"]["type"] == "authentication_error"
        claim = {"x-api-key": ADMIN, "x-webauth-user": "somebody"}
        passed = client.get(f"/{name}/api/health", headers=claim).json()
        assert (passed["by"].split()[0], passed["path"]) == (name, "/api/health")
        assert passed["headers"]["x-webauth-user"] == "admin"
        assert not {"x-api-key", "authorization"} & passed["headers"].keys()
        moved = client.get(f"/{name}")
        assert (moved.status_code, moved.headers["location"]) == (301, f"/{name}/")


@pytest.mark.docker
def test_a_request_has_one_id(client: httpx.Client) -> None:
    for given in (None, "a-sane.id_1", "not sane", "x" * 129):
        headers = {} if given is None else {"x-request-id": given}
        for path in ("/v1/understand", "/metrics"):
            answer = client.get(path, headers=headers)
            [echoed] = answer.headers.get_list("x-request-id")
            assert (echoed == given) == (given == "a-sane.id_1")
            assert re.fullmatch("[A-Za-z0-9._-]{1,128}", echoed)
            if path != "/metrics":
                assert answer.json()["headers"]["x-request-id"] == echoed


@pytest.mark.docker
def test_every_answer_has_the_security_headers_once(client: httpx.Client) -> None:
    for path in ("/", "/v1/understand", "/metrics", "/page", "/grafana/"):
        headers = client.get(path).headers
        assert headers.get_list("x-content-type-options") == ["nosniff"]
        assert headers.get_list("x-frame-options") == ["SAMEORIGIN"]
        assert headers.get_list("referrer-policy") == ["no-referrer"]
        assert headers["server"] == "nginx"
        policy = headers.get("content-security-policy", "")
        expected = {"/page": "default-src 'self'", "/grafana/": ""}
        assert policy.startswith(expected.get(path, "default-src 'none'"))
        assert "strict-transport-security" not in headers


@pytest.mark.docker
def test_bodies_have_limits(house: House) -> None:
    with (
        nginx(
            house.servers, house.resolver, GOVOR_MAX_JSON_BYTES=2000, GOVOR_MAX_AUDIO_BYTES=6000
        ) as door,
        _client(door) as client,
    ):
        for path, limit in [
            ("/v1/understand", 2000),
            ("/v1/feedback", 2000),
            ("/v1/transcribe", 8000),
            ("/v1/converse", 8000),
        ]:
            assert client.post(path, content=bytes(limit)).json()["bytes"] == limit
            for body in (bytes(limit + 1), iter([bytes(limit), b"x"])):
                refused = client.post(path, content=body)
                assert refused.status_code == 413
                _fault(refused, "invalid_request_error", "payload_too_large")
                assert str(limit) in refused.text


@pytest.mark.docker
def test_what_is_not_http_is_told_so(door: Door, client: httpx.Client) -> None:
    long = client.get("/v1/domains", headers={"x-long": "x" * 20_000})
    assert long.status_code == 431
    _fault(long, "invalid_request_error", "invalid_http")
    line = client.get("/" + "x" * 20_000)
    assert line.status_code == 414
    _fault(line, "invalid_request_error", "invalid_http")
    wrong = client.request("TRACE", "/")
    assert wrong.status_code == 405
    _fault(wrong, "invalid_request_error", "method_not_allowed")
    with socket.create_connection(("127.0.0.1", door.port)) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        answer = raw.makefile("rb").read().decode()
    assert answer.startswith("HTTP/1.1 400 ")
    assert '"code":"invalid_http"' in answer
    assert "X-Request-ID: " in answer


@pytest.mark.docker
def test_a_service_s_own_errors_pass_as_they_are(client: httpx.Client) -> None:
    answer = client.post("/v1/understand", headers={"x-answer": "503"}, json={})
    assert answer.status_code == 503
    _fault(answer, "overloaded_error", "full")
    assert answer.headers.get_list("retry-after") == ["7"]


@pytest.mark.docker
def test_a_caller_has_a_limit(house: House) -> None:
    with (
        nginx(house.servers, house.resolver, GOVOR_RATE_LIMIT_PER_MINUTE=3) as door,
        _client(door) as client,
    ):
        one, two = {"authorization": "Bearer one"}, {"x-api-key": "two"}
        assert _statuses(client, 4, one) == [200, 200, 200, 429]
        assert _statuses(client, 4, two) == [200, 200, 200, 429]
        assert _statuses(client, 4, {}) == [200, 200, 200, 429]
        assert client.get("/v1/domains", params={"token": "three"}).status_code == 200
        assert client.get("/v1/domains", headers={"x-api-key": "one"}).status_code == 429
        assert _statuses(client, 9, {}, "/healthz") == [200] * 9
        refused = client.get("/v1/domains", headers=one)
        _fault(refused, "rate_limit_error", "rate_limited")
        assert refused.headers["retry-after"] == "20"
        guesses = [_statuses(client, 1, {"x-api-key": f"guess {n}"})[0] for n in range(40)]
        assert 10 <= guesses.count(200) < 30
        text = door.output()
    assert "three" not in text


@pytest.mark.docker
def test_the_log_has_the_request_and_no_key(door: Door, client: httpx.Client) -> None:
    client.get(
        "/v1/domains?token=qs-secret",
        headers={
            "x-request-id": "seen",
            "authorization": "Bearer h-secret",
            "x-api-key": "k-secret",
        },
    )
    line = _logged(door, "seen")
    assert (line["method"], line["path"], line["status"]) == ("GET", "/v1/domains", 200)
    assert line["upstream"].startswith("127.77.")
    assert 0 <= float(line["upstream_seconds"]) < 60
    assert 0 <= line["seconds"] < 60
    assert "secret" not in door.output()


@pytest.mark.docker
def test_an_error_of_an_upstream_tells_no_key_either(house: House) -> None:
    servers = house.servers | {"gateway": "127.77.0.1:1"}
    with nginx(servers, house.resolver) as door, _client(door) as client:
        seen = {"x-request-id": "seen"}
        answer = client.get("/v1/domains?token=qs-secret", headers=seen)
        assert answer.status_code == 502
        _fault(answer, "server_error", "gateway_unavailable")
        assert answer.headers["retry-after"] == "2"
        assert _logged(door, "seen")["upstream_status"].startswith("502")
        assert "secret" not in door.output()


@pytest.mark.docker
def test_a_service_that_is_away_or_late_is_told_in_our_shape(house: House, tmp_path: Path) -> None:
    hurried = shutil.copytree(TEMPLATES, tmp_path / "templates")
    server = hurried / "40-server.conf.template"
    server.write_text(server.read_text().replace("605s", "1s"))
    servers = house.servers | {"tts": "nowhere.test:1"}
    with (
        nginx(servers, house.resolver, templates=hurried) as door,
        _client(door) as client,
    ):
        late = client.post("/v1/understand", headers={"x-pause": "5"}, json={})
        assert late.status_code == 504
        _fault(late, "timeout_error", "deadline_exceeded")
        away = client.post("/v1/synthesize", json={})
        assert away.status_code == 502
        _fault(away, "server_error", "tts_unavailable")


@pytest.mark.docker
@pytest.mark.parametrize("path", ["/v1/events", "/v1/synthesize"])
def test_the_first_event_does_not_wait_for_the_last(client: httpx.Client, path: str) -> None:
    since = time.monotonic()
    with client.stream("GET", path) as answer:
        chunks = answer.iter_raw()
        assert next(chunks).startswith(b"data: first")
        assert time.monotonic() - since < PAUSE_SECONDS
        assert "content-encoding" not in answer.headers
        assert len(b"".join(chunks)) > 5000


@pytest.mark.docker
def test_json_is_compressed_for_whom_that_helps(client: httpx.Client) -> None:
    headers = {"x-filler": "x" * 2000}
    packed = client.get("/v1/domains", headers=headers | {"accept-encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["vary"] == "Accept-Encoding"
    plain = client.get("/v1/domains", headers=headers | {"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers


@pytest.mark.docker
def test_a_websocket_passes(door: Door) -> None:
    with connect(f"ws://127.0.0.1:{door.port}/v1/echo", proxy=None) as socket:
        socket.send("hello")
        assert socket.recv() == "hello"


@pytest.mark.docker
def test_an_upload_passes_unbuffered_and_whole(client: httpx.Client) -> None:
    big = bytes(25 << 20)
    for path in ("/v1/transcribe", "/v1/converse"):
        assert client.post(path, content=big).json()["bytes"] == len(big)


@pytest.mark.docker
def test_a_new_replica_is_used_within_seconds_and_a_dead_one_passed_over(
    house: House, client: httpx.Client
) -> None:
    [first] = house.names.of["nlu"]
    second = house.address()
    with house.replica("nlu", second):
        house.names.of["nlu"] = [first, second]
        _until(lambda: second in _hosts(client, 4))
        assert _hosts(client, 20) == {first, second}
    for path in ("/v1/understand", "/v1/understand", "/v1/understand") * 10:
        assert client.post(path, json={}).status_code == 200
    house.names.of["nlu"] = [first]


@pytest.mark.docker
def test_a_verb_is_asked_again_and_a_turn_is_not(house: House) -> None:
    live, dying = house.address(), house.address()
    house.names.of["both"] = [live, dying]
    both = f"both.test:{house.port}"
    servers = house.servers | {"nlu": both, "stt": both, "gateway": both}
    with (
        house.replica("live", live),
        nginx(servers, house.resolver) as door,
        _client(door) as client,
    ):
        # Nobody listens: passed over by everything.
        for _ in range(6):
            for path in ("/v1/understand", "/v1/transcribe", "/v1/converse"):
                assert _by(client.post(path, content=b"{}")) == "live"
        # It dies over the request: asked again where that changes nothing.
        with breaking_off(dying, house.port) as asked:
            time.sleep(2.1)  # after so long one that failed is tried again
            verbs = [client.post("/v1/understand", json={}).status_code for _ in range(12)]
            time.sleep(2.1)
            reads = [client.get("/v1/domains").status_code for _ in range(12)]
            time.sleep(2.1)
            turns = [client.post("/v1/converse", json={}).status_code for _ in range(12)]
        assert {*verbs, *reads} == {200}
        assert {line.split()[1] for line in asked} > {b"/v1/understand", b"/v1/domains"}
        assert turns.count(502) == sum(b"converse" in line for line in asked) > 0


@pytest.mark.docker
def test_a_certificate_turns_tls_on(house: House, tmp_path: Path) -> None:
    made = ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", "privkey.pem", "-out", "fullchain.pem"]
    subprocess.run([*made, *names, *files], cwd=tmp_path, check=True, capture_output=True)
    tmp_path.chmod(0o755)
    (tmp_path / "privkey.pem").chmod(0o644)
    trusted = ssl.create_default_context(cafile=str(tmp_path / "fullchain.pem"))
    with nginx(house.servers, house.resolver, tls=tmp_path) as door:
        with _client(door, "https", verify=trusted) as client:
            answer = client.get("/v1/domains")
            assert answer.status_code == 200
            assert answer.headers["strict-transport-security"] == "max-age=31536000"
        moved = httpx.post(f"http://127.0.0.1:{door.port}/v1/domains?a=b", trust_env=False)
        assert moved.status_code == 308
        assert moved.headers["location"] == f"https://127.0.0.1:{door.port}/v1/domains?a=b"


@pytest.mark.docker
@pytest.mark.parametrize("mode", [0o700, 0o755])
@pytest.mark.parametrize("held", ["a key", "a link to nowhere", "nothing"])
def test_a_certificate_that_cannot_be_read_does_not_end_in_plain_http(
    tmp_path: Path, mode: int, held: str
) -> None:
    engine_or_skip()
    if held == "a key":
        (tmp_path / "privkey.pem").touch()
    elif held == "a link to nowhere":  # certbot's `live`, mounted without its `archive`
        (tmp_path / "README.md").touch()
        (tmp_path / "fullchain.pem").symlink_to("../../archive/fullchain1.pem")
    tmp_path.chmod(mode)
    started = command("nginx", tls=tmp_path, options=("--rm", "--network=none"))
    refused = subprocess.run(started, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "govor cannot start: GOVOR_TLS: uid 101 cannot read fullchain.pem" in refused.stderr


@pytest.mark.docker
def test_the_address_of_the_caller_is_believed_of_a_named_proxy_alone(
    house: House, door: Door
) -> None:
    claim = {"x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "https"}
    trusting = nginx(house.servers, house.resolver, GOVOR_TRUSTED_PROXY="127.0.0.0/8")
    with trusting as behind:
        for asked, address in ((door, "127.0.0.1"), (behind, "203.0.113.9")):
            with _client(asked) as client:
                told = _told(client.get("/v1/x", headers=claim | {"x-request-id": address}))
            assert not {name for name in told if name.startswith("x-forwarded")}
            assert _logged(asked, address)["client"] == address


@pytest.mark.docker
def test_nobody_is_at_home_by_the_name_of_home(client: httpx.Client) -> None:
    """A service without keys takes what this machine asks of `localhost`: never what comes here."""
    assert _told(client.get("/v1/x", headers={"host": "localhost"}))["host"] == "gateway"


@pytest.mark.docker
def test_its_own_state_is_on_another_port(door: Door) -> None:
    status = httpx.get(f"http://127.0.0.1:{door.inner}/stub_status", trust_env=False)
    assert status.text.startswith("Active connections:")


@pytest.mark.docker
def test_nothing_runs_as_root_or_writes_outside_its_folder(door: Door) -> None:
    def inside(*words: str) -> str:
        ran = ["docker", "exec", door.container, *words]
        return subprocess.run(ran, check=True, capture_output=True, text=True).stdout

    assert inside("id", "-u").strip() == "101"
    pids = inside("sh", "-c", "cat /proc/[0-9]*/status | grep Uid").split()
    assert "0" not in pids
    assert sorted(inside("ls", "/tmp").split()) == sorted(
        ["body", "conf.d", "fastcgi", "nginx.pid", "proxy", "scgi", "uwsgi"]
    )


def _client(door: Door, scheme: str = "http", **options: Any) -> httpx.Client:
    url = f"{scheme}://127.0.0.1:{door.port}"
    return httpx.Client(base_url=url, trust_env=False, timeout=30, **options)


def _logged(door: Door, request: str) -> dict[str, Any]:
    """The one line of a request in the access log, which is written once a second."""

    def found() -> list[dict[str, Any]]:
        lines = [line for line in door.output().splitlines() if line.startswith('{"time"')]
        return [line for line in map(json.loads, lines) if line["request_id"] == request]

    _until(found)
    [line] = found()
    return line


def _by(answer: httpx.Response) -> str:
    return str(answer.json()["by"]).split()[0]


def _told(answer: httpx.Response) -> dict[str, Any]:
    headers: dict[str, Any] = answer.json()["headers"]
    return headers


def _hosts(client: httpx.Client, count: int) -> set[str]:
    answers = [client.post("/v1/understand", json={}) for _ in range(count)]
    assert {answer.status_code for answer in answers} == {200}
    return {answer.json()["by"].split()[1] for answer in answers}


def _statuses(
    client: httpx.Client, count: int, headers: dict[str, str], path: str = "/v1/domains"
) -> list[int]:
    return [client.get(path, headers=headers).status_code for _ in range(count)]


def _fault(answer: httpx.Response, type_: str, code: str) -> None:
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == (type_, code)


def _until(look: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < end
        time.sleep(0.1)

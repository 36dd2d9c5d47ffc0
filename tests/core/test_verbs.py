"""A verb, called in process and over a real socket: both must behave alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from govor import door
from govor.clients import events
from govor.routes import PROMISED_SECONDS, SERVICES
from govor.server import lifespans
from govor.transport import StreamingTransport
from monitoring.objectives import load
from services.gateway.settings import GatewaySettings
from tests.conftest import Running
from tests.core.apps import Question, create_app, on_a_port, settings_in
from tests.core.waiting import PATIENCE_SECONDS, until


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    return create_app(settings_in(tmp_path))


@pytest.fixture(params=["in process", "socket"])
async def http(
    app: FastAPI, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    # A refused caller who is slow to send what is left hears why all the same.
    monkeypatch.setattr(door, "LINGER_SECONDS", PATIENCE_SECONDS)
    if request.param == "socket":
        async with (
            on_a_port(app, app) as url,
            httpx.AsyncClient(base_url=url, timeout=PATIENCE_SECONDS) as client,
        ):
            yield client
    else:
        async with (
            lifespans([app]),
            httpx.AsyncClient(
                transport=StreamingTransport(app),
                base_url="http://localhost",
                timeout=PATIENCE_SECONDS,
            ) as client,
        ):
            yield client


def counted(app: FastAPI, outcome: str) -> float:
    labels = {"service": "nlu", "model": "nlu", "outcome": outcome}
    return app.state.metrics.registry.get_sample_value("model_requests_total", labels) or 0.0


def answered(app: FastAPI, route: str, status: str) -> float:
    labels = {"service": "nlu", "method": "POST", "handler": route, "status": status}
    name = "http_request_duration_seconds_count"
    return app.state.metrics.registry.get_sample_value(name, labels) or 0.0


def error_of(answer: httpx.Response) -> dict[str, str | None]:
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"error"}
    error: dict[str, str | None] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


async def test_a_verb_answers(http: httpx.AsyncClient, app: FastAPI) -> None:
    answer = await http.post("/v1/say", json={"text": "да", "times": 2})
    assert (answer.status_code, answer.json()) == (200, {"text": "дада"})
    assert answer.headers["x-model"] == "echo"


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        (b"", 400, "invalid_json", None),
        (b"{", 400, "invalid_json", None),
        (b"\xff\xfe{}", 400, "invalid_json", None),
        (b'{"text": "\xd0"}', 400, "invalid_json", None),
        (b'{"text": "\\ud800"}', 400, "invalid_json", None),
        (b"[" * 100_000, 400, "invalid_json", None),
        (b'{"text": ' + b'{"a": ' * 100_000, 400, "invalid_json", None),
        (b"null", 422, "invalid_value", None),
        (b"[]", 422, "invalid_value", None),
        (b"{}", 422, "invalid_value", "text"),
        (b'{"text": 1}', 422, "invalid_value", "text"),
        (b'{"text": "a", "times": 1' + b"0" * 30 + b"}", 422, "invalid_value", "times"),
        (b'{"text": "a", "times": 1' + b"0" * 5000 + b"}", 400, "invalid_json", None),
        (b'{"text": "a", "pause": 1e999}', 422, "invalid_value", "pause"),
        (b'{"text": "a", "pause": NaN}', 422, "invalid_value", "pause"),
        (b'{"text": "a", "fields": {"sign": 1}}', 422, "invalid_value", "fields.sign"),
    ],
)
async def test_a_bad_body_is_refused(
    http: httpx.AsyncClient, body: bytes, status: int, code: str, param: str | None
) -> None:
    answer = await http.post("/v1/say", content=body, headers={"content-type": "application/json"})
    error = error_of(answer)
    assert (answer.status_code, error["code"], error["param"]) == (status, code, param)


async def test_a_long_name_of_a_field_is_cut(http: httpx.AsyncClient) -> None:
    body = {"text": "a", "fields": {"x" * 10_000: 1}}
    assert len(error_of(await http.post("/v1/say", json=body))["param"] or "") == 100


async def test_only_json_is_json(http: httpx.AsyncClient) -> None:
    answer = await http.post(
        "/v1/say", content=b'{"text": "a"}', headers={"content-type": "text/plain"}
    )
    assert (answer.status_code, error_of(answer)["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "HEAD"])
async def test_other_methods_are_405_with_allow(http: httpx.AsyncClient, method: str) -> None:
    answer = await http.request(method, "/v1/say")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


async def test_an_announced_body_over_the_limit_is_413(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/say", json={"text": "a" * (2 << 20)})
    assert (answer.status_code, error_of(answer)["code"]) == (413, "payload_too_large")
    assert "1048576" in (error_of(answer)["message"] or "")
    assert (await http.post("/v1/say", json={"text": "a"})).status_code == 200


async def test_chunks_are_counted(http: httpx.AsyncClient) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 65536

    answer = await http.post("/v1/upload", content=endless())
    assert answer.status_code == 413


async def test_a_slow_body_is_408(http: httpx.AsyncClient, app: FastAPI) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await app.state.work.running.wait()  # the deadline is counted
        await asyncio.sleep(0.3)

    answer = await http.post("/v1/upload", content=slow(), headers={"x-request-timeout": "0.1"})
    assert (answer.status_code, error_of(answer)["type"]) == (408, "timeout_error")
    assert counted(app, "deadline") == 1


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon", "", "1e999"])
async def test_a_nonsense_deadline_is_refused(http: httpx.AsyncClient, seconds: str) -> None:
    answer = await http.post("/v1/say", json={"text": "a"}, headers={"x-request-timeout": seconds})
    assert (answer.status_code, error_of(answer)["param"]) == (400, "X-Request-Timeout")


@pytest.mark.parametrize(
    ("given", "counts"), [(None, "5xx"), ("20", "4xx"), ("25", "5xx"), ("40", "5xx")]
)
async def test_who_gives_less_time_than_promised_makes_no_error_of_ours(
    http: httpx.AsyncClient,
    app: FastAPI,
    monkeypatch: pytest.MonkeyPatch,
    given: str | None,
    counts: str,
) -> None:
    monkeypatch.setitem(PROMISED_SECONDS, "nlu", 25.0)
    headers = {"x-request-timeout": given} if given else {}
    late = await http.post("/v1/fall", json={"text": "late"}, headers=headers)
    assert (late.status_code, error_of(late)["code"]) == (504, "deadline_exceeded")
    other = await http.post("/v1/fall", json={"text": "x"}, headers=headers)
    assert other.status_code == 500
    await until(lambda: counted(app, "deadline") == counted(app, "error") == 1)
    await until(lambda: answered(app, "/v1/fall", "4xx") == (counts == "4xx"))
    assert answered(app, "/v1/fall", "5xx") == 1 + (counts == "5xx")


async def test_the_usual_deadline_is_not_the_callers_hurry(
    tmp_path: Path, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PROMISED_SECONDS, "nlu", 25.0)
    app = create_app(settings_in(tmp_path, default_timeout_seconds=20))
    async with running(app) as client:
        late = await client.post("/v1/fall", json={"text": "late"})
    assert late.status_code == 504
    assert answered(app, "/v1/fall", "5xx") == 1


def test_a_deadline_as_long_as_the_promise_is_judged() -> None:
    objectives = load()
    assert objectives.services.keys() == PROMISED_SECONDS.keys()
    for name, service in objectives.services.items():
        assert PROMISED_SECONDS[name] <= service.p95_seconds, name
    for name in SERVICES[:-1]:  # as long as the gateway waits, too
        field = GatewaySettings.model_fields[f"gateway_{name}_timeout_seconds"]
        assert PROMISED_SECONDS[name] <= field.default


def test_what_alerts_count_begins_at_0(app: FastAPI) -> None:
    values = {
        name: app.state.metrics.registry.get_sample_value(name, labels)
        for name, labels in {
            "http_request_duration_seconds_count": {
                "service": "nlu",
                "method": "POST",
                "handler": "/v1/say",
                "status": "5xx",
            },
            "model_requests_total": {"service": "nlu", "model": "nlu", "outcome": "shed"},
        }.items()
    }
    assert set(values.values()) == {0.0}, values


async def test_unexpected_errors_do_not_leak(
    http: httpx.AsyncClient, app: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await http.post("/v1/fall", json={"text": "x"})
    assert (answer.status_code, error_of(answer)["code"]) == (500, "internal_error")
    assert "secret" not in answer.text
    assert "secret" in caplog.text
    assert counted(app, "error") == 1


async def test_a_request_id_is_echoed_or_made(http: httpx.AsyncClient) -> None:
    for given, kept in (("a.B_9-", True), ("x" * 128, True), ("x" * 129, False), ("a b", False)):
        for path in ("/v1/say", "/nothing", "/healthz"):
            answer = await http.get(path, headers={"x-request-id": given})
            assert answer.headers.get_list("x-request-id") == [answer.headers["x-request-id"]]
            assert (answer.headers["x-request-id"] == given) is kept
            assert answer.headers["x-request-id"]


async def test_work_ends_when_the_caller_goes(http: httpx.AsyncClient, app: FastAPI) -> None:
    task = asyncio.create_task(http.post("/v1/say", json={"text": "a", "pause": 60}))
    await asyncio.wait_for(app.state.work.running.wait(), PATIENCE_SECONDS)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await until(lambda: counted(app, "cancelled") == 1)
    assert app.state.work.cancelled
    assert answered(app, "/v1/say", "4xx") == 1
    assert (await http.post("/v1/say", json={"text": "a"})).status_code == 200


async def test_what_follows_an_answer_is_not_cancelled(
    http: httpx.AsyncClient, app: FastAPI
) -> None:
    headers = {"connection": "close"}
    assert (await http.post("/v1/say", json={"text": "a"}, headers=headers)).status_code == 200
    await until(lambda: counted(app, "ok") + counted(app, "cancelled") == 1)
    assert app.state.work.recorded == 1
    assert counted(app, "ok") == 1


async def test_a_stream_ends_when_the_caller_goes(http: httpx.AsyncClient, app: FastAPI) -> None:
    body = {"text": "a", "times": 1000, "pause": 0.1}
    async with http.stream("POST", "/v1/stream", json=body) as answer:
        assert await anext(events(answer)) == ("delta", '{"text":"a"}')
    await until(lambda: counted(app, "cancelled") == 1)
    steps = app.state.work.steps
    await asyncio.sleep(0.3)
    assert app.state.work.steps == steps


async def test_events_leave_as_they_are_made(http: httpx.AsyncClient, app: FastAPI) -> None:
    heard = asyncio.Semaphore(1)

    async def after_the_last_was_heard(_: Question) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await heard.acquire()

    app.state.work = after_the_last_was_heard
    got = []
    async with http.stream("POST", "/v1/stream", json={"text": "да", "times": 4}) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        async for event in events(answer):
            got.append(event)
            heard.release()
    assert got == [*[("delta", '{"text":"да"}')] * 4, ("done", '{"text":"да"}')]


async def test_an_error_in_a_stream_of_events_is_an_event(
    http: httpx.AsyncClient, app: FastAPI
) -> None:
    async with http.stream("POST", "/v1/stream", json={"text": "fail", "times": 2}) as answer:
        got = [event async for event in events(answer)]
    assert [name for name, _ in got] == ["delta", "error"]
    assert '"overloaded"' in got[1][1]
    assert counted(app, "shed") == 1
    assert answered(app, "/v1/stream", "5xx") == 1


async def test_broken_audio_is_cut_off(http: httpx.AsyncClient) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        await http.post("/v1/play")


async def test_a_form_has_fields_lists_and_files(http: httpx.AsyncClient) -> None:
    answer = await http.post(
        "/v1/upload",
        files=[
            ("file", ("a.wav", b"x" * 100_000, "audio/wav")),
            ("hints[]", (None, "лев")),
            ("loud", (None, "1")),
        ],
    )
    assert answer.json() == {
        "fields": {"hints": ["лев"], "loud": "1"},
        "sizes": {"file": 100_000},
        "hints": ["лев"],
    }


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=", b"x"),
        ("multipart/form-data; boundary=b", b"x"),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\n\xff\xff: \r\n\r\n\r\n--b--"),
        ("multipart/form-data; boundary=" + "b" * 5000, b"--b\r\n"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="loud"\r\n\r\nperhaps\r\n--b--\r\n',
        ),
    ],
)
async def test_a_bad_form_is_refused(http: httpx.AsyncClient, kind: str, body: bytes) -> None:
    answer = await http.post("/v1/upload", content=body, headers={"content-type": kind})
    assert answer.status_code in (400, 422)
    assert error_of(answer)["type"] == "invalid_request_error"


async def test_a_form_of_too_many_fields_is_refused(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/upload", files=[(f"f{n}", (None, "x")) for n in range(100)])
    assert (answer.status_code, error_of(answer)["code"]) == (400, "invalid_form")

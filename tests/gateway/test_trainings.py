"""Trainings over HTTP: asked for once, watched to their end, cancelled, tried again."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy.engine import Connection

from govor.clients import events
from govor.database import transaction
from govor.schemas.jobs import Progress
from tests.gateway.conftest import EVENTS, Gateway, until
from trainer.jobs import Lease, finish, pulse, take

ASKED = {"recipe": "intents", "domain": "desk", "params": {"seed": 3}}


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway() as client:
        yield client


@pytest.fixture
def worker(tmp_path: Path) -> Callable[..., Any]:
    """Does a worker's work in the gateway's database."""
    url = f"sqlite:///{tmp_path}/var/govor.db"

    def work(action: Callable[..., Any], *given: Any, **more: Any) -> Any:
        with transaction(url) as connection:
            return action(connection, *given, **more)

    return work


def taken(connection: Connection) -> Lease:
    lease = take(connection, "cpu", worker="w", seconds=60)
    assert lease is not None
    return lease


async def ask(client: httpx.AsyncClient, key: str | None = None, **more: Any) -> httpx.Response:
    headers = {"content-type": "application/json"} | ({"idempotency-key": key} if key else {})
    # The client's own JSON has no lone surrogates.
    return await client.post("/v1/trainings", content=json.dumps(ASKED | more), headers=headers)


async def test_a_training_is_accepted_and_rung_for(
    client: httpx.AsyncClient, tmp_path: Path
) -> None:
    answer = await ask(client)
    assert answer.status_code == 202
    identity = answer.json()["job_id"]
    assert answer.headers["location"] == f"/v1/trainings/{identity}"
    job = (await client.get(answer.headers["location"])).json()
    assert (job["state"], job["queue"], job["domain"]) == ("queued", "cpu", "desk")
    assert (job["params"], job["requested_by"]) == ({"seed": 3}, "internal")
    # The ring follows the answer.
    await until(lambda: bool(list(tmp_path.glob("var/broker/messages/*.cpu.msg"))))


async def test_without_a_domain_it_is_the_default_one(client: httpx.AsyncClient) -> None:
    identity = (await ask(client, domain=None)).json()["job_id"]
    assert (await client.get(f"/v1/trainings/{identity}")).json()["domain"] == "desk"


@pytest.mark.parametrize(
    ("wrong", "status", "param", "code"),
    [
        ({"recipe": "alchemy"}, 422, "recipe", "recipe_not_found"),
        ({"domain": "nowhere"}, 404, "domain", "domain_not_found"),
        ({"params": {"sead": 1}}, 422, "params.sead", "invalid_value"),
        ({"params": {"seed": "many"}}, 422, "params.seed", "invalid_value"),
        ({"params": {"seed": "\ud800"}}, 422, "params.seed", "invalid_value"),
        ({"params": {"\ud800": 1}}, 422, "params", "invalid_value"),
        ({"priority": 10}, 422, "priority", "invalid_value"),
        ({"queue": "tpu"}, 422, "queue", "invalid_value"),
        ({"epochs": 3}, 422, "epochs", "invalid_value"),
    ],
)
async def test_what_is_wrong_is_named(
    client: httpx.AsyncClient, wrong: dict[str, Any], status: int, param: str, code: str
) -> None:
    answer = await ask(client, **wrong)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (status, param, code)


async def test_a_repeat_gets_the_first_job_and_another_body_a_conflict(
    client: httpx.AsyncClient, worker: Callable[..., Any]
) -> None:
    first = await ask(client, "key")
    assert (await ask(client, "key")).json() == first.json()
    worker(finish, worker(taken), "done")
    again = await ask(client, "key")
    assert (again.status_code, again.json()) == (202, first.json())
    other = await ask(client, "key", priority=9)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_conflict")
    assert len((await client.get("/v1/trainings")).json()["jobs"]) == 1


async def test_redis_that_is_away_does_not_fail_a_request(gateway: Gateway) -> None:
    async with gateway(broker_url="redis://127.0.0.1:1/0") as client:
        answer = await ask(client)
        assert answer.status_code == 202
        assert (await client.get(answer.headers["location"])).json()["state"] == "queued"


async def test_jobs_are_listed_by_state_and_page(
    client: httpx.AsyncClient, worker: Callable[..., Any]
) -> None:
    asked = [(await ask(client)).json()["job_id"] for _ in range(3)]
    page = (await client.get("/v1/trainings", params={"limit": 2})).json()
    rest = (await client.get("/v1/trainings", params={"cursor": page["next"]})).json()
    assert [job["id"] for job in page["jobs"] + rest["jobs"]] == asked[::-1]
    assert rest["next"] is None
    worker(taken)
    running = (await client.get("/v1/trainings", params={"state": "running"})).json()
    assert [job["id"] for job in running["jobs"]] == asked[:1]
    assert (await client.get("/v1/trainings", params={"state": "lost"})).status_code == 422


async def test_progress_is_streamed_to_the_end(
    client: httpx.AsyncClient, worker: Callable[..., Any]
) -> None:
    def begin(connection: Connection) -> Lease:
        lease = taken(connection)
        at = lease.job.created_at
        told = Progress(step="train", done=0.5, epoch=1, epochs=2, loss=0.7, at=at)
        pulse(connection, lease, {"progress": told.model_dump(mode="json")})
        return lease

    path = (await ask(client)).headers["location"]
    async with client.stream("GET", path, headers=EVENTS) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        told = ((name, json.loads(data)) async for name, data in events(answer))
        name, job = await anext(told)
        assert (name, job["state"]) == ("progress", "queued")
        lease = worker(begin)
        name, job = await anext(told)
        assert (name, job["progress"]["loss"]) == ("progress", 0.7)
        worker(finish, lease, "done", result={"version": 4})
        ((name, job),) = [event async for event in told]
        assert (name, job["result"]) == ("done", {"version": 4})


async def test_a_log_is_followed_to_the_end(
    client: httpx.AsyncClient, worker: Callable[..., Any]
) -> None:
    path = (await ask(client)).headers["location"]
    lease = worker(taken)
    worker(pulse, lease, lines=["one", "two"])
    so_far = (await client.get(f"{path}/logs")).text
    assert [line.split(" ", 1)[1] for line in so_far.splitlines()] == ["start 1 on w", "one", "two"]
    following = asyncio.create_task(client.get(f"{path}/logs", params={"follow": "true"}))
    await asyncio.sleep(0.2)
    worker(finish, lease, "failed", error="no rows")
    assert (await following).text == so_far + (await client.get(f"{path}/logs")).text[len(so_far) :]
    assert (await following).text.endswith(" failed: no rows\n")


async def test_a_job_is_cancelled_before_and_while_it_runs(
    client: httpx.AsyncClient, worker: Callable[..., Any]
) -> None:
    path = (await ask(client)).headers["location"]
    assert (await client.delete(path)).status_code == 204
    again = await client.delete(path)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "job_finished")
    running = (await ask(client)).headers["location"]
    lease = worker(taken)
    answer = await client.delete(running)
    assert (answer.status_code, answer.json()["cancel_requested"]) == (202, True)
    assert worker(pulse, lease) is True


async def test_a_failed_job_is_tried_again(
    client: httpx.AsyncClient, worker: Callable[..., Any]
) -> None:
    first = await ask(client)
    path = first.headers["location"]
    refused = await client.post(f"{path}/retry")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "job_not_retryable")
    worker(finish, worker(taken), "failed", error="no rows")
    answer = await client.post(f"{path}/retry")
    job = (await client.get(answer.headers["location"])).json()
    assert (answer.status_code, job["retry_of"]) == (202, first.json()["job_id"])


@pytest.mark.parametrize("path", ["", "/logs", "/retry"])
async def test_a_job_that_is_not_there_is_not_found(client: httpx.AsyncClient, path: str) -> None:
    method = "POST" if path == "/retry" else "GET"
    answer = await client.request(method, f"/v1/trainings/nobody{path}", headers=EVENTS)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "job_not_found")


async def test_trainings_need_the_scope_admin(gateway: Gateway, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("app speak key-of-the-app\n")
    async with gateway(keys_file=keys) as client:
        for method, path in (
            ("POST", ""),
            ("GET", ""),
            ("GET", "/a"),
            ("GET", "/a/logs"),
            ("POST", "/a/retry"),
            ("DELETE", "/a"),
        ):
            answer = await client.request(
                method,
                f"/v1/trainings{path}",
                json=ASKED if method == "POST" else None,
                headers={"authorization": "Bearer key-of-the-app"},
            )
            assert answer.status_code == 403, (method, path)


async def test_without_a_trainer_a_training_ends_in_one_line(gateway: Gateway) -> None:
    async with gateway() as client:
        app = client._transport._app  # type: ignore[attr-defined]
        app.state.trainer = False
        answer = await ask(client)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "trainer_not_installed"
        assert "make trainer" in answer.json()["error"]["message"]

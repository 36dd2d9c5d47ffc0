"""Actions by webhook, against a server of Rasa's protocol on a real port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from services.gateway import actions
from tests.gateway.conftest import Gateway, say, until

CALL = actions.Call("get_order", "c1", {"order": "A1"}, "en", "refund A1", "refund", 0.9)


class ActionServer:
    """Answers what it holds for the action; `late` when the test is over."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answers: dict[str, Any] = {}
        self.late_began, self.over = asyncio.Event(), asyncio.Event()

    async def late(self) -> Response:
        self.late_began.set()
        await self.over.wait()
        return JSONResponse({"events": []})

    async def webhook(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append(body)
        answer = self.answers.get(body["next_action"])
        if callable(answer):
            made: Response = await answer()
            return made
        return JSONResponse(answer or {"events": [], "responses": []})


@pytest.fixture
async def server() -> ActionServer:
    return ActionServer()


@asynccontextmanager
async def listening(server: ActionServer) -> AsyncIterator[str]:
    app = Starlette(routes=[Route("/webhook", server.webhook, methods=["POST"])])
    config = uvicorn.Config(app, port=0, log_config=None, lifespan="off")
    running = uvicorn.Server(config)
    task = asyncio.create_task(running.serve())
    await until(lambda: running.started)
    port = running.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/webhook"
    finally:
        server.over.set()
        running.should_exit = True
        await task


async def run(server: ActionServer, timeout: float = 30) -> actions.Answer:
    async with listening(server) as url, httpx.AsyncClient() as client:
        return await actions.run(client, url, CALL, timeout)


async def test_an_action_server_is_told_the_tracker_and_sets_slots(server: ActionServer) -> None:
    server.answers["get_order"] = {
        "events": [
            {"event": "slot", "name": "found", "value": True, "timestamp": None},
            {"event": "action", "name": "something_else"},
        ],
        "responses": [
            {"text": "One order.", "buttons": []},
            {"text": None, "response": "open_hours"},
            {"template": "ask_order"},
            {"custom": {}},
        ],
    }
    answer = await run(server)
    assert answer.slots == {"found": True}
    assert answer.texts == ["One order."]
    assert answer.replies == ["open_hours", "ask_order"]
    told = server.asked[0]
    assert told["next_action"] == "get_order"
    assert told["sender_id"] == told["tracker"]["sender_id"] == "c1"
    assert told["tracker"]["slots"] == {"order": "A1", "language": "en"}
    assert told["tracker"]["latest_message"]["intent"] == {"name": "refund", "confidence": 0.9}


@pytest.mark.parametrize(
    "answer",
    [
        lambda: JSONResponse({"error": "no such action", "action_name": "x"}, 404),
        lambda: JSONResponse({"events": "none"}),
        lambda: JSONResponse({"responses": [{"text": "x" * 5000}]}),
        lambda: Response(b"\xff\xfe not json"),
        lambda: Response(b'{"events": [' + b" " * (2 << 20) + b"]}"),
        lambda: Response(b"[" * 100_000),
        lambda: RedirectResponse("http://127.0.0.1:1/"),
    ],
    ids=["refused", "shape", "long", "bytes", "huge", "deep", "redirect"],
)
async def test_anything_else_is_a_failed_action(server: ActionServer, answer: Any) -> None:
    async def give() -> Response:
        response: Response = answer()
        return response

    server.answers["get_order"] = give
    with pytest.raises(actions.ActionFailed):
        await run(server)


async def test_a_slow_action_is_a_failed_action(server: ActionServer) -> None:
    server.answers["get_order"] = server.late
    with pytest.raises(actions.ActionFailed, match="Timeout"):
        await run(server, timeout=0.3)


async def test_a_refund_goes_through_its_actions(gateway: Gateway, server: ActionServer) -> None:
    slots = {"found": True, "total": {"amount": 5, "currency": "USD"}}
    named = [{"event": "slot", "name": k, "value": v} for k, v in slots.items()]
    server.answers["get_order"] = {"events": named, "responses": []}
    server.answers["refund_order"] = {"events": [], "responses": [{"text": "Ref. {order} 77"}]}
    async with listening(server) as url, gateway(gateway_actions_url=url) as client:
        asked = await say(client, "my money back for A1")
        one = {"conversation_id": asked["conversation_id"]}
        assert asked["steps"] == ["get_order", "refund_summary"]
        assert "5 dollars" in asked["reply"]["text"]
        done = await say(client, "yes", **one)
    assert done["steps"] == ["refund_order", "refund_order", "refund_done"]
    assert done["reply"]["text"].startswith("Ref. {order} 77")
    assert "action" in done["timings"]


async def test_without_an_action_server_the_flow_says_so(gateway: Gateway) -> None:
    async with gateway() as client:
        turn = await say(client, "my money back for A1")
    assert turn["degraded"] == ["action"]
    assert turn["steps"] == ["get_order", "system_down"]


async def test_what_an_action_did_is_kept_when_the_client_goes(
    gateway: Gateway, server: ActionServer
) -> None:
    """The refund was made; a client that went away must not lead to a second one."""
    server.answers["get_order"] = server.late
    async with listening(server) as url, gateway(gateway_actions_url=url) as client:
        body = {"text": "my money back for A1", "conversation_id": "c2"}
        call = asyncio.create_task(client.post("/v1/converse", json=body))
        await server.late_began.wait()
        call.cancel()
        # The next turn follows the one that nobody waits for.
        await say(client, "open", conversation_id="c2")
        kept = (await client.get("/v1/conversations/c2")).json()
    assert [turn["steps"] for turn in kept["turns"]][:1] == [["get_order"]]
    assert len(kept["turns"]) == 2

"""Small services that the tests of the shared library run, in process and on a port."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI
from pydantic import BaseModel, Field
from starlette.types import ASGIApp

from govor.config import Settings
from govor.errors import DeadlineExceeded, Overloaded
from govor.keys import KeyTable, Principal
from govor.server import OPTIONS, lifespans
from govor.service import create_service, speaker
from govor.verbs import Call, verb


class Question(BaseModel):
    text: str = Field(max_length=4000)
    times: int = Field(1, ge=1, le=1000)
    pause: float = Field(0.0, ge=0, le=60)
    version: int | None = None
    fields: dict[str, str] | None = None


class Saying(BaseModel):
    text: str


class Options(BaseModel):
    hints: list[str] = []
    loud: bool = False


class Work:
    """What went on in a service, for the tests to look at."""

    def __init__(self) -> None:
        self.steps = 0
        self.recorded = 0
        self.cancelled = False
        self.running = asyncio.Event()

    async def __call__(self, question: Question) -> str:
        try:
            for _ in range(question.times):
                self.running.set()
                await asyncio.sleep(question.pause)
                self.steps += 1
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return question.text * question.times


def create_app(settings: Settings, key_table: KeyTable | None = None) -> FastAPI:
    """Four verbs in one service: say, stream, upload and break; and one FastAPI route."""
    app = create_service(
        "nlu", settings, description="For tests", parts={}, key_table=key_table, public=("/page/",)
    )
    app.state.work = Work()

    async def say(call: Call) -> None:
        """Says a text again."""
        question = await call.parse(Question)
        if question.version is not None:
            call.admin_only("version")
        text = await call.until_disconnect(app.state.work(question))
        await call.send_json(Saying(text=text), headers={"X-Model": "echo"})
        await asyncio.sleep(0.02)
        app.state.work.recorded += 1

    async def stream(call: Call) -> None:
        """Says a text word by word."""
        question = await call.parse(Question)
        for number in range(question.times):
            await app.state.work(question.model_copy(update={"times": 1}))
            if question.text == "fail" and number:
                raise Overloaded("too much to say")
            await call.event("delta", Saying(text=question.text))
        await call.event("done", {"text": question.text})

    async def upload(call: Call) -> None:
        """Counts what came, as a form or as it is."""
        app.state.work.running.set()
        if call.content_type == "multipart/form-data":
            fields, files = await call.form(1 << 20)
            options = call.options(Options, fields)
            sizes = {name: len(file.data) for name, file in files.items()}
            await call.send_json({"fields": fields, "sizes": sizes, "hints": options.hints})
        else:
            await call.send_json({"size": len(await call.body(1 << 20))})

    async def play(call: Call) -> None:
        """Audio that breaks off."""
        await call.start("audio/wav")
        await call.write(b"RIFF")
        raise RuntimeError("the engine died")

    async def fall(call: Call) -> None:
        """Falls over."""
        question = await call.parse(Question)
        if question.text == "late":
            raise DeadlineExceeded("too late")
        raise RuntimeError("a secret: " + question.text)

    kinds = {"request": Question, "answers": {"application/json": Saying}}
    verb(app, "/v1/say", say, summary="Say it", **kinds)
    verb(app, "/v1/stream", stream, summary="Say it in words", **kinds)
    verb(app, "/v1/upload", upload, summary="Count it", media={"audio/*": {}}, **kinds)
    verb(app, "/v1/play", play, summary="Play it", **kinds)
    verb(app, "/v1/fall", fall, summary="Fall over", **kinds)

    @app.get("/v1/who")
    async def who(caller: Annotated[Principal, Depends(speaker)], times: int = 1) -> dict[str, str]:
        return {"name": caller.name}

    return app


def settings_in(folder: Path, **fields: object) -> Settings:
    return Settings(var=folder, **fields)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def on_a_port(app: ASGIApp, *apps: FastAPI) -> AsyncIterator[str]:
    """Serves an app over a real socket of this machine; its URL."""
    server = uvicorn.Server(uvicorn.Config(app, **OPTIONS))
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        async with lifespans(apps):
            task = asyncio.create_task(server.serve(sockets=[listener]))
            while not server.started:
                await asyncio.sleep(0.005)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            server.should_exit = True
            await task

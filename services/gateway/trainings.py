"""`/v1/trainings`: jobs for the trainer, asked for, watched, cancelled and tried again."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Annotated, Any

from fastapi import BackgroundTasks, Depends, FastAPI, Header, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from govor import jobs
from govor.database import Database
from govor.errors import Unavailable
from govor.keys import Principal
from govor.schemas.jobs import EnqueuedJob, Job, JobRequest, Jobs, State
from govor.service import administrator
from services.gateway.idempotency import Idempotency
from services.gateway.packs import Packs
from services.gateway.settings import GatewaySettings

LOOK_SECONDS = 0.5
QUIET_SECONDS = 15.0
"""A stream without news says so, before a proxy takes it for dead."""

_EXAMPLE = {"recipe": "intents", "domain": "support"}
_UNBUFFERED = {"cache-control": "no-store", "x-accel-buffering": "no"}
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}
}
_LINES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}}
}
Admin = Annotated[Principal, Depends(administrator)]


def add_routes(
    app: FastAPI,
    settings: GatewaySettings,
    database: Database,
    packs: Packs,
    idempotency: Idempotency,
) -> None:
    """`app.state.trainer` says whether anybody is there to train; the embedded mode knows."""
    app.state.trainer = True

    def answer(job: Job, after: BackgroundTasks, response: Response) -> EnqueuedJob:
        # After the answer: with Redis away it may take 3 s.
        after.add_task(jobs.ring, settings, job)
        response.headers["location"] = f"/v1/trainings/{job.id}"
        return EnqueuedJob(job_id=job.id)

    @app.post(
        "/v1/trainings",
        summary="Ask for a training",
        status_code=202,
        tags=["gateway"],
        openapi_extra={"requestBody": {"content": {"application/json": {"example": _EXAMPLE}}}},
    )
    async def train(
        asked: JobRequest,
        who: Admin,
        after: BackgroundTasks,
        response: Response,
        idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
    ) -> EnqueuedJob:
        """Asks for a training. A repeat with the same `Idempotency-Key` gets the first job."""
        _need_trainer(app)
        asked.domain = packs.get(asked.domain or packs.default).name
        jobs.queue_of(asked)  # what no recipe takes may be no JSON, either
        digest = hashlib.sha256(asked.model_dump_json().encode()).hexdigest()
        deadline = time.monotonic() + settings.default_timeout_seconds
        async with idempotency.begin(
            idempotency_key, "trainings", who.name, digest, deadline
        ) as claim:
            if claim.answer is not None:
                job = await database.run(partial(jobs.read, identity=claim.answer["job_id"]))
            else:
                job = await database.run(
                    partial(
                        jobs.enqueue,
                        request=asked,
                        requested_by=who.name,
                        # While it lives, the job itself keeps the key: an answer may be lost.
                        idempotency_key=idempotency_key and f"{who.name} {idempotency_key}",
                    )
                )
                claim.answer = {"job_id": job.id}
        return answer(job, after, response)

    @app.get(
        "/v1/trainings",
        summary="Jobs of the trainer",
        tags=["gateway"],
        dependencies=[Depends(administrator)],
    )
    async def list_trainings(
        state: State | None = None,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        cursor: str | None = None,
    ) -> Jobs:
        """Jobs, newest first; `next` of one page is the `cursor` of the next."""
        found, after = await database.run(
            partial(jobs.listing, state=state, limit=limit, cursor=cursor)
        )
        return Jobs(jobs=found, next=after)

    @app.get(
        "/v1/trainings/{job_id}",
        summary="How far a job is",
        tags=["gateway"],
        dependencies=[Depends(administrator)],
        response_model=Job,
        responses=_STREAM,
    )
    async def get_training(
        job_id: str, request: Request, accept: Annotated[str, Header()] = ""
    ) -> Any:
        """How far a job is. With `Accept: text/event-stream`: the events `progress` when something
        has changed, then `done`, each with the whole job."""
        job = await database.run(partial(jobs.read, identity=job_id))
        if "text/event-stream" not in accept:
            return job
        events = _events(database, job, lambda: bool(request.app.state.draining))
        return StreamingResponse(events, media_type="text/event-stream", headers=_UNBUFFERED)

    @app.get(
        "/v1/trainings/{job_id}/logs",
        summary="What a job says",
        tags=["gateway"],
        dependencies=[Depends(administrator)],
        response_class=StreamingResponse,
        responses=_LINES,
    )
    async def get_logs(job_id: str, request: Request, follow: bool = False) -> StreamingResponse:
        """What a job has said, a line each with its time; with `follow` until the job is over."""
        job = await database.run(partial(jobs.read, identity=job_id))
        lines = _lines(database, job, follow, lambda: bool(request.app.state.draining))
        return StreamingResponse(lines, media_type="text/plain", headers=_UNBUFFERED)

    @app.post(
        "/v1/trainings/{job_id}/retry",
        summary="Try a job again",
        status_code=202,
        tags=["gateway"],
    )
    async def retry(
        job_id: str, who: Admin, after: BackgroundTasks, response: Response
    ) -> EnqueuedJob:
        """The same once more, as a new job, for one that failed, died or was cancelled."""
        _need_trainer(app)
        job = await database.run(partial(jobs.retry, identity=job_id, requested_by=who.name))
        return answer(job, after, response)

    @app.delete(
        "/v1/trainings/{job_id}",
        summary="Cancel a job",
        tags=["gateway"],
        dependencies=[Depends(administrator)],
        status_code=202,
        response_model=Job,
        responses={204: {"description": "It had not started, and never will"}},
    )
    async def cancel(job_id: str) -> Response:
        """Cancels a job: 202 while its worker ends it, which takes two seconds. One that publishes
        its version in that moment ends as `done`."""
        job = await database.run(partial(jobs.cancel, identity=job_id))
        if job.live:
            return JSONResponse(job.model_dump(mode="json"), 202)
        return Response(status_code=204)


def _need_trainer(app: FastAPI) -> None:
    if not app.state.trainer:
        raise Unavailable(
            "no trainer is installed here: stop, run make trainer, and start again",
            code="trainer_not_installed",
        )


async def _events(
    database: Database, job: Job, draining: Callable[[], bool]
) -> AsyncIterator[bytes]:
    """The job as server-sent events, until it is over."""
    shown: Job | None = None
    said_at = time.monotonic()
    while True:
        if job != shown:
            shown, said_at = job, time.monotonic()
            name = b"progress" if job.live else b"done"
            yield b"event: %b\ndata: %b\n\n" % (name, job.model_dump_json().encode())
        elif time.monotonic() - said_at > QUIET_SECONDS:
            said_at = time.monotonic()
            yield b": nothing new\n\n"
        if not job.live or draining():
            return
        await asyncio.sleep(LOOK_SECONDS)
        job = await _now(database, job)


async def _lines(
    database: Database, job: Job, follow: bool, draining: Callable[[], bool]
) -> AsyncIterator[bytes]:
    """The log of a job as it is, or until the job is over."""
    seen = 0
    while True:
        try:
            lines = await database.run(partial(jobs.log_lines, identity=job.id, after=seen))
        except Unavailable:
            if not follow:
                raise
            lines = []
        for line in lines:
            seen = line.number
            yield f"{line.at:%Y-%m-%dT%H:%M:%SZ} {line.line}\n".encode()
        if lines:
            continue
        if not (follow and job.live) or draining():
            return
        await asyncio.sleep(LOOK_SECONDS)
        job = await _now(database, job)


async def _now(database: Database, job: Job) -> Job:
    """The job as it is, or as it was when the database is away."""
    try:
        return await database.run(partial(jobs.read, identity=job.id))
    except Unavailable:
        return job

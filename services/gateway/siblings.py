"""Whether the four services can work, as `/readyz` tells."""

from __future__ import annotations

import asyncio
import contextlib

from govor.clients import Sibling

_STARTING_SECONDS = 0.1  # between two looks at a service that was never ready


class Watched:
    """One service, a part of the gateway.

    Ready once it has been ready: when it goes away later, turns go on without it (`degraded`), and
    taking the gateway out of service as well would make that worse.
    """

    def __init__(self, sibling: Sibling, poll_seconds: float) -> None:
        self._sibling = sibling
        self._poll_seconds = poll_seconds
        self._was_ready = False
        self._detail = "not reached"
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._follow(), name=f"watch {self._sibling.name}")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def ready(self) -> tuple[bool, str]:
        return self._was_ready, self._detail

    async def _follow(self) -> None:
        while True:
            ready, self._detail = await self._sibling.ready()
            self._was_ready = self._was_ready or ready
            await asyncio.sleep(self._poll_seconds if self._was_ready else _STARTING_SECONDS)

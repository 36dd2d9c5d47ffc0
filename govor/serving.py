"""The loaded versions of one model in one service: which one answers, and the swap.

A request leases the version that serves when it arrives and keeps it to its end. A new champion is
loaded beside the old one and warmed before the exchange, which is one assignment on the event loop;
the old one is closed when its last lease ends. So no request fails or waits for a swap.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from govor.errors import GovorError, NotFound, Unavailable
from govor.repository import Deployment, Repository, Version, VersionBroken

log = logging.getLogger(__name__)

# After what may pass (memory, a disk) a champion that did not load is tried again, first soon.
AGAIN_SECONDS, SELDOM_SECONDS = 10.0, 600.0
# Versions that somebody asked for by number and that stay loaded beside the champion.
PINNED = 2


class Model(Protocol):
    """What a backend makes of a version: loaded, warm, and able to say when it has died."""

    @property
    def alive(self) -> bool: ...

    def close(self) -> None: ...


M = TypeVar("M", bound=Model)
M_co = TypeVar("M_co", bound=Model, covariant=True)


@dataclass
class Lease(Generic[M]):
    """A loaded version and how many requests are being answered by it."""

    version: Version
    model: M
    users: int = 0
    retired: bool = False
    closed: bool = False


@dataclass
class Served(Generic[M]):
    """Follows a model's deployment and hands out leases of its versions.

    `load` opens a version (in a thread, off the event loop) and returns it warm; `changed` is told
    of every version that starts to serve.
    """

    repository: Repository
    name: str
    load: Callable[[Version], M]
    poll_seconds: float = 2.0
    changed: Callable[[Version], None] | None = None

    _champion: Lease[M] | None = None
    _pinned: dict[int, Lease[M]] = field(default_factory=dict)
    _trouble: str = "not started"
    _refused: Deployment | None = None
    _again: float = 0.0  # the moment at which it is tried again
    _pause: float = AGAIN_SECONDS
    _task: asyncio.Task[None] | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def start(self) -> None:
        """Loads the champion, then follows the deployment. A broken one is reported, not raised."""
        await self.refresh()
        self._task = asyncio.create_task(self._follow(), name=f"follow {self.name}")

    async def stop(self) -> None:
        """Stops following and closes all versions, leased or not."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        leases = [*self._pinned.values(), *([self._champion] if self._champion else [])]
        self._champion, self._pinned, self._trouble = None, {}, "stopped"
        for lease in leases:
            lease.retired = True
            await self._close(lease)

    def ready(self) -> tuple[bool, str]:
        """Whether a version serves, and which, or why none does."""
        champion = self._champion
        if champion is None:
            return False, self._trouble
        if not champion.model.alive:
            return False, f"version {champion.version.number} died and is built again"
        return True, f"version {champion.version.number}"

    @contextlib.asynccontextmanager
    async def acquire(self, version: int | None = None) -> AsyncIterator[Lease[M]]:
        """Leases the champion, or the version asked for, which is loaded when it is not.

        Raises `NotFound` (`version_not_found`), or `Unavailable` (`model_unavailable`) when it, or
        any champion, could not be loaded.
        """
        lease = self._champion
        if version is not None and (lease is None or lease.version.number != version):
            lease = await self._pin(version)
        if lease is None:
            raise Unavailable(f"{self.name}: {self._trouble}", code="model_unavailable")
        lease.users += 1
        try:
            yield lease
        finally:
            lease.users -= 1
            if lease.retired and lease.users == 0:
                await self._close(lease)

    async def refresh(self) -> None:
        """Looks at the deployment once and swaps if another version, or a dead one, serves."""
        async with self._lock:
            try:
                deployment = await asyncio.to_thread(self.repository.deployment, self.name)
            except (GovorError, VersionBroken, OSError) as error:
                self._report(error)
                return
            champion = self._champion
            serves = champion is not None and champion.version.number == deployment.champion
            if deployment.champion is None or (serves and champion and champion.model.alive):
                return
            if champion is not None and champion.model.alive and self._waits(deployment):
                return
            try:
                fresh = await self._open(deployment.champion)
            except Exception as error:
                self._refuse(deployment, error)
                return
            self._champion, self._trouble, self._refused = fresh, "", None
            if self.changed is not None:
                self.changed(fresh.version)
            log.info("%s serves version %d", self.name, deployment.champion)
            if champion is not None:
                await self._retire(champion)

    def _waits(self, deployment: Deployment) -> bool:
        return deployment == self._refused and time.monotonic() < self._again

    def _refuse(self, deployment: Deployment, error: Exception) -> None:
        """What is wrong with its files stays so; anything else may pass."""
        self._pause = 2 * self._pause if deployment == self._refused else AGAIN_SECONDS
        broken = isinstance(error, VersionBroken | GovorError)
        pause = math.inf if broken else min(self._pause, SELDOM_SECONDS)
        self._refused, self._again = deployment, time.monotonic() + pause
        self._report(error)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self.poll_seconds)
            await self.refresh()

    async def _open(self, number: int) -> Lease[M]:
        version = await asyncio.to_thread(self.repository.open, self.name, number)
        if version.manifest.rejected:
            raise VersionBroken(f"{self.name} version {number} did not pass its gate")
        return Lease(version, await asyncio.to_thread(self.load, version))

    async def _pin(self, number: int) -> Lease[M]:
        pinned = self._pinned.get(number)
        if pinned is not None and pinned.model.alive:
            return pinned
        async with self._lock:
            pinned = self._pinned.get(number)
            if pinned is None or not pinned.model.alive:
                fresh = await self._open_pinned(number)
                if pinned is not None:
                    await self._retire(self._pinned.pop(number))
                while len(self._pinned) >= PINNED:
                    await self._retire(self._pinned.pop(next(iter(self._pinned))))
                self._pinned[number] = fresh
            return self._pinned[number]

    async def _open_pinned(self, number: int) -> Lease[M]:
        try:
            return await self._open(number)
        except (VersionBroken, OSError) as error:
            raise NotFound(str(error), code="version_not_found", param="version") from error
        except GovorError:
            raise
        except Exception as error:  # of the backend: it is not this request's fault
            log.exception("%s version %d does not load", self.name, number)
            raise Unavailable(
                f"{self.name} version {number} does not load", code="model_unavailable"
            ) from error

    async def _retire(self, lease: Lease[M]) -> None:
        lease.retired = True
        if lease.users == 0:
            await self._close(lease)

    async def _close(self, lease: Lease[M]) -> None:
        """Once. One that cannot be closed is no trouble of the request that left it last."""
        if lease.closed:
            return
        lease.closed = True
        try:
            await asyncio.to_thread(lease.model.close)
        except Exception:
            log.exception("%s version %d did not close", self.name, lease.version.number)

    def _report(self, error: Exception) -> None:
        """A version that does not load is reported, once; the one that serves goes on."""
        trouble = str(error) or type(error).__name__
        if trouble != self._trouble:
            log.error("%s: %s", self.name, trouble)
        self._trouble = trouble

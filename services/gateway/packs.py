"""The domain packs that are served, read again when their files change."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path

from govor.domains import Pack, PackError, load_packs
from govor.errors import NotFound

log = logging.getLogger(__name__)


class Packs:
    """A part of the gateway. A turn takes a pack when it begins and keeps it to its end; a change
    that is not a whole pack is reported and the one that was read last goes on."""

    def __init__(self, folder: Path, default: str, poll_seconds: float) -> None:
        self._folder = folder
        self._poll_seconds = poll_seconds
        self._task: asyncio.Task[None] | None = None
        self._seen = _seen(folder)
        self._packs = load_packs(folder)
        self.default = default

    def names(self) -> list[str]:
        return sorted(self._packs)

    def get(self, name: str) -> Pack:
        """Raises `NotFound` (`domain_not_found`)."""
        try:
            return self._packs[name]
        except KeyError:
            raise NotFound(
                f"there is no domain {name!r}", code="domain_not_found", param="domain"
            ) from None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._follow(), name="follow packs")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def ready(self) -> tuple[bool, str]:
        return self.default in self._packs, ", ".join(self.names())

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._poll_seconds)
            try:
                seen = await asyncio.to_thread(_seen, self._folder)
                if seen == self._seen:
                    continue
                self._seen = seen
                self._packs = await asyncio.to_thread(load_packs, self._folder)
            except (PackError, OSError) as error:  # OSError: a file went while it was looked at
                log.error("the packs stay as they were: %s", error)
            else:
                log.info("packs read again: %s", ", ".join(self.names()))


def _seen(folder: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of every file: looking at them takes a millisecond, reading packs a second."""
    found = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            stat = path.stat()
            found[path] = (stat.st_size, stat.st_mtime_ns)
    return found

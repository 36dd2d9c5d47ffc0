"""A loaded voice model: an engine, and the queue in front of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from govor.batching import Batcher, Observe
from govor.errors import Unprocessable
from services.tts.backends import Backend, Samples


@dataclass(frozen=True, slots=True)
class Piece:
    text: str
    voice: str
    speed: float


class Speaker:
    """Speaks texts piece by piece; requests take turns, a piece at a time."""

    def __init__(
        self, backend: Backend, *, name: str, max_queued: int, observe: Observe | None = None
    ) -> None:
        self._backend = backend
        self._batcher = Batcher[Piece, Samples](
            self._run, name=name, max_batch=1, max_queued=max_queued, observe=observe
        )

    @property
    def alive(self) -> bool:
        return self._backend.alive and self._batcher.alive

    @property
    def sample_rate(self) -> int:
        return self._backend.sample_rate

    def voice(self, asked: str | None) -> str:
        """The voice asked for, else the default. Raises `Unprocessable` (`voice_not_found`)."""
        voices = self._backend.voices
        if asked is not None and asked not in voices:
            listed = ", ".join(voices)
            raise Unprocessable(f"voice is one of {listed}", param="voice", code="voice_not_found")
        return asked or next(iter(voices))

    async def speak(
        self, texts: Sequence[str], voice: str, speed: float, deadline: float
    ) -> AsyncGenerator[Samples, None]:
        """The samples [n] of each text in order; the next is made while one is being sent."""
        ahead: list[asyncio.Task[Samples]] = []
        try:
            for text in texts:
                piece = Piece(text, voice, speed)
                ahead.append(asyncio.create_task(self._batcher.submit(piece, deadline)))
                if len(ahead) == 2:
                    yield await ahead.pop(0)
            for task in ahead:
                yield await task
        finally:
            for task in ahead:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task

    def close(self) -> None:
        self._batcher.close()
        self._backend.close()

    def _run(self, pieces: list[Piece]) -> list[Samples]:
        return [self._backend.speak(piece.text, piece.voice, piece.speed) for piece in pieces]

"""The spoken half of a reply: pieces of text in, one stream of audio out.

A piece is spoken as soon as it is known: "I am looking at the stars" sounds while the text that
follows is still being written. Pieces join into one stream of the format that was asked for: plain
samples end to end, mp3 frame after frame, opus as a chained Ogg stream (RFC 7845). A wav stream
gets one header; flac cannot be joined, so it waits for the whole text.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from govor.clients import Outgoing, TtsClient
from govor.errors import GovorError
from govor.schemas.tts import AudioFormat, SynthesizeRequest

Emit = Callable[[bytes, int], Awaitable[None]]
"""Told of each chunk of the stream, and of its sample rate in Hz."""


class Speaker:
    """Speaks what `say` is given, in order, until `finish`.

    `outgoing` is asked for each piece: what goes with the call, of which less time is left each
    time; it raises `DeadlineExceeded` when there is none.

    Afterwards: `audio` is all of it, or None when something could not be spoken (`failed`),
    `sample_rate` in Hz, `first_audio` the moment of the first chunk (`time.perf_counter()`), `busy`
    the seconds spent in synthesis, `version` what spoke.
    """

    def __init__(
        self,
        client: TtsClient,
        request: SynthesizeRequest,
        outgoing: Callable[[], Outgoing],
        emit: Emit | None,
    ) -> None:
        self._client, self._request, self._outgoing, self._emit = client, request, outgoing, emit
        self._pieces: asyncio.Queue[str | None] = asyncio.Queue()
        self._told: asyncio.Queue[tuple[bytes, int] | None] = asyncio.Queue()
        self._chunks: list[bytes] = []
        self._task = asyncio.create_task(self._run(), name="speech")
        self.format: AudioFormat = request.format
        self.sample_rate: int | None = None
        self.first_audio: float | None = None
        self.busy = 0.0
        self.version: str | None = None
        self.failed: GovorError | None = None

    def say(self, text: str) -> None:
        if text.strip():
            self._pieces.put_nowait(text.strip())

    async def finish(self) -> None:
        """Waits until all is spoken."""
        self._pieces.put_nowait(None)
        await self._task

    async def stop(self) -> None:
        """Nobody listens any more."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    @property
    def audio(self) -> bytes | None:
        """The whole as a file of the format; None when there is nothing or not all of it."""
        if self.failed or not self._chunks or self.sample_rate is None:
            return None
        body = b"".join(self._chunks)
        if self.format == "wav":
            return wav_header(self.sample_rate, len(body)) + body
        return body

    async def _run(self) -> None:
        """Tells of the chunks. They are made in a task of their own: a listener who takes them as
        slowly as they sound must not hold tts up until it times out."""
        speaking = asyncio.create_task(self._speak_all(), name="synthesis")
        try:
            while (told := await self._told.get()) is not None:
                if self._emit:
                    await self._emit(*told)
            await speaking
        finally:
            speaking.cancel()
            await asyncio.gather(speaking, return_exceptions=True)

    async def _speak_all(self) -> None:
        try:
            if self.format == "flac":
                whole = [piece async for piece in self._said()]
                await self._speak(" ".join(whole))
            else:
                async for piece in self._said():
                    await self._speak(piece)
        finally:
            self._told.put_nowait(None)

    async def _said(self) -> AsyncIterator[str]:
        while (piece := await self._pieces.get()) is not None:
            yield piece

    async def _speak(self, text: str) -> None:
        if self.failed is not None or not text:
            return
        began = time.perf_counter()
        wire = "pcm" if self.format == "wav" else self.format
        request = self._request.model_copy(update={"text": text, "format": wire})
        try:
            async with self._client.synthesize(request, self._outgoing()) as speech:
                self.version = f"{speech.model}:{speech.version}"
                async for chunk in speech:
                    self._take(chunk, speech.sample_rate)
        except GovorError as error:
            self.failed = error
        finally:
            self.busy += time.perf_counter() - began

    def _take(self, chunk: bytes, rate: int) -> None:
        if self.first_audio is None:
            self.first_audio, self.sample_rate = time.perf_counter(), rate
            if self.format == "wav":
                self._told.put_nowait((wav_header(rate), rate))
        self._chunks.append(chunk)
        self._told.put_nowait((chunk, rate))


def wav_header(rate: int, size: int | None = None) -> bytes:
    """44 bytes for 16-bit mono samples at `rate` Hz; `size` bytes of them, or a stream without end
    (the largest size, as ffmpeg and sox write it)."""
    size = 0xFFFFFFFF - 36 if size is None else size
    form = struct.pack("<4sI4s", b"RIFF", size + 36, b"WAVE")
    layout = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16)
    return form + layout + struct.pack("<4sI", b"data", size)

"""Backend `decoder`: a small Llama-shaped model of ours on plain onnxruntime."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterable
from dataclasses import replace

import numpy as np
from pydantic import ValidationError
from tokenizers import Tokenizer

from govor.config import Device
from govor.errors import DeadlineExceeded, GovorError, Overloaded
from govor.onnx import open_session
from govor.repository import Version, VersionBroken
from services.generator.backends import Observe, Piece, Waited
from services.generator.backends.cleanup import clean
from services.generator.backends.config import DecoderConfig
from services.generator.backends.engine import Engine, Row
from services.generator.backends.filter import fault
from services.generator.backends.prompts import Asked, Declared, Prompt, Prompter
from services.generator.backends.sampling import Sampler, Sampling
from services.generator.backends.text import TextStream

# How often a text is drawn before it is given as it is. 85-90 % pass at once.
DRAWS = 4


class Decoder:
    """One loaded version: its prompts, its filter and the engine that decodes it."""

    def __init__(
        self,
        version: Version,
        *,
        slots: int,
        threads: int,
        device: Device,
        max_queued: int,
        max_new_tokens: int,
        observe: Observe,
        waited: Waited,
    ) -> None:
        try:
            config = version.path("config.json").read_bytes()
            self._config = DecoderConfig.model_validate_json(config)
        except ValidationError as error:
            raise VersionBroken(f"{version.model} {version.number}: {error}") from error
        self._tokenizer = Tokenizer.from_file(str(version.path("tokenizer.json")))
        self._max_tokens = min(self._config.max_tokens, max_new_tokens)
        self.fields: Declared = version.manifest.fields
        self._prompter = Prompter(self._config, self._tokenizer, self.fields)
        self._engine = Engine(
            open_session(version.path("model.onnx"), threads, device),
            self._config.decoder,
            slots=slots,
            max_queued=max_queued,
            observe=observe,
            waited=waited,
        )

    @property
    def alive(self) -> bool:
        return self._engine.alive

    def close(self) -> None:
        self._engine.close()

    async def generate(
        self, asked: Asked, sampling: Sampling, n: int = 1, deadline: float | None = None
    ) -> list[Piece]:
        texts: dict[int, Piece] = {}
        failing = list(range(n))
        for draw in range(DRAWS):
            rows = self._rows(asked, sampling, failing, deadline, draw=draw, whole=True)
            try:
                async with contextlib.aclosing(self._drain(rows)) as pieces:
                    drawn = {piece.index: _cleaned(piece) async for piece in pieces}
            except (Overloaded, DeadlineExceeded):
                if not texts:
                    raise
                break
            texts |= drawn
            failing = [row.index for row in rows if self._fails(drawn[row.index], row.prompt)]
            if not failing:
                break
        return [texts[index] for index in range(n)]

    def stream(
        self, asked: Asked, sampling: Sampling, n: int = 1, deadline: float | None = None
    ) -> AsyncGenerator[Piece, None]:
        return self._drain(self._rows(asked, sampling, range(n), deadline))

    def _rows(
        self,
        asked: Asked,
        sampling: Sampling,
        indices: Iterable[int],
        deadline: float | None,
        *,
        draw: int = 0,
        whole: bool = False,
    ) -> list[Row]:
        """One draw of the texts `indices`. Each has random numbers of its own, made of the seed,
        its index and the draw, which first choose what the prompt leaves to chance."""
        pieces: asyncio.Queue[Piece | GovorError] = asyncio.Queue()
        rows = []
        for index in indices:
            rng = np.random.default_rng((sampling.seed, index, draw))
            prompt = self._prompter.prompt(asked, rng)
            room = self._config.decoder.context - len(prompt.ids)
            rows.append(
                Row(
                    prompt,
                    Sampler(sampling, rng, list(prompt.ids), prompt.never),
                    TextStream(self._tokenizer, prompt.fills, sampling.stop),
                    min(sampling.max_tokens or self._max_tokens, room),
                    pieces,
                    index,
                    deadline,
                    whole,
                )
            )
        return rows

    async def _drain(self, rows: list[Row]) -> AsyncGenerator[Piece, None]:
        """Submits rows that share a queue and gives what comes; frees them however it ends."""
        self._engine.submit(rows)
        try:
            left = len(rows)
            while left:
                piece = await rows[0].pieces.get()
                if isinstance(piece, GovorError):
                    raise piece
                left -= piece.finish is not None
                yield piece
        finally:
            for row in rows:
                row.cancelled = True

    def _fails(self, piece: Piece, prompt: Prompt) -> bool:
        """Whether to draw again. A text that the caller's own stop string cut is not judged."""
        if piece.finish is not None and piece.finish.stopped:
            return False
        limits = self._config.filter
        return not piece.text or (
            limits is not None and fault(piece.text, limits, prompt.fields) is not None
        )


def _cleaned(piece: Piece) -> Piece:
    cut_short = piece.finish is not None and piece.finish.reason == "length"
    return replace(piece, text=clean(piece.text, cut_short))

"""What a backend of the generator is, and which one opens a version."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Protocol

from govor.config import Device
from govor.repository import Version, VersionBroken
from govor.schemas.generation import FinishReason
from services.generator.backends.prompts import Asked, Declared
from services.generator.backends.sampling import Sampling

Observe = Callable[[int, float], None]
"""Told of each step: how many texts it went on with, and its seconds."""

Waited = Callable[[float], None]
"""Told how long each text waited for its slot, in seconds, and those that nobody wants any more."""


@dataclass(frozen=True)
class Finish:
    """How a text ended. Tokens are those drawn, the end token aside; times in seconds from the
    draw's submission. `stopped` says that a stop string cut it."""

    reason: FinishReason
    stopped: bool
    prompt_tokens: int
    completion_tokens: int
    queue_seconds: float
    first_token_seconds: float


@dataclass(frozen=True)
class Piece:
    """Text to append to text `index` of a request; the last piece of each has `finish`."""

    index: int
    text: str
    finish: Finish | None = None


class Backend(Protocol):
    """A loaded version that draws texts.

    Both verbs raise `Unprocessable` for what the version cannot be asked, `Overloaded` and
    `DeadlineExceeded` (`deadline` is a `time.monotonic()` value) for what it has no time for, and
    stop drawing when they are cancelled or closed.
    """

    @property
    def fields(self) -> Declared:
        """What the version may be asked with; none: it takes text."""

    @property
    def alive(self) -> bool: ...

    async def generate(
        self, asked: Asked, sampling: Sampling, n: int = 1, deadline: float | None = None
    ) -> list[Piece]:
        """`n` whole texts, cleaned; one that fails the version's filter is drawn again a few
        times and then given as it is."""

    def stream(
        self, asked: Asked, sampling: Sampling, n: int = 1, deadline: float | None = None
    ) -> AsyncGenerator[Piece, None]:
        """`n` texts as they are drawn, interleaved."""

    def close(self) -> None: ...


def load(
    version: Version,
    *,
    slots: int = 16,
    threads: int = 1,
    device: Device = "cpu",
    max_queued: int = 512,
    max_new_tokens: int = 512,
    observe: Observe = lambda texts, seconds: None,
    waited: Waited = lambda seconds: None,
) -> Backend:
    """Opens a version, warm; `slots` texts are drawn at once and `max_queued` more may wait.

    Raises `VersionBroken` for one that does not fit together.
    """
    match version.manifest.backend:
        case "decoder":
            from services.generator.backends.decoder import Decoder

            return Decoder(
                version,
                slots=slots,
                threads=threads,
                device=device,
                max_queued=max_queued,
                max_new_tokens=max_new_tokens,
                observe=observe,
                waited=waited,
            )
        case other:
            raise VersionBroken(f"{version.model} {version.number}: no backend {other!r}")

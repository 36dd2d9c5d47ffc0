"""What a recogniser must do, and which one listens.

Imported by worker processes too, so it stays light.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from govor.batching import Observe
    from govor.repository import Version

RATE = 16_000
"""Samples a second that every recogniser is given."""

Samples = NDArray[np.float32]
"""Shape [n], mono, -1 to 1, at `RATE`."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word and when it was said, in seconds from the first sample; `confidence` 0 to 1."""

    text: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Heard:
    """What an utterance was taken for.

    `phrase`: a sentence of the domain; `open`: free words; `none`: nothing, and then no words.
    """

    recognition: Literal["phrase", "open", "none"] = "none"
    words: tuple[Word, ...] = ()
    confidence: float = 0.0

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)


class Backend(Protocol):
    """A loaded version. `warnings` go with each of its transcripts."""

    domains: Sequence[str]
    warnings: Sequence[str]

    @property
    def alive(self) -> bool: ...

    async def recognise(self, samples: Samples, domain: str, deadline: float | None) -> Heard:
        """One utterance of a domain that is in `domains`. When the wait is cancelled, so is the
        work. `deadline` is a `time.monotonic()` value.

        Raises `Overloaded`, `DeadlineExceeded`, `Unavailable`.
        """
        ...

    def close(self) -> None: ...


def load(
    version: Version,
    *,
    workers: int,
    max_queued: int = 512,
    observe: Observe | None = None,
    count_chunk: Callable[[], object] = lambda: None,
) -> Backend:
    """The recogniser of a version, warm. Raises `ValueError` for a backend we lack."""
    match version.manifest.backend:
        case "sphinx":
            from services.stt.backends.sphinx import Sphinx

            return Sphinx(version, workers, max_queued, observe, count_chunk)
        case other:
            raise ValueError(f"{version.model}: there is no backend {other}")

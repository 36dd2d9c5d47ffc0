"""What a backend of the understanding service is, and which one opens a version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from govor.batching import Observe
from govor.config import Device
from govor.entities import Found
from govor.repository import Version, VersionBroken


@dataclass(frozen=True)
class Parsed:
    """What a text means. `ranking` holds intents and calibrated confidences, best first; the best
    one is `out_of_scope` when the text is likelier to be about something else."""

    language: str
    ranking: tuple[tuple[str, float], ...]
    out_of_scope: bool
    entities: tuple[Found, ...]


class Backend(Protocol):
    """A loaded version that understands utterances of the domains it has heads for."""

    @property
    def alive(self) -> bool: ...

    async def understand(
        self,
        texts: Sequence[str],
        domain: str,
        language: str | None = None,
        deadline: float | None = None,
    ) -> list[Parsed]:
        """What each text means in a domain; `language` by the text's script when absent.

        Raises `NotFound` (`domain_not_found`, `language_not_found`), `Overloaded`,
        `DeadlineExceeded` (`deadline` is a `time.monotonic()` value).
        """

    def close(self) -> None: ...


def load(
    version: Version,
    *,
    threads: int = 1,
    device: Device = "cpu",
    max_batch: int = 16,
    max_queued: int = 512,
    observe: Observe | None = None,
) -> Backend:
    """Opens a version, warm. Raises `VersionBroken` for one that does not fit together."""
    match version.manifest.backend:
        case "ngram":
            from services.nlu.backends.ngram import Ngram

            return Ngram(
                version,
                threads=threads,
                device=device,
                max_batch=max_batch,
                max_queued=max_queued,
                observe=observe,
            )
        case other:
            raise VersionBroken(f"{version.model} {version.number}: no backend {other!r}")

"""What a recipe is given by the worker that runs it, and what it may ask of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Task:
    """One job, as its recipe sees it. `device` is `cpu` or `cuda`."""

    id: str
    recipe: str
    domain: str | None = None
    dataset: str | None = None
    params: dict[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    requested_by: str = "trainer"


class Context(Protocol):
    """The worker's side of a job."""

    @property
    def folder(self) -> Path:
        """A folder of this job alone; it survives a restart, so work may be taken up again."""

    def progress(
        self,
        step: str,
        *,
        done: float | None = None,
        epoch: int | None = None,
        epochs: int | None = None,
        loss: float | None = None,
    ) -> None:
        """Says how far the job is; `done` is the share of the whole, 0 to 1. Never raises."""

    def log(self, line: str) -> None:
        """Adds a line to the job's log. Never raises."""

    def commit(self) -> None:
        """Asked right before an effect that others see.

        Raises `NotOurs` when the lease is lost or the job is to be cancelled. What follows must be
        harmless when it is repeated: a worker may die between an effect and its report. A cancel
        that comes later, and the time limit, end the job no sooner than half a minute after this.
        """


class NotOurs(Exception):
    """The job belongs to another worker by now, or is to be cancelled."""


Run = Callable[[Task, Context], dict[str, Any]]
"""A recipe's entry: returns the job's result, JSON. An exception is the job's failure."""

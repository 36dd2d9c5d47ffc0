"""`objectives.yaml`, read: the numbers that alerts and panels share."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field

FILE = Path(__file__).with_name("objectives.yaml")

Share = Field(gt=0, lt=1)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Service(_Strict):
    p95_seconds: float = Field(gt=0)
    error_rate: float = Share
    queue_wait_seconds: float | None = Field(None, gt=0)
    shed_rate: float | None = Field(None, gt=0, lt=1)


class Turns(_Strict):
    degraded_rate: float = Share


class Model(_Strict):
    accuracy: float = Share
    recipe: str


class Jobs(_Strict):
    queued_seconds: int = Field(gt=0)
    silent_seconds: int = Field(gt=0)
    workerless_seconds: int = Field(gt=0)


class Capacity(_Strict):
    disk_free: float = Share
    redis_memory: float = Share


class Objectives(_Strict):
    availability: float = Share
    minimum_errors: int = Field(ge=1)
    minimum_requests: int = Field(ge=1)
    services: dict[str, Service]
    turns: Turns
    models: dict[str, Model]
    jobs: Jobs
    capacity: Capacity

    @property
    def error_budget(self) -> float:
        return round(1 - self.availability, 9)


def load(file: Path = FILE) -> Objectives:
    """Raises `ValidationError` for a number that is none, or one that nobody reads."""
    return Objectives.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))

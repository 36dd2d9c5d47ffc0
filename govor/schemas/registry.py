"""What the registry says of models and their versions."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

State = Literal["champion", "published", "rejected"]


class ModelStatus(BaseModel):
    """A model: the version that serves, since when, and those there are. `generation` counts the
    deployments; 0 is the bundled version, which nobody deployed."""

    model: str
    champion: int | None
    challenger: int | None
    generation: int
    since: str | None
    versions: list[int]


class Registry(BaseModel):
    models: list[ModelStatus]


class ModelVersion(BaseModel):
    """A version as its manifest tells it. `rejected`: a check of its gate failed, it never serves.

    `parent` is the version that it was built on, `job` the training that made it.
    """

    model: str
    version: int
    state: State
    backend: str
    languages: list[str]
    recipe: str
    parent: int | None
    job: str | None
    code_revision: str | None
    created_at: str
    datasets: list[dict[str, Any]]
    metrics: dict[str, float]
    gates: list[dict[str, Any]]


class Versions(BaseModel):
    model: str
    versions: list[ModelVersion]


class PromoteRequest(BaseModel):
    version: int = Field(ge=1)
    reason: str | None = Field(None, max_length=500)


class RollbackRequest(BaseModel):
    reason: str | None = Field(None, max_length=500)


class Comparison(BaseModel):
    """Metrics by name, one value a version in the order of `versions`; null where a version has
    none. `files` that are not the same in all of them."""

    model: str
    versions: list[ModelVersion]
    metrics: dict[str, list[float | None]]
    files: list[str]

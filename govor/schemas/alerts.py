"""Wire types of alerts: what Alertmanager's webhook sends, as far as it is read."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class Alert(BaseModel):
    """`fingerprint` tells alerts apart by their labels. The label `retrain` names a recipe."""

    status: Literal["firing", "resolved"]
    labels: dict[str, str]
    annotations: dict[str, str] = Field(default_factory=dict)
    fingerprint: str = Field(min_length=1, max_length=64)


class Alerts(BaseModel):
    """A group of alerts, those that are over among them."""

    version: Literal["4"]
    alerts: list[Alert] = Field(max_length=1000)


class Retrained(BaseModel):
    """The job of each alert that asked for a training; one of before, if it is in the window."""

    jobs: list[str]

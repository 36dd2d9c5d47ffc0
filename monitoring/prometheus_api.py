"""Questions to a running Prometheus."""

from __future__ import annotations

import math
from typing import Any

import httpx

from monitoring.dashboards import queries


def ask(client: httpx.Client, expr: str, at: float | None = None) -> list[dict[str, Any]]:
    """The series of an instant query, now or at a time in seconds since 1970.

    Raises `httpx.HTTPStatusError` for an expression that does not parse.
    """
    parameters = {"query": expr} | ({"time": at} if at is not None else {})
    answer = client.get("/api/v1/query", params=parameters).raise_for_status()
    result: list[dict[str, Any]] = answer.json()["data"]["result"]
    return result


def ask_range(
    client: httpx.Client, expr: str, start: float, end: float, step: float
) -> list[dict[str, Any]]:
    """The series of a range query; times in seconds since 1970."""
    parameters: dict[str, str | float] = {"query": expr, "start": start, "end": end, "step": step}
    answer = client.get("/api/v1/query_range", params=parameters).raise_for_status()
    result: list[dict[str, Any]] = answer.json()["data"]["result"]
    return result


def connect(url: str, key: str | None = None) -> httpx.Client:
    """A client of the Prometheus at `url`; `key` opens the public door before it."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=10)


def empty_panels(url: str, key: str | None = None) -> list[str]:
    """The queries of panels that have no number: no series, or nothing but NaN."""
    with connect(url, key) as client:
        return [
            name
            for name, expr in queries()
            if all(math.isnan(float(series["value"][1])) for series in ask(client, expr))
        ]

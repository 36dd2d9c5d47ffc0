"""What a check of the doctor yields, and how checks ask others."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import httpx

from govor.config import Settings

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    state: State
    what: str
    said: str

    def __str__(self) -> str:
        return f"{self.state:<5}{self.what:<12} {self.said}"


Check = Callable[[Settings], Iterator[Finding]]


def trains() -> bool:
    """Whether this is a container of the trainer's image: it serves nothing, and its one network
    is not nginx's."""
    return os.environ.get("GOVOR_SERVICE") == "trainer"


def get(
    url: str,
    parameters: Mapping[str, str] | None = None,
    key: str | None = None,
    verify: bool = True,
) -> httpx.Response:
    headers = {"x-api-key": key} if key else {}
    return httpx.get(
        url, params=parameters, headers=headers, verify=verify, trust_env=False, timeout=5
    )

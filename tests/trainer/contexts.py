"""The worker's side of a job, for tests that run a recipe themselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.context import NotOurs


@dataclass
class Notes:
    """Keeps what a recipe says; `ours` is whether the job may still have an effect."""

    folder: Path
    ours: bool = True
    steps: list[dict[str, Any]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def progress(self, step: str, **more: Any) -> None:
        self.steps.append({"step": step, **more})

    def log(self, line: str) -> None:
        self.lines.append(line)

    def commit(self) -> None:
        if not self.ours:
            raise NotOurs

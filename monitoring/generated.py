"""The files that are made: rules for Prometheus, dashboards for Grafana."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from monitoring import alerts, recording
from monitoring.dashboards import BOARDS
from monitoring.dashboards.panels import to_json
from monitoring.objectives import load

FOLDER = Path(__file__).parent
_HEAD = "# Written by `python -m monitoring` from objectives.yaml and {}; do not edit.\n"


def files() -> dict[Path, str]:
    """What each made file should hold."""
    objectives = load()
    rules = FOLDER / "prometheus" / "rules"
    return {
        rules / "recording.yml": _yaml(recording.groups(objectives), "recording.py"),
        rules / "alerts.yml": _yaml(alerts.groups(objectives), "alerts.py"),
        **{
            FOLDER / "grafana" / "dashboards" / f"{board.name}.json": to_json(board)
            for board in BOARDS
        },
    }


def write() -> list[Path]:
    """Writes the files that changed; which ones."""
    changed = stale()
    for path, text in files().items():
        if path in changed:
            path.write_text(text, encoding="utf-8")
    return changed


def stale() -> list[Path]:
    """The files that are not what they should be."""
    return [path for path, text in files().items() if _read(path) != text]


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _yaml(content: dict[str, Any], source: str) -> str:
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=10_000)
    return _HEAD.format(source) + text

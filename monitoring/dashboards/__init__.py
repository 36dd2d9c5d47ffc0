"""The four dashboards, and what they ask Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from monitoring.dashboards.conversations import CONVERSATIONS
from monitoring.dashboards.models import MODELS
from monitoring.dashboards.overview import OVERVIEW
from monitoring.dashboards.panels import Board
from monitoring.dashboards.training import TRAINING

BOARDS: tuple[Board, ...] = (OVERVIEW, MODELS, CONVERSATIONS, TRAINING)


def queries() -> Iterator[tuple[str, str]]:
    """Every query of every panel: where it stands ("overview / Requests A") and its expression."""
    for board in BOARDS:
        for panel in board.panels():
            for letter, query in zip("ABCDEFGH", panel.queries, strict=False):
                yield f"{board.name} / {panel.title} {letter}", query.expr


def link(place: str) -> str:
    """Where a panel ("overview / Requests") is on the public door. Raises `KeyError`."""
    name, _, title = place.partition(" / ")
    board = {board.name: board for board in BOARDS}[name]
    return f"/grafana/d/{board.uid}?viewPanel={board.number(title)}"

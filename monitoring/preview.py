"""The panels without Grafana: the same queries, asked of Prometheus, plotted.

Not Grafana's own picture: layout and colours are matplotlib's, titles, queries, units and
objectives are the panels'.
"""

from __future__ import annotations

import itertools
import math
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from monitoring.dashboards import BOARDS
from monitoring.dashboards.panels import Board, Panel
from monitoring.prometheus_api import ask_range, connect

COLUMNS = 3
POINTS = 120  # of a line, at most
_LEGEND = 6  # entries; more hide the panel
_COLOURS = ("#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#76b7b2", "#9c755f", "#edc948", "#ff9da7")

UNITS: dict[str, Callable[[float], str]] = {
    "s": lambda value: f"{value * 1000:g} ms" if 0 < abs(value) < 1 else f"{value:g} s",
    "percentunit": lambda value: f"{100 * value:g} %",
    "reqps": lambda value: f"{value:g}/s",
    "bytes": lambda value: f"{value / (1 << 20):.0f} MiB",
    "short": lambda value: f"{value:g}",
}


def plot(url: str, folder: Path, seconds: float, key: str | None = None) -> list[Path]:
    """A picture of each dashboard, of the last `seconds`; `key` opens the public door."""
    folder.mkdir(parents=True, exist_ok=True)
    end = time.time()
    with connect(url, key) as client:
        return [_picture(client, board, end - seconds, end, folder) for board in BOARDS]


def _picture(client: httpx.Client, board: Board, start: float, end: float, folder: Path) -> Path:
    panels = list(board.panels())
    rows = -(-len(panels) // COLUMNS)
    figure = Figure(figsize=(4 * COLUMNS, 2.6 * rows), layout="constrained")
    figure.suptitle(f"Govor: {board.title}", fontsize=13, fontweight="bold")
    places = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    for axes, panel in zip(places, panels, strict=False):
        _draw(axes, client, panel, start, end)
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    path = folder / f"{board.name}.png"
    figure.savefig(path, dpi=90, pil_kwargs={"optimize": True})
    return path


def _draw(axes: Axes, client: httpx.Client, panel: Panel, start: float, end: float) -> None:
    step = max(10.0, (end - start) / POINTS)
    colours = itertools.cycle(_COLOURS)
    for query in panel.queries:
        for series in ask_range(client, query.expr, start, end, step):
            known = {
                round((float(at) - start) / step): float(value) for at, value in series["values"]
            }
            places = range(min(known), max(known) + 1)
            times = [(start + place * step - end) / 60 for place in places]
            values = [known.get(place, math.nan) for place in places]  # a gap stays one
            name = _named(query.legend, series["metric"])
            axes.plot(times, values, label=name, color=next(colours), linewidth=1.5)
    axes.set_title(panel.title, fontsize=9.5, loc="left", fontweight="bold")
    axes.set_xlim((start - end) / 60, 0)
    top = axes.dataLim.ymax if axes.lines else 0.0
    top = top if 0 < top < math.inf else panel.objective or 1.0
    axes.set_ylim(-0.02 * top, 1.12 * top)
    if panel.objective is not None:
        _line(axes, panel.objective)
    axes.yaxis.set_major_formatter(lambda value, _: UNITS[panel.unit](round(value, 6)))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(lambda minutes, _: f"{minutes:g} min" if minutes else "now")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.tick_params(labelsize=7.5)
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    _legend(axes)


def _line(axes: Axes, objective: float) -> None:
    """The objective, where it is near enough to be seen beside the lines."""
    top = axes.get_ylim()[1]
    if objective <= 4 * top:
        axes.set_ylim(top=max(top, 1.12 * objective))
        axes.axhline(objective, color="#d62728", linestyle="--", linewidth=1)


def _legend(axes: Axes) -> None:
    lines, names = axes.get_legend_handles_labels()
    if not lines:
        axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", color="#888888")
        return
    rest = len(names) - _LEGEND
    if rest > 0:
        names[_LEGEND - 1] += f" and {rest} more"
    axes.legend(
        lines[:_LEGEND],
        names[:_LEGEND],
        loc="upper center",
        bbox_to_anchor=(0.5, -0.12),
        ncols=3,
        fontsize=7,
        frameon=False,
        columnspacing=1,
        handlelength=1.2,
    )


def _named(legend: str, labels: dict[str, Any]) -> str:
    """Grafana's legend: `{{service}}` is the label's value."""
    return re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), legend).strip()

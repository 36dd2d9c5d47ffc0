"""What a dashboard is made of, and how Grafana is told: the one module that knows its builders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from grafana_foundation_sdk.builders import common, dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as names
from grafana_foundation_sdk.models import dashboard as models

SOURCE = models.DataSourceRef(type_val="prometheus", uid="prometheus")
WIDTH, HEIGHT = 8, 7  # of a panel, in Grafana's grid of 24 columns


@dataclass(frozen=True)
class Query:
    """`legend` names a series by its labels: "{{service}}"."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """`unit` is Grafana's (s, percentunit, reqps, short, bytes); `objective` is drawn as a line,
    in the colour of alarm beyond it: above, or below where less is worse."""

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    objective: float | None = None
    less_is_worse: bool = False


@dataclass(frozen=True)
class Board:
    """A dashboard: rows of panels under headings."""

    name: str
    title: str
    description: str
    rows: dict[str, tuple[Panel, ...]]

    @property
    def uid(self) -> str:
        return f"govor-{self.name}"

    def panels(self) -> Iterator[Panel]:
        return chain.from_iterable(self.rows.values())

    def number(self, title: str) -> int:
        """The id of a panel, by which a link opens it alone. Raises `KeyError`."""
        numbers = {panel.title: 1 + place for place, panel in enumerate(self.panels())}
        return numbers[title]


def panel(
    title: str,
    description: str,
    unit: str,
    *queries: tuple[str, str],
    objective: float | None = None,
    less_is_worse: bool = False,
) -> Panel:
    """`queries` are pairs of an expression and a legend."""
    asked = tuple(Query(*query) for query in queries)
    return Panel(title, description, unit, asked, objective, less_is_worse)


def to_json(board: Board) -> str:
    """The dashboard as Grafana reads it from a file."""
    made = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags(["govor"])
        .editable()
        .refresh("10s")
        .time("now-1h", "now")
        .timezone("browser")
    )
    for place, (heading, panels) in enumerate(board.rows.items()):
        made.with_row(dashboard.Row(heading).id(1000 + place))
        for one in panels:
            made.with_panel(_timeseries(one, board.number(one.title)))
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


def _timeseries(one: Panel, number: int) -> timeseries.Panel:
    made = (
        timeseries.Panel()
        .id(number)
        .title(one.title)
        .description(one.description)
        .datasource(SOURCE)
        .unit(one.unit)
        .min(0)
        .span(WIDTH)
        .height(HEIGHT)
        .fill_opacity(8)
        .show_points(names.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(names.LegendDisplayMode.LIST)
            .placement(names.LegendPlacement.BOTTOM)
        )
        .tooltip(common.VizTooltipOptions().mode(names.TooltipDisplayMode.MULTI))
    )
    for letter, query in zip("ABCDEFGH", one.queries, strict=False):
        asked = prometheus.Dataquery().datasource(SOURCE).ref_id(letter)
        made.with_target(asked.expr(query.expr).legend_format(query.legend).range())
    if one.objective is not None:
        made.thresholds(_thresholds(one.objective, one.less_is_worse))
        line = common.GraphThresholdsStyleConfig().mode(names.GraphTresholdsStyleMode.LINE)
        made.thresholds_style(line)
    return made


def _thresholds(objective: float, less_is_worse: bool) -> dashboard.ThresholdsConfig:
    good, bad = ("red", "green") if less_is_worse else ("green", "red")
    return (
        dashboard.ThresholdsConfig()
        .mode(models.ThresholdsMode.ABSOLUTE)
        .steps([models.Threshold(None, good), models.Threshold(objective, bad)])
    )

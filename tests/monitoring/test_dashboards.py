"""What panels and alerts ask for exists, and what is promised is drawn."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from govor.config import Settings
from govor.metrics import Metrics, TrainerMetrics
from monitoring import alerts, recording
from monitoring.dashboards import BOARDS, link, queries
from monitoring.dashboards.panels import Board, to_json
from monitoring.objectives import load
from trainer import exporter

HOME = Path(__file__).resolve().parents[2]
GRAFANA = HOME / "monitoring" / "grafana"

# What Prometheus and the exporters of others bring; the stack's own test asks the real ones.
OTHERS = {
    *("up", "redis_up", "redis_memory_used_bytes", "redis_memory_max_bytes", "nginx_up"),
    *("node_load1", "node_cpu_seconds_total"),
    *("node_filesystem_avail_bytes", "node_filesystem_size_bytes"),
    *("process_cpu_seconds_total", "process_resident_memory_bytes"),
}
KEYWORDS = {"by", "on", "or", "and", "unless", "group_left", "le"}


def ours(folder: Path) -> set[str]:
    """The names of all samples that our processes export."""
    registries = [Metrics("gateway").registry, TrainerMetrics().registry]
    families = [family for registry in registries for family in registry.collect()]
    families += list(exporter.Jobs(Settings(var=folder)).collect())
    # Without a schema the exporter says no more than that; its families are in its test.
    source = Path(exporter.__file__).read_text()
    names = set(re.findall(r'"((?:jobs?|training|model|champion)_[a-z_]+|jobs)"', source))
    for family in families:
        names.add(family.name)
    suffixes = ("", "_total", "_bucket", "_sum", "_count")
    return {name + suffix for name in names for suffix in suffixes}


def recorded() -> set[str]:
    groups = recording.groups(load())["groups"]
    return {rule["record"] for group in groups for rule in group["rules"]}


def metrics_in(expr: str) -> Iterator[str]:
    """The names of metrics in an expression: what is neither a label, a function nor a word."""
    bare = re.sub(r"\{[^}]*\}", "", re.sub(r'"[^"]*"', '""', expr))
    bare = re.sub(r"\b(by|on|group_left|ignoring) \([^)]*\)", "", bare)
    for name in re.findall(r"[a-z_][a-z0-9_:]*(?![a-z0-9_:]*\s*\()", re.sub(r"\[\w+\]", "", bare)):
        if name not in KEYWORDS:
            yield name


def asked() -> Iterator[tuple[str, str]]:
    yield from queries()
    for content in (recording.groups(load()), alerts.groups(load())):
        for group in content["groups"]:
            for rule in group["rules"]:
                yield rule.get("record") or rule["alert"], rule["expr"]


def test_every_metric_that_is_asked_for_exists(tmp_path: Path) -> None:
    known = ours(tmp_path) | recorded() | OTHERS
    used = {(place, one) for place, expr in asked() for one in metrics_in(expr)}
    assert not {(place, one) for place, one in used if one not in known}


def test_the_search_for_metrics_finds_them() -> None:
    expr = 'max by (job) (up{job="x"}) * rate(a_b_total{c!~"d"}[5m]) unless (e:f:g5m > 1)'
    assert list(metrics_in(expr)) == ["up", "a_b_total", "e:f:g5m"]


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: str(board.name))
def test_a_dashboard_is_what_grafana_takes(board: Board) -> None:
    made = json.loads(to_json(board))
    ids = [panel["id"] for panel in made["panels"]]
    assert len(set(ids)) == len(ids)
    titles = [panel["title"] for panel in made["panels"] if panel["type"] != "row"]
    assert len(set(titles)) == len(titles)
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in made["panels"]}
    assert len(places) == len(ids)
    for panel in made["panels"]:
        for target in panel.get("targets", ()):
            assert target["datasource"]["uid"] == "prometheus"


def test_objectives_are_lines_in_panels() -> None:
    objectives = load()
    drawn = {panel.title: panel.objective for board in BOARDS for panel in board.panels()}
    for name, service in objectives.services.items():
        assert drawn[f"{name}: a request"] == service.p95_seconds
    assert drawn["Turns that went on without a part"] == objectives.turns.degraded_rate
    assert drawn["Disk that is free"] == objectives.capacity.disk_free
    assert drawn["Champion's accuracy"] == objectives.models["nlu"].accuracy
    board = json.loads(to_json(BOARDS[0]))
    (disk,) = (panel for panel in board["panels"] if panel["title"] == "Disk that is free")
    defaults = disk["fieldConfig"]["defaults"]
    assert [step["value"] for step in defaults["thresholds"]["steps"]] == [None, 0.1]
    assert defaults["custom"]["thresholdsStyle"]["mode"] == "line"


def test_a_link_opens_the_panel_alone() -> None:
    assert link("overview / Requests") == "/grafana/d/govor-overview?viewPanel=1"
    with pytest.raises(KeyError):
        link("overview / What nobody drew")


def test_grafana_finds_what_is_provisioned() -> None:
    folder = GRAFANA / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())[
        "datasources"
    ]
    assert (source["uid"], source["type"]) == ("prometheus", "prometheus")
    (provider,) = yaml.safe_load((folder / "dashboards" / "govor.yml").read_text())["providers"]
    assert provider["options"]["path"] == "/etc/grafana/dashboards"
    assert {path.stem for path in (GRAFANA / "dashboards").glob("*.json")} == {
        board.name for board in BOARDS
    }

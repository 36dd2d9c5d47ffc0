"""The alerts as Prometheus tells of them."""

from __future__ import annotations

import re
from typing import Any

from monitoring import alerts
from monitoring.objectives import load

RULES: list[dict[str, Any]] = [
    rule for group in alerts.groups(load())["groups"] for rule in group["rules"]
]
# Of rules of one name the first: they differ in what they ask for and in severity.
ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for rule in reversed(RULES)}
UNITS = {"h": 3600, "m": 60, "s": 1}


def labels_of(rule: dict[str, Any], own: dict[str, str]) -> dict[str, str]:
    """The labels of an alert: its rule's, and those of its series, among them a severity that
    another rule of its name gives."""
    return {key: filled(text, own) for key, text in rule["labels"].items()} | own


def filled(text: str, labels: dict[str, str]) -> str:
    """A text with `{{ $labels.x }}` in it, as Prometheus fills it in."""
    return re.sub(r"{{ \$labels\.(\w+) }}", lambda found: labels[found[1]], text)


def seconds(duration: str) -> int:
    """Of Prometheus's notation: 1h20m, 70s."""
    return sum(int(n) * UNITS[unit] for n, unit in re.findall(r"(\d+)([hms])", duration))

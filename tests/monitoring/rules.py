"""The alerts as Prometheus tells of them."""

from __future__ import annotations

import re
from typing import Any

from monitoring import alerts
from monitoring.objectives import load

ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in alerts.groups(load())["groups"] for rule in group["rules"]
}


def labels_of(rule: dict[str, Any], own: dict[str, str]) -> dict[str, str]:
    """The labels of an alert: those of its series, and its rule's."""
    return own | {key: filled(text, own) for key, text in rule["labels"].items()}


def filled(text: str, labels: dict[str, str]) -> str:
    """A text with `{{ $labels.x }}` in it, as Prometheus fills it in."""
    return re.sub(r"{{ \$labels\.(\w+) }}", lambda found: labels[found[1]], text)

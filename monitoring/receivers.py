"""Alertmanager's configuration: the gateway always hears of alerts that ask for a retrain, people
where a file of receivers names some.

Needs PyYAML alone: the one-shot `init` of the compose stack runs it. The file of receivers is
Alertmanager's own words: `global`, `people` and `watchdog`, both with `email_configs`,
`slack_configs`, `telegram_configs`, `webhook_configs` and so on. `receivers.example.yaml` shows it.
"""

from __future__ import annotations

import os
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

BASE = Path(__file__).parent / "alertmanager" / "alertmanager.yml"
SECTIONS = ("global", "people", "watchdog")
_WHERE = (
    *("discord", "email", "jira", "msteams", "msteamsv2", "opsgenie", "pagerduty", "pushover"),
    *("rocketchat", "slack", "sns", "telegram", "victorops", "webex", "webhook", "wechat"),
)
KINDS = tuple(f"{where}_configs" for where in _WHERE)
"""Of Alertmanager 0.28, which `compose.yaml` names: with any other it does not start."""

# What a person reads; Alertmanager's own texts leave out what to do.
TEXT = """\
{{ range .Alerts }}{{ .Status }}: {{ .Annotations.summary }}
runbook: {{ .Annotations.runbook }}
panel: {{ .Annotations.panel }}
command: {{ .Annotations.command }}

{{ end }}"""
_BODY = {"email_configs": "text", "slack_configs": "text", "telegram_configs": "message"}


class BadReceivers(Exception):
    """What the operator must change in the file of receivers: one line."""


def config(receivers: dict[str, Any] | None) -> dict[str, Any]:
    """The whole configuration. Raises `BadReceivers` for a section or a kind that there is not."""
    whole: dict[str, Any] = yaml.safe_load(BASE.read_text(encoding="utf-8"))
    given = receivers or {}
    if not isinstance(given, dict) or set(given) - set(SECTIONS):
        raise BadReceivers(f"a file of receivers has {', '.join(SECTIONS)} and nothing else")
    if wrong := [name for name in given if not isinstance(given[name] or {}, dict)]:
        raise BadReceivers(f"{wrong[0]} of a file of receivers is a list: name its kind first")
    for name in SECTIONS[1:]:
        kinds = given.get(name) or {}
        if set(kinds) - set(KINDS):
            known = ", ".join(KINDS)
            raise BadReceivers(f"{name} of a file of receivers has a kind that is none of {known}")
        if wrong := [kind for kind in kinds if not _are_receivers(kinds[kind])]:
            raise BadReceivers(f"{wrong[0]} of a file of receivers is no list of receivers")
    whole["global"] = whole.get("global", {}) | (given.get("global") or {})
    for receiver in whole["receivers"]:
        receiver.update(_with_text(given.get(receiver["name"]) or {}))
    return whole


def render(file: Path, to: Path) -> None:
    """Writes the configuration, for its owner and group alone; `file` may be missing or empty.

    Raises `BadReceivers`, which quotes nothing: passwords stand in that file, and a log shows it.
    """
    try:
        given = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        given = None
    except OSError as error:
        raise BadReceivers(f"{file.name} cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise BadReceivers(f"{file.name} is no YAML{line}") from None
    beside = to.with_suffix(".new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640), "w") as out:
        yaml.safe_dump(config(given), out, sort_keys=False, allow_unicode=True)
    beside.replace(to)


def _are_receivers(found: Any) -> bool:
    return isinstance(found or [], list) and all(isinstance(one, dict) for one in found or ())


def _with_text(receiver: dict[str, Any]) -> dict[str, Any]:
    """The receiver with our text wherever it brings none of its own."""
    receiver = deepcopy(receiver)
    for kind, field in _BODY.items():
        for one in receiver.get(kind) or ():
            one.setdefault(field, TEXT)
            if kind == "email_configs":
                one.setdefault("html", "")
    return receiver

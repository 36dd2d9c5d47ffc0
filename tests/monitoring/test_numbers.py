"""The cases of `alerts.yaml` notice a number of a rule that is moved by a tenth, either way, and a
`for` that is a step too short or too long."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring import alerts
from monitoring.objectives import load
from tests.monitoring.rules import ALERTS, RULES, seconds
from tests.monitoring.test_rules import CASES, STEP, promtool, promtool_files
from tests.monitoring.test_rules import RULES as FOLDER

# What a rule compares with: an objective, the least number of errors, any other number but 0.
LIMIT = re.compile(
    r"(?P<before>[<>]=? (?:on \(\w+\) (?:group_left )?)?)"
    r"(?:(?P<objective>objective:\w+)|(?P<count>\d+)(?= - 0\.5)"
    r"|(?P<number>[\d.]*[1-9][\d.]*)(?! -))"
)


def moved(rule: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rule with one number changed, and which."""
    for found in LIMIT.finditer(rule["expr"]):
        for other in others(found):
            expr = rule["expr"][: found.end("before")] + other + rule["expr"][found.end() :]
            yield f"{found[0]} is {other}", rule | {"expr": expr}
    step = seconds(min((one.get("every", STEP) for one in CASES[rule["alert"]]), key=seconds))
    for held in {max(0, seconds(rule["for"]) - step), seconds(rule["for"]) + step}:
        if held != seconds(rule["for"]):
            yield f"for {rule['for']} is {held}s", rule | {"for": f"{held}s"}


def others(found: re.Match[str]) -> Iterator[str]:
    for change in (-0.1, 0.1):
        if found["objective"]:
            yield f"{1 + change} * {found['objective']}"
        elif found["count"]:
            yield str(int(found["count"]) + (1 if change > 0 else -1))
        else:
            yield f"{float(found['number']) * (1 + change):g}"


MOVED = [
    pytest.param(place, rule, id=f"{rule['alert']} {what}")
    for place, one in enumerate(RULES)
    for what, rule in moved(one)
    if one["alert"] != "Watchdog"
]


def test_every_number_of_a_rule_is_moved() -> None:
    ids = " ".join(str(one.id) for one in MOVED)
    for name in set(ALERTS) - {"Watchdog"}:
        assert f"{name} for " in ids, name
    assert ids.count(" is 0.9 * objective:") == 5
    assert ids.count("> 5 is 4") == 4
    assert ids.count(">= 20 is 18") == 3


@pytest.mark.slow
@pytest.mark.parametrize(("place", "rule"), MOVED)
def test_a_number_that_is_moved_is_noticed(
    place: int, rule: dict[str, Any], tmp_path: Path
) -> None:
    whole = copy.deepcopy(alerts.groups(load()))
    rules = [(group["rules"], i) for group in whole["groups"] for i in range(len(group["rules"]))]
    group, position = rules[place]
    group[position] = rule
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "alerts.yml").write_text(yaml.safe_dump(whole))
    (folder / "recording.yml").write_text((FOLDER / "recording.yml").read_text())
    done = promtool(promtool_files([rule["alert"]], folder, tmp_path))
    assert done.returncode != 0
    assert "got:" in done.stderr, done.stderr

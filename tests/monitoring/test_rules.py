"""Every alert fires when it should, stays quiet when it should, and says where to look."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring import alerts, generated
from monitoring.objectives import FILE, load
from tests.deploy.stack import engine_or_skip
from tests.monitoring.conftest import program
from tests.monitoring.rules import ALERTS, filled, labels_of

HOME = Path(__file__).resolve().parents[2]
RULES = HOME / "monitoring" / "prometheus" / "rules"
CASES: dict[str, list[dict[str, Any]]] = yaml.safe_load(
    Path(__file__).with_name("alerts.yaml").read_text(encoding="utf-8")
)
DOOR = "https://bot.example.org"


def promtool_file(names: list[str]) -> dict[str, Any]:
    """The cases of these alerts as promtool reads them."""
    return {
        "rule_files": [str(path) for path in sorted(RULES.glob("*.yml"))],
        "evaluation_interval": "30s",
        "tests": [promtool_test(name, case) for name in names for case in CASES[name]],
    }


def promtool_test(name: str, case: dict[str, Any]) -> dict[str, Any]:
    series = {f'up{{job="{job}",instance="a"}}': "1x400" for job in alerts.SCRAPED}
    series |= case.get("series", {})
    return {
        "name": f"{name}: {case['why']}",
        "interval": case.get("every", "10s"),
        "external_url": f"{DOOR}/prometheus/",
        "input_series": [{"series": key, "values": str(value)} for key, value in series.items()],
        "alert_rule_test": [
            {
                "eval_time": case["at"],
                "alertname": name,
                "exp_alerts": [expected(ALERTS[name], one) for one in case.get("fires", [])],
            }
        ],
    }


def expected(rule: dict[str, Any], alert: dict[str, Any]) -> dict[str, Any]:
    labels = labels_of(rule, alert.get("labels", {}))
    links = {
        key: re.sub(r"{{ \$externalURL[^}]*}}", DOOR, text)
        for key, text in rule["annotations"].items()
    }
    told = {key: filled(text, labels) for key, text in links.items()}
    return {"exp_labels": labels, "exp_annotations": told | {"summary": alert["summary"]}}


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_fires_when_it_should(name: str, tmp_path: Path) -> None:
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump(promtool_file([name])))
    done = subprocess.run(
        [program("promtool"), "test", "rules", file], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_both_sides_tested(name: str) -> None:
    cases = CASES[name]
    assert any("fires" in case for case in cases)
    assert name == "Watchdog" or any("fires" not in case for case in cases)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_leads_to_its_runbook(name: str) -> None:
    runbook = HOME / ALERTS[name]["annotations"]["runbook"]
    text = runbook.read_text(encoding="utf-8")
    for heading in ("## What it means", "## Look", "## Do", "## Afterwards"):
        assert heading in text, f"{runbook.name} lacks {heading}"
    assert text.startswith(f"# {name}\n")


def test_no_runbook_and_no_case_is_left_over() -> None:
    runbooks = {path.stem for path in (HOME / "docs" / "runbooks").glob("[A-Z]*.md")}
    assert runbooks - {"README"} == set(ALERTS) == set(CASES)


def test_no_runbook_makes_more_anew_than_it_names() -> None:
    """`up` without `--no-deps` recreates what a container depends on: the gateway, for nginx."""
    services = yaml.safe_load((HOME / "compose.yaml").read_text())["services"]
    alone = {name for name, one in services.items() if {*one.get("depends_on", ())} <= {"secrets"}}
    for runbook in (HOME / "docs" / "runbooks").glob("*.md"):
        text = " ".join(runbook.read_text(encoding="utf-8").split())
        for words in map(str.split, re.findall(r"docker compose up (-[^`&]*|[a-z-]+)", text)):
            named = {word for word in words if not word.startswith("-")}
            assert "--no-deps" in words or (named and named <= alone), (runbook.name, words)


def test_what_is_written_is_what_the_objectives_say() -> None:
    assert not generated.stale(), "run `python -m monitoring`"


def test_the_rules_take_their_numbers_from_the_objectives(tmp_path: Path) -> None:
    changed = tmp_path / "objectives.yaml"
    changed.write_text(FILE.read_text().replace("disk_free: 0.1", "disk_free: 0.07"))
    made = alerts.groups(load(changed))
    assert made != alerts.groups(load())
    assert "< 0.07" in yaml.safe_dump(made)


def test_prometheus_takes_its_configuration() -> None:
    config = HOME / "monitoring" / "prometheus" / "prometheus.yml"
    done = subprocess.run(
        [program("promtool"), "check", "config", config], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_every_job_of_the_alerts_is_scraped() -> None:
    config = yaml.safe_load((HOME / "monitoring" / "prometheus" / "prometheus.yml").read_text())
    scraped = {one["job_name"] for one in config["scrape_configs"]}
    assert scraped == {*alerts.SCRAPED, "prometheus"}


@pytest.mark.docker
@pytest.mark.smoke
def test_the_containers_promtool_agrees(tmp_path: Path) -> None:
    """The version that the stack runs, which is another one than Debian's."""
    engine_or_skip()
    whole = promtool_file(list(ALERTS))
    whole["rule_files"] = [f"/rules/{path.name}" for path in sorted(RULES.glob("*.yml"))]
    (tmp_path / "test.yml").write_text(yaml.safe_dump(whole))
    tmp_path.chmod(0o755)
    image = yaml.safe_load((HOME / "compose.yaml").read_text())["services"]["prometheus"]["image"]
    mounts = ["--volume", f"{RULES}:/rules:ro", "--volume", f"{tmp_path}:/test:ro"]
    command = ["docker", "run", "--rm", "--network", "none", *mounts, "--entrypoint", "promtool"]
    done = subprocess.run(
        [*command, image, "test", "rules", "/test/test.yml"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr

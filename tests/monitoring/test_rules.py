"""Every alert fires when it should, stays quiet when it should, and says where to look."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring import alerts, generated, recording
from monitoring.objectives import FILE, load
from tests.deploy.stack import engine_or_skip
from tests.monitoring.conftest import program
from tests.monitoring.rules import ALERTS, filled, labels_of, seconds

HOME = Path(__file__).resolve().parents[2]
RULES = HOME / "monitoring" / "prometheus" / "rules"
CASES: dict[str, list[dict[str, Any]]] = yaml.safe_load(
    Path(__file__).with_name("alerts.yaml").read_text(encoding="utf-8")
)
STEP = "10s"
# What alerts ask for comes first: promtool's own order of groups is by chance.
ORDER = [group["name"] for made in (recording, alerts) for group in made.groups(load())["groups"]]
DOOR = "https://bot.example.org"


def promtool_files(names: list[str], rules: Path, folder: Path) -> list[Path]:
    """The cases of these alerts as promtool reads them, a file for each length of a step: rules
    are worked out at each, so that a moment of the cases is one of theirs."""
    made = []
    for step in sorted({case.get("every", STEP) for name in names for case in CASES[name]}):
        tests = [
            promtool_test(name, case, step)
            for name in names
            for case in CASES[name]
            if case.get("every", STEP) == step
        ]
        whole = {
            "rule_files": [str(rules / path.name) for path in sorted(RULES.glob("*.yml"))],
            "group_eval_order": ORDER,
            "evaluation_interval": step,
            "tests": tests,
        }
        file = folder / f"{step}.yml"
        file.write_text(yaml.safe_dump(whole))
        made.append(file)
    return made


def promtool_test(name: str, case: dict[str, Any], step: str) -> dict[str, Any]:
    series = {f'up{{job="{job}",instance="a"}}': "1x400" for job in alerts.SCRAPED}
    series |= case.get("series", {})
    fires = case.get("fires", [])
    rule = ALERTS[name]
    looks = [(case["at"], [expected(rule, one) for one in fires])]
    counts = []
    if "begins" in case:
        looks.append((before(case["begins"], step), []))
        query = f'count(ALERTS{{alertname="{name}",alertstate="firing"}})'
        samples = [{"labels": "{}", "value": len(fires)}]
        counts = [{"expr": query, "eval_time": case["begins"], "exp_samples": samples}]
    return {
        "name": f"{name}: {case['why']}",
        "interval": step,
        "external_url": f"{DOOR}/prometheus/",
        "input_series": [{"series": key, "values": str(value)} for key, value in series.items()],
        "alert_rule_test": [
            {"eval_time": at, "alertname": name, "exp_alerts": found} for at, found in looks
        ],
        "promql_expr_test": counts,
    }


def before(moment: str, step: str) -> str:
    return f"{seconds(moment) - seconds(step)}s"


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
    done = promtool(promtool_files([name], RULES, tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr


def promtool(files: list[Path]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program("promtool"), "test", "rules", *files], capture_output=True, text=True
    )


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
    files = promtool_files(list(ALERTS), Path("/rules"), tmp_path)
    tmp_path.chmod(0o755)
    image = yaml.safe_load((HOME / "compose.yaml").read_text())["services"]["prometheus"]["image"]
    mounts = ["--volume", f"{RULES}:/rules:ro", "--volume", f"{tmp_path}:/test:ro"]
    command = ["docker", "run", "--rm", "--network", "none", *mounts, "--entrypoint", "promtool"]
    done = subprocess.run(
        [*command, image, "test", "rules", *(f"/test/{file.name}" for file in files)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr

"""What is made from the code is up to date, and says what it should."""

import json
import re
from pathlib import Path

import pytest

from govor.config import Settings
from govor.routes import ROUTES
from services.docs import HOME, PAGES, document, settings_page


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_made_documents_are_not_stale(path: Path) -> None:
    said = f"{path.relative_to(HOME)} is stale: run python -m services.docs"
    assert path.is_file(), said
    assert path.read_text(encoding="utf-8") == PAGES[path](), said


def test_every_setting_says_what_it_is() -> None:
    rows = [line for line in settings_page().splitlines() if line.startswith("| `GOVOR_")]
    assert len(rows) > len(Settings.model_fields)
    assert not [row for row in rows if row.endswith("|  |")]


def test_the_document_describes_every_route_of_the_public_door() -> None:
    text = document()
    made = json.loads(text)
    assert set(ROUTES) | {"/v1/converse", "/v1/feedback", "/healthz"} <= set(made["paths"])
    for path, operations in made["paths"].items():
        for operation in operations.values():
            assert operation["summary"], path
            assert operation["description"], path
            assert {"401", "404", "429", "500"} <= set(operation["responses"]), path
            bodies = operation.get("requestBody", {}).get("content", {})
            assert all("schema" in body for body in bodies.values()), path
            assert "application/json" not in bodies or "example" in bodies["application/json"]
    referred = set(re.findall(r'"#/components/schemas/([^"]+)"', text))
    assert referred == set(made["components"]["schemas"])


def test_no_page_scales_by_making_every_replica_anew() -> None:
    """Of a service with an `env_file` Compose's `scale` thinks other than `up`, which made it."""
    pages = [HOME / "README.md", HOME / "CONTRIBUTING.md", *HOME.glob("docs/**/*.md")]
    for page in pages:
        for command in re.findall(r"docker compose[^`\n]*", page.read_text(encoding="utf-8")):
            assert " scale " not in command, (page, command)
            if "--no-deps" in command and "--scale" in command:
                assert "--no-recreate" in command, (page, command)


def test_who_is_sent_to_an_older_version_is_told_of_its_database() -> None:
    """Migrations lead one way: an older `init` refuses the schema of a later one."""
    pages = [page for page in HOME.glob("docs/**/*.md") if "git checkout" in page.read_text()]
    assert {page.name for page in pages} >= {"operations.md", "ServiceDown.md", "ErrorRate.md"}
    for page in pages:
        assert "govor/migrations/versions` names nothing" in page.read_text(), page


def test_receivers_are_looked_at_before_alertmanager_reads_them() -> None:
    """`up --force-recreate` leaves it not started when `secrets` refuses them."""
    text = (HOME / ".env.example").read_text(encoding="utf-8")
    steps = ["run --rm --no-deps secrets", "amtool check-config", "restart alertmanager"]
    assert [text.count(step) for step in steps] == [1, 1, 1]
    assert steps == sorted(steps, key=text.index)
    assert "--force-recreate" not in text

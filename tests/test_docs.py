"""What is made from the code is up to date."""

from pathlib import Path

import pytest

from govor.config import Settings
from services.docs import HOME, PAGES, settings_page


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_made_documents_are_not_stale(path: Path) -> None:
    said = f"{path.relative_to(HOME)} is stale: run python -m services.docs"
    assert path.is_file(), said
    assert path.read_text(encoding="utf-8") == PAGES[path](), said


def test_every_setting_says_what_it_is() -> None:
    rows = [line for line in settings_page().splitlines() if line.startswith("| `GOVOR_")]
    assert len(rows) > len(Settings.model_fields)
    assert not [row for row in rows if row.endswith("|  |")]

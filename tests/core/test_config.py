from __future__ import annotations

from pathlib import Path

import pytest

from govor.config import ConfigurationError, Settings


def test_a_url_may_stand_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "database.url"
    file.write_text("postgresql+psycopg://govor:secret@postgres/govor\n")
    monkeypatch.setenv("GOVOR_DATABASE_URL_FILE", str(file))
    assert Settings().database == "postgresql+psycopg://govor:secret@postgres/govor"
    monkeypatch.setenv("GOVOR_DATABASE_URL", "sqlite:///here.db")
    assert Settings().database == "sqlite:///here.db"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="GOVOR_BROKER_URL_FILE"):
        Settings(broker_url_file=tmp_path / "nothing")

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from govor import logs
from tests.conftest import Running
from tests.core.apps import create_app, settings_in


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, put back afterwards."""
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield logger
    logger.handlers[:], logger.level = handlers, level


async def test_every_line_carries_the_request_id(
    tmp_path: Path,
    running: Running,
    root: logging.Logger,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = settings_in(tmp_path, log_format="json")
    logs.configure(settings)
    async with running(create_app(settings)) as http:
        await http.post("/v1/fall", json={"text": "x"}, headers={"x-request-id": "id-7"})
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["request_id"], line["level"]) for line in lines] == [("id-7", "ERROR")]
    assert "RuntimeError" in lines[0]["exception"]


def test_text_is_one_line(
    tmp_path: Path, root: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure(settings_in(tmp_path, log_level="WARNING"))
    logging.getLogger("a").info("not said")
    logging.getLogger("a").warning("said\nin two lines")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].endswith("WARNING - a: said\\nin two lines")

"""Packs are read again when their files change."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from govor.errors import NotFound
from services.gateway.packs import Packs
from tests.gateway.conftest import PACKS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(PACKS, tmp_path / "packs")
    return tmp_path / "packs"


async def test_a_changed_pack_is_served_and_a_broken_one_is_not(folder: Path) -> None:
    packs = Packs(folder, "desk", poll_seconds=0.05)
    before = packs.get("desk")
    await packs.start()
    replies = folder / "desk" / "replies.yaml"
    replies.write_text(replies.read_text().replace("Nine to five.", "Always."))
    await asyncio.sleep(1)
    changed = packs.get("desk")
    assert changed.digest != before.digest
    assert "Always." in changed.replies["open_hours"].texts("en")
    replies.write_text("greeting: 7")
    await asyncio.sleep(1)
    assert packs.get("desk") is changed
    await packs.stop()
    assert packs.ready() == (True, "desk")


def test_an_unknown_pack_is_not_found(folder: Path) -> None:
    with pytest.raises(NotFound) as error:
        Packs(folder, "desk", 1.0).get("weather")
    assert error.value.code == "domain_not_found"
    assert Packs(folder, "weather", 1.0).ready()[0] is False

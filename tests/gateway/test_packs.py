"""Packs are read again when their files change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from govor.domains import Pack, load_packs
from govor.errors import NotFound
from services.gateway.packs import Packs
from tests.gateway.conftest import PACKS, until


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(PACKS, tmp_path / "packs")
    return tmp_path / "packs"


def write(file: Path, text: str) -> None:
    """At once: nobody sees half of it."""
    part = file.parents[2] / "part"
    part.write_text(text)
    part.replace(file)


async def test_a_changed_pack_is_served_and_a_broken_one_is_not(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    packs = Packs(folder, "desk", poll_seconds=0.05)
    before = packs.get("desk")
    await packs.start()
    replies = folder / "desk" / "replies.yaml"
    write(replies, replies.read_text().replace("Nine to five.", "Always."))
    await until(lambda: packs.get("desk") is not before)
    changed = packs.get("desk")
    assert changed.digest != before.digest
    assert "Always." in changed.replies["open_hours"].texts("en")
    write(replies, "greeting: 7")
    await until(lambda: "the packs stay as they were" in caplog.text)
    assert packs.get("desk") is changed
    await packs.stop()
    assert packs.ready() == (True, "desk")


async def test_a_file_that_goes_while_packs_are_read_ends_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def gone(folder: Path) -> dict[str, Pack]:
        raise FileNotFoundError("replies.yaml")

    packs = Packs(folder, "desk", poll_seconds=0.05)
    before = packs.get("desk")
    await packs.start()
    monkeypatch.setattr("services.gateway.packs.load_packs", gone)
    (folder / "desk" / "one").touch()
    await until(lambda: "the packs stay as they were" in caplog.text)
    monkeypatch.setattr("services.gateway.packs.load_packs", load_packs)
    (folder / "desk" / "another").touch()
    await until(lambda: packs.get("desk") is not before)
    await packs.stop()


def test_an_unknown_pack_is_not_found(folder: Path) -> None:
    with pytest.raises(NotFound) as error:
        Packs(folder, "desk", 1.0).get("weather")
    assert error.value.code == "domain_not_found"
    assert Packs(folder, "weather", 1.0).ready()[0] is False

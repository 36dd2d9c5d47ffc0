"""Batches on disk: whole, in order, within their limit."""

import os
import time
from pathlib import Path

import pytest

from govor.spool import Spool


def test_batches_come_back_in_order(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 10_000)
    for number in range(20):
        spool.write([{"number": number}, {"text": "строка\nи\u2028ещё"}])
    batches = [spool.read(file) for file in spool.files()]
    assert batches == [[{"number": n}, {"text": "строка\nи\u2028ещё"}] for n in range(20)]


def test_another_process_reads_what_one_left(tmp_path: Path) -> None:
    Spool(tmp_path, 10_000).write([{"number": 1}])
    other = Spool(tmp_path, 10_000)
    (file,) = other.files()
    assert other.read(file) == [{"number": 1}]
    other.remove(file)
    other.remove(file)
    assert other.read(file) == []
    assert other.files() == []


def test_a_full_spool_takes_no_more_until_it_is_emptied(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 100)
    assert spool.write([{"text": "x" * 60}])
    assert spool.write([{"text": "x" * 60}]) is None
    spool.remove(spool.files()[0])
    spool.files()
    assert spool.write([{"text": "x" * 60}])


def test_no_half_batch_is_ever_seen(tmp_path: Path) -> None:
    (tmp_path / "0-1-2.part").write_text('{"half')
    assert Spool(tmp_path, 10_000).files() == []


def test_a_disk_that_fails_is_reported_not_raised(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tmp_path / "spool", 10_000)
    (tmp_path / "spool").rmdir()
    assert spool.write([{"number": 1}]) is None
    assert "No such file" in caplog.text


def test_a_batch_that_is_refused_is_set_aside_for_a_day(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 10_000)
    file = spool.write([{"number": 1}])
    assert file is not None
    spool.refuse(file, "no such column")
    assert spool.files() == []
    aside = file.with_suffix(".refused")
    assert aside.exists()
    day_ago = time.time() - 24 * 3600 - 1
    os.utime(aside, (day_ago, day_ago))
    spool.files()
    assert not aside.exists()


def test_only_its_owner_reads_the_spool(tmp_path: Path) -> None:
    file = Spool(tmp_path / "spool", 10_000).write([{"text": "private"}])
    assert file is not None
    assert file.stat().st_mode & 0o077 == 0
    assert file.parent.stat().st_mode & 0o077 == 0

"""What happens by itself: due schedules, silent workers, lost rings."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, insert, select, update

from govor import jobs
from govor.config import Settings
from govor.database import make_engine, migrate
from govor.errors import NotFound, Unprocessable
from govor.schemas.jobs import QUEUES, Job, JobRequest
from govor.tables import job, run, schedule
from tests.databases import KINDS, Server, server
from trainer.jobs import finish, take
from trainer.schedule import add, due, remove, tick

REQUEST = JobRequest(recipe="intents", domain="support", params={"seed": 2}, priority=3)
NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@pytest.fixture(params=KINDS, scope="module")
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    with server(request.param, tmp_path_factory.mktemp("database")) as running:
        yield running


@pytest.fixture
def settings(running: Server, tmp_path: Path) -> Settings:
    settings = Settings(var=tmp_path, database_url=running.fresh())
    migrate(settings.database)
    return settings


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    engine = make_engine(settings.database)
    yield engine
    engine.dispose()


def planned(engine: Engine, cron: str = "0 3 * * *", since: datetime = NOON) -> None:
    """A schedule that has been there since a moment."""
    with engine.begin() as connection:
        add(connection, "nightly", cron, REQUEST)
        connection.execute(update(schedule).values(created_at=since))


def asked(engine: Engine) -> list[Job]:
    with engine.begin() as connection:
        return jobs.listing(connection)[0]


@pytest.mark.parametrize(
    ("cron", "hours", "moment"),
    [
        ("0 3 * * *", 24, "2026-11-20 03:00"),
        ("0 3 * * *", 8, None),
        ("0 12 * * *", 1, "2026-11-20 12:00"),
        ("*/15 * * * *", 1, "2026-11-20 12:00"),
        ("30 9-17 * * mon-fri", 24, "2026-11-20 11:30"),
        ("30 9-17 * * sun", 24 * 7, "2026-11-15 17:30"),
        ("0 0 1 * *", 24 * 60, "2026-11-01 00:00"),
        ("0 0 29 2 *", 24 * 365, None),
    ],
)
def test_the_last_moment_that_a_line_names(cron: str, hours: int, moment: str | None) -> None:
    found = due(cron, NOON - timedelta(hours=hours), NOON)
    assert (found and f"{found:%Y-%m-%d %H:%M}") == moment


@pytest.mark.parametrize(
    "line", ["", "0 3 * *", "61 3 * * *", "0 3 * * someday", "@daily", "0 3 1,,2 * *"]
)
def test_a_line_that_is_none_is_refused(line: str) -> None:
    with pytest.raises(Unprocessable) as error:
        due(line, NOON, NOON)
    assert error.value.param == "cron"


def test_a_schedule_starts_a_job_when_it_is_due(settings: Settings, engine: Engine) -> None:
    planned(engine)
    tick(settings, engine, NOON + timedelta(hours=14))
    assert asked(engine) == []
    tick(settings, engine, NOON + timedelta(hours=15, minutes=2))
    (found,) = asked(engine)
    assert (found.recipe, found.domain, found.params) == ("intents", "support", {"seed": 2})
    assert (found.priority, found.requested_by) == (3, "schedule")
    assert found.reason == "schedule nightly of 2026-11-21 03:00"
    with engine.begin() as connection:
        assert connection.execute(select(run.c.job_id)).scalars().all() == [found.id]


def test_after_downtime_a_schedule_is_caught_up_once(settings: Settings, engine: Engine) -> None:
    planned(engine)
    later = NOON + timedelta(days=5)
    for minutes in (0, 1, 2):
        tick(settings, engine, later + timedelta(minutes=minutes))
    (found,) = asked(engine)
    assert found.reason == "schedule nightly of 2026-11-25 03:00"


def test_two_beats_do_no_harm(settings: Settings, engine: Engine) -> None:
    planned(engine)

    def beat(_: int) -> None:
        own = make_engine(settings.database)
        tick(settings, own, NOON + timedelta(days=1))
        own.dispose()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(beat, range(8)))
    assert len(asked(engine)) == 1


def test_a_schedule_waits_for_its_own_job(settings: Settings, engine: Engine) -> None:
    planned(engine)
    tick(settings, engine, NOON + timedelta(days=1))
    tick(settings, engine, NOON + timedelta(days=2))
    (first,) = asked(engine)
    with engine.begin() as connection:
        lease = take(connection, "cpu", worker="a", seconds=60)
        assert lease is not None
        finish(connection, lease, "done")
    tick(settings, engine, NOON + timedelta(days=3))
    assert [found.id == first.id for found in asked(engine)] == [False, True]


def test_a_schedule_that_is_changed_begins_anew(settings: Settings, engine: Engine) -> None:
    planned(engine)
    with engine.begin() as connection:
        add(connection, "nightly", "* * * * *", REQUEST)
        since = connection.execute(select(schedule.c.created_at)).scalar_one()
    assert since > NOON
    tick(settings, engine, since)  # its first minute has not passed
    assert asked(engine) == []
    with engine.begin() as connection:
        remove(connection, "nightly")
        with pytest.raises(NotFound):
            remove(connection, "nightly")
    tick(settings, engine, datetime.now(UTC) + timedelta(days=2))
    assert asked(engine) == []


def cancel_all(engine: Engine) -> None:
    for found in asked(engine):
        if found.live:
            with engine.begin() as connection:
                jobs.cancel(connection, found.id)


def test_a_clock_that_was_ahead_does_not_silence_a_schedule(
    settings: Settings, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    planned(engine)
    reasons = []
    for days in (365, 1, 1, 2, 366):
        tick(settings, engine, NOON + timedelta(days=days))
        reasons += [found.reason for found in asked(engine) if found.live]
        cancel_all(engine)
    days = ["2027-11-20", "2026-11-21", "2026-11-22", "2027-11-21"]
    assert reasons == [f"schedule nightly of {day} 03:00" for day in days]
    assert caplog.text.count("schedule nightly: a clock was ahead, it ran for 2027-11-20 03") == 2


def test_a_schedule_that_was_made_by_a_clock_ahead_begins_now(
    settings: Settings, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    planned(engine, since=NOON + timedelta(days=365))
    tick(settings, engine, NOON)
    assert asked(engine) == []
    tick(settings, engine, NOON + timedelta(days=1))
    assert [found.reason for found in asked(engine)] == ["schedule nightly of 2026-11-21 03:00"]
    assert caplog.text.count("made by a clock ahead") == 1


def test_a_broken_schedule_does_not_stop_the_others(
    settings: Settings, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    planned(engine)
    broken = {"name": "a", "cron": "now and then", "recipe": "alchemy", "params": {}}
    more = {"queue": "cpu", "priority": 5, "enabled": True, "created_at": NOON}
    with engine.begin() as connection:
        connection.execute(insert(schedule), broken | more)
        connection.execute(insert(schedule), broken | more | {"name": "b", "cron": "0 3 * * *"})
    tick(settings, engine, NOON + timedelta(days=1))
    assert [found.recipe for found in asked(engine)] == ["intents"]
    assert "schedule a: " in caplog.text
    assert "schedule b: there is no recipe 'alchemy'" in caplog.text


def test_a_silent_worker_loses_its_job_and_the_bell_rings(
    settings: Settings, engine: Engine
) -> None:
    with engine.begin() as connection:
        jobs.enqueue(connection, REQUEST, requested_by="test")
        assert take(connection, "cpu", worker="a", seconds=60) is not None
        connection.execute(update(job).values(lease_until=NOON))
    tick(settings, engine)
    assert asked(engine)[0].state == "queued"
    assert jobs.unheard(settings, "cpu") == 1


def test_a_queue_that_nobody_serves_does_not_fill_up(settings: Settings, engine: Engine) -> None:
    with engine.begin() as connection:
        for _ in range(3):
            jobs.enqueue(connection, REQUEST, requested_by="test")
    for _ in range(4):
        tick(settings, engine)
    assert (jobs.unheard(settings, "cpu"), jobs.unheard(settings, "gpu")) == (3, 0)


def test_a_broker_that_is_away_does_not_stop_a_tick(settings: Settings, engine: Engine) -> None:
    planned(engine)
    away = settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"})
    tick(away, engine, NOON + timedelta(days=1))
    assert len(asked(engine)) == 1


def test_a_broker_that_goes_away_meanwhile_is_tried_once(
    settings: Settings,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with engine.begin() as connection:
        for queue in QUEUES * 2:
            request = REQUEST.model_copy(update={"queue": queue})
            jobs.enqueue(connection, request, requested_by="test")
    monkeypatch.setattr(jobs, "unheard", lambda *_: 0)
    tick(settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"}), engine)
    assert caplog.text.count("out of order") == 1

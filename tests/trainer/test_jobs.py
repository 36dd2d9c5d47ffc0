"""The table of jobs, from both sides, on both databases."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, update

from govor import jobs
from govor.database import make_engine, migrate, transaction
from govor.errors import Conflict, NotFound, Unprocessable
from govor.schemas.jobs import Job, JobRequest, Progress, Queue
from govor.tables import job
from tests.databases import KINDS, Server, server
from trainer import heads
from trainer.jobs import STARTS, Lease, LeaseLost, finish, pulse, reap, release, take
from trainer.recipes import ENTRIES, load

ASKED = JobRequest(recipe="intents", domain="support")


@pytest.fixture(params=KINDS, scope="module")
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    with server(request.param, tmp_path_factory.mktemp("database")) as running:
        yield running


@pytest.fixture
def url(running: Server) -> str:
    url = running.fresh()
    migrate(url)
    return url


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = make_engine(url)
    yield engine
    engine.dispose()


def ask(engine: Engine, key: str | None = None, **more: object) -> Job:
    request = ASKED.model_copy(update=more)
    with engine.begin() as connection:
        return jobs.enqueue(connection, request, requested_by="test", idempotency_key=key)


def took(engine: Engine, queue: Queue = "cpu", worker: str = "a", seconds: float = 60) -> Lease:
    with engine.begin() as connection:
        lease = take(connection, queue, worker=worker, seconds=seconds)
    assert lease is not None
    return lease


def now(engine: Engine, identity: str) -> Job:
    with engine.begin() as connection:
        return jobs.read(connection, identity)


def lines(engine: Engine, identity: str, after: int = 0) -> list[str]:
    with engine.begin() as connection:
        return [line.line for line in jobs.log_lines(connection, identity, after)]


def late(engine: Engine, lease: Lease) -> None:
    """The worker has not been heard of for longer than its lease."""
    before = datetime.now(UTC) - timedelta(seconds=1)
    with engine.begin() as connection:
        connection.execute(update(job).where(job.c.id == lease.job.id).values(lease_until=before))


def test_a_job_waits_in_the_queue_of_its_recipe_unless_told_otherwise(engine: Engine) -> None:
    plain, other = ask(engine), ask(engine, queue="gpu")
    assert (plain.state, plain.queue, plain.priority, plain.starts) == ("queued", "cpu", 5, 0)
    assert other.queue == "gpu"
    assert now(engine, plain.id) == plain


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"recipe": "alchemy"}, "recipe"),
        ({"params": {"sead": 1}}, "params.sead"),
        ({"params": {"folds": "many"}}, "params.folds"),
    ],
)
def test_what_no_recipe_takes_is_refused_by_name(
    engine: Engine, wrong: dict[str, object], param: str
) -> None:
    with pytest.raises(Unprocessable) as error:
        ask(engine, **wrong)
    assert error.value.param == param


def test_the_recipes_that_may_be_asked_for_are_those_there_are() -> None:
    assert set(jobs.RECIPES) == set(ENTRIES)
    for name, entry in ENTRIES.items():
        assert callable(load(entry.run))
        assert entry.gpu or jobs.RECIPES[name].queue == "cpu", "its jobs would hold a GPU idle"


def test_the_parameters_that_may_be_given_are_those_of_the_recipe() -> None:
    asked = jobs.RECIPES["intents"].params()
    assert asked.model_dump() == heads.Params().model_dump()


def test_a_key_has_one_live_job(engine: Engine) -> None:
    first = ask(engine, "alert")
    assert ask(engine, "alert") == first
    lease = took(engine)
    assert ask(engine, "alert").id == first.id
    with engine.begin() as connection:
        finish(connection, lease, "done")
    assert ask(engine, "alert").id != first.id


def test_a_key_has_one_live_job_however_many_ask_at_once(url: str) -> None:
    def one(_: int) -> str:
        with transaction(url) as connection:
            return jobs.enqueue(connection, ASKED, requested_by="test", idempotency_key="alert").id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(one, range(24)))) == 1


def test_priority_comes_before_age_within_a_queue(engine: Engine) -> None:
    ids = {name: ask(engine, priority=p).id for name, p in [("a", 5), ("b", 9), ("c", 5), ("d", 0)]}
    ask(engine, queue="gpu", priority=9)
    order = [took(engine).job.id for _ in ids]
    assert order == [ids[name] for name in "bacd"]


def test_many_workers_take_each_job_once(url: str, engine: Engine) -> None:
    asked = {ask(engine).id for _ in range(12)}

    def one(number: int) -> str | None:
        with transaction(url) as connection:
            lease = take(connection, "cpu", worker=str(number), seconds=60)
        return lease and lease.job.id

    with ThreadPoolExecutor(8) as pool:
        taken = [found for found in pool.map(one, range(24)) if found]
    assert (len(taken), set(taken)) == (12, asked)


def test_progress_and_log_are_told_with_the_pulse(engine: Engine) -> None:
    identity = ask(engine).id
    lease = took(engine)
    told = Progress(step="train", done=0.5, epoch=1, epochs=2, loss=0.25, at=datetime.now(UTC))
    with engine.begin() as connection:
        news = {"progress": told.model_dump(mode="json"), "device": "cpu", "device_reason": "none"}
        assert pulse(connection, lease, news, ["one", "two"]) is False
    found = now(engine, identity)
    assert found.progress == told
    assert (found.device, found.device_reason) == ("cpu", "none")
    assert lines(engine, identity) == ["start 1 on a", "one", "two"]
    assert lines(engine, identity, after=2) == ["two"]


def test_a_log_is_bounded_and_keeps_its_end(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.jobs.LOG_LINES", 3)
    identity = ask(engine).id
    lease = took(engine)
    with engine.begin() as connection:
        pulse(connection, lease, lines=["one", "two", "three"])
        pulse(connection, lease, lines=["four"])
        finish(connection, lease, "failed", error="no rows")
    assert lines(engine, identity) == ["start 1 on a", "one", "two", "failed: no rows"]


def test_a_cancelled_job_that_waits_never_starts(engine: Engine) -> None:
    identity = ask(engine).id
    with engine.begin() as connection:
        assert jobs.cancel(connection, identity).state == "cancelled"
        assert take(connection, "cpu", worker="a", seconds=60) is None
        with pytest.raises(Conflict) as error:
            jobs.cancel(connection, identity)
        assert error.value.code == "job_finished"
        with pytest.raises(NotFound):
            jobs.cancel(connection, "nobody")


def test_a_running_job_is_told_to_end(engine: Engine) -> None:
    ask(engine)
    lease = took(engine)
    with engine.begin() as connection:
        assert jobs.cancel(connection, lease.job.id).state == "running"
        assert pulse(connection, lease) is True


def test_a_cancel_that_meets_a_worker_at_its_end_is_one(url: str, engine: Engine) -> None:
    def cancelled(identity: str) -> Job:
        with transaction(url) as connection:
            return jobs.cancel(connection, identity)

    ask(engine)
    lease = took(engine)
    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as connection:
            release(connection, lease, "it stops")
            asked = pool.submit(cancelled, lease.job.id)
            time.sleep(0.5)
        assert asked.result(60).state == "cancelled"
    assert now(engine, lease.job.id).finished_at is not None


def test_a_worker_that_lost_its_lease_writes_no_more(engine: Engine) -> None:
    identity = ask(engine).id
    zombie = took(engine, worker="zombie")
    late(engine, zombie)
    with engine.begin() as connection:
        assert [found.state for found in reap(connection)] == ["queued"]
    second = took(engine, worker="second")
    for write in (
        lambda c: pulse(c, zombie, lines=["still here"]),
        lambda c: finish(c, zombie, "done", result={"by": "zombie"}),
        lambda c: release(c, zombie, "stopped"),
    ):
        with pytest.raises(LeaseLost), engine.begin() as connection:
            write(connection)
    with engine.begin() as connection:
        finish(connection, second, "done", result={"by": "second"})
    found = now(engine, identity)
    assert (found.state, found.result, found.worker) == ("done", {"by": "second"}, "second")
    assert found.starts == 2
    assert "still here" not in lines(engine, identity)


def test_a_late_worker_that_nobody_replaced_goes_on(engine: Engine) -> None:
    ask(engine)
    lease = took(engine)
    late(engine, lease)
    with engine.begin() as connection:
        pulse(connection, lease)
        assert reap(connection) == []


def test_after_three_starts_a_job_is_dead(engine: Engine) -> None:
    identity = ask(engine, "key").id
    for _ in range(STARTS):
        assert now(engine, identity).state == "queued"
        late(engine, took(engine))
        with engine.begin() as connection:
            reap(connection)
    found = now(engine, identity)
    assert (found.state, found.starts) == ("dead", 3)
    assert found.error == "given up after 3 starts: its worker a fell silent"
    assert found.finished_at is not None
    assert ask(engine, "key").id != identity


def test_a_job_that_was_cancelled_under_a_dead_worker_is_cancelled(engine: Engine) -> None:
    ask(engine)
    lease = took(engine)
    late(engine, lease)
    with engine.begin() as connection:
        jobs.cancel(connection, lease.job.id)
        assert [found.state for found in reap(connection)] == ["cancelled"]


def test_a_worker_that_stops_gives_the_start_back(engine: Engine) -> None:
    identity = ask(engine).id
    for _ in range(STARTS + 1):
        with engine.begin() as connection:
            lease = take(connection, "cpu", worker="a", seconds=60)
            assert lease is not None
            release(connection, lease, "the worker stops")
    assert (now(engine, identity).state, now(engine, identity).starts) == ("queued", 0)


def test_a_failed_job_is_tried_again_as_a_new_one(engine: Engine) -> None:
    old = ask(engine, params={"seed": 3}, priority=7, queue="gpu")
    with engine.begin() as connection:
        with pytest.raises(Conflict) as error:
            jobs.retry(connection, old.id, "somebody")
        assert error.value.code == "job_not_retryable"
    lease = took(engine, "gpu")
    with engine.begin() as connection:
        finish(connection, lease, "failed", error="no rows")
        new = jobs.retry(connection, old.id, "somebody")
        assert jobs.retry(connection, old.id, "somebody") == new
    assert (new.retry_of, new.state, new.requested_by) == (old.id, "queued", "somebody")
    assert (new.params, new.priority, new.queue) == ({"seed": 3}, 7, "gpu")


def test_jobs_are_listed_newest_first_by_pages(engine: Engine) -> None:
    asked = [ask(engine).id for _ in range(5)]
    with engine.begin() as connection:
        first, cursor = jobs.listing(connection, limit=3)
        assert cursor is not None
        second, end = jobs.listing(connection, limit=3, cursor=cursor)
    assert [found.id for found in first + second] == asked[::-1]
    assert end is None
    took(engine)
    with engine.begin() as connection:
        assert [j.id for j in jobs.listing(connection, state="running")[0]] == asked[:1]

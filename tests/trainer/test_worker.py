"""A real worker on the broker of files: what ends a training, and what that leaves behind."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import update
from sqlalchemy.exc import OperationalError

from govor import jobs
from govor.jobs import RECIPES
from govor.metrics import TrainerMetrics
from govor.tables import job
from tests.trainer.recipes import OWN, RECIPE
from tests.trainer.workers import HOME, Shop, alive, eventually
from trainer.execution import PULSE_SECONDS, Worker
from trainer.recipes import ENTRIES


@pytest.fixture(autouse=True)
def recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("patient", "modest"):
        monkeypatch.setitem(RECIPES, name, RECIPE)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path, trainer_tick_seconds=0.5)
    yield shop
    shop.close()


BRIEF = {"trainer_lease_seconds": 3}
"""For a worker that is to fall silent; that of one that lives is never over on a busy machine."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop with one worker, for what leaves it alive."""
    shop = Shop(tmp_path_factory.mktemp("shop"), trainer_tick_seconds=0.5)
    shop.start("worker", "--beat")
    yield shop
    shop.close()


def test_a_job_runs_from_the_doorbell_to_its_result(served: Shop, tmp_path: Path) -> None:
    go = tmp_path / "go"
    identity = served.ask(seconds=1.5, until=str(go))
    running = served.until(identity, "running")
    assert running.worker is not None
    eventually(lambda: served.job(identity).progress)
    progress = served.job(identity).progress
    assert progress is not None
    assert (progress.step, progress.epochs) == ("wait", 15)
    eventually(lambda: "it begins" in served.log(identity))
    go.touch()
    done = served.until(identity, "done")
    assert done.result is not None
    assert done.result["ran"] is True
    assert done.progress is not None
    assert (done.progress.step, done.progress.epoch) == ("over", 15)  # as the last epoch left it
    assert (done.device, done.device_reason, done.starts) == ("cpu", None, 1)
    log = served.log(identity)
    assert log[1:] == ["it begins", "it ran on cpu", "done"]
    folder = Path(done.result["folder"])
    eventually(lambda: not folder.exists())


def test_a_cancel_ends_the_training_at_the_next_pulse(served: Shop) -> None:
    assert PULSE_SECONDS <= 1
    identity = served.ask(seconds=60)
    served.until(identity, "running")
    training = served.training(served.workers[0])
    served.cancel(identity)
    leases: set[datetime | None] = set()
    eventually(lambda: leases.add(served.lease(identity)) or not alive(training))
    assert len(leases - {None}) <= 2
    assert served.until(identity, "cancelled", "done").state == "cancelled"
    assert served.job(identity).error is None
    assert served.until(served.ask(), "done").state == "done"


def test_a_cancel_does_not_leave_half_of_an_effect(served: Shop, tmp_path: Path) -> None:
    file, go = tmp_path / "effect", tmp_path / "go"
    identity = served.ask(then="commit", file=str(file), effect_until=str(go))
    eventually(lambda: "it may" in served.log(identity))
    served.cancel(identity)
    leases: set[datetime | None] = set()  # until its worker has twice heard of the cancel
    eventually(lambda: leases.add(served.lease(identity)) or len(leases) > 2 or None in leases)
    go.touch()
    done = served.until(identity, "done", "cancelled")
    assert (done.state, done.cancel_requested, file.exists()) == ("done", True, True)


@pytest.mark.parametrize(
    ("then", "error"),
    [
        ("fail", "ValueError: there are no rows"),
        ("crash", "the training was ended by SIGSEGV"),
        ("leave", "the training ended with status 3 and no result"),
    ],
)
def test_a_training_that_breaks_is_a_failed_job(served: Shop, then: str, error: str) -> None:
    failed = served.until(served.ask(then=then), "failed", "done")
    assert (failed.state, failed.error, failed.starts) == ("failed", error, 1)
    assert served.log(failed.id)[-1] == f"failed: {error}"
    assert served.until(served.ask(), "done", "failed").state == "done"


def test_a_training_killed_for_memory_is_a_failed_job(served: Shop) -> None:
    identity = served.ask(seconds=60)
    os.kill(served.training(served.workers[0]), signal.SIGKILL)
    failed = served.until(identity, "failed")
    assert failed.error == "the training was ended by SIGKILL: most often the memory ran out"
    assert served.workers[0].poll() is None


def test_a_training_has_a_time_limit(tmp_path: Path) -> None:
    shop = Shop(tmp_path, trainer_time_limit_seconds=2)
    try:
        shop.start("worker")
        failed = shop.until(shop.ask(seconds=600), "failed")
    finally:
        shop.close()
    assert failed.error is not None
    assert failed.error.startswith("the training took longer than 2 s (GOVOR_TRAINER_TIME_LIMIT")


@pytest.mark.parametrize(("later", "state"), [(1000, "done"), (20_000, "failed")])
def test_the_time_limit_does_not_leave_half_of_an_effect(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: int, state: str
) -> None:
    file, go = tmp_path / "effect", tmp_path / "go"
    passed = [0.0]
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + passed[0])
    monkeypatch.chdir(HOME)
    monkeypatch.setitem(ENTRIES, "patient", OWN["patient"])
    monkeypatch.setattr("trainer.execution.time", clock)
    monkeypatch.setattr("trainer.execution.EFFECT_SECONDS", 10_000.0)
    settings = shop.settings.model_copy(update={"trainer_time_limit_seconds": 600})
    worker = Worker("one", settings, threading.Event(), TrainerMetrics())
    identity = shop.ask(then="commit", file=str(file), effect_until=str(go))
    running = threading.Thread(target=worker.run_next, args=("cpu",))
    running.start()
    try:
        eventually(lambda: "it may" in shop.log(identity))
        passed[0] += later
        leases: set[datetime | None] = set()
        eventually(lambda: leases.add(shop.lease(identity)) or len(leases) > 2 or None in leases)
    finally:
        go.touch()
        running.join(60)
    ended = shop.job(identity)
    assert (ended.state, file.exists()) == (state, state == "done"), ended.error


def test_what_lies_of_jobs_that_ended_elsewhere_is_removed(shop: Shop) -> None:
    cancelled, dead, waiting = (shop.ask(ring=False) for _ in range(3))
    shop.cancel(cancelled)
    with shop.engine.begin() as connection:
        connection.execute(update(job).where(job.c.id == dead).values(state="dead"))
    runs = shop.settings.var_folder / "runs"
    for name in (cancelled, dead, waiting, "mine"):
        (runs / name / "tmp").mkdir(parents=True)
        (runs / name / "tmp" / "rows").touch()
    worker = Worker("one", shop.settings, threading.Event(), TrainerMetrics())
    assert worker.run_next("gpu") is None
    assert sorted(path.name for path in runs.iterdir()) == sorted([waiting, "mine"])
    assert (runs / waiting / "tmp" / "rows").exists()


def test_nothing_that_a_training_started_outlives_it(served: Shop) -> None:
    done = served.until(served.ask(then="linger"), "done")
    assert done.result is not None
    group = done.result["pid"]
    eventually(lambda: not members(group))
    assert served.workers[0].poll() is None


def test_a_gpu_job_runs_on_the_cpu_where_there_is_none(served: Shop) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("no GPU must be here, and one is")
    done = served.until(served.ask(queue="gpu"), "done")
    assert (done.queue, done.device) == ("gpu", "cpu")
    assert done.device_reason is not None
    assert "torch" in done.device_reason
    assert "it ran on cpu" in served.log(done.id)


@pytest.mark.parametrize(
    ("there", "device", "reason"), [(True, "cuda", None), (False, "cpu", "torch sees no GPU")]
)
def test_a_gpu_is_for_recipes_that_use_one(
    there: bool, device: str, reason: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a torch that says what it is told to, in the real process."""
    (tmp_path / "torch.py").write_text(
        "class version:\n    cuda = '12.8'\n\n\n"
        f"class cuda:\n    is_available = staticmethod(lambda: {there})\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    shop = Shop(tmp_path)
    try:
        shop.start("worker", "--beat")
        can, cannot = shop.ask(queue="gpu"), shop.ask("modest", queue="gpu")
        ran = shop.until(can, "done", "failed")
        assert (ran.device, ran.device_reason) == (device, reason)
        assert f"it ran on {device}" in shop.log(can)
        ran = shop.until(cannot, "done", "failed")
        assert (ran.device, ran.device_reason) == ("cpu", "the recipe modest trains on the CPU")
        assert "it ran on cpu" in shop.log(cannot)
    finally:
        shop.close()


def test_a_worker_takes_the_queues_it_is_told(shop: Shop) -> None:
    shop.start("worker", "--queues", "gpu")
    cpu, gpu = shop.ask(), shop.ask(queue="gpu")
    shop.until(gpu, "done")
    assert shop.job(cpu).state == "queued"


def test_a_worker_that_stops_gives_its_job_back(shop: Shop, tmp_path: Path) -> None:
    go = tmp_path / "go"
    first = shop.start("worker")
    identity = shop.ask(until=str(go))
    training = shop.training(first)
    first.send_signal(signal.SIGTERM)
    assert first.wait(60) == 0
    assert not alive(training)
    waiting = shop.job(identity)
    assert (waiting.state, waiting.starts) == ("queued", 0)
    go.touch()
    shop.start("worker")  # hears the ring that the first has left
    assert shop.until(identity, "done").starts == 1


def test_a_training_dies_with_its_worker_and_is_taken_up_again(shop: Shop, tmp_path: Path) -> None:
    go = tmp_path / "go"
    worker = shop.start("worker", **BRIEF)
    identity = shop.ask(until=str(go))
    training = shop.training(worker)
    worker.kill()
    worker.wait()
    eventually(lambda: not alive(training))
    go.touch()
    assert shop.job(identity).state == "running"  # nobody knows yet
    shop.start("worker", "--beat")
    assert shop.until(identity, "done").starts == 2


def test_an_end_that_nobody_could_be_told_leaves_what_the_next_start_needs(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = threading.Event()

    def away(*_: object, **__: object) -> None:
        tried.set()
        raise OperationalError("COMMIT", None, OSError("the database is away"))

    monkeypatch.chdir(HOME)
    monkeypatch.setitem(ENTRIES, "patient", OWN["patient"])
    stopping = threading.Event()
    worker = Worker("one", shop.settings.model_copy(update=BRIEF), stopping, TrainerMetrics())
    identity = shop.ask()
    with monkeypatch.context() as patched:
        patched.setattr("trainer.jobs.finish", away)
        running = threading.Thread(target=worker.run_next, args=("cpu",))
        running.start()
        assert tried.wait(60)
        stopping.set()
        running.join(60)
    assert shop.job(identity).state == "running"
    assert (shop.settings.var_folder / "runs" / identity).is_dir()
    shop.start("worker", "--beat")
    assert shop.until(identity, "done").starts == 2
    eventually(lambda: not (shop.settings.var_folder / "runs" / identity).exists())


def test_a_worker_that_hung_past_its_lease_has_no_effect(shop: Shop, tmp_path: Path) -> None:
    zombie = shop.start("worker", **BRIEF)
    file, go = tmp_path / "effect", tmp_path / "go"
    identity = shop.ask(until=str(go), then="commit", file=str(file))
    training = shop.training(zombie)
    with shop.engine.begin():  # nobody is stopped who holds the lock of the database
        for pid in (zombie.pid, training):
            os.kill(pid, signal.SIGSTOP)
    go.touch()
    shop.start("worker", "--beat", "--name", "second")
    done = shop.until(identity, "done")
    assert done.worker is not None
    assert done.worker.startswith("second")
    file.unlink()
    for pid in (training, zombie.pid):
        os.kill(pid, signal.SIGCONT)
    eventually(lambda: not alive(training))
    assert not file.exists()
    assert shop.job(identity) == done
    assert zombie.poll() is None
    eventually(lambda: "is another worker's by now" in shop.said_by(zombie))


def test_a_job_is_done_once_however_often_the_bell_rings(served: Shop) -> None:
    identity = served.ask()
    for _ in range(4):
        jobs.ring(served.settings, served.job(identity))
    served.until(identity, "done")
    last = served.ask()
    served.until(last, "done")
    eventually(lambda: jobs.unheard(served.settings, "cpu") == 0)
    assert served.job(identity).starts == 1


def test_a_ring_that_nobody_heard_is_made_good(served: Shop) -> None:
    assert served.until(served.ask(ring=False), "done").starts == 1


def test_a_worker_answers_while_it_trains(shop: Shop) -> None:
    worker = shop.start("worker", "--name", "one")
    shop.until(shop.ask(seconds=60), "running")
    # A ping has 5 s; on a busy machine not each is answered by then.
    eventually(lambda: shop.start("ping", "--name", "one").wait(60) == 0)
    os.kill(shop.training(worker), signal.SIGKILL)
    assert shop.start("ping", "--name", "two").wait(60) == 1


@pytest.mark.parametrize(
    "written", [b"", b'[["cpu", "", ', b"\0" * 20], ids=["empty", "half", "zeros"]
)
def test_a_half_written_list_of_queues_does_not_stop_a_worker(shop: Shop, written: bytes) -> None:
    control = shop.settings.var_folder / "broker" / "control"
    control.mkdir(parents=True)
    tables = [control / f"{name}.exchange" for name in ("cpu", "celery.pidbox")]
    for table in tables:
        table.write_bytes(written)
    worker = shop.start("worker", "--beat")
    assert shop.until(shop.ask(ring=False), "done").starts == 1
    assert all(json.loads(table.read_bytes()) for table in tables)
    assert shop.said_by(worker).count("cannot be read, it begins anew") == len(tables)


def test_an_embedded_worker_ends_with_what_started_it(shop: Shop) -> None:
    keeper = subprocess.Popen(["sleep", "1000"], stdout=subprocess.PIPE)
    worker = shop.start("worker", "--beat", "--until-eof", stdin=keeper.stdout)
    identity = shop.ask(seconds=60)
    shop.until(identity, "running")
    keeper.kill()
    keeper.communicate()
    assert worker.wait(60) == 0
    assert shop.job(identity).state == "queued"


def test_an_embedded_worker_ends_in_order_when_it_is_told(shop: Shop) -> None:
    theirs, ours = os.pipe()
    with os.fdopen(theirs, "rb") as stdin, os.fdopen(ours, "wb"):
        worker = shop.start("worker", "--beat", "--until-eof", stdin=stdin)
        shop.until(shop.ask(), "done")
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0, shop.said_by(worker)
    assert "Fatal Python error" not in shop.said_by(worker)


def members(group: int) -> list[int]:
    """The living processes of a group."""
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    return [pid for pid in pids if alive(pid) and group_of(pid) == group]


def group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None

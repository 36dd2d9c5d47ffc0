"""The trainer: workers that run jobs, what keeps them going, and its command line.

python -m trainer worker --beat                  run jobs, and look after them
python -m trainer train intents domain=support   ask for a training and follow it
python -m trainer schedule nightly "0 3 * * *" intents domain=support
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import closing
from typing import get_args

from prometheus_client import CollectorRegistry
from pydantic import ValidationError
from sqlalchemy import Engine
from sqlalchemy.exc import InterfaceError, OperationalError

from govor import jobs, logs
from govor.config import ConfigurationError, Settings
from govor.database import REVISION, make_engine, read_revision
from govor.errors import GovorError
from govor.metrics import Exporter, TrainerMetrics
from govor.refusals import refusal
from govor.schemas.jobs import QUEUES, JobRequest, State
from trainer import commands, exporter, schedule
from trainer.app import answers, work
from trainer.execution import AWAY, Worker

log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> int:
    """Runs a command. What was asked wrongly is one line and code 2."""
    asked = _parse(arguments)
    try:
        settings = Settings()
        logs.configure(settings)
        _check_schema(settings)
        result: int = asked.run(settings, asked)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        line = _refusal(error)
        if line is None:
            raise
        sys.stderr.write(line + "\n")
        return 2
    return result


def worker(settings: Settings, asked: argparse.Namespace) -> int:
    """Runs jobs until SIGTERM; with `--beat` looks after all jobs, too."""
    if asked.until_eof:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    stopping, metrics = threading.Event(), TrainerMetrics()
    name = f"{asked.name}@{socket.gethostname()}:{os.getpid()}"
    beating = threading.Thread(target=schedule.beat, args=(settings, stopping), name="beat")
    with closing(_exporter(settings, jobs=asked.beat, own=[metrics.registry])):
        if asked.beat:
            beating.start()
        try:
            one = Worker(name, settings, stopping, metrics)
            return work(one, asked.queues or settings.trainer_queues, asked.name)
        finally:
            stopping.set()
            if asked.beat:
                beating.join()


def beat(settings: Settings, _: argparse.Namespace) -> int:
    """Looks after all jobs until SIGTERM."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with closing(_exporter(settings, jobs=True)):
        schedule.beat(settings, stopping)
    return 0


def tick(settings: Settings, _: argparse.Namespace) -> int:
    engine = make_engine(settings.database)
    schedule.tick(settings, engine)
    engine.dispose()
    return 0


def ping(settings: Settings, asked: argparse.Namespace) -> int:
    """0 when the worker hears its broker: the health check of its container."""
    if answers(settings, asked.name):
        return 0
    commands.say("no answer")
    return 1


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """What is asked. argparse leaves behind the words `key=value` that stand after an option."""
    parser = _parser()
    asked, left = parser.parse_known_args(arguments)
    if left and ("settings" not in asked or any(word.startswith("-") for word in left)):
        parser.error(f"unrecognized arguments: {' '.join(left)}")
    if left:
        asked.settings = [*asked.settings, *left]
    return asked


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_subparsers(required=True, metavar="COMMAND").add_parser

    one = add("worker", help="run jobs until SIGTERM")
    one.add_argument("--queues", type=_queues, help="cpu, gpu, or both (the setting's)")
    one.add_argument("--beat", action="store_true", help="look after all jobs, too")
    one.add_argument("--name", default="worker", help="what it is called on this machine")
    one.add_argument("--until-eof", action="store_true", help="stop when standard input ends")
    one.set_defaults(run=worker)

    add("beat", help="look after all jobs until SIGTERM").set_defaults(run=beat)
    add("tick", help="look after all jobs once").set_defaults(run=tick)

    one = add("ping", help="whether the worker hears its broker")
    one.add_argument("--name", default="worker")
    one.set_defaults(run=ping)

    one = add("train", help="ask for a training, and follow it")
    one.add_argument("recipe", help=", ".join(jobs.RECIPES))
    one.add_argument("settings", nargs="*", metavar="key=value", help="domain, dataset, params")
    one.add_argument("--queue", choices=QUEUES)
    one.add_argument("--priority", type=int, default=5, help="0 to 9, 9 goes first")
    how = one.add_mutually_exclusive_group()
    how.add_argument("--now", action="store_true", help="run it here, without a worker")
    how.add_argument("--detach", action="store_true", help="do not follow it")
    one.set_defaults(run=commands.train)

    one = add("jobs", help="list jobs, newest first")
    one.add_argument("--state", choices=get_args(State))
    one.add_argument("--limit", type=_limit, default=20, help="1 to 1000 (20)")
    one.set_defaults(run=commands.listing)

    for name, run, text in (
        ("cancel", commands.cancel, "end a job"),
        ("logs", commands.follow, "follow a job"),
    ):
        one = add(name, help=text)
        one.add_argument("id")
        one.set_defaults(run=run)

    one = add("schedule", help="list schedules, add one, or remove it")
    one.add_argument("name", nargs="?")
    one.add_argument("cron", nargs="?", help='five fields, UTC: "0 3 * * *"')
    one.add_argument("recipe", nargs="?")
    one.add_argument("settings", nargs="*", metavar="key=value")
    one.add_argument("--remove", metavar="NAME")
    one.set_defaults(run=commands.plan)
    return parser


def _queues(text: str) -> list[str]:
    queues = text.split(",")
    if unknown := [queue for queue in queues if queue not in QUEUES]:
        raise argparse.ArgumentTypeError(f"there is no queue {unknown[0]!r}")
    return queues


def _limit(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not 1 to 1000")
    return int(text)


def _exporter(settings: Settings, *, jobs: bool, own: Sequence[CollectorRegistry] = ()) -> Exporter:
    """`/metrics` with those of all jobs, with this process's own, or both."""
    try:
        if jobs:
            return exporter.start(settings, *own)
        return Exporter(own, settings.metrics_host, settings.metrics_port)
    except OSError as error:
        raise ConfigurationError(
            f"GOVOR_METRICS_PORT={settings.metrics_port}: cannot listen on "
            f"{settings.metrics_host}: {error.strerror}"
        ) from None


def _check_schema(settings: Settings) -> None:
    """Refuses another revision of the schema; a database that is away may come back."""
    engine: Engine = make_engine(settings.database)
    try:
        with engine.begin() as connection:
            revision = read_revision(connection)
    except AWAY as error:
        log.warning("the database is away: %s", error.args[0])
        return
    finally:
        engine.dispose()
    if revision != REVISION:
        raise ConfigurationError(
            f"the database has revision {revision}, {REVISION} is needed: python -m services init"
        )


def _end_with_stdin() -> None:
    # Not by sys.stdin: Python cannot end while a thread reads there, and would abort.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _refusal(error: Exception) -> str | None:
    """What was asked wrongly, in a line; None for an error that is ours."""
    match error:
        case GovorError():
            return f"trainer: {error}"
        case ValidationError() if error.title == JobRequest.__name__:
            first = error.errors()[0]
            return f"trainer: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        case OperationalError() | InterfaceError():
            return f"trainer: GOVOR_DATABASE_URL: {str(error.orig).splitlines()[0]}"
        case _:
            return refusal(error)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

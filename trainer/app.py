"""The worker: it hears the doorbell, and runs what the table of jobs has for it.

A pool of one thread: the training is a process of its own (`trainer.execution`), so the pool needs
no fork, pings are answered while it runs, and all metrics are those of one process.
"""

from __future__ import annotations

import logging
import socket
import warnings
from collections.abc import Sequence
from typing import Any

from celery import Celery
from celery.exceptions import Reject, SecurityWarning
from celery.signals import worker_shutting_down

from govor.config import Settings
from govor.jobs import RUN_NEXT, broker
from govor.schemas.jobs import Queue
from trainer.execution import AWAY, Worker

log = logging.getLogger(__name__)


def create_app(settings: Settings) -> Celery:
    """The Celery app of the trainer. Each setting is what was left after losing jobs without it."""
    url, options = broker(settings.broker_url, settings.var_folder / "broker")
    app = Celery("trainer", broker=url)
    app.conf.update(
        broker_transport_options=options,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        task_acks_late=True,
        task_acks_on_failure_or_timeout=True,
        task_reject_on_worker_lost=False,
        task_ignore_result=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        worker_prefetch_multiplier=1,
        worker_redirect_stdouts=False,
    )
    return app


def work(worker: Worker, queues: Sequence[Queue], name: str) -> int:
    """Runs jobs until SIGTERM or SIGINT; then the one under way goes back into its queue."""
    app = create_app(worker.settings)
    warnings.simplefilter("ignore", SecurityWarning)  # of root, who is in danger of pickles only

    @app.task(name=RUN_NEXT)  # type: ignore[untyped-decorator]
    def run_next(queue: Queue) -> None:
        if worker.stopping.is_set():
            raise Reject("the worker stops", requeue=True)
        try:
            worker.run_next(queue)
        except AWAY as error:  # the tick rings again
            log.warning("no job was taken, the database is away: %s", error.args[0])

    @worker_shutting_down.connect(weak=False)  # type: ignore[untyped-decorator]
    def stop(**_: Any) -> None:
        worker.stopping.set()

    consumer = app.Worker(
        hostname=f"{name}@{socket.gethostname()}",
        queues=list(queues),
        pool="threads",
        concurrency=1,
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    consumer.start()
    return int(consumer.exitcode or 0)


def answers(settings: Settings, name: str, seconds: float = 5.0) -> bool:
    """Whether the worker of that name on this machine hears the broker."""
    node = f"{name}@{socket.gethostname()}"
    app = create_app(settings)
    return bool(app.control.ping(destination=[node], timeout=seconds, limit=1))

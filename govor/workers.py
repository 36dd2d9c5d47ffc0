"""gunicorn's workers: each serves as `govor.server` does, and `/metrics` of any sums over all."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]
from gunicorn.glogging import Logger  # type: ignore[import-untyped]
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import ThreadingWSGIServer
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from uvicorn_worker import UvicornWorker  # type: ignore[import-untyped]

from govor import server
from govor.metrics import Merged
from govor.refusals import refusal

log = logging.getLogger(__name__)


class Worker(UvicornWorker):  # type: ignore[misc]
    """One process of gunicorn, with our protocol, lifespans, drain and metrics."""

    CONFIG_KWARGS = server.OPTIONS

    def init_process(self) -> None:
        """Serves until a signal. What goes wrong stops gunicorn as well: it would start the next
        worker at once, and the container's restart policy waits longer each time."""
        _close_doors(self.sockets)
        try:
            super().init_process()
        except Exception as error:
            line = refusal(error)
            log.critical(line or "the worker failed", exc_info=None if line else error)
            sys.exit(Arbiter.WORKER_BOOT_ERROR)

    def run(self) -> None:
        app = self.wsgi
        self.config.app = app
        settings = app.state.settings
        with server.metrics(self._collectors(app.state.metrics.registry), settings):
            serving = server.Server(self.config, [app], settings)
            serving.run_until_signal(self.sockets[0], lambda url: log.info("ready: %s", url))

    def _collectors(self, own: CollectorRegistry) -> list[Collector]:
        if self.cfg.workers == 1:
            return [own, ProcessCollector(registry=None)]
        # All workers listen on the port, and the kernel picks the one that answers a scrape.
        ThreadingWSGIServer.allow_reuse_port = True
        return [Summed(own), Processes(_workers)]


class Summed(Collector):
    """Counters and histograms summed over the workers of this start, the dead ones included;
    gauges of the worker that is asked.

    The sums come from files that each worker maps into memory (`PROMETHEUS_MULTIPROC_DIR`), so
    that a kill loses none. The library's own gauges of several processes know neither functions
    nor the removal of labels, and what they would tell (is a version loaded, which) every worker
    finds out for itself.
    """

    def __init__(self, own: CollectorRegistry) -> None:
        self._own = own

    def collect(self) -> Iterator[Metric]:
        summed: Any = MultiProcessCollector(None)  # type: ignore[no-untyped-call]
        yield from (family for family in summed.collect() if family.type != "gauge")
        yield from (family for family in self._own.collect() if family.type == "gauge")


class Processes(Collector):
    """What `ProcessCollector` tells of each process, with its `pid`: a sum of counters would jump
    when one dies."""

    def __init__(self, pids: Callable[[], Sequence[int]]) -> None:
        self._pids = pids

    def collect(self) -> Iterator[Metric]:
        return Merged([_Process(pid) for pid in self._pids()]).collect()


class _Process(Collector):
    def __init__(self, pid: int) -> None:
        self._pid = pid

    def collect(self) -> Iterator[Metric]:
        for family in ProcessCollector(pid=lambda: self._pid, registry=None).collect():
            family.samples = [
                sample._replace(labels={**sample.labels, "pid": str(self._pid)})
                for sample in family.samples
            ]
            yield family


def _workers() -> list[int]:
    """The processes that gunicorn has started, this one among them."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = file.read_bytes().rpartition(b")")[2].split()[1]
        except (OSError, IndexError):  # it has ended meanwhile
            continue
        if int(parent) == os.getppid():
            found.append(int(file.parent.name))
    return found


class Log(Logger):  # type: ignore[misc]
    """gunicorn's own lines in the format of `govor.logs`, which its configuration has set up."""

    def setup(self, cfg: Any) -> None:
        self.error_log.propagate = True


def _close_doors(listeners: Sequence[socket.socket]) -> None:
    """Takes back gunicorn's early `listen`; uvicorn listens again when the models are loaded.

    Who connects before that is refused, and a proxy goes on to the next replica, instead of
    waiting in the backlog.
    """
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)

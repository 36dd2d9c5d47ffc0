"""What `beat` tells goes on when it comes back at another address, as a container does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml

from monitoring import generated
from monitoring.prometheus_api import ask
from tests.monitoring.conftest import prometheus
from tests.monitoring.waiting import until

FAILED = 'jobs_finished_total{recipe="intents",state="failed"}'


@contextmanager
def beat(failed: int) -> Iterator[str]:
    """The address of one that has seen so many jobs fail."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(f"# TYPE jobs_finished_total counter\n{FAILED} {failed}\n".encode())

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def configuration(folder: Path, found: Path) -> Path:
    """Ours, with `beat` alone, whose addresses stand in a file instead of a name server."""
    config = yaml.safe_load((generated.FOLDER / "prometheus" / "prometheus.yml").read_text())
    config["global"] = dict.fromkeys(config["global"], "1s")
    config["rule_files"] = [str(generated.FOLDER / "prometheus" / "rules" / "alerts.yml")]
    config["alerting"] = {}
    (entry,) = (one for one in config["scrape_configs"] if one["job_name"] == "beat")
    del entry["dns_sd_configs"]
    entry["file_sd_configs"] = [{"files": [str(found)], "refresh_interval": "1s"}]
    config["scrape_configs"] = [entry]
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    return file


def test_a_job_that_fails_while_beat_is_made_anew_is_told(tmp_path: Path) -> None:
    found = tmp_path / "beat.json"

    def write(address: str) -> None:
        new = tmp_path / "beat.new"
        new.write_text(json.dumps([{"targets": [address]}]))
        new.rename(found)

    with beat(0) as before, beat(1) as after:
        write(before)
        with prometheus(configuration(tmp_path, found), tmp_path) as client:
            until("the one before", lambda: ask(client, f"{FAILED} == 0"), 120)
            write(after)
            firing = 'ALERTS{alertname="JobFailed",alertstate="firing",recipe="intents"}'
            until("it is told", lambda: ask(client, firing), 120)
            (up,) = ask(client, "up")
    assert up["metric"]["instance"] == "beat"

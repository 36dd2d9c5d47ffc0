"""nginx as the stack starts it, on this machine's network, before services of one's own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

IMAGE = "nginx:1.30-alpine"
FOLDER = Path(__file__).resolve().parent.parent / "nginx"


@dataclass(frozen=True)
class Door:
    """A running nginx: its container and main process, its public port, and that of its state."""

    container: str
    pid: int
    port: int
    inner: int

    def output(self) -> str:
        """All that the container wrote."""
        return _output("docker", "logs", self.container)


def engine() -> bool:
    """Whether a container engine answers."""
    found = shutil.which("docker") is not None
    return found and not subprocess.run(["docker", "version"], capture_output=True).returncode


def command(
    *words: str,
    tls: Path = FOLDER / "tls",
    templates: Path = FOLDER / "templates",
    options: Sequence[str] = (),
) -> list[str]:
    """`docker run` with what `compose.yaml` gives to nginx."""
    mounts = {
        FOLDER / "nginx.conf": "/etc/nginx/nginx.conf",
        templates: "/etc/nginx/templates",
        FOLDER / "05-govor.envsh": "/docker-entrypoint.d/05-govor.envsh",
        tls: "/etc/nginx/tls",
    }
    volumes = [f"--volume={source}:{target}:ro" for source, target in mounts.items()]
    hardened = ["--read-only", "--tmpfs=/tmp:uid=101,mode=0700", "--user=101:101"]
    rights = ["--cap-drop=ALL", "--security-opt=no-new-privileges"]
    return ["docker", "run", *hardened, *rights, *volumes, *options, IMAGE, *words]


@contextmanager
def nginx(
    servers: Mapping[str, str],
    resolver: str = "127.0.0.1",
    *,
    tls: Path = FOLDER / "tls",
    templates: Path = FOLDER / "templates",
    **settings: object,
) -> Iterator[Door]:
    """nginx in front of `servers` (service -> host:port), with `settings` in its environment.

    Raises `RuntimeError` with its log when it does not start.
    """
    port, inner = _free_ports()
    environment = {
        "GOVOR_PORT": port,
        "GOVOR_METRICS_PORT": inner,
        "GOVOR_RESOLVER": resolver,
        "GOVOR_RATE_LIMIT_PER_MINUTE": 0,
        **{f"GOVOR_{name.upper()}_SERVER": server for name, server in servers.items()},
        **settings,
    }
    options = ["--detach", "--network=host"]
    options += [f"--env={name}={value}" for name, value in environment.items()]
    container = _output(*command(tls=tls, templates=templates, options=options)).strip()
    try:
        pid = _output("docker", "inspect", "--format={{.State.Pid}}", container)
        door = Door(container, int(pid), port, inner)
        _await_health(door)
        yield door
    finally:
        _output("docker", "rm", "--force", container)


def _await_health(door: Door) -> None:
    for _ in range(200):
        try:
            httpx.get(f"http://127.0.0.1:{door.inner}/healthz", trust_env=False)
            return
        except httpx.TransportError:
            time.sleep(0.05)
    raise RuntimeError(f"nginx did not start: {door.output()}")


def _output(*command: str) -> str:
    """Both streams of a command as one text."""
    return subprocess.check_output(command, text=True, stderr=subprocess.STDOUT)


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]

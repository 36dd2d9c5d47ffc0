"""Understanding on one core: the service over HTTP, beside the bare trunk and head.

The bare engine takes turns with the service on the same core, so that what else the machine does
slows both alike. The client has another core if there is one.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Sequence

import httpx

from bench.alone import service
from govor.config import Settings
from govor.domains import load_pack
from govor.repository import Repository
from services.nlu.backends.features import Features
from services.nlu.backends.heads import Head
from services.nlu.backends.trunk import Trunk

DOMAIN = "horoscope"
ROUNDS, WARM = 500, 50
P50_SECONDS = 0.003


def main(arguments: Sequence[str]) -> int:
    """Prints a row for each way; 1 when the bar is missed."""
    settings = Settings()
    repository = Repository(settings.repository_folder, settings.bundled_folder)
    version = repository.open("nlu", repository.deployment("nlu").champion or 1)
    features, trunk = (
        Features.load(version.path("features.json")),
        Trunk(version.path("trunk.onnx")),
    )
    head = Head.load(version.path(f"heads/{DOMAIN}.json").parent, DOMAIN)
    texts = _texts(settings)
    cores = os.sched_getaffinity(0)
    core = max(cores)
    bare, served = [], []
    with service("nlu", core) as own, httpx.Client(base_url=own.url, timeout=60) as client:
        for turn in range(WARM + ROUNDS):
            text = texts[turn % len(texts)]
            os.sched_setaffinity(0, {core})
            since = time.perf_counter()
            encoded = features.encode(text)
            head.confidences(head.scores(encoded, trunk.read([encoded])[0].pooled))
            bare.append(time.perf_counter() - since)
            os.sched_setaffinity(0, cores - {core} or cores)
            since = time.perf_counter()
            body = {"text": text, "domain": DOMAIN}
            client.post("/v1/understand", json=body).raise_for_status()
            served.append(time.perf_counter() - since)
        os.sched_setaffinity(0, cores)
        batch = {"texts": (texts * 32)[:32], "domain": DOMAIN}
        since = time.perf_counter()
        for _ in range(20):
            client.post("/v1/understand", json=batch).raise_for_status()
        together = (time.perf_counter() - since) / 20 / 32
    print(f"{'one query, one core':<28} {'p50 ms':>8} {'p95 ms':>8}")
    _row("bare trunk and head", bare[WARM:])
    _row("service", served[WARM:])
    print(f"{'service, 32 a request':<28} {1e3 * together:>8.2f} a text")
    print(f"bar: p50 {1e3 * P50_SECONDS:.0f} ms at the service")
    return int(statistics.median(served[WARM:]) > P50_SECONDS)


def _texts(settings: Settings) -> list[str]:
    """What the pack's own test dialogues say."""
    pack = load_pack(settings.domains_folder / DOMAIN)
    texts = [turn.user for dialogue in pack.dialogues for turn in dialogue.turns]
    return [text for text in dict.fromkeys(texts) if text.strip()]


def _row(name: str, seconds: Sequence[float]) -> None:
    p95 = sorted(seconds)[int(0.95 * (len(seconds) - 1))]
    print(f"{name:<28} {1e3 * statistics.median(seconds):>8.2f} {1e3 * p95:>8.2f}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

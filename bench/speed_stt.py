"""What the service adds to the recogniser's own time, side by side in one run.

Sentences of a bundled pack by our own voice: decoded, detected and recognised in this process, then
by `POST /v1/transcribe` of the service on a port of its own.
"""

from __future__ import annotations

import io
import os
import statistics
import time
from collections.abc import Callable, Sequence

# As the worker processes have it: numpy's threads cost more than they gain on such small matrices.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import httpx
import soundfile

from bench.quality_stt import HOME, PAUSE_SECONDS, speak
from bench.speed_turn import govor
from govor.audio import decode
from govor.repository import Repository
from services.stt.backends import RATE
from services.stt.backends.silero import SpeechDetector
from services.stt.backends.sphinx_passes import Passes

DOMAIN = "horoscope"
PHRASES = ["what can you do", "what do the stars say for leo", "good morning"]
OTHERS = ["my neighbour bought seven yellow bicycles", "the plan will never work without them"]
ROUNDS = 5
ADDED = 1.1


def main(arguments: Sequence[str] = ()) -> int:
    models = Repository(HOME / "models", HOME / "models")
    detector = SpeechDetector(models.open("vad", 1))
    passes = Passes(models.open("stt-en", 1).folder, DOMAIN)

    def bare(data: bytes) -> None:
        samples = decode(data, "audio/wav", 60, RATE).samples
        for span in detector.spans(samples, PAUSE_SECONDS):
            passes.recognise(samples[span.start : span.end], lambda: None)

    met = True
    print(f"{'':<26} {'bare s':>8} {'service s':>10} {'ratio':>7} {'bar':>5}")
    with govor() as url, httpx.Client(base_url=url, timeout=60) as client:

        def served(data: bytes) -> None:
            answer = client.post(
                "/v1/transcribe",
                params={"language": "en", "domain": DOMAIN},
                content=data,
                headers={"content-type": "audio/wav"},
            )
            answer.raise_for_status()

        for name, texts in (("a sentence of the pack", PHRASES), ("any other sentence", OTHERS)):
            own, whole = _medians([_wav(text) for text in texts], bare, served)
            met &= whole <= own * ADDED
            print(f"{name:<26} {own:>8.3f} {whole:>10.3f} {whole / own:>7.2f} {ADDED:>5}")
    return 0 if met else 1


def _medians(recordings: Sequence[bytes], *ways: Callable[[bytes], None]) -> list[float]:
    """Median seconds of each way, the ways taking turns over the recordings."""
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(ROUNDS):
        for recording in recordings:
            for way, taken in zip(ways, times, strict=True):
                since = time.monotonic()
                way(recording)
                taken.append(time.monotonic() - since)
    return [statistics.median(taken) for taken in times]


def _wav(text: str) -> bytes:
    (said,) = speak([text], "flite")
    file = io.BytesIO()
    soundfile.write(file, said.samples, RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()


if __name__ == "__main__":
    raise SystemExit(main())

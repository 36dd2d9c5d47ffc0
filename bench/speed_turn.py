"""A warm turn in English through the gateway, beside the bare engines that it needs.

    python -m bench speed turn [--rounds 30]

All five services run in one process, as `make run` starts them, and are called over HTTP. After
each horoscope turn the same understanding, text and speech are made by the bare engines in this
process, so that what else the machine does slows both alike. Times are medians, the turn's as its
client measures them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from govor.config import Settings
from govor.repository import Repository, Version
from services.generator import backends as generator
from services.generator.backends.prompts import Asked
from services.generator.backends.sampling import Sampling
from services.nlu import backends as nlu
from services.tts import backends as tts

T = TypeVar("T")

SHARE_OF_ENGINES = 1.10
CANNED_SECONDS = 0.120
FIRST_AUDIO_SECONDS = 1.0
HOROSCOPE = "What do the stars say for Leo tomorrow?"
CANNED = "thank you"
SPOKEN = "I am Leo, what should I expect tomorrow"  # the pack's own, 3.1 s of speech


def main(arguments: Sequence[str]) -> int:
    """Prints the turn's stages beside the engines'; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench speed turn")
    parser.add_argument("--rounds", type=int, default=30)
    options, _ = parser.parse_known_args(arguments)
    engines = Engines(Settings())
    with govor() as url, httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        turns, bare = [], []
        for seed in range(-2, options.rounds):
            turn = converse(client, HOROSCOPE, abs(seed))
            times = engines.repeat(turn)
            if seed >= 0:  # the first two warm both up
                turns.append(turn)
                bare.append(times)
        canned = [converse(client, CANNED, seed) for seed in range(options.rounds)]
        question = engines.recording(SPOKEN)
        spoken = [first_audio(client, question) for _ in range(max(3, options.rounds // 3))]
    return _report(turns, bare, canned, spoken)


@dataclass(frozen=True)
class Taken:
    """A turn, and the seconds that its client waited for it."""

    seconds: float
    seed: int
    turn: dict[str, Any]


def converse(client: httpx.Client, text: str, seed: int) -> Taken:
    """One typed turn, answered by text and audio, as a conversation of its own."""
    since = time.perf_counter()
    body = {"text": text, "reply": ["text", "audio"], "seed": seed}
    answer = client.post("/v1/converse", json=body)
    seconds = time.perf_counter() - since
    turn = answer.raise_for_status().json()
    if turn["degraded"] or not turn["reply"]["audio"]:
        raise RuntimeError(f"the turn lacks {turn['degraded']}")
    return Taken(seconds, seed, turn)


def first_audio(client: httpx.Client, recording: bytes) -> float:
    """Seconds from sending a spoken utterance to the first audio of the reply."""
    since = time.perf_counter()
    request = {"reply": ["text", "audio"], "language": "en", "format": "pcm"}
    with client.stream(
        "POST",
        "/v1/converse",
        data=request,
        files={"audio": ("question.wav", recording, "audio/wav")},
        headers={"accept": "text/event-stream"},
    ) as answer:
        for line in answer.raise_for_status().iter_lines():
            if line == "event: audio.delta":
                return time.perf_counter() - since
    raise RuntimeError("the reply had no audio")


class Engines:
    """The bare engines of the bundled versions, without a service around them."""

    def __init__(self, settings: Settings) -> None:
        repository = Repository(settings.repository_folder, settings.bundled_folder)

        def champion(model: str) -> Version:
            number = repository.deployment(model).champion
            assert number is not None
            return repository.open(model, number)

        self._loop = asyncio.new_event_loop()
        self._nlu = nlu.load(champion("nlu"))
        self._generator = generator.load(champion("generator"))
        self._tts = tts.load(champion("tts-en"))
        self._voice = next(iter(self._tts.voices))

    def repeat(self, taken: Taken) -> dict[str, float]:
        """Seconds that the engines need for what this turn needed of them."""
        turn = taken.turn
        found = {entity["entity"]: entity["value"] for entity in turn["understanding"]["entities"]}
        fields = {"language": "en", "theme": "general", "day": "today"} | found
        since = time.perf_counter()
        self._run(self._nlu.understand([turn["understanding"]["text"]], turn["domain"], "en"))
        understood = time.perf_counter()
        pieces = self._run(
            self._generator.generate(Asked(fields=fields), Sampling(seed=taken.seed))
        )
        written = time.perf_counter()
        if pieces[0].text not in turn["reply"]["text"]:
            raise RuntimeError("the bare generator wrote another text than the service")
        self._tts.speak(turn["reply"]["text"], self._voice, 1.0)
        spoken = time.perf_counter()
        return {
            "nlu": understood - since,
            "generate": written - understood,
            "tts": spoken - written,
            "total": spoken - since,
        }

    def recording(self, text: str) -> bytes:
        """The text spoken, as a wav file."""
        samples = self._tts.speak(text, self._voice, 1.0)
        file = io.BytesIO()
        with wave.open(file, "wb") as audio:
            audio.setnchannels(1)
            audio.setsampwidth(2)
            audio.setframerate(self._tts.sample_rate)
            audio.writeframes(samples.tobytes())
        return file.getvalue()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)


@contextmanager
def govor() -> Iterator[str]:
    """All services in one process of their own: its URL once all are ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as var:
        changed = {"VAR": var, "PORT": str(port), "METRICS_PORT": "0", "LOG_LEVEL": "WARNING"}
        changed |= {"RATE_LIMIT_PER_MINUTE": "0", "TRAINER_EMBEDDED": "false"}
        process = subprocess.Popen(
            [sys.executable, "-m", "services"],
            env=os.environ | {f"GOVOR_{name}": value for name, value in changed.items()},
            stdout=subprocess.DEVNULL,
        )
        try:
            _await(f"http://127.0.0.1:{port}/readyz", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def _await(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError(f"the services ended with status {process.returncode}")
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url, trust_env=False).status_code == 200:
                return
        time.sleep(0.05)
    raise RuntimeError(f"{url} did not become ready")


def _report(
    turns: Sequence[Taken],
    bare: Sequence[dict[str, float]],
    canned: Sequence[Taken],
    spoken: Sequence[float],
) -> int:
    print(f"{'median ms':<18} {'turn':>8} {'bare':>8} {'turn/bare':>10}")
    for stage in ("nlu", "policy", "generate", "tts", "total"):
        served = [taken.turn["timings"][stage] for taken in turns]
        row = f"{stage:<18} {1e3 * statistics.median(served):>8.1f}"
        alone = [times[stage] for times in bare if stage in times]
        print(row + (f" {1e3 * statistics.median(alone):>8.1f}" if alone else ""))
    total = statistics.median(taken.seconds for taken in turns)
    engines = statistics.median(times["total"] for times in bare)
    share = total / engines
    print(f"{'as its client saw':<18} {1e3 * total:>8.1f} {1e3 * engines:>8.1f} {share:>10.2f}")
    reply = statistics.median(taken.seconds for taken in canned)
    first = statistics.median(spoken)
    print(f"canned reply {1e3 * reply:.1f} ms; first audio after 3 s of speech {first:.2f} s")
    print(
        f"bars: turn/bare {SHARE_OF_ENGINES:.2f}, canned {1e3 * CANNED_SECONDS:.0f} ms, "
        f"first audio {FIRST_AUDIO_SECONDS:.1f} s"
    )
    return int(share > SHARE_OF_ENGINES or reply > CANNED_SECONDS or first > FIRST_AUDIO_SECONDS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The generator on one core: the service over HTTP, beside the bare engine.

The bare engine is what no design can go below: a run of the graph over one row with its cache bound
in place, and the draw of a token; no queue, no threads, no text. It takes turns with the service on
the same core and draws the same tokens, so that what else the machine does slows both alike.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
from tokenizers import Tokenizer

from bench.alone import service
from govor.config import Settings
from govor.onnx import open_session
from govor.repository import Repository, Version
from services.generator.backends.config import DecoderConfig
from services.generator.backends.prompts import Asked, Prompter
from services.generator.backends.sampling import Sampler, Sampling

TOKENS_PER_SECOND = 600
FIRST_TOKEN_SECONDS = 0.025
ROUNDS, WARM = 30, 3
TOGETHER = 8
FIELDS = {"language": "en"}


@dataclass(frozen=True)
class Run:
    """One text: its tokens, and the seconds to the first and to the last of them."""

    tokens: int
    first: float
    total: float


def main(arguments: Sequence[str]) -> int:
    """Prints a row for each way; 1 when a bar is missed."""
    settings = Settings()
    repository = Repository(settings.repository_folder, settings.bundled_folder)
    champion = repository.deployment("generator").champion
    assert champion is not None
    engine = Bare(repository.open("generator", champion))
    core = max(os.sched_getaffinity(0))
    alone, served = [], []
    pinned = ThreadPoolExecutor(1, initializer=os.sched_setaffinity, initargs=(0, {core}))
    with (
        pinned,
        service("generator", core) as own,
        httpx.Client(base_url=own.url, timeout=60) as client,
    ):
        for seed in range(WARM + ROUNDS):
            alone.append(pinned.submit(engine.draw, seed).result())
            served.append(stream(client, seed))
        with ThreadPoolExecutor(TOGETHER) as threads:
            since = time.perf_counter()
            crowd = list(threads.map(lambda seed: stream(client, seed), range(4 * TOGETHER)))
            elapsed = time.perf_counter() - since
    alone, served = alone[WARM:], served[WARM:]
    assert sum(run.tokens for run in alone) == sum(run.tokens for run in served)
    print(f"{'one core':<24} {'tokens/s':>9} {'first token ms':>15} {'p95':>6}")
    _row("bare engine", _speed(alone), alone)
    _row("service, one request", _speed(served), served)
    _row(f"service, {TOGETHER} at once", sum(run.tokens for run in crowd) / elapsed, crowd)
    print(f"{'service / bare engine':<24} {_speed(served) / _speed(alone):>9.2f}")
    print(f"bars: {TOKENS_PER_SECOND} tokens/s, {1e3 * FIRST_TOKEN_SECONDS:.0f} ms, one request")
    first = statistics.median(run.first for run in served)
    return int(_speed(served) < TOKENS_PER_SECOND or first > FIRST_TOKEN_SECONDS)


class Bare:
    """The version's graph, driven by the shortest loop there is."""

    def __init__(self, version: Version) -> None:
        data = version.path("config.json").read_bytes()
        self.config = DecoderConfig.model_validate_json(data)
        tokenizer = Tokenizer.from_file(str(version.path("tokenizer.json")))
        self.prompter = Prompter(self.config, tokenizer, version.manifest.fields)
        self.session = open_session(version.path("model.onnx"))
        shape = self.config.decoder
        self.cache = np.zeros(
            (shape.layers, 2, 1, shape.heads, shape.context, shape.head_dim), np.float32
        )
        self.mask = np.zeros((1, shape.context), np.int64)

    def draw(self, seed: int) -> Run:
        began = time.perf_counter()
        rng = np.random.default_rng((seed, 0, 0))
        prompt = self.prompter.prompt(Asked(fields=FIELDS), rng)
        sampler = Sampler(Sampling(seed=seed), rng, list(prompt.ids), prompt.never)
        shape, length = self.config.decoder, len(prompt.ids)
        self.mask[:] = np.arange(shape.context) < length
        ids = np.array([prompt.ids], np.int64)
        logits = np.empty((1, length, shape.vocabulary), np.float32)
        self.session.run_with_iobinding(self._bind(ids, logits))
        token = sampler.draw(logits[0, -1])
        first, drawn = time.perf_counter() - began, 0
        ids, logits = np.empty((1, 1), np.int64), np.empty((1, 1, shape.vocabulary), np.float32)
        binding = self._bind(ids, logits)
        while token not in shape.eos and (drawn := drawn + 1) < self.config.max_tokens:
            self.mask[0, length] = 1
            ids[:] = token
            self.session.run_with_iobinding(binding)
            token, length = sampler.draw(logits[0, 0]), length + 1
        return Run(drawn, first, time.perf_counter() - began)

    def _bind(self, ids: Any, logits: Any) -> Any:
        binding = self.session.io_binding()
        for name, array in (("input_ids", ids), ("attention_mask", self.mask)):
            binding.bind_input(name, "cpu", 0, np.int64, array.shape, array.ctypes.data)
        for layer, parts in enumerate(self.cache):
            for kind, part in zip(("key", "value"), parts, strict=True):
                place = ("cpu", 0, np.float32, part.shape, part.ctypes.data)
                binding.bind_input(f"past_key_values.{layer}.{kind}", *place)
                binding.bind_output(f"present.{layer}.{kind}", *place)
        binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        return binding


def stream(client: httpx.Client, seed: int) -> Run:
    """A streamed text, its times as the client sees them."""
    body = {"fields": FIELDS, "seed": seed, "stream": True}
    began, first, data = time.perf_counter(), 0.0, "{}"
    with client.stream("POST", "/v1/generate", json=body) as response:
        for line in response.iter_lines():
            if line.startswith("data: "):
                first = first or time.perf_counter() - began
                data = line.removeprefix("data: ")
    tokens = json.loads(data)["usage"]["completion_tokens"]
    return Run(tokens, first, time.perf_counter() - began)


def _speed(runs: Sequence[Run]) -> float:
    return sum(run.tokens for run in runs) / sum(run.total for run in runs)


def _row(name: str, speed: float, runs: Sequence[Run]) -> None:
    firsts = sorted(1e3 * run.first for run in runs)
    p95 = firsts[int(0.95 * (len(firsts) - 1))]
    print(f"{name:<24} {speed:>9.0f} {statistics.median(firsts):>15.1f} {p95:>6.1f}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

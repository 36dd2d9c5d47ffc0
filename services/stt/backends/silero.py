"""Where somebody speaks: silero's voice activity detector on plain onnxruntime.

Its own package imports torch; the network needs 32 ms of audio, the 4 ms before them and a state of
256 numbers, and takes 0.1 ms a step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from govor.audio import Samples
from govor.onnx import open_session
from govor.repository import Version

RATE = 16_000
STEP, CONTEXT = 512, 64
ENTER, LEAVE = 0.65, 0.35
"""Probabilities at which speech begins and ends. Recorded street and kitchen noise reaches 0.63,
each of 247 telephone prompts 0.7."""
SHORTEST_SECONDS = 0.09
"""A burst shorter than three steps is no word."""
MARGIN_SECONDS = 0.3
"""Kept around speech: soft consonants lie before the first sure step and after the last."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of speech, in samples."""

    start: int
    end: int


class SpeechDetector:
    """A loaded detector; its state lives in each call, so calls may run side by side."""

    def __init__(self, version: Version, threads: int = 1) -> None:
        self._session = open_session(version.path("vad.onnx"), threads)
        self.alive = True
        self.probabilities(np.zeros(STEP, np.float32))

    def close(self) -> None:
        self.alive = False

    def probabilities(self, samples: Samples) -> list[float]:
        """The probability of speech in each step of 32 ms; the last one is filled with silence."""
        steps = -(-len(samples) // STEP)
        padded = np.zeros(CONTEXT + steps * STEP, np.float32)
        padded[CONTEXT : CONTEXT + len(samples)] = samples
        state = np.zeros((2, 1, 128), np.float32)
        rate = np.array(RATE, np.int64)
        found = []
        for start in range(0, steps * STEP, STEP):
            window = padded[None, start : start + CONTEXT + STEP]
            output, state = self._session.run(None, {"input": window, "state": state, "sr": rate})
            found.append(float(output[0, 0]))
        return found

    def spans(self, samples: Samples, pause_seconds: float) -> list[Span]:
        """The utterances in a waveform of 16 kHz, in order: speech with pauses shorter than
        `pause_seconds` in it, in its margins."""
        margin, pause = int(MARGIN_SECONDS * RATE), int(pause_seconds * RATE)
        joined: list[Span] = []
        for start, end in _stretches(self.probabilities(samples)):
            if joined and start * STEP - joined[-1].end < pause:
                joined[-1] = Span(joined[-1].start, end * STEP)
            else:
                joined.append(Span(start * STEP, end * STEP))
        return [
            Span(max(0, span.start - margin), min(len(samples), span.end + margin))
            for span in joined
            if span.end - span.start >= SHORTEST_SECONDS * RATE
        ]


def _stretches(probabilities: list[float]) -> list[tuple[int, int]]:
    """Runs of steps that are speech: they enter above one threshold and leave below another."""
    found, begun = [], None
    for step, probability in enumerate(probabilities):
        if begun is None and probability >= ENTER:
            begun = step
        elif begun is not None and probability < LEAVE:
            found.append((begun, step))
            begun = None
    if begun is not None:
        found.append((begun, len(probabilities)))
    return found

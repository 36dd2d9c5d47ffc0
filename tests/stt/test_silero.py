"""services/stt/backends/silero.py"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from services.stt.backends import RATE, Samples
from services.stt.backends.silero import SpeechDetector
from tests.stt.conftest import Speak, noise, read_noises


@pytest.mark.parametrize(
    "audio",
    [
        np.zeros(0, np.float32),
        np.zeros(5 * RATE, np.float32),
        noise(5, -20),
        noise(5, -50),
        noise(5, -20, pink=True),
        (0.3 * np.sin(np.arange(3 * RATE) * 0.17)).astype(np.float32),
        np.full(RATE, 0.5, np.float32),
    ],
    ids=["nothing", "silence", "white", "soft white", "pink", "tone", "constant"],
)
def test_what_is_no_speech_has_no_spans(detector: SpeechDetector, audio: Samples) -> None:
    assert detector.spans(audio, 1.0) == []


def test_recorded_noise_has_no_spans(detector: SpeechDetector, data: Path) -> None:
    spans = {name: detector.spans(audio, 1.0) for name, audio in read_noises(data)}
    assert len(spans) >= 3
    assert {name: found for name, found in spans.items() if found} == {}


def test_speech_is_found_where_it_is(detector: SpeechDetector, speak: Speak) -> None:
    audio = np.concatenate([noise(1, -55), speak("good morning"), noise(2, -55)])
    (span,) = detector.spans(audio, 1.0)
    assert span.start / RATE == pytest.approx(1.3, abs=0.3)
    assert 0.5 < (span.end - span.start) / RATE < 1.9


def test_a_long_pause_parts_two_utterances(detector: SpeechDetector, speak: Speak) -> None:
    said = speak("where is my order")  # half a second of silence around it
    both = np.concatenate([said, np.zeros(RATE // 2, np.float32), said])
    assert len(detector.spans(both, 1.0)) == 2
    assert len(detector.spans(both, 3.0)) == 1


def test_a_call_leaves_nothing_behind(detector: SpeechDetector, speak: Speak) -> None:
    audio = speak("good morning")
    first = detector.probabilities(audio)
    detector.probabilities(noise(1, -20))
    assert detector.probabilities(audio) == first

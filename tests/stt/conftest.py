"""Voices and small versions for the recogniser's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soxr

from govor.config import Settings
from govor.repository import Repository, Version, write_manifest
from services.stt.backends import RATE, Samples
from services.stt.backends.silero import SpeechDetector
from services.tts import backends as tts
from services.tts.backends.espeak import Espeak
from trainer.recipes.phrases import build, of_sentences

SENTENCES = [
    "what do the stars say for leo",
    "tell me my horoscope for tomorrow",
    "please read the weather to me",
    "block my card right now",
    "where is my order",
    "i need to talk to a human",
    "good morning",
]

Speak = Callable[[str], Samples]


def bundled() -> Repository:
    settings = Settings()
    return Repository(settings.bundled_folder, settings.bundled_folder)


@pytest.fixture(scope="session")
def speak() -> Speak:
    """English by espeak-ng, at the recogniser's rate, with half a second of silence around it."""
    if "espeak" not in tts.installed():
        pytest.skip(f"no speech engine: {tts.INSTALL}")

    @cache
    def say(text: str) -> Samples:
        # A process of its own: what one says depends on what it has said before.
        engine = Espeak({"en": "en-us"})
        pcm = engine.speak(text, "en", 1.0) / np.float32(32768)
        engine.close()
        audio = np.pad(soxr.resample(pcm, engine.sample_rate, RATE), RATE // 2)
        audio.flags.writeable = False
        return audio

    return say


@pytest.fixture(scope="session")
def version(tmp_path_factory: pytest.TempPathFactory) -> Version:
    """A version of one English domain, `few`."""
    folder = tmp_path_factory.mktemp("models") / "stt-en" / "1"
    folder.mkdir(parents=True)
    build(of_sentences("few", SENTENCES), "few", "en", folder)
    write_manifest(
        folder,
        model="stt-en",
        version=1,
        backend="sphinx",
        languages=["en"],
        recipe="tests",
        params={"domains": {"few": {"languages": ["en"]}}},
        licence="Apache-2.0",
    )
    return Repository(folder.parents[1], folder.parents[1]).open("stt-en", 1)


@pytest.fixture(scope="session")
def detector() -> SpeechDetector:
    return SpeechDetector(bundled().open("vad", 1))


def noise(seconds: float, level_dbfs: float, pink: bool = False) -> Samples:
    """White noise, or pink: as much power in every octave."""
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(int(seconds * RATE)))
    if pink:
        spectrum /= np.sqrt(np.arange(len(spectrum)) + 1)
    wave = np.fft.irfft(spectrum)
    return (wave / wave.std() * 10 ** (level_dbfs / 20)).astype(np.float32)


def read_noises(data: Path) -> Iterator[tuple[str, Samples]]:
    """The recorded background noises, ten seconds of each."""
    import io
    import json
    import zipfile

    import soundfile

    folder = data / "speech" / "noise"
    rows = map(json.loads, (folder / "files.jsonl").read_text().splitlines())
    with zipfile.ZipFile(folder / "audio.zip") as archive:
        for row in rows:
            if row["kind"] == "noise":
                samples, rate = soundfile.read(
                    io.BytesIO(archive.read(row["file"])), dtype="float32", always_2d=True
                )
                yield row["file"], soxr.resample(samples.mean(axis=1)[: 10 * rate], rate, RATE)

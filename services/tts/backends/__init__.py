"""What a speech engine must do, and which one speaks."""

from __future__ import annotations

import ctypes.util
import importlib.util
import json
import logging
from collections.abc import Collection, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from govor.repository import Version

log = logging.getLogger(__name__)

Samples = NDArray[np.int16]

INSTALL = "install Debian's libflite1, or the wheel espeakng-loader"


class Backend(Protocol):
    """An engine with its voices. `voices` maps the public name to the engine's own; the first is
    the default."""

    sample_rate: int
    voices: Mapping[str, str]

    @property
    def alive(self) -> bool: ...

    def speak(self, text: str, voice: str, speed: float) -> Samples:
        """One piece of text as mono samples [n] at `sample_rate`. Blocks; one thread at a time.

        Raises `RuntimeError` when the engine fails.
        """
        ...

    def close(self) -> None: ...


def choose(wanted: str, installed: Collection[str], speakable: Collection[str]) -> str:
    """The engine that speaks a version: its own, else another that the version has voices for.

    Raises `RuntimeError` when none is installed.
    """
    for name in (wanted, *sorted(speakable)):
        if name in installed and name in speakable:
            return name
    raise RuntimeError(f"no speech engine for this voice: {INSTALL}")


def installed() -> set[str]:
    """The engines that this machine has."""
    found = set()
    if ctypes.util.find_library("flite_cmu_us_slt"):
        found.add("flite")
    if ctypes.util.find_library("espeak-ng") or importlib.util.find_spec("espeakng_loader"):
        found.add("espeak")
    return found


def load(version: Version) -> Backend:
    """The engine of a version, warm. Raises `RuntimeError` when none is installed."""
    voices = json.loads(version.path("voices.json").read_text())
    wanted = version.manifest.backend
    name = choose(wanted, installed(), voices)
    if name != wanted:
        log.warning("%s is not installed: %s speaks %s", wanted, name, version.model)
    match name:
        case "flite":
            from services.tts.backends.flite import Flite

            return Flite(voices[name])
        case _:
            from services.tts.backends.espeak import Espeak

            return Espeak(voices[name])

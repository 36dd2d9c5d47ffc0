"""flite, Debian's libflite1 by ctypes: English, first audio after some 12 ms.

ctypes releases the GIL while flite works. The engine keeps state in its voice, so one thread at a
time calls it (the service's batcher).
"""

from __future__ import annotations

import ctypes
import unicodedata
from collections.abc import Mapping
from typing import Any

import numpy as np

from services.tts.backends import Samples

SONAME = "lib{}.so.1"
_TYPOGRAPHY = str.maketrans("—–’‘“”", "--''\"\"")


class _Wave(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_char_p),
        ("sample_rate", ctypes.c_int),
        ("num_samples", ctypes.c_int),
        ("num_channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    )


class _Voice(ctypes.Structure):
    """The head of `cst_voice`; what follows is the library's own."""

    _fields_ = (("name", ctypes.c_char_p), ("features", ctypes.c_void_p))


class Flite:
    """The voices of libflite1, each loaded when it is first asked for."""

    def __init__(self, voices: Mapping[str, str]) -> None:
        self.voices = voices
        self.alive = True
        self._library = _open()
        self._loaded: dict[str, Any] = {}
        first = next(iter(voices))
        self.sample_rate = 0
        self.speak("ready", first, 1.0)

    def speak(self, text: str, voice: str, speed: float) -> Samples:
        loaded = self._voice(voice)
        self._library.feat_set_float(loaded.contents.features, b"duration_stretch", 1.0 / speed)
        wave = self._library.flite_text_to_wave(_ascii(text), loaded)
        if not wave:
            raise RuntimeError("flite gave no audio")
        try:
            content = wave.contents
            self.sample_rate = self.sample_rate or content.sample_rate
            if content.num_samples == 0:
                return np.zeros(0, np.int16)
            samples = np.ctypeslib.as_array(content.samples, (content.num_samples,)).copy()
        finally:
            self._library.delete_wave(wave)
        return samples

    def close(self) -> None:
        """The library has no way to unload a voice; it goes with the process."""
        self.alive = False

    def _voice(self, name: str) -> Any:
        if name not in self._loaded:
            engine_name = self.voices[name]
            library = ctypes.CDLL(SONAME.format(f"flite_{engine_name}"))
            register = getattr(library, f"register_{engine_name}")
            register.restype, register.argtypes = ctypes.POINTER(_Voice), [ctypes.c_char_p]
            self._loaded[name] = register(None)
        return self._loaded[name]


def _open() -> ctypes.CDLL:
    library = ctypes.CDLL(SONAME.format("flite"), mode=ctypes.RTLD_GLOBAL)
    for part in ("flite_usenglish", "flite_cmulex"):
        ctypes.CDLL(SONAME.format(part), mode=ctypes.RTLD_GLOBAL)
    library.flite_text_to_wave.restype = ctypes.POINTER(_Wave)
    library.flite_text_to_wave.argtypes = [ctypes.c_char_p, ctypes.POINTER(_Voice)]
    library.delete_wave.argtypes = [ctypes.POINTER(_Wave)]
    library.feat_set_float.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_float]
    library.flite_init()
    return library


def _ascii(text: str) -> bytes:
    """flite reads ASCII alone: accents go, and so does what has no ASCII form."""
    plain = text.translate(_TYPOGRAPHY)
    return unicodedata.normalize("NFKD", plain).encode("ascii", "ignore")

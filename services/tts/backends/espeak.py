"""espeak-ng: Russian and English, in a process of its own.

The library is GPL-3 and keeps its voice and rate in globals, so it lives in a child process
(`espeak_process.py`) that we talk to over pipes. A child that dies is started again.
"""

from __future__ import annotations

import contextlib
import ctypes.util
import json
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from services.tts.backends import Samples

PROGRAM = Path(__file__).with_name("espeak_process.py")
WORDS_PER_MINUTE = 165


class Espeak:
    """A child process that speaks with espeak-ng's voices."""

    def __init__(self, voices: Mapping[str, str]) -> None:
        self.voices = voices
        self.alive = True
        self._start()
        self.speak("1", next(iter(voices)), 1.0)

    def speak(self, text: str, voice: str, speed: float) -> Samples:
        request = {"text": text, "voice": self.voices[voice], "rate": WORDS_PER_MINUTE * speed}
        for _ in range(2):
            try:
                return self._ask(request)
            except (OSError, EOFError):
                self._end()
                self._start()
        raise RuntimeError("espeak-ng's process died twice over one text")

    def close(self) -> None:
        self.alive = False
        self._end()

    def _start(self) -> None:
        library, data = _paths()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(PROGRAM), library, data],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is ours to act on
        )
        self.sample_rate = self._number()

    def _end(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what a dead process has not read is lost
                    pipe.close()
        self._process.kill()
        self._process.wait()

    def _ask(self, request: dict[str, object]) -> Samples:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        size = self._number()
        if size < 0:
            raise RuntimeError(f"espeak-ng refused: {self._read(-size).decode()}")
        return np.frombuffer(self._read(size), "<i2")

    def _number(self) -> int:
        (number,) = struct.unpack("<i", self._read(4))
        return int(number)

    def _read(self, size: int) -> bytes:
        assert self._process.stdout is not None
        data = self._process.stdout.read(size)
        if len(data) < size:
            raise EOFError("espeak-ng's process ended")
        return data


def _paths() -> tuple[str, str]:
    """The library and its data: Debian's, else the wheel's. No data path means the built-in one."""
    if library := ctypes.util.find_library("espeak-ng"):
        return library, ""
    import espeakng_loader

    return espeakng_loader.get_library_path(), espeakng_loader.get_data_path()

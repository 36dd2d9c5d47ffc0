"""The child process of `espeak.py`: espeak-ng by ctypes, standard library alone.

It is given the library and its data folder, writes its sample rate, and then answers each line
`{"text", "voice", "rate"}` by a count of bytes and as many bytes of 16-bit samples; a negative
count precedes an error message. Numbers are little-endian, 32 bits. It ends when its input does.
"""

from __future__ import annotations

import ctypes
import json
import struct
import sys
from typing import BinaryIO

RETRIEVAL = 1  # AUDIO_OUTPUT_RETRIEVAL: audio comes to the callback, not to a device
UTF8 = 1  # espeakCHARS_UTF8
RATE = 1  # espeakRATE, words a minute
CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


def main(library_path: str, data_path: str, requests: BinaryIO, answers: BinaryIO) -> None:
    library = ctypes.CDLL(library_path)
    library.espeak_Initialize.argtypes = [
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_int,
    ]
    library.espeak_Synth.argtypes = [
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_uint,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_uint,
        ctypes.c_void_p,
        ctypes.c_void_p,
    ]
    rate = library.espeak_Initialize(RETRIEVAL, 0, data_path.encode() or None, 0)
    audio = bytearray()

    def collect(samples: ctypes._Pointer[ctypes.c_short], count: int, _: int | None) -> int:
        if samples and count:
            audio.extend(ctypes.string_at(samples, count * 2))
        return 0

    callback = CALLBACK(collect)  # kept: the library holds no reference
    library.espeak_SetSynthCallback(callback)
    answers.write(struct.pack("<i", rate))
    answers.flush()
    for line in requests:
        request = json.loads(line)
        audio.clear()
        error = _speak(library, request)
        body = error.encode() if error else bytes(audio)
        answers.write(struct.pack("<i", -len(body) if error else len(body)) + body)
        answers.flush()


def _speak(library: ctypes.CDLL, request: dict[str, object]) -> str | None:
    if library.espeak_SetVoiceByName(str(request["voice"]).encode()) != 0:
        return f"no voice {request['voice']}"
    library.espeak_SetParameter(RATE, int(float(str(request["rate"]))), 0)
    text = str(request["text"]).encode() + b"\0"
    if library.espeak_Synth(text, len(text), 0, 1, 0, UTF8, None, None) != 0:
        return "synthesis failed"
    library.espeak_Synchronize()
    return None


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.stdin.buffer, sys.stdout.buffer)

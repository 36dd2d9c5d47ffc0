"""Audio as it goes over the wire, encoded piece by piece: what is fed comes out at once, as far as
the format's frames allow."""

from __future__ import annotations

import struct

import av
import numpy as np
import soxr
from av.audio.stream import AudioStream

from govor.audio import mulaw_encode
from govor.errors import Unprocessable
from govor.schemas.tts import AudioFormat
from services.tts.backends import Samples

# Rates in Hz that a format can carry, where it cannot carry any.
RATES: dict[str, tuple[int, ...]] = {
    "opus": (8000, 12000, 16000, 24000, 48000),
    "mp3": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
}
# Container, codec and the container's options. Opus: a page each 20 ms, or the first byte would
# leave after a second of audio. mp3: no header that wants to be written last.
CONTAINERS: dict[str, tuple[str, str, dict[str, str]]] = {
    "opus": ("ogg", "libopus", {"page_duration": "20000", "flush_packets": "1"}),
    "mp3": ("mp3", "libmp3lame", {"write_xing": "0", "id3v2_version": "0"}),
    "flac": ("flac", "flac", {"flush_packets": "1"}),
}
UNKNOWN_SIZE = 0xFFFFFFFF
"""What a wav header says when the end is not known yet; players read to the end of the stream."""


def rate_of(format_: AudioFormat, source_rate: int, asked: int | None) -> int:
    """The rate in Hz that the answer will have.

    The one asked for, else the voice's own, or the nearest above that the format can carry;
    mu-law is 8 kHz unless told otherwise. Raises `Unprocessable` for one the format cannot carry.
    """
    allowed = RATES.get(format_)
    if asked is not None:
        if allowed and asked not in allowed:
            listed = ", ".join(map(str, allowed))
            raise Unprocessable(f"sample_rate of {format_} is one of {listed}", param="sample_rate")
        return asked
    if format_ == "ulaw":
        return 8000
    if allowed:
        return next((rate for rate in allowed if rate >= source_rate), allowed[-1])
    return source_rate


class Encoder:
    """One answer being encoded, mono, from `source_rate` to `rate`."""

    def __init__(self, format_: AudioFormat, source_rate: int, rate: int) -> None:
        self._format = format_
        self._resampler = (
            soxr.ResampleStream(source_rate, rate, 1, dtype="int16")
            if rate != source_rate
            else None
        )
        self._container = _Container(format_, rate) if format_ in CONTAINERS else None
        self._header = wav_header(rate, None) if format_ == "wav" else b""

    def feed(self, samples: Samples, last: bool = False) -> bytes:
        """What can leave after these samples [n]; `last` flushes everything."""
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples, last=last)
        header, self._header = self._header, b""
        if self._container is not None:
            return header + self._container.feed(samples, last)
        if self._format == "ulaw":
            return header + mulaw_encode(samples.astype(np.float32) / np.float32(32768))
        pcm: bytes = samples.astype("<i2").tobytes()
        return header + pcm

    def finish(self) -> bytes:
        """The end of the stream."""
        return self.feed(np.zeros(0, np.int16), last=True)


def encode(samples: Samples, format_: AudioFormat, source_rate: int, rate: int) -> bytes:
    """A whole file, its header telling its length."""
    data = Encoder(format_, source_rate, rate).feed(samples, last=True)
    if format_ == "wav":
        body = data[len(wav_header(rate, None)) :]
        return wav_header(rate, len(body)) + body
    return data


def wav_header(rate: int, size_bytes: int | None) -> bytes:
    """The 44 bytes before 16-bit mono samples."""
    size = UNKNOWN_SIZE if size_bytes is None else size_bytes
    riff = UNKNOWN_SIZE if size_bytes is None else size_bytes + 36
    head = struct.pack("<4sI4s", b"RIFF", riff, b"WAVE")
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16)
    return head + fmt + struct.pack("<4sI", b"data", size)


class _Sink:
    """A file that can only be appended to, so that the muxer writes nothing late."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, data: bytes) -> int:
        self._written += data
        return len(data)

    def take(self) -> bytes:
        data, self._written = bytes(self._written), bytearray()
        return data


class _Container:
    def __init__(self, format_: str, rate: int) -> None:
        container, codec, options = CONTAINERS[format_]
        self._sink = _Sink()
        self._output = av.open(
            self._sink, "w", format=container, container_options=options, buffer_size=1024
        )
        stream = self._output.add_stream(codec, rate=rate, layout="mono")
        assert isinstance(stream, AudioStream)
        self._stream = stream
        self._rate = rate
        self._position = 0

    def feed(self, samples: Samples, last: bool) -> bytes:
        if samples.size:
            frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
            frame.sample_rate, frame.pts = self._rate, self._position
            self._position += samples.size
            self._output.mux(self._stream.encode(frame))
        if last:
            self._output.mux(self._stream.encode(None))
            self._output.close()
        return self._sink.take()

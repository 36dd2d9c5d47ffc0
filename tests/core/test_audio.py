"""govor/audio.py"""

from __future__ import annotations

import io
import resource
import struct
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from govor.audio import (
    Samples,
    Waveform,
    alaw_decode,
    alaw_encode,
    decode,
    mulaw_decode,
    mulaw_encode,
    pcm16,
    resample,
)
from govor.errors import GovorError


def level_dbfs(samples: Samples) -> float:
    """Root mean square against full scale, in decibels; digital silence is -inf."""
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    return 10 * float(np.log10(power)) if power > 0 else -np.inf


def tone(seconds: float = 0.5, rate: int = 16_000, hertz: float = 440.0) -> Samples:
    at = np.arange(int(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * hertz * at)).astype(np.float32)


def by_soundfile(samples: np.ndarray, rate: int, container: str, subtype: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=container, subtype=subtype)
    return file.getvalue()


def by_ffmpeg(samples: Samples, rate: int, container: str, codec: str) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(pcm16(samples)[None], format="s16", layout="mono")
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            output.mux(packet)
    return file.getvalue()


def hertz_of(waveform: Waveform) -> float:
    spectrum = np.abs(np.fft.rfft(waveform.samples))
    return float(np.argmax(spectrum) * waveform.rate / len(waveform.samples))


def refused(data: bytes, content_type: str | None = "audio/wav", seconds: float = 300) -> str:
    """The error's code; every refusal is the caller's fault and says so."""
    with pytest.raises(GovorError) as caught:
        decode(data, content_type, seconds)
    assert 400 <= caught.value.status < 500
    return caught.value.code


ENCODED = {
    "wav": by_soundfile(tone(), 16_000, "WAV", "PCM_16"),
    "wav 24 bit": by_soundfile(tone(), 16_000, "WAV", "PCM_24"),
    "wav mu-law": by_soundfile(tone(rate=8000), 8_000, "WAV", "ULAW"),
    "wav A-law": by_soundfile(tone(rate=8000), 8_000, "WAV", "ALAW"),
    "wav stereo": by_soundfile(np.stack([tone(), tone()], 1), 16_000, "WAV", "FLOAT"),
    "flac": by_soundfile(tone(), 16_000, "FLAC", "PCM_16"),
    "mp3": by_ffmpeg(tone(rate=44_100), 44_100, "mp3", "mp3"),
    "ogg opus": by_ffmpeg(tone(rate=48_000), 48_000, "ogg", "libopus"),
    "webm opus": by_ffmpeg(tone(rate=48_000), 48_000, "webm", "libopus"),
    "m4a": by_ffmpeg(tone(rate=44_100), 44_100, "ipod", "aac"),
}


@pytest.mark.parametrize("name", ENCODED)
@pytest.mark.parametrize("content_type", ["audio/mpeg", "application/octet-stream", None])
def test_containers_are_told_by_their_content(name: str, content_type: str | None) -> None:
    waveform = decode(ENCODED[name], content_type, 300, rate=16_000)
    assert waveform.rate == 16_000
    assert waveform.samples.dtype == np.float32
    assert waveform.duration == pytest.approx(0.5, abs=0.08)
    assert hertz_of(waveform) == pytest.approx(440, abs=4)


@pytest.mark.parametrize(
    ("content_type", "data"),
    [
        ("audio/basic", mulaw_encode(tone(rate=8000))),
        ("audio/PCMA", alaw_encode(tone(rate=8000))),
        ("audio/pcm", pcm16(tone()).astype("<i2").tobytes()),
        ("audio/pcm;rate=24000", pcm16(tone(rate=24_000)).astype("<i2").tobytes()),
        ("audio/l16; rate=8000", pcm16(tone(rate=8000)).astype(">i2").tobytes()),
        ('audio/L16;rate="16000";channels=2', pcm16(np.repeat(tone(), 2)).astype(">i2").tobytes()),
    ],
)
def test_headerless_audio_is_told_by_its_type(content_type: str, data: bytes) -> None:
    waveform = decode(data, content_type, 300)
    assert waveform.duration == pytest.approx(0.5)
    assert hertz_of(waveform) == pytest.approx(440, abs=2)


def test_channels_are_averaged() -> None:
    opposite = by_soundfile(np.stack([tone(), -tone()], 1), 16_000, "WAV", "FLOAT")
    assert level_dbfs(decode(opposite, None, 300).samples) < -100


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_playlist_reads_no_local_file(tmp_path: Path, suffix: str) -> None:
    secret = tmp_path / f"secret.{suffix}"
    secret.write_bytes(ENCODED[suffix])
    playlist = f"ffconcat version 1.0\nfile '{secret}'\n".encode()
    unguarded = av.open(io.BytesIO(playlist), options={"safe": "0"})
    with unguarded:
        assert unguarded.streams.audio  # the danger is real in this build of FFmpeg
    assert refused(playlist, None) == "audio_unreadable"
    assert refused(playlist, "audio/mpeg") == "audio_unreadable"


def test_hours_of_silence_are_refused_without_memory() -> None:
    file = io.BytesIO()
    with soundfile.SoundFile(
        file, "w", 16_000, 1, format="FLAC", subtype="PCM_16", compression_level=1.0
    ) as flac:
        minute = np.zeros(16_000 * 60, np.int16)
        for _ in range(360):
            flac.write(minute)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert refused(file.getvalue(), "audio/flac") == "audio_too_long"
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 60 * 1024  # 300 s of 16 kHz are 19 MB; all of it would be 1.4 GB


def test_the_limit_counts_what_is_decoded_and_names_itself() -> None:
    with pytest.raises(GovorError, match=r"longer than 0\.25 seconds") as caught:
        decode(ENCODED["ogg opus"], None, 0.25)
    assert (caught.value.status, caught.value.code) == (413, "audio_too_long")


def test_truncated_audio_is_refused() -> None:
    assert refused(ENCODED["wav"][:8000]) == "audio_truncated"
    assert refused(ENCODED["wav"][:30]) == "audio_truncated"
    assert refused(ENCODED["flac"][: len(ENCODED["flac"]) // 2]) == "audio_truncated"
    assert refused(ENCODED["m4a"][: len(ENCODED["m4a"]) // 2]) == "audio_unreadable"
    assert refused(pcm16(tone()).tobytes()[:-1], "audio/pcm") == "audio_truncated"


def test_a_streamed_wav_knows_no_length_and_is_read() -> None:
    data = bytearray(ENCODED["wav"])
    at = data.index(b"data") + 4
    data[at : at + 4] = b"\xff\xff\xff\xff"
    assert decode(bytes(data), None, 300).duration == pytest.approx(0.5)


def wav_header(rate: int = 16_000, channels: int = 1, bits: int = 16, code: int = 1) -> bytes:
    frame = max(channels * bits // 8, 1)
    body = struct.pack("<HHIIHH", code, channels, rate, rate * frame & 0xFFFFFFFF, frame, bits)
    head = b"RIFF" + struct.pack("<I", 36 + 3200) + b"WAVEfmt " + struct.pack("<I", 16) + body
    return head + b"data" + struct.pack("<I", 3200) + bytes(3200)


@pytest.mark.parametrize(
    "data",
    [
        b"\x00",
        b"RIFF",
        b"fLaC",
        b"not audio at all, only words" * 50,
        bytes(range(256)) * 100,
        ENCODED["mp3"][:3],
        b"fLaC" + bytes(5000),
        wav_header(rate=0),
        wav_header(rate=1),
        wav_header(rate=0xFFFFFFFF),
        wav_header(channels=0),
        wav_header(channels=1000),
        wav_header(bits=0),
        wav_header(code=0x7777),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"#EXTM3U\nhttp://localhost/a.ts\n",
    ],
)
def test_lying_and_foreign_bytes_are_the_callers_fault(data: bytes) -> None:
    assert refused(data).startswith("audio_")
    assert refused(data, None).startswith("audio_")


def test_other_refusals() -> None:
    assert refused(b"") == "audio_empty"
    assert refused(by_soundfile(np.zeros(0), 16_000, "WAV", "PCM_16")) == "audio_empty"
    assert refused(b"{}", "application/json") == "unsupported_media_type"
    assert refused(b"\x00\x00", "audio/l16;rate=fast") == "audio_unreadable"
    assert refused(b"\x00\x00", "audio/l16;rate=10") == "audio_unreadable"
    assert refused(np.full(800, np.nan, np.float32).tobytes(), "audio/wav") == "audio_unreadable"
    nan = by_soundfile(np.full(800, np.nan, np.float32), 16_000, "WAV", "FLOAT")
    assert refused(nan) == "audio_unreadable"


@pytest.mark.parametrize(
    ("encode", "table", "silence"),
    [(mulaw_encode, mulaw_decode, 0xFF), (alaw_encode, alaw_decode, 0xD5)],
)
def test_g711(encode: object, table: object, silence: int) -> None:
    assert callable(encode)
    assert callable(table)
    every = bytes(range(256))
    canonical = encode(table(every))
    differ = [code for code, again in zip(every, canonical, strict=True) if code != again]
    assert differ in ([], [0x7F])  # mu-law has a second zero
    assert encode(np.zeros(1, np.float32))[0] == silence
    error = level_dbfs(table(encode(tone())) - tone()) - level_dbfs(tone())
    assert error < -35  # G.711's signal to noise is about 38 dB


@pytest.mark.parametrize(
    ("subtype", "encode", "decoder"),
    [("ULAW", mulaw_encode, mulaw_decode), ("ALAW", alaw_encode, alaw_decode)],
)
def test_g711_agrees_with_libsndfile(subtype: str, encode: object, decoder: object) -> None:
    assert callable(encode)
    assert callable(decoder)
    every = bytes(range(256))
    file = io.BytesIO(every)
    theirs, _ = soundfile.read(
        file, dtype="float32", format="RAW", subtype=subtype, samplerate=8000, channels=1
    )
    np.testing.assert_allclose(decoder(every), theirs)


def test_resample_keeps_the_sound() -> None:
    again = resample(Waveform(tone(), 16_000), 8_000)
    assert again.rate == 8_000
    assert again.duration == pytest.approx(0.5)
    assert hertz_of(again) == pytest.approx(440, abs=4)
    assert level_dbfs(again.samples) == pytest.approx(level_dbfs(tone()), abs=0.2)

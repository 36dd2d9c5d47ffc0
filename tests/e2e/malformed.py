"""Some three hundred requests that no caller should send, made by rule."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

JSON = {"content-type": "application/json"}
SPEECH = (Path(__file__).resolve().parents[2] / "examples" / "thank-you.flac").read_bytes()

# A good body of each JSON route.
GOOD: dict[str, dict[str, Any]] = {
    "/v1/understand": {"text": "hello"},
    "/v1/generate": {"fields": {"sign": "leo"}, "max_tokens": 8},
    "/v1/synthesize": {"text": "hello"},
    "/v1/converse": {"text": "hello"},
    "/v1/feedback": {"turn_id": "none", "rating": 1},
}

# What no field of that name takes.
WRONG: dict[str, tuple[Any, ...]] = {
    "text": (1, [], {}, True, "x" * 4001),
    "texts": ("a", [], [1], ["x"] * 257),
    "language": (1, [], "tlh"),
    "domain": (1, "weather", "../horoscope", "\u0000"),
    "model": (1, "nothing", "../nlu"),
    "version": ("one", 1.5, 999_999, -1, 10**30),
    "fields": ([], "leo", {"sign": 1}, {"colour": "red"}, {"sign": "dragon"}),
    "max_tokens": (0, -1, 513, 1.5, "many"),
    "temperature": (-1, 3, "hot", math.nan, math.inf),
    "top_p": (-0.1, 1.1),
    "top_k": (-1, 1001),
    "n": (0, 5),
    "stop": (["a"] * 9, 1),
    "messages": ([], [{"role": "king", "content": "x"}]),
    "seed": (-1, 2**64),
    "speed": (0.1, 9),
    "format": ("aiff", 1),
    "sample_rate": (1, 96_000),
    "voice": (1, "nobody"),
    "reply": ([], ["song"], "text,audio"),
    "conversation_id": ("", "a b", "x" * 129, 1),
    "user": ("", "x" * 257),
    "consent": ("all", 1),
    "rating": (0, 2, "good"),
    "turn_id": ("", 1, "x" * 65),
    "corrected_entities": ([1], "x"),
}
FIELDS: dict[str, tuple[str, ...]] = {
    "/v1/understand": ("text", "texts", "language", "domain", "model", "version"),
    "/v1/generate": (
        *("fields", "max_tokens", "temperature", "top_p", "top_k", "n", "stop", "messages"),
        *("seed", "model", "version", "domain"),
    ),
    "/v1/synthesize": (
        *("text", "speed", "format", "sample_rate", "voice", "language", "domain"),
        *("model", "version"),
    ),
    "/v1/converse": (
        *("text", "language", "domain", "reply", "format", "conversation_id", "user"),
        *("consent", "seed"),
    ),
    "/v1/feedback": ("rating", "turn_id", "corrected_entities"),
}

# Bodies that are not JSON, or JSON of another shape.
BODIES: dict[str, bytes] = {
    "empty": b"",
    "blank": b"   ",
    "open": b"{",
    "words": b"hello",
    "latin": '{"text": "\xe9"}'.encode("latin-1"),
    "utf-16": '{"text": "a"}'.encode("utf-16"),
    "zeros": b"\x00" * 64,
    "lone surrogate": b'{"text": "\\ud800"}',
    "half a string": b'{"text": "abc',
    "two values": b'{"text": "a"} {"text": "b"}',
    "comma": b'{"text": "a",}',
    "array": b"[]",
    "null": b"null",
    "number": b"1e400",
    "string": b'"text"',
    "deep array": b"[" * 100_000,
    "deep object": b'{"fields": ' * 20_000 + b"1" + b"}" * 20_000,
    "long number": b'{"seed": ' + b"9" * 5_000 + b"}",
    "huge": b'{"text": "' + b"x" * (2 << 20) + b'"}',
}

# What is no recording.
SOUNDS: dict[str, bytes] = {
    "empty": b"",
    "text": b"hello, this is not audio",
    "zeros": b"\x00" * 4096,
    "wav head": b"RIFF\x24\x00\x00\x00WAVE",
    "wav without data": b"RIFF\x24\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00",
    "flac head": SPEECH[:40],
    "ogg head": b"OggS\x00\x02" + b"\x00" * 20,
    "mp3 head": b"ID3\x04\x00\x00\x00\x00\x00\x00",
    "webm head": b"\x1aE\xdf\xa3\x01\x00\x00\x00",
    "list of files": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n/etc/passwd\n",
    "page": b"<html><body>404</body></html>",
    "image": b"\x89PNG\r\n\x1a\n" + b"\x00" * 64,
    "zip": b"PK\x03\x04" + b"\x00" * 64,
}

# Forms that cannot be read.
FORMS: dict[str, tuple[str, bytes]] = {
    "no boundary": ("multipart/form-data", b"x"),
    "empty boundary": ("multipart/form-data; boundary=", b"x"),
    "other boundary": ("multipart/form-data; boundary=a", b"--b\r\n\r\nx\r\n--b--\r\n"),
    "no end": (
        "multipart/form-data; boundary=b",
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nx',
    ),
    "no name": (
        "multipart/form-data; boundary=b",
        b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n",
    ),
    "bad head": ("multipart/form-data; boundary=b", b"--b\r\n\xff\xff: \r\n\r\n\r\n--b--"),
    "json": ("multipart/form-data; boundary=b", b'{"text": "a"}'),
    "nothing": ("multipart/form-data; boundary=b", b""),
}

HEADS: dict[str, dict[str, str]] = {
    "no time": {"x-request-timeout": "0"},
    "time back": {"x-request-timeout": "-5"},
    "some time": {"x-request-timeout": "soon"},
    "all time": {"x-request-timeout": "inf"},
    "no person": {"x-user-id": ""},
    "long person": {"x-user-id": "x" * 257},
    "text": {"content-type": "text/plain"},
    "form": {"content-type": "application/x-www-form-urlencoded"},
    "no type": {"content-type": ""},
    "wrong key": {"x-api-key": "guess"},
    "wrong bearer": {"authorization": "Bearer guess"},
}


@dataclass(frozen=True)
class Request:
    name: str
    path: str
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes = b""


def requests() -> Iterator[Request]:
    for path, good in GOOD.items():
        for name, body in BODIES.items():
            yield Request(f"{path} {name}", path, headers=JSON, content=body)
        for name in FIELDS[path]:
            for value in WRONG[name]:
                body = json.dumps({**good, name: value}).encode()
                yield Request(f"{path} {name}={value!r:.40}", path, headers=JSON, content=body)
        for name, head in HEADS.items():
            body = json.dumps(good).encode()
            yield Request(f"{path} {name}", path, headers={**JSON, **head}, content=body)
    for path, part in (("/v1/transcribe", "file"), ("/v1/converse", "audio")):
        for name, sound in SOUNDS.items():
            yield _form(f"{path} sound {name}", path, part, sound)
        for name, (kind, body) in FORMS.items():
            head = {"content-type": kind}
            yield Request(f"{path} form {name}", path, headers=head, content=body)
        yield _form(f"{path} other part", path, "recording", SPEECH)
    for name, sound in SOUNDS.items():
        head = {"content-type": "audio/wav"}
        yield Request(f"raw {name}", "/v1/transcribe", headers=head, content=sound)
    for path in (*GOOD, "/v1/transcribe"):
        for method in ("GET", "PUT", "DELETE", "PATCH"):
            yield Request(f"{method} {path}", path, method)
    for path in ("/v1", "/v1/", "/v1/sing", "/v1/understand/", "/%00", "/v1/conversations/none"):
        yield Request(path, path, "GET")
    for path in ("/../etc/passwd", "/static/../main.py", "/docs/..%2f..%2fmain.py"):
        yield Request(path, path, "GET")


def _form(name: str, path: str, part: str, data: bytes) -> Request:
    disposition = f'Content-Disposition: form-data; name="{part}"; filename="a.wav"\r\n\r\n'
    body = b"--b\r\n" + disposition.encode() + data + b"\r\n--b--\r\n"
    return Request(
        name, path, headers={"content-type": "multipart/form-data; boundary=b"}, content=body
    )

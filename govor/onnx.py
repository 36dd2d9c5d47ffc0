"""The one place that imports onnxruntime and opens sessions, on the CPU or on a GPU.

A model file is read whole and checked before a session sees it: no external data (a path in the
file could name any file of the machine) and only operators that onnxruntime itself brings.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Iterator
from pathlib import Path

# Its Linux wheel reports usage by default, and looks once, at import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort

from govor.config import Device

__all__ = ["ModelRefused", "open_session", "ort", "providers"]

log = logging.getLogger(__name__)

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

_DOMAINS = {b"", b"ai.onnx", b"ai.onnx.ml", b"com.microsoft"}

# Field numbers of onnx.proto3 by message, as far as a tensor can hide in one.
_MODEL = {7: "graph", 20: "training", 25: "function"}
_NESTED = {
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_OPSET_IMPORT, _OPSET_DOMAIN = 8, 1
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14


class ModelRefused(ValueError):
    """The file is no ONNX model, or one that reaches outside itself."""


def open_session(
    model: Path | str | bytes, threads: int = 1, device: Device = "cpu"
) -> ort.InferenceSession:
    """A session on `device`, with `threads` threads an operator on the CPU.

    Where onnxruntime finds no GPU that it can use, the CPU takes its place, and the log says so,
    once. onnxruntime ignores cgroup quotas, so the number of threads is always set; waiting ones
    sleep, because spinning ones cost 3 x the CPU time of a small model and gain nothing. Raises
    `ModelRefused`.
    """
    data = model if isinstance(model, bytes) else Path(model).read_bytes()
    refuse_foreign(memoryview(data))
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = ort.InferenceSession(data, options, providers=providers(device))
    except Exception as error:  # onnxruntime's own exceptions share no base class but this
        raise ModelRefused(f"onnxruntime cannot open the model: {error}") from error
    if device == "gpu" and _CUDA not in session.get_providers():
        _say_there_is_no_gpu()
    return session


def providers(device: Device) -> list[str]:
    """What a session is opened with. That CUDA is among them does not mean that it can be used:
    the session's own `get_providers()` tells."""
    return [_CUDA, _CPU] if device == "gpu" and _built_for_cuda() else [_CPU]


@functools.cache
def _built_for_cuda() -> bool:
    """NVIDIA's libraries come as wheels, where the system's loader does not look for them: they
    are loaded here, once."""
    if _CUDA not in ort.get_available_providers():
        return False
    ort.preload_dlls()
    return True


@functools.cache
def _say_there_is_no_gpu() -> None:
    log.warning("onnxruntime can use no GPU here: models run on the CPU")


def refuse_foreign(data: memoryview) -> None:
    """Raises `ModelRefused` for external data or an operator set that onnxruntime lacks.

    Walks the protobuf itself (4 ms for 12 MB): the `onnx` package belongs to the trainer.
    """
    try:
        for number, value in _fields(data):
            if number == _OPSET_IMPORT and isinstance(value, memoryview):
                domain = dict(_fields(value)).get(_OPSET_DOMAIN, b"")
                if bytes(domain) not in _DOMAINS:
                    raise ModelRefused(f"operators of domain {bytes(domain)!r} are not accepted")
            elif number in _MODEL and isinstance(value, memoryview):
                _refuse_external(_MODEL[number], value)
    except (IndexError, TypeError, RecursionError) as error:
        raise ModelRefused("not an ONNX model") from error


def _refuse_external(kind: str, message: memoryview) -> None:
    for number, value in _fields(message):
        if kind == "tensor":
            if number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value):
                raise ModelRefused("tensors in other files are not accepted")
        elif number in _NESTED[kind] and isinstance(value, memoryview):
            _refuse_external(_NESTED[kind][number], value)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a protobuf message: varints as numbers, everything else as bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        wire = key & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if wire == 2:
            size, at = _varint(message, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ModelRefused("not an ONNX model")
        if at + size > len(message):
            raise ModelRefused("the ONNX model is cut off")
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7

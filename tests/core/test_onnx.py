"""Sessions are opened from checked bytes. The models are written by hand, field by field."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from govor import onnx
from govor.onnx import ModelRefused, open_session, ort


def field(number: int, value: bytes | int) -> bytes:
    """A field of a protobuf message."""
    if isinstance(value, int):
        return bytes([number << 3]) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def tensor(*, external: bool = False) -> bytes:
    where = field(13, field(1, b"location") + field(2, b"/etc/passwd")) + field(14, 1)
    data = where if external else field(9, np.float32(2).tobytes())
    return field(1, 1) + field(2, 1) + field(8, b"two") + data


def value(name: bytes) -> bytes:
    shape = field(2, field(1, field(1, 1)))
    return field(1, name) + field(2, field(1, field(1, 1) + shape))


def model(initializer: bytes, domain: bytes = b"", attribute: bytes = b"") -> bytes:
    node = field(1, b"x") + field(1, b"two") + field(2, b"y") + field(4, b"Mul") + attribute
    graph = field(1, node) + field(2, b"g") + field(5, initializer)
    graph += field(11, value(b"x")) + field(12, value(b"y"))
    opset = field(8, field(1, domain) + field(2, 17))
    return field(1, 8) + field(7, graph) + opset


def test_a_plain_model_runs_on_one_thread(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model(tensor()))
    session = open_session(path)
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert session.get_session_options().intra_op_num_threads == 1
    assert session.run(None, {"x": np.array([21], np.float32)})[0].tolist() == [42]


def test_without_a_gpu_the_cpu_takes_its_place_and_that_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    onnx._say_there_is_no_gpu.cache_clear()
    sessions = [open_session(model(tensor()), device="gpu") for _ in range(2)]
    if "CUDAExecutionProvider" in sessions[0].get_providers():
        pytest.skip("no GPU is what this is about")
    assert [s.get_providers() for s in sessions] == [["CPUExecutionProvider"]] * 2
    assert sessions[1].run(None, {"x": np.array([21], np.float32)})[0].tolist() == [42]
    assert caplog.messages == ["onnxruntime can use no GPU here: models run on the CPU"]


@pytest.mark.parametrize("wheel", ["cpu", "gpu"])
def test_the_libraries_of_cuda_are_loaded_where_onnxruntime_wants_them(
    wheel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx._built_for_cuda.cache_clear()
    loaded: list[str] = []
    brings = ["CUDAExecutionProvider"] if wheel == "gpu" else ["AzureExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: [*brings, "CPUExecutionProvider"])
    monkeypatch.setattr(ort, "preload_dlls", lambda: loaded.append("cuda"))
    cpu = ["CPUExecutionProvider"]
    assert onnx.providers("cpu") == cpu
    assert loaded == []
    for _ in range(2):
        assert onnx.providers("gpu") == (brings + cpu if wheel == "gpu" else cpu)
    assert loaded == ["cuda"] * (wheel == "gpu")
    onnx._built_for_cuda.cache_clear()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (model(tensor(external=True)), "other files"),
        (model(tensor(), attribute=field(5, field(5, tensor(external=True)))), "other files"),
        (model(tensor(), domain=b"acme.ops"), "acme.ops"),
        (b"", "cannot open"),
        (b"not a model at all", "not an ONNX model|cut off"),
        (model(tensor())[:-5], "cut off|not an ONNX model"),
        (b"\xff" * 100, "not an ONNX model|cut off"),
    ],
)
def test_a_model_that_reaches_outside_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(ModelRefused, match=said):
        open_session(data)


def test_telemetry_is_off() -> None:
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
    assert ort.__name__ == "onnxruntime"

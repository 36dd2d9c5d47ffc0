"""silero's voice activity detector as a model version. Nothing is trained: the MIT-licensed network
is taken out of its wheel, whose package would pull torch into the service.

`python -m trainer.recipes.vad --out models`.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from govor.repository import Dataset, write_manifest

PACKAGE = "silero-vad==6.2.3"
NETWORK = "silero_vad/data/silero_vad_16k_op15.onnx"
LICENCE = "silero_vad-6.2.3.dist-info/licenses/LICENSE"
SHA256 = "7ed98ddbad84ccac4cd0aeb3099049280713df825c610a8ed34543318f1b2c49"


def run(out: Path, wheel: Path | None = None) -> None:
    """Writes `<out>/vad/1` from the wheel, which pip fetches when it is not given.

    Raises `ValueError` when the network is not the one that was tested.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        zipfile.ZipFile(wheel or _fetch(Path(folder))) as archive,
    ):
        network, licence = archive.read(NETWORK), archive.read(LICENCE)
    if hashlib.sha256(network).hexdigest() != SHA256:
        raise ValueError(f"{PACKAGE} holds another network than the one that was tested")
    target = out / "vad" / "1"
    target.mkdir(parents=True, exist_ok=True)
    (target / "vad.onnx").write_bytes(network)
    (target / "LICENSE").write_bytes(licence)
    write_manifest(
        target,
        model="vad",
        version=1,
        backend="silero",
        languages=[],
        recipe="trainer/recipes/vad.py",
        description="Silero VAD 6.2.3, 16 kHz: the probability of speech in 32 ms of audio",
        params={"package": PACKAGE, "file": NETWORK},
        datasets=[
            Dataset(
                name="Silero VAD",
                source="https://github.com/snakers4/silero-vad, wheel silero-vad 6.2.3 (PyPI)",
                licence="MIT",
                digest=SHA256,
            )
        ],
        licence="MIT",
    )


def _fetch(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
    subprocess.run([*command, str(folder), PACKAGE], check=True)
    return next(folder.glob("*.whl"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("models"))
    run(parser.parse_args().out)

"""The voices of the embedded default: nothing is trained, the engines bring them.

A version names the engine and maps our voice names to the engine's, for the engine itself and for
the one that stands in where it is not installed. `python -m trainer.recipes.voices --out models`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from govor.repository import write_manifest

VOICES: dict[str, dict[str, Any]] = {
    "tts-en": {
        "backend": "flite",
        "languages": ["en"],
        "description": "flite's CMU voices (slt, rms, awb, kal); espeak-ng stands in for them",
        "voices": {
            "flite": {
                "slt": "cmu_us_slt",
                "rms": "cmu_us_rms",
                "awb": "cmu_us_awb",
                "kal": "cmu_us_kal16",
            },
            "espeak": {
                "slt": "en-us+f3",
                "rms": "en-us+m3",
                "awb": "en-gb-scotland",
                "kal": "en-us",
            },
        },
    },
    "tts-ru": {
        "backend": "espeak",
        "languages": ["ru"],
        "description": "espeak-ng's Russian, a man's and a woman's voice",
        "voices": {"espeak": {"ru": "ru", "ru-f": "ru+f3"}},
    },
}


def run(out: Path) -> None:
    """Writes `<out>/<model>/1` for each voice model."""
    for model, spec in VOICES.items():
        folder = out / model / "1"
        folder.mkdir(parents=True, exist_ok=True)
        voices = json.dumps(spec["voices"], indent=2) + "\n"
        (folder / "voices.json").write_text(voices)
        write_manifest(
            folder,
            model=model,
            version=1,
            backend=spec["backend"],
            languages=spec["languages"],
            description=spec["description"],
            recipe="trainer/recipes/voices.py",
            licence="Apache-2.0; the engines keep theirs (flite BSD, espeak-ng GPL-3)",
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("models"))
    run(parser.parse_args().out)

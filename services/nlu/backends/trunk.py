"""The trunk: one ONNX session that turns encoded texts into vectors.

Its weights are 8-bit and its arithmetic is fp32: activations are not quantised, so an answer does
not depend on what else is in its batch (dynamic quantisation flips 5 % of labels).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from govor.config import Device
from govor.onnx import open_session
from services.nlu.backends.features import Encoded

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Read:
    """What the trunk makes of a text: `states` [words, width], and a unit vector `pooled`."""

    states: Floats
    pooled: Floats


class Trunk:
    """The session of a version."""

    def __init__(self, model: Path | bytes, threads: int = 1, device: Device = "cpu") -> None:
        self._session = open_session(model, threads, device)
        outputs = {output.name: output.shape for output in self._session.get_outputs()}
        self.width = int(outputs["states"][-1])
        self.pooled_width = int(outputs["pooled"][-1])

    def read(self, texts: Sequence[Encoded]) -> list[Read]:
        """All texts in one run; one without words has no states and a vector of zeros."""
        full = [text for text in texts if text.rows]
        states, pooled = self._run(full) if full else (None, None)
        nothing = Read(np.zeros((0, self.width), np.float32), np.zeros(self.pooled_width, "f4"))
        results, place = [], 0
        for text in texts:
            if not text.rows or states is None or pooled is None:
                results.append(nothing)
                continue
            results.append(Read(states[place, : len(text.rows)], pooled[place]))
            place += 1
        return results

    def _run(self, texts: Sequence[Encoded]) -> tuple[Floats, Floats]:
        longest = max(len(text.rows) for text in texts)
        # At least one column of n-grams: "1" and "♋" have none, and the graph counts them.
        deepest = max(2, *(len(word) for text in texts for word in text.rows))
        rows = np.zeros((len(texts), longest, deepest), np.int32)
        for i, text in enumerate(texts):
            for j, word in enumerate(text.rows):
                rows[i, j, : len(word)] = word
        states, pooled = self._session.run(["states", "pooled"], {"rows": rows})
        return states, pooled

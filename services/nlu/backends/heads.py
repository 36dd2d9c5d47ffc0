"""A domain's head: one linear classifier over hashed TF-IDF and the trunk's vector.

The last class is the background, what is out of the domain's scope. Weights are 8-bit with a scale
a class. `<domain>.json` holds labels, threshold, temperature and the spec of the entities,
`<domain>.safetensors` the numbers: a head needs nothing but its version's folder.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from services.nlu.backends.features import Encoded
from services.nlu.backends.tagger import Tagger

Floats = NDArray[np.float32]

# At 5 % false alarms a pack of 25 intents of CLINC150 tells CLINC150's own out-of-scope rows in
# 0.67 / 0.75 / 0.78 of cases with all / 0.6 / 0.3 of the background's score, a pack of 15 intents
# of MASSIVE its other Russian ones in 0.88 / 0.87 / 0.86, and the bundled packs their background in
# 0.96 / 0.91 / 0.90.
BACKGROUND_SHARE = 0.6


@dataclass
class Head:
    """`weights` [classes, buckets + pooled]: one row for each of `labels`, and the background's
    if there is one; `bias` [classes]."""

    labels: list[str]
    languages: list[str]
    weights: Floats
    bias: Floats
    background: bool = True
    threshold: float = 0.0
    temperature: float = 1.0
    entities: dict[str, Any] = field(default_factory=lambda: {"entities": []})
    about: dict[str, Any] = field(default_factory=dict)
    tagger: Tagger | None = None

    def scores(self, text: Encoded, pooled: Floats) -> Floats:
        """A score a class, the background's last."""
        split = self.weights.shape[1] - len(pooled)
        sparse = self.weights[:, text.buckets] @ text.weights
        scores: Floats = sparse + self.weights[:, split:] @ pooled + self.bias
        return scores

    def confidences(self, scores: Floats) -> Floats:
        """Calibrated probabilities of the classes, from scores of the last axis."""
        scaled = scores / self.temperature
        raised = np.exp(scaled - scaled.max(-1, keepdims=True))
        result: Floats = raised / raised.sum(-1, keepdims=True)
        return result

    def margin(self, scores: Floats) -> Any:
        """The best intent's score less part of the background's: in scope from `threshold` on."""
        if not self.background:
            return np.full(scores.shape[:-1], np.inf)
        return scores[..., :-1].max(-1) - BACKGROUND_SHARE * scores[..., -1]

    def save(self, folder: Path, domain: str) -> None:
        """Writes the two files of the head."""
        scale = np.abs(self.weights).max(1, keepdims=True) / 127
        scale[scale == 0] = 1
        tensors = {
            "weights": np.round(self.weights / scale).astype(np.int8),
            "scale": scale.astype(np.float32),
            "bias": self.bias.astype(np.float32),
        }
        if self.tagger is not None:
            tensors |= self.tagger.tensors()
        body = {
            "labels": self.labels,
            "languages": self.languages,
            "background": self.background,
            "threshold": self.threshold,
            "temperature": self.temperature,
            "tags": self.tagger.tags if self.tagger else [],
            "about": self.about,
            "entities": self.entities,
        }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{domain}.safetensors").write_bytes(save(tensors))
        text = json.dumps(body, ensure_ascii=False, indent=1)
        (folder / f"{domain}.json").write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, domain: str) -> Head:
        """Reads what `save` wrote."""
        body = json.loads((folder / f"{domain}.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / f"{domain}.safetensors")
        tags: Sequence[str] = body.pop("tags")
        tagger = Tagger.of(list(tags), tensors) if tags else None
        weights = tensors["weights"].astype(np.float32) * tensors["scale"]
        return cls(weights=weights, bias=tensors["bias"], tagger=tagger, **body)

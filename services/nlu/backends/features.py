"""What the trunk and the heads read of a text: plain Python and numpy, at training as at serving.

A word is its own key and those of its character 3- to 5-grams, all hashed by CRC-32. The trunk
knows the keys it saw often enough in training (`rows`); the linear heads read every key, hashed to
16 k buckets and weighted by TF-IDF. Digits count by their shape alone ("7:30" is "0:00").
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from govor.text import Word, words

UNKNOWN = 1  # the row of a word, or gram, that the trunk does not know; row 0 is padding
FIRST_ROW = 2
MAX_GRAMS = 32
MAX_WORD = 40
MAX_WORDS = 128  # what the trunk reads of a text: over three times the longest in training
CACHED_WORDS = 50_000

_DIGIT = re.compile(r"\d")


@dataclass(frozen=True, slots=True)
class Encoded:
    """A text as the model takes it.

    `rows` holds, for each word, its rows of the trunk's table: the word's own first, then its
    grams'. `buckets` and `weights` are the sparse TF-IDF vector of unit length.
    """

    words: tuple[Word, ...]
    rows: tuple[tuple[int, ...], ...]
    buckets: NDArray[np.int32]
    weights: NDArray[np.float32]


def keys_of(word: str) -> tuple[int, ...]:
    """The CRC-32 keys of a word: the whole first, then its character 3- to 5-grams."""
    marked = f"<{_DIGIT.sub('0', word[:MAX_WORD])}>"
    grams = dict.fromkeys(
        marked[start : start + size]
        for size in (3, 4, 5)
        for start in range(len(marked) - size + 1)
        if size < len(marked)
    )
    # A word never equals a gram: it carries a mark of its own.
    return tuple(crc32(text.encode()) for text in (f"={marked}", *grams))


class Features:
    """The vocabulary of a model version, and the encoder that uses it."""

    def __init__(self, keys: Sequence[int], idf: NDArray[np.float32]) -> None:
        self.keys = np.asarray(keys, dtype="<u4")
        self.idf = idf
        self._rows = {int(key): row for row, key in enumerate(self.keys, FIRST_ROW)}
        self._cache: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}

    @property
    def size(self) -> int:
        """Rows of the trunk's table."""
        return FIRST_ROW + len(self.keys)

    def encode(self, text: str) -> Encoded:
        """`text` as the model takes it."""
        found = words(text)
        buckets, weights = self._tfidf(found)
        read = tuple(found[:MAX_WORDS])
        return Encoded(read, tuple(self.rows(word.text) for word in read), buckets, weights)

    def rows(self, word: str) -> tuple[int, ...]:
        """The rows of a word; those of unknown grams are left out."""
        return self._word(word)[0]

    def _word(self, word: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        cached = self._cache.get(word)
        if cached is None:
            whole, *grams = keys_of(word)
            known = [row for key in grams if (row := self._rows.get(key))][:MAX_GRAMS]
            rows = (self._rows.get(whole, UNKNOWN), *known)
            cached = rows, tuple(key % len(self.idf) for key in (whole, *grams))
            if len(self._cache) >= CACHED_WORDS:
                self._cache.clear()
            self._cache[word] = cached
        return cached

    def _tfidf(self, found: Sequence[Word]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        counts: dict[int, int] = {}
        for bucket in self._buckets(found):
            counts[bucket] = counts.get(bucket, 0) + 1
        buckets = np.fromiter(counts.keys(), np.int32, len(counts))
        terms = np.fromiter(counts.values(), np.float32, len(counts))
        weights = (1 + np.log(terms)) * self.idf[buckets]
        length = math.sqrt(float(weights @ weights)) or 1.0
        return buckets, (weights / length).astype(np.float32)

    def _buckets(self, found: Sequence[Word]) -> list[int]:
        buckets = [bucket for word in found for bucket in self._word(word.text)[1]]
        texts = [word.text for word in found]
        pairs = zip(["<s>", *texts], [*texts, "</s>"], strict=True)
        buckets += [crc32(f"{a} {b}".encode()) % len(self.idf) for a, b in pairs]
        return buckets

    def save(self, path: Path) -> None:
        """Writes `features.json`."""
        body = {
            "keys": base64.b64encode(self.keys.tobytes()).decode(),
            "idf": base64.b64encode(self.idf.astype("<f2").tobytes()).decode(),
        }
        path.write_text(json.dumps(body) + "\n")

    @classmethod
    def load(cls, path: Path) -> Features:
        """Reads `features.json`."""
        body: Mapping[str, Any] = json.loads(path.read_text())
        keys = np.frombuffer(base64.b64decode(body["keys"]), "<u4")
        idf = np.frombuffer(base64.b64decode(body["idf"]), "<f2").astype(np.float32)
        return cls(keys.tolist(), idf)


def document_frequencies(texts: Sequence[str], buckets: int) -> NDArray[np.float32]:
    """Smoothed inverse document frequencies of the hashed terms, as scikit-learn's `smooth_idf`."""
    counter = Features([], np.ones(buckets, np.float32))
    seen = np.zeros(buckets, np.float32)
    for text in texts:
        seen[counter.encode(text).buckets] += 1
    idf = np.log((1 + len(texts)) / (1 + seen)) + 1
    # Half precision on disk: the same numbers at training and at serving.
    return idf.astype(np.float16).astype(np.float32)

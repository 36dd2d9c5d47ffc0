"""N-gram language models: Witten-Bell estimates, mixtures, ARPA files, and pocketsphinx's own.

Probabilities are plain numbers, not logarithms, until they are written.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

BEGIN, END = "<s>", "</s>"

NGram = tuple[str, ...]


@dataclass(frozen=True)
class NGrams:
    """A back-off model. `probabilities` lists p(w|h) by `(*h, w)`, all orders together; what is not
    listed is `backoff[h]` times the same of the shorter history. `<s>` is a history alone.
    """

    probabilities: Mapping[NGram, float]
    backoff: Mapping[NGram, float]

    def probability(self, ngram: NGram) -> float:
        """Of the last word after the others; 0 for a word that the model does not know."""
        listed = self.probabilities.get(ngram)
        if listed is not None:
            return listed
        if len(ngram) == 1:
            return 0.0
        return self.backoff.get(ngram[:-1], 1.0) * self.probability(ngram[1:])

    @property
    def words(self) -> list[str]:
        """What it knows, `</s>` included."""
        return [ngram[0] for ngram in self.probabilities if len(ngram) == 1]


def estimate(sentences: Iterable[str], order: int = 3) -> NGrams:
    """Witten-Bell smoothing: a history followed by T kinds of words in N places gives T/(N+T) away
    to the shorter one (Witten & Bell 1991, method C).
    """
    follows: dict[NGram, Counter[str]] = defaultdict(Counter)
    for sentence in sentences:
        words = [BEGIN, *sentence.split(), END]
        for at in range(1, len(words)):
            for length in range(min(order, at + 1)):
                follows[tuple(words[at - length : at])][words[at]] += 1
    # The unigrams give their share away evenly, to words already seen: the vocabulary is closed.
    single = follows.pop((), Counter())
    total = single.total() + len(single)
    probabilities: dict[NGram, float] = {
        (word,): (count + 1) / total for word, count in single.items()
    }
    backoff: dict[NGram, float] = {}
    model = NGrams(probabilities, backoff)
    for history in sorted(follows, key=len):
        counted = follows[history]
        kinds, mass = len(counted), counted.total() + len(counted)
        backoff[history] = kinds / mass
        for word, count in counted.items():
            shorter = model.probability((*history[1:], word))
            probabilities[(*history, word)] = (count + kinds * shorter) / mass
    return model


def mix(first: NGrams, second: NGrams, weight: float) -> NGrams:
    """`weight` x first + (1 - weight) x second, exact on every n-gram that either lists."""
    listed = sorted(first.probabilities.keys() | second.probabilities.keys(), key=len)
    probabilities = {
        ngram: weight * first.probability(ngram) + (1 - weight) * second.probability(ngram)
        for ngram in listed
    }
    return NGrams(probabilities, _backoff(probabilities))


def write_arpa(model: NGrams, path: Path) -> None:
    """The model in the text format that every recogniser reads (Doug Paul's ARPA, log10)."""
    orders: dict[int, list[NGram]] = defaultdict(list)
    for ngram in sorted({*model.probabilities, (BEGIN,)}):
        orders[len(ngram)].append(ngram)
    lines = ["\\data\\", *(f"ngram {n}={len(orders[n])}" for n in sorted(orders))]
    for order in sorted(orders):
        lines += ["", f"\\{order}-grams:"]
        for ngram in orders[order]:
            line = f"{_log10(model.probabilities.get(ngram, 0.0))}\t{' '.join(ngram)}"
            if order < max(orders):
                line += f"\t{_log10(model.backoff.get(ngram, 1.0))}"
            lines.append(line)
    path.write_text("\n".join([*lines, "", "\\end\\", ""]), encoding="utf-8")


def _log10(probability: float) -> str:
    return f"{math.log10(probability):.4f}" if probability > 0 else "-99.0000"


def _backoff(probabilities: Mapping[NGram, float]) -> dict[NGram, float]:
    """The weights by which the probabilities after each history sum to 1."""
    backoff: dict[NGram, float] = {}
    model = NGrams(probabilities, backoff)
    longer = [ngram for ngram in probabilities if len(ngram) > 1]
    for order in sorted({len(ngram) for ngram in longer}):
        taken: dict[NGram, float] = defaultdict(float)
        shorter: dict[NGram, float] = defaultdict(float)
        for ngram in longer:
            if len(ngram) == order:
                taken[ngram[:-1]] += probabilities[ngram]
                shorter[ngram[:-1]] += model.probability(ngram[1:])
        for history, mass in taken.items():
            backoff[history] = max(1 - mass, 1e-9) / max(1 - shorter[history], 1e-9)
    return backoff


def read_general(path: Path, known: frozenset[str], words: int, bigrams: int) -> NGrams:
    """The `words` most frequent words of a language model in pocketsphinx's binary form that are
    also in `known`, with the `bigrams` bigrams among them that say most.

    A bigram says p(h, w) log(p(w|h) / backed-off p(w|h)): what the model loses without it, as in
    Stolcke's entropy pruning (1998) with the weights left as they are.
    """
    vocabulary, log_unigrams, log_backoff, histories, lasts, log_bigrams = _read_trie(path)
    usable = np.array([word in known for word in vocabulary])
    edges = np.isin(vocabulary, [BEGIN, END])
    ranked = np.argsort(np.where(usable & ~edges, -log_unigrams, np.inf))[:words]
    kept = np.isin(np.arange(len(vocabulary)), ranked) | edges
    pairs = np.flatnonzero(kept[histories] & kept[lasts])
    before, after, log_p = histories[pairs], lasts[pairs], log_bigrams[pairs]
    begin, end = vocabulary.index(BEGIN), vocabulary.index(END)
    frequency = np.where(before == begin, log_unigrams[end], log_unigrams[before])
    gain = 10 ** (frequency + log_p) * (log_p - log_backoff[before] - log_unigrams[after])
    chosen = np.argsort(-gain, kind="stable")[:bigrams]

    single: dict[NGram, float] = {
        (vocabulary[i],): float(10 ** log_unigrams[i]) for i in [*ranked, end]
    }
    total = sum(single.values())
    probabilities: dict[NGram, float] = {w: p / total for w, p in single.items()}
    for h, w, p in zip(before[chosen], after[chosen], 10 ** log_p[chosen], strict=True):
        probabilities[vocabulary[h], vocabulary[w]] = float(p)
    return NGrams(probabilities, _backoff(probabilities))


_Array = npt.NDArray[np.float64]
_Index = npt.NDArray[np.int64]


def _read_trie(path: Path) -> tuple[list[str], _Array, _Array, _Index, _Index, _Array]:
    """Words, log10 of unigrams and back-offs, and the bigrams as histories, words, log10.

    The layout is that of pocketsphinx's `lm_trie.c`: counts, quantisation tables, unigrams, then
    records of bits, a word's possible predecessors together; `NGramModel.write` would be the way,
    but it crashes (5.1.1).
    """
    data = path.read_bytes()
    magic = b"Trie Language Model"
    if not data.startswith(magic) or data[len(magic)] != 3:
        raise ValueError(f"{path.name} is no trigram model in pocketsphinx's binary form")
    at = len(magic) + 1
    counts = np.frombuffer(data, "<u4", 3, at).astype(np.int64)
    at += 3 * 4 + 4
    bins = np.frombuffer(data, "<f4", 3 << 16, at)  # bigrams, their back-offs, trigrams
    at += bins.nbytes
    heads = np.frombuffer(data, [("p", "<f4"), ("b", "<f4"), ("next", "<u4")], counts[0] + 1, at)
    at += heads.nbytes
    word_bits, next_bits = int(counts[0]).bit_length(), int(counts[2]).bit_length()
    width = word_bits + 32 + next_bits
    size = ((1 + counts[1]) * width + 7) // 8 + 8
    records = np.frombuffer(data, np.uint8, size, at)
    # After the bigrams and trigrams: the length of the word list, and the list.
    at += size + ((1 + counts[2]) * (word_bits + 16) + 7) // 8 + 8 + 4
    words = [word.decode() for word in data[at:].split(b"\0")[: counts[0]]]

    first = np.arange(counts[1]) * width
    histories = _bits(records, first, word_bits)
    quantised = _bits(records, first + word_bits + 16, 16)
    begins: _Index = heads["next"].astype(np.int64)
    lasts = np.repeat(np.arange(counts[0]), begins[1:] - begins[:-1])
    unit = math.log10(1.0001)  # the base of sphinx's logarithms
    return (
        words,
        heads["p"][:-1].astype(float) * unit,
        heads["b"][:-1].astype(float) * unit,
        histories[: len(lasts)],
        lasts,
        bins[quantised[: len(lasts)]].astype(float) * unit,
    )


def _bits(data: npt.NDArray[np.uint8], first: _Index, width: int) -> _Index:
    """Little-endian fields of up to 25 bits that begin at the bits `first`."""
    value = np.zeros(len(first), np.int64)
    for byte in range(4):
        value |= data[(first >> 3) + byte].astype(np.int64) << 8 * byte
    return value >> (first & 7) & (1 << width) - 1

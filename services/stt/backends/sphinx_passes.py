"""The three passes of pocketsphinx over one utterance; runs in a worker process.

1. The grammar of the domain's utterances finds the likeliest of them, whatever was said.
2. An n-gram of the same sentences, free to order words as it likes, is the witness. The sentence
   was said when the two sound alike and the sentence fits the sound: see `_trust`.
3. If not, an n-gram mixed with general English writes down what it can. Versions for languages
   without a general model have no third pass, and what is rejected stays empty.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pocketsphinx
from numpy.typing import NDArray

from services.stt.backends import Heard, Samples, Word
from services.stt.backends.cepstra import FRAMES_PER_SECOND, MARGIN_SECONDS, cepstra

CHUNK_FRAMES = 20
"""Decoded between two looks at whether anybody still waits: 200 ms of audio, 10 to 60 ms of CPU."""
ACCEPTED = 0.5
"""Probability from which a sentence is taken for said."""

# Wide beams and no second search: 98.7 % of 78 prompts right instead of 93.5 with the defaults.
_GRAMMAR = {"bestpath": False, "beam": 1e-70, "pbeam": 1e-70, "wbeam": 1e-50}
# The flat second search would take all its time at the end, where nobody can stop it; without it
# the look-ahead of phones must go too, or 5.1.1 crashes.
_NGRAM: dict[str, Any] = {"fwdflat": False, "pl_window": 0}
_WITNESS = _NGRAM | {"lw": 11.0}
"""The weight of the sentences against the sound: of 139 prompts 97.8 % are accepted, 96.4 with the
default of 6.5 or with 14; of 60 other sentences none with any. Where the phones are another
language's it stays at the default: the Russian horoscope pack took 20 % of other sentences for its
own with 11, and 8 % with 6.5.
"""
_GENERAL = _NGRAM | {"lw": 8.5}
"""Held out, two of five folds: a word error rate of 0.76 of the domain's n-gram, 0.79 with 6.5."""
_SCORE_UNIT = 1 << 10  # the engine shortens its logarithms by so much
_NO_MEAN = ",".join(["0"] * 13)


class Passes:
    """The decoders of one domain."""

    def __init__(self, folder: Path, domain: str) -> None:
        def decoder(dictionary: str, **options: Any) -> Decoder:
            return Decoder(folder / f"{domain}.{dictionary}", **options)

        self.grammar = decoder("dict", lm=None, fsg=str(folder / f"{domain}.fsg"), **_GRAMMAR)
        self.general = None
        witness = _NGRAM
        if (folder / f"{domain}.open.arpa").is_file():
            witness = _WITNESS
            self.general = decoder("open.dict", lm=str(folder / f"{domain}.open.arpa"), **_GENERAL)
        self.witness = decoder("dict", lm=str(folder / f"{domain}.arpa"), **witness)

    def recognise(self, samples: Samples, chunk: Callable[[], None]) -> Heard:
        """Calls `chunk` before each piece of work; what it raises ends the utterance."""
        frames = cepstra(samples)
        phrase = self.grammar.decode(frames, chunk)
        if phrase.words:
            witness = self.witness.decode(frames, chunk)
            trust = _trust(phrase, witness)
            if trust >= ACCEPTED:
                return Heard("phrase", _confirmed(phrase.words, witness.words, trust), trust)
        words = self.general.decode(frames, chunk).words if self.general else ()
        if not words:
            return Heard()
        return Heard("open", words, sum(word.confidence for word in words) / len(words))


@dataclass(frozen=True, slots=True)
class Decoded:
    """The likeliest words and their phones. `loss` is how much worse they fit a frame of their
    sound than the phone that fits it best, in nats; what bridges pauses counts too."""

    words: tuple[Word, ...] = ()
    phones: tuple[str, ...] = ()
    loss: float = math.inf


class Decoder:
    """One search of pocketsphinx over one dictionary."""

    def __init__(self, dictionary: Path, **options: Any) -> None:
        self._decoder = pocketsphinx.Decoder(dict=str(dictionary), loglevel="FATAL", **options)

    def decode(self, frames: NDArray[np.float32], chunk: Callable[[], None]) -> Decoded:
        """What is said in frames of cepstra [frames, 13] whose mean is 0."""
        decoder = self._decoder
        decoder.set_cmn(_NO_MEAN)  # else it would subtract the utterance before
        decoder.start_utt()
        try:
            for at in range(0, len(frames), CHUNK_FRAMES):
                chunk()
                decoder.process_cep(frames[at : at + CHUNK_FRAMES].tobytes())
        finally:
            decoder.end_utt()
        best = decoder.hyp()
        if best is None:
            return Decoded()
        # <s>, <sil>, [NOISE] and (NULL) are no words.
        said = [segment for segment in decoder.seg() if segment.word[0] not in "<[("]
        length = sum(segment.end_frame + 1 - segment.start_frame for segment in said)
        if not length:
            return Decoded()
        return Decoded(
            tuple(map(_word, said)),
            tuple(" ".join(decoder.lookup_word(segment.word) for segment in said).split()),
            -math.log(best.score) * _SCORE_UNIT / length,
        )


def in_common(first: Sequence[str], second: Sequence[str]) -> list[bool]:
    """Which words of `first` are in the longest common subsequence of the two."""
    lengths = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i in reversed(range(len(first))):
        for j in reversed(range(len(second))):
            if first[i] == second[j]:
                lengths[i][j] = lengths[i + 1][j + 1] + 1
            else:
                lengths[i][j] = max(lengths[i + 1][j], lengths[i][j + 1])
    found, i, j = [False] * len(first), 0, 0
    while i < len(first) and j < len(second):
        if first[i] == second[j]:
            found[i], i, j = True, i + 1, j + 1
        elif lengths[i + 1][j] >= lengths[i][j + 1]:
            i += 1
        else:
            j += 1
    return found


def _trust(phrase: Decoded, witness: Decoded) -> float:
    """The probability that the sentence of the grammar was said: the less the two sound alike, the
    better it has to fit.

    A logistic regression; on 504 sentences of packs by espeak-ng and digits by people, it accepts
    91 %, and of 842 other utterances 8 % (agreement in half of the words: 88 and 13). See ADR 73.
    """
    longest = max(len(phrase.phones), len(witness.phones))
    alike = sum(in_common(phrase.phones, witness.phones)) / longest
    return 1 / (1 + math.exp(0.9 * phrase.loss - 4.5 * alike - 3.15))


def _confirmed(phrase: Sequence[Word], witness: Sequence[Word], trust: float) -> tuple[Word, ...]:
    """The words of an accepted sentence: sure where the witness heard them too."""
    common = in_common([word.text for word in phrase], [word.text for word in witness])
    return tuple(
        Word(word.text, word.start, word.end, 1.0 if sure else trust)
        for word, sure in zip(phrase, common, strict=True)
    )


def _word(segment: Any) -> Word:
    """A segment in seconds of the utterance without its margins; `text(2)` is a variant."""
    start = segment.start_frame / FRAMES_PER_SECOND - MARGIN_SECONDS
    end = (segment.end_frame + 1) / FRAMES_PER_SECOND - MARGIN_SECONDS
    text = segment.word.partition("(")[0]
    return Word(text, max(start, 0.0), max(end, 0.0), min(max(segment.prob, 0.0), 1.0))

"""How words sound, in the forty phones (ARPAbet) of the recogniser's acoustic model.

English words are looked up in the CMU dictionary that pocketsphinx brings; others, and all Russian
ones, are read by espeak-ng and its IPA is mapped. Russian through English phones is a makeshift
that holds for closed lists of phrases.
"""

from __future__ import annotations

import ctypes.util
import subprocess
import sys
from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path

Pronunciations = dict[str, list[str]]
"""Word -> its pronunciations, each a string of phones, the usual one first."""

VOICES = {"en": "en-us", "ru": "ru"}

# Longest first, so that an affricate is not taken for its stop. What is not listed (stress, length,
# palatalisation) has no counterpart.
_IPA = {
    # diphthongs, vowels with r, affricates
    "aɪ": "AY", "aʊ": "AW", "eɪ": "EY", "oʊ": "OW", "əʊ": "OW", "ɔɪ": "OY", "ɔːɹ": "AO R",
    "oːɹ": "AO R", "ɜː": "ER", "ɚ": "ER", "əl": "AH L", "tʃ": "CH", "tɕ": "CH", "dʒ": "JH",
    "dʑ": "JH", "ts": "T S",
    # vowels
    "a": "AA", "ɑ": "AA", "ɒ": "AA", "æ": "AE", "ʌ": "AH", "ə": "AH", "ɐ": "AH", "ɔ": "AO",
    "o": "AO", "e": "EH", "ɛ": "EH", "ɜ": "ER", "ɪ": "IH", "ᵻ": "IH", "ɨ": "IH", "y": "IH",
    "i": "IY", "ʊ": "UH", "ɵ": "UH", "u": "UW", "ʉ": "UW",
    # consonants
    "b": "B", "d": "D", "ð": "DH", "f": "F", "ɡ": "G", "g": "G", "h": "HH", "x": "HH", "ç": "HH",
    "ɣ": "HH", "j": "Y", "k": "K", "l": "L", "ɫ": "L", "ɭ": "L", "m": "M", "n": "N", "ŋ": "NG",
    "p": "P", "r": "R", "ɹ": "R", "ɾ": "D", "s": "S", "ʃ": "SH", "ɕ": "SH", "ʂ": "SH", "t": "T",
    "ʔ": "T", "θ": "TH", "v": "V", "w": "W", "z": "Z", "ʒ": "ZH", "ʑ": "ZH", "ʐ": "ZH",
}  # fmt: skip
_LONGEST = max(map(len, _IPA))


def pronounce(words: Collection[str], language: str, known: Pronunciations) -> Pronunciations:
    """The pronunciations of `words`, from `known` where it has them, else by espeak-ng.

    Raises `ValueError` for words that neither can say, `RuntimeError` without espeak-ng.
    """
    found = {word: known[word] for word in words if word in known}
    unknown = sorted(set(words) - found.keys())
    for word, ipa in zip(unknown, _espeak(unknown, language), strict=True):
        found[word] = [arpabet(ipa)]
    if mute := sorted(word for word, phones in found.items() if not phones[0]):
        raise ValueError(f"no pronunciation: {', '.join(mute)}")
    return found


def arpabet(ipa: str) -> str:
    """`həlˈoʊ` -> `HH AH L OW`. Symbols without a counterpart are left out."""
    symbols = "".join(s for s in ipa if s not in "ˈˌ\u200d\u0361\u0329ʲ")
    phones, at = [], 0
    while at < len(symbols):
        for length in range(_LONGEST, 0, -1):
            if phone := _IPA.get(symbols[at : at + length]):
                phones.append(phone)
                break
        at += length
    return " ".join(phones)


def read_dictionary(path: Path) -> Pronunciations:
    """A dictionary in the CMU's form: `word PH ON ES`, variants as `word(2)`."""
    found: Pronunciations = defaultdict(list)
    for line in path.read_text(encoding="utf-8").splitlines():
        word, _, phones = line.partition(" ")
        if word:
            found[word.partition("(")[0] or word].append(phones.strip())
    return dict(found)


def write_dictionary(pronunciations: Pronunciations, path: Path) -> None:
    """Writes the CMU's form, sorted."""
    lines = []
    for word in sorted(pronunciations):
        for number, phones in enumerate(pronunciations[word], start=1):
            lines.append(f"{word} {phones}" if number == 1 else f"{word}({number}) {phones}")
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")


def _espeak(words: list[str], language: str) -> list[str]:
    """The IPA of each word, read alone, by a process of its own: espeak-ng is GPL-3 and keeps its
    state in globals."""
    if not words:
        return []
    command = [sys.executable, "-m", "trainer.pronunciations", VOICES[language]]
    done = subprocess.run(
        command,
        input="\n".join(words),
        capture_output=True,
        encoding="utf-8",
        cwd=Path(__file__).resolve().parent.parent,
    )
    if done.returncode != 0:
        raise RuntimeError(f"espeak-ng: {done.stderr.strip()[-300:]}")
    return done.stdout.splitlines()


def _read_aloud(words: Iterable[str], voice: str) -> Iterable[str]:
    library_path, data = ctypes.util.find_library("espeak-ng"), b""
    if library_path is None:
        import espeakng_loader

        library_path, data = espeakng_loader.get_library_path(), espeakng_loader.get_data_path()
        data = data.encode()
    library = ctypes.CDLL(library_path)
    library.espeak_TextToPhonemes.restype = ctypes.c_char_p
    library.espeak_Initialize(1, 0, data or None, 0)
    if library.espeak_SetVoiceByName(voice.encode()) != 0:
        raise SystemExit(f"espeak-ng has no voice {voice}")
    for word in words:
        rest = ctypes.pointer(ctypes.c_char_p(word.encode()))
        spoken = []
        while rest.contents:  # a clause at a time; 1: UTF-8 in, 2: IPA out
            spoken.append(library.espeak_TextToPhonemes(rest, 1, 2).decode())
        yield "".join(spoken).strip()


if __name__ == "__main__":
    words = sys.stdin.read().splitlines()
    sys.stdout.write("\n".join(_read_aloud(words, sys.argv[1])) + "\n")

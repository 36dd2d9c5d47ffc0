"""How well the recogniser hears: real telephone prompts, digits, and sentences nobody listed.

Everything goes through the backend that serves, detector and worker processes included, with packs
made of the collections' transcripts in a temporary folder.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import io
import json
import os
import random
import tempfile
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from jiwer import wer

from govor.domains import load_packs
from govor.repository import Repository, Version, write_manifest
from govor.templates import pack_lists
from services.stt import backends
from services.stt.backends import RATE, Backend, Heard, Samples
from services.stt.backends.cepstra import cepstra
from services.stt.backends.silero import SpeechDetector
from services.stt.backends.sphinx_passes import Decoder, Passes
from services.tts.backends import load as load_voice
from trainer.recipes import voices
from trainer.recipes.phrases import build, of_sentences, sayable

HOME = Path(__file__).resolve().parent.parent
FOLDS = 5
PAUSE_SECONDS = 1.0
WORKERS = 2


@dataclass(frozen=True)
class Said:
    """A recording and what is said in it."""

    text: str
    samples: Samples

    @property
    def words(self) -> int:
        return len(self.text.split())


@dataclass(frozen=True)
class Row:
    """A line of the table and its bar, if it has one."""

    name: str
    value: float
    least: float = -np.inf
    most: float = np.inf

    @property
    def met(self) -> bool:
        return self.least <= self.value <= self.most

    def __str__(self) -> str:
        bar = f">= {self.least:g}" if np.isfinite(self.least) else ""
        bar = f"<= {self.most:g}" if np.isfinite(self.most) else bar
        verdict = "" if not bar else "met" if self.met else "MISSED"
        return f"{self.name:<74} {self.value:7.3f}  {bar:<8} {verdict}"


def main(arguments: Sequence[str] = ()) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench quality stt", description=__doc__)
    parser.add_argument("--only", nargs="*", choices=list(CHECKS), default=list(CHECKS))
    options = parser.parse_args(arguments)
    data = Path(os.environ.get("GOVOR_DATA") or HOME.parent / "shared" / "data")
    met = True
    for name in options.only:
        for row in CHECKS[name](data):
            print(row, flush=True)
            met &= row.met
    return 0 if met else 1


# What is measured


def prompts(data: Path) -> Iterator[Row]:
    """Real prompts against a grammar of all of them; then what is in no grammar at all."""
    said = read(data / "speech" / "ivr_en")
    long, short = [p for p in said if p.words > 1], [p for p in said if p.words == 1]
    with listening({p.text for p in said}) as listener:
        heard, cost = listener.hear(long)
        yield Row(
            f"ivr_en: {len(long)} prompts of two words and more, right", right(long, heard), 0.97
        )
        yield Row("  taken for a phrase", phrases(heard))
        yield Row("  CPU-seconds a second of audio", cost, most=0.15)
        heard, _ = listener.hear(short)
        yield Row(f"ivr_en: {len(short)} prompts of one word, right", right(short, heard))
        for voice in ("flite", "espeak"):
            foreign = list(speak(massive(data, 200), voice))
            heard, cost = listener.hear(foreign)
            yield Row(
                f"massive: 200 other sentences by {voice}, a phrase", phrases(heard), most=0.1
            )
            yield Row("  CPU-seconds a second of audio, third pass included", cost, most=0.36)


def held_out(data: Path) -> Iterator[Row]:
    """Sentences that the pack lacks, by its n-gram alone and by the one mixed with English."""
    said = read(data / "speech" / "ivr_en")
    truth: list[str] = []
    alone: list[str] = []
    mixed: list[str] = []
    for fold in range(FOLDS):
        asked = [p for p in said if p.words >= 3 and _fold(p.text) == fold]
        with built({p.text for p in said if _fold(p.text) != fold}) as version:
            passes = Passes(version.folder, DOMAIN)
            truth += [p.text for p in asked]
            alone += [written(passes.witness, p) for p in asked]
            assert passes.general is not None
            mixed += [written(passes.general, p) for p in asked]
    yield Row("ivr_en held out: word error rate of the domain's n-gram", wer(truth, alone))
    yield Row("  of the interpolated n-gram", wer(truth, mixed))
    yield Row("  the second by the first", wer(truth, mixed) / wer(truth, alone), most=0.85)


def digits(data: Path) -> Iterator[Row]:
    said = read(data / "speech" / "fsdd")
    with built({p.text for p in said}) as version:
        grammar = Passes(version.folder, DOMAIN).grammar
        heard = [written(grammar, p) for p in said]
    share = float(np.mean([p.text == text for p, text in zip(said, heard, strict=True)]))
    yield Row(f"fsdd: {len(said)} digits by the grammar, right", share, 0.78)


def spoken(data: Path) -> Iterator[Row]:
    """Our own packs by our own voices."""
    for name, pack in load_packs(HOME / "domains").items():
        lists = pack_lists(pack, "en")
        rng = random.Random(0)
        samples = [template.sample(rng, lists) for _, template in pack.utterances("en")]
        plain = of_sentences(name, (s.text for s in samples if sayable(s))).sentences
        with served(
            Repository(HOME / "models", HOME / "models").open("stt-en", 1), name
        ) as listener:
            said = list(speak(plain, "flite"))
            heard, _ = listener.hear(said)
            yield Row(f"{name}: {len(said)} utterances by flite, back exactly", right(said, heard))
        replies = {
            text for reply in pack.replies.values() for text in reply.texts("en") if "{" not in text
        }
        plain = of_sentences(name, replies).sentences
        with listening(plain) as listener:
            said = list(speak(plain, "flite"))
            heard, _ = listener.hear(said)
            errors = wer([p.text for p in said], [h.text for h in heard])
            yield Row(
                f"{name}: {len(said)} canned replies by flite, word error rate", errors, most=0.1
            )


def russian(data: Path) -> Iterator[Row]:
    """Closed lists of thirty phrases, for information."""
    said = [p for p in read(data / "speech" / "ivr_ru") if p.words > 1]
    texts = sorted({p.text for p in said})
    for seed in range(3):
        chosen = set(random.Random(seed).sample(texts, 30))
        asked = [p for p in said if p.text in chosen]
        with listening(chosen, "ru") as listener:
            heard, _ = listener.hear(asked)
            yield Row(
                f"ivr_ru: list {seed} of 30 phrases, {len(asked)} prompts, right",
                right(asked, heard),
            )


CHECKS: dict[str, Callable[[Path], Iterable[Row]]] = {
    "prompts": prompts,
    "held_out": held_out,
    "digits": digits,
    "spoken": spoken,
    "russian": russian,
}

# How


DOMAIN = "bench"


@dataclass(frozen=True)
class Listener:
    """A backend with the detector in front, as the service has them."""

    backend: Backend
    detector: SpeechDetector
    domain: str

    def hear(self, said: Sequence[Said]) -> tuple[list[Heard], float]:
        """What was heard, and CPU-seconds a second of audio, worker processes included."""
        before = _cpu_seconds()
        heard = asyncio.run(self._all(said))
        seconds = sum(len(p.samples) for p in said) / RATE
        return heard, (_cpu_seconds() - before) / seconds

    async def _all(self, said: Sequence[Said]) -> list[Heard]:
        gate = asyncio.Semaphore(WORKERS)

        async def one(prompt: Said) -> Heard:
            async with gate:
                return await self._one(prompt)

        return await asyncio.gather(*map(one, said))

    async def _one(self, prompt: Said) -> Heard:
        spans = self.detector.spans(prompt.samples, PAUSE_SECONDS)
        parts = [
            await self.backend.recognise(prompt.samples[s.start : s.end], self.domain, None)
            for s in spans
        ]
        if len(parts) == 1:
            return parts[0]
        words = tuple(word for part in parts for word in part.words)
        kinds = {part.recognition for part in parts}
        return Heard(
            "open" if "open" in kinds else "phrase" if "phrase" in kinds else "none", words
        )


@contextmanager
def listening(sentences: Collection[str], language: str = "en") -> Iterator[Listener]:
    with built(sentences, language) as version, served(version, DOMAIN) as listener:
        yield listener


@contextmanager
def served(version: Version, domain: str) -> Iterator[Listener]:
    backend = backends.load(version, workers=WORKERS, max_queued=1 << 16)
    try:
        detector = SpeechDetector(Repository(HOME / "models", HOME / "models").open("vad", 1))
        yield Listener(backend, detector, domain)
    finally:
        backend.close()


@contextmanager
def built(sentences: Collection[str], language: str = "en") -> Iterator[Version]:
    """A version whose one domain is a list of sentences."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stt" / "1"
        path.mkdir(parents=True)
        build(of_sentences(DOMAIN, sentences), DOMAIN, language, path)
        manifest = write_manifest(
            path,
            model="stt",
            version=1,
            backend="sphinx",
            languages=[language],
            recipe="bench/quality_stt.py",
            licence="none",
        )
        yield Version("stt", 1, path, manifest)


def read(folder: Path) -> list[Said]:
    """A collection's recordings at the models' rate."""
    rows = map(json.loads, (folder / "transcripts.jsonl").read_text().splitlines())
    with zipfile.ZipFile(folder / "audio.zip") as archive:
        return [Said(row["text"], _resampled(archive.read(row["file"]))) for row in rows]


def speak(texts: Iterable[str], engine: str) -> Iterator[Said]:
    """Texts by the first voice of an engine of ours."""
    with tempfile.TemporaryDirectory() as folder:
        voices.run(Path(folder))
        version = Repository(Path(folder), Path(folder)).open("tts-en", 1)
        manifest = version.manifest.model_copy(update={"backend": engine})
        backend = load_voice(Version(version.model, 1, version.folder, manifest))
        try:
            for text in texts:
                pcm = backend.speak(text, next(iter(backend.voices)), 1.0) / np.float32(32768)
                yield Said(text, soxr.resample(pcm, backend.sample_rate, RATE))
        finally:
            backend.close()


def massive(data: Path, count: int) -> list[str]:
    rows = map(json.loads, (data / "nlu" / "massive" / "en_dev.jsonl").read_text().splitlines())
    texts = sorted({row["text"] for row in rows if len(row["text"].split()) > 2})
    return random.Random(0).sample(texts, count)


def written(decoder: Decoder, said: Said) -> str:
    words = decoder.decode(cepstra(said.samples), lambda: None).words
    return " ".join(word.text for word in words)


def right(said: Sequence[Said], heard: Sequence[Heard]) -> float:
    return float(np.mean([p.text == h.text for p, h in zip(said, heard, strict=True)]))


def phrases(heard: Sequence[Heard]) -> float:
    return float(np.mean([h.recognition == "phrase" for h in heard]))


def _resampled(flac: bytes) -> Samples:
    samples, rate = soundfile.read(io.BytesIO(flac), dtype="float32")
    return np.asarray(soxr.resample(samples, rate, RATE), np.float32)


def _fold(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest(), 16) % FOLDS


def _cpu_seconds() -> float:
    """Of this process and its living children (Linux)."""
    ticks = 0
    children = " ".join(p.read_text() for p in Path("/proc/self/task").glob("*/children")).split()
    for pid in [str(os.getpid()), *children]:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    raise SystemExit(main())

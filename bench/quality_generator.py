"""The bundled generator's texts: 12 signs x 5 seeds a language, through the service's own backend.

    python -m bench quality generator [--show 20] [--random-weights] [--folder models/generator/1]

Themes and days take turns. *Distinct-2* is the number of different pairs of neighbouring words
(lower case, no punctuation; not across texts) divided by the number of all pairs, over the 60
texts of a language. *Derivable* is a sentence that the phrase grammar can produce. A *copy* is a
text of the training sample, its placeholders filled alike.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from govor.config import Settings
from govor.repository import Manifest, Repository, Version, write_manifest
from services.generator.backends import load
from services.generator.backends.prompts import Asked
from services.generator.backends.sampling import Sampling
from trainer.corpus import Grammar, Pattern, fill, read_grammar, sentences
from trainer.recipes.generator import Params, sample

SEEDS = 5
DISTINCT = {"en": 0.48, "ru": 0.58}
NEAR_GRAMMAR = 0.05
DERIVABLE = 0.98
REPEATED = 0.05


@dataclass(frozen=True)
class Drawn:
    """One text and the fields that it was asked with."""

    text: str
    fields: dict[str, str]


@dataclass(frozen=True)
class Report:
    """Numbers of one language's texts; shares are of sentences or of texts."""

    texts: int
    faults: int
    """Texts too short or too long, that do not end as a sentence, or name another sign."""
    characters: tuple[int, int]
    distinct: float
    distinct_grammar: float
    derivable: float
    elsewhere: float
    """Sentences whose pattern is for another theme or day than was asked for."""
    repeated: float
    """Texts with the same pattern twice."""
    copies: int

    def missed(self, language: str) -> list[str]:
        """The bars that are not met."""
        bars = {
            "length, ending or another sign": self.faults > 0,
            f"distinct-2 < {DISTINCT.get(language, 0)}": self.distinct < DISTINCT.get(language, 0),
            "distinct-2 far from the grammar's": abs(self.distinct - self.distinct_grammar)
            > NEAR_GRAMMAR,
            "sentences not derivable": self.derivable < DERIVABLE,
            "the same pattern twice": self.repeated > REPEATED,
            "copies of the training sample": self.copies > 0,
        }
        return [name for name, missed in bars.items() if missed]


def main(arguments: Sequence[str]) -> int:
    """Prints the numbers of each language; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench quality generator")
    parser.add_argument("--show", type=int, default=0, help="texts to print, a language")
    parser.add_argument("--random-weights", action="store_true", help="what noise scores")
    parser.add_argument("--folder", type=Path, help="a version's folder; the highest bundled one")
    options, _ = parser.parse_known_args(arguments)
    settings = Settings()
    version = _version(settings, options.folder)
    corpus = settings.domains_folder / "horoscope" / "corpus"
    missed = []
    with noisy(version) if options.random_weights else nullcontext(version) as judged:
        drawn = asyncio.run(draw(judged, SEEDS))
        rows = _training_rows(version, corpus)
        for language in version.manifest.languages:
            grammar = read_grammar(corpus, language)
            texts = [text for text in drawn if text.fields["language"] == language]
            report = judge(texts, grammar, rows[language])
            _print(language, report, texts[: options.show])
            missed += [f"{language}: {name}" for name in report.missed(language)]
    print("missed:", "; ".join(missed) or "none")
    return 1 if missed else 0


def _version(settings: Settings, folder: Path | None) -> Version:
    if folder is not None:
        manifest = Manifest.model_validate_json((folder / "manifest.json").read_bytes())
        return Version(manifest.model, manifest.version, folder, manifest)
    repository = Repository(settings.repository_folder, settings.bundled_folder)
    return repository.open("generator", int(repository.deployment("generator").champion or 0))


async def draw(version: Version, seeds: int) -> list[Drawn]:
    """A text for each language, sign and seed; temperature 0.8, top-p 0.9, not streamed."""
    backend = load(version)
    fields = version.manifest.fields
    drawn = []
    try:
        for language in fields["language"]:
            for number, sign in enumerate(fields["sign"]):
                for seed in range(seeds):
                    turn = number * seeds + seed
                    asked = {
                        "language": language,
                        "sign": sign,
                        "theme": fields["theme"][turn % len(fields["theme"])],
                        "day": fields["day"][turn % len(fields["day"])],
                    }
                    sampling = Sampling(temperature=0.8, top_p=0.9, seed=turn)
                    [piece] = await backend.generate(Asked(fields=asked), sampling)
                    drawn.append(Drawn(piece.text, asked))
    finally:
        backend.close()
    return drawn


def judge(texts: Sequence[Drawn], grammar: Grammar, rows: Iterable[str]) -> Report:
    """The numbers of one language's texts; `rows` are the training sample's texts, unfilled."""
    patterns = [[grammar.pattern_of(part) for part in sentences(drawn.text)] for drawn in texts]
    found = [(part, drawn) for parts, drawn in zip(patterns, texts, strict=True) for part in parts]
    known = {pattern.id: pattern for pattern in grammar.patterns}
    elsewhere = sum(
        part is not None and _elsewhere(known[part], drawn.fields) for part, drawn in found
    )
    lengths = [len(drawn.text) for drawn in texts]
    return Report(
        texts=len(texts),
        faults=sum(_fault(drawn, grammar) for drawn in texts),
        characters=(min(lengths), max(lengths)),
        distinct=distinct_2(drawn.text for drawn in texts),
        distinct_grammar=float(np.mean([_fresh(grammar, texts, seed) for seed in range(5)])),
        derivable=sum(part is not None for part, _ in found) / len(found),
        elsewhere=elsewhere / len(found),
        repeated=sum(_repeats(parts) for parts in patterns) / len(texts),
        copies=_copies(texts, grammar, rows),
    )


def _fault(drawn: Drawn, grammar: Grammar) -> bool:
    """Looked at apart from the service's own filter, which has let the text pass."""
    limits = grammar.plan.limits
    names = limits.names.forms[grammar.language]
    own = drawn.fields[limits.names.field]
    others = {word for value, words in names.items() if value != own for word in words}
    return not (
        limits.min_chars <= len(drawn.text) <= limits.max_chars
        and drawn.text.endswith(tuple(limits.endings))
        and not others & set(re.findall(r"\w+", drawn.text.lower()))
    )


def _repeats(patterns: Sequence[str | None]) -> bool:
    known = [pattern for pattern in patterns if pattern is not None]
    return len(set(known)) < len(known)


def _elsewhere(pattern: Pattern, fields: Mapping[str, str]) -> bool:
    return any(key in fields and fields[key] not in pattern.when[key] for key in pattern.when)


def distinct_2(texts: Iterable[str]) -> float:
    """Different pairs of neighbouring words over all pairs."""
    pairs: list[tuple[str, str]] = []
    for text in texts:
        words = re.findall(r"[\w'-]+", text.lower())
        pairs += pairwise(words)
    return len(set(pairs)) / max(1, len(pairs))


def _fresh(grammar: Grammar, texts: Sequence[Drawn], seed: int) -> float:
    """Distinct-2 of the grammar's own texts for the same fields."""
    rng = random.Random(seed)
    fresh = []
    for drawn in texts:
        tones = {key: rng.choice(values) for key, values in grammar.plan.draws.items()}
        text = grammar.draw(rng, drawn.fields | tones).text
        fresh.append(fill(text, grammar.plan.fills(grammar.language, drawn.fields)))
    return distinct_2(fresh)


def _copies(texts: Sequence[Drawn], grammar: Grammar, rows: Iterable[str]) -> int:
    """Texts that are a training row, whole, once its placeholders are filled for them."""
    copied: set[str] = set()
    by_fields: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for drawn in texts:
        key = tuple(sorted(drawn.fields.items()))
        by_fields.setdefault(key, []).append(drawn.text)
    rows = list(rows)
    for key, wanted in by_fields.items():
        fills = grammar.plan.fills(grammar.language, dict(key))
        copied |= {fill(row, fills) for row in rows} & set(wanted)
    return sum(drawn.text in copied for drawn in texts)


def _training_rows(version: Version, corpus: Path) -> dict[str, list[str]]:
    """The texts that the version was trained on, by language, drawn again from its params."""
    rows, _, _ = sample(corpus, Params.model_validate(version.manifest.params))
    texts: dict[str, list[str]] = {language: [] for language in version.manifest.languages}
    for row in rows:
        language = row[2 : row.index("|>")]
        texts[language].append(re.sub(r"<\|\w+\|>", "", row))
    return texts


@contextmanager
def noisy(version: Version, seed: int = 0) -> Iterator[Version]:
    """A copy of the version whose weights are shuffled, each matrix within itself."""
    import onnx

    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / version.model / str(version.number)
        shutil.copytree(version.folder, folder)
        model = onnx.load(folder / "model.onnx")
        for tensor in model.graph.initializer:
            values = onnx.numpy_helper.to_array(tensor).flatten()
            if values.size > 1000:
                shuffled = rng.permutation(values).reshape(tuple(tensor.dims))
                tensor.CopyFrom(onnx.numpy_helper.from_array(shuffled, tensor.name))
        onnx.save(model, folder / "model.onnx")
        manifest = write_manifest(folder, **version.manifest.model_dump(exclude={"files"}))
        yield Version(version.model, version.number, folder, manifest)


def _print(language: str, report: Report, shown: Sequence[Drawn]) -> None:
    shortest, longest = report.characters
    print(
        f"{language}: {report.texts} texts of {shortest}-{longest} characters, "
        f"{report.faults} of wrong length, ending or sign\n"
        f"  distinct-2 {report.distinct:.3f} (bar {DISTINCT.get(language, 0):.2f}), "
        f"the grammar's {report.distinct_grammar:.3f} (bar +-{NEAR_GRAMMAR})\n"
        f"  derivable {report.derivable:.1%} of sentences (bar {DERIVABLE:.0%}), "
        f"for another theme or day {report.elsewhere:.1%}\n"
        f"  same pattern twice {report.repeated:.1%} of texts (bar {REPEATED:.0%}), "
        f"copies {report.copies} (bar 0)"
    )
    for drawn in shown:
        print(f"  [{' '.join(drawn.fields.values())}] {drawn.text}")

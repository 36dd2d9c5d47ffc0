"""What the recogniser needs of a domain pack: a grammar of its utterances, an n-gram of the same
sentences, their words' pronunciations; in English also the n-gram mixed with general English.

`python -m trainer.recipes.phrases --domain X` publishes and deploys versions with the pack as it is
now, the other domains' files copied from the champion; `--out models` writes the bundled ones.
"""

from __future__ import annotations

import argparse
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from govor.config import Settings
from govor.database import record_deployment
from govor.domains import Pack, load_pack, load_packs
from govor.errors import Conflict
from govor.repository import Dataset, Record, Repository, Version, deploy, write_manifest
from govor.templates import Sample, Template, pack_lists, parse, to_jsgf
from trainer.automata import compile_jsgf, write_fsg
from trainer.ngrams import NGrams, estimate, mix, read_general, write_arpa
from trainer.pronunciations import Pronunciations, pronounce, read_dictionary, write_dictionary

LANGUAGES = ("en", "ru")
SENTENCES = 100
"""Sentences of one template that the n-gram learns from: enough for its longest list of values."""
GENERAL_WORDS, GENERAL_BIGRAMS = 10_000, 100_000
"""Size of the general model: 3.2 MB a domain and 14 MB in each process. All 72,544 words take five
times that and hear no better; twice the words make 3 % fewer errors (ADR 72)."""
DOMAIN_WEIGHT = 0.7
"""The domain's share in the mixture: word error rate, held out, 0.743 of the domain's own n-gram;
0.3 gives 0.799 (two of five folds of the English prompts)."""

_WORD = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*")
_RULES = re.compile(r"^.*?=|<[^>]*>", re.MULTILINE)

GENERAL_SOURCES = [
    Dataset(
        name="CMU pronouncing dictionary",
        source="pocketsphinx 5.1.1 (PyPI), cmudict-en-us.dict",
        licence="BSD-2-Clause",
    ),
    Dataset(
        name="CMU Sphinx US English language model",
        source="pocketsphinx 5.1.1 (PyPI), en-us.lm.bin",
        licence="BSD-2-Clause",
    ),
]


@dataclass(frozen=True)
class Phrases:
    """What may be said: a JSGF grammar, and sentences of it."""

    grammar: str
    sentences: Sequence[str]


def of_pack(pack: Pack, language: str) -> Phrases:
    """A pack's utterances, the values that it may ask for, said alone, and its buttons."""
    lists = pack_lists(pack, language)
    templates = [template for _, template in pack.utterances(language)]
    templates += [parse(f"{{{entity}}}") for entity in lists if lists[entity]]
    templates += map(parse, _spoken(_titles(pack, language)))
    samples = (sample for template in templates for sample in template.expand(lists, SENTENCES))
    sentences = (sample.text for sample in samples if sayable(sample))
    return Phrases(to_jsgf(pack.name, templates, lists), list(_spoken(sentences)))


def sayable(sample: Sample) -> bool:
    """Whether each of its values has words: "♌" has none."""
    return all(_words(sample.text[span.start : span.end]) for span in sample.spans)


def of_sentences(name: str, sentences: Iterable[str]) -> Phrases:
    """A closed list of sentences."""
    spoken = sorted(set(_spoken(sentences)))
    templates: list[Template] = [parse(sentence) for sentence in spoken]
    return Phrases(to_jsgf(name, templates, {}), spoken)


def build(phrases: Phrases, domain: str, language: str, folder: Path) -> dict[str, int]:
    """Writes the files of one domain into `folder`; says how many words and sentences it has."""
    words = set(_words(_RULES.sub(" ", phrases.grammar.partition(";")[2])))
    words.update(word for sentence in phrases.sentences for word in sentence.split())
    known = _english_words() if language == "en" else {}
    pronunciations = pronounce(words, language, known)
    ngram = estimate(phrases.sentences)
    write_fsg(compile_jsgf(phrases.grammar), domain, folder / f"{domain}.fsg")
    write_dictionary(pronunciations, folder / f"{domain}.dict")
    write_arpa(ngram, folder / f"{domain}.arpa")
    if language == "en":
        general = general_english()
        write_arpa(mix(ngram, general, DOMAIN_WEIGHT), folder / f"{domain}.open.arpa")
        everyday = {word: known[word] for word in general.words if word in known}
        write_dictionary(everyday | pronunciations, folder / f"{domain}.open.dict")
    return {"words": len(words), "sentences": len(phrases.sentences)}


def write(packs: Iterable[Pack], language: str, folder: Path, parent: Version | None = None) -> Any:
    """Writes the files of `packs`, copies `parent`'s other domains; the manifest's fields."""
    domains: dict[str, Any] = {}
    datasets: list[Dataset] = []
    packs = [pack for pack in packs if language in pack.languages]
    if parent is not None:
        made = {pack.name for pack in packs}
        domains = {k: v for k, v in parent.manifest.params["domains"].items() if k not in made}
        datasets = [d for d in parent.manifest.datasets if d.name in domains]
        for name in parent.names():
            if name.partition(".")[0] in domains:
                shutil.copyfile(parent.path(name), folder / name)
    for pack in packs:
        counts = build(of_pack(pack, language), pack.name, language, folder)
        domains[pack.name] = {"digest": pack.digest, "languages": list(pack.languages)} | counts
        datasets.append(
            Dataset(
                name=pack.name,
                source=f"the domain pack {pack.name}",
                licence="Apache-2.0",
                digest=pack.digest,
            )
        )
    return {
        "backend": "sphinx",
        "languages": [language],
        "recipe": "trainer/recipes/phrases.py",
        "description": "Sentences of domain packs for pocketsphinx",
        "params": {"domains": domains, "domain_weight": DOMAIN_WEIGHT},
        "datasets": datasets + (GENERAL_SOURCES if language == "en" else []),
        "parent": parent.number if parent else None,
        "licence": "Apache-2.0 AND BSD-2-Clause" if language == "en" else "Apache-2.0",
    }


def publish(pack: Pack, repository: Repository, record: Record | None = None) -> list[Version]:
    """A new version with the pack for each of its languages, deployed; again if somebody else
    deployed meanwhile."""
    return [
        _publish(pack, language, repository, record)
        for language in LANGUAGES
        if language in pack.languages
    ]


def run(packs: Iterable[Pack], out: Path) -> None:
    """Writes `<out>/stt-<language>/1` with all packs."""
    packs = list(packs)
    for language in LANGUAGES:
        folder = out / f"stt-{language}" / "1"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        fields = write(packs, language, folder)
        write_manifest(folder, model=f"stt-{language}", version=1, **fields)


def _publish(pack: Pack, language: str, repository: Repository, record: Record | None) -> Version:
    model = f"stt-{language}"
    while True:
        deployment = repository.deployment(model)
        champion = repository.open(model, deployment.champion) if deployment.champion else None
        with tempfile.TemporaryDirectory() as folder:
            fields = write([pack], language, Path(folder), champion)
            version = repository.publish(model, Path(folder), **fields)
        try:
            deploy(repository, model, {"champion": version.number}, deployment.generation, record)
        except Conflict:
            continue
        return version


@cache
def _english_words() -> Pronunciations:
    return read_dictionary(_pocketsphinx() / "cmudict-en-us.dict")


@cache
def general_english() -> NGrams:
    """What people say in English at large, as far as pocketsphinx's own model knows."""
    model = _pocketsphinx() / "en-us.lm.bin"
    return read_general(model, frozenset(_english_words()), GENERAL_WORDS, GENERAL_BIGRAMS)


def _pocketsphinx() -> Path:
    import pocketsphinx

    return Path(pocketsphinx.get_model_path()) / "en-us"


def _spoken(sentences: Iterable[str]) -> Iterator[str]:
    """The sentences in lower-case words; those with digits are left out: nobody says a digit."""
    for sentence in sentences:
        words = " ".join(_words(sentence))
        if words and not any(ch.isdigit() for ch in sentence):
            yield words


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower().replace("’", "'"))


def _titles(pack: Pack, language: str) -> Iterator[str]:
    """What is written on the buttons of its menus."""
    for menu in pack.menus.values():
        for button in (button for row in menu.buttons for button in row):
            if language in button.title:
                yield button.title[language]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--domain", help="publish and deploy one pack")
    parser.add_argument("--out", type=Path, help="write all packs as the bundled versions")
    options = parser.parse_args()
    settings = Settings()
    if options.out:
        run(load_packs(settings.domains_folder).values(), options.out)
    elif options.domain:
        pack = load_pack(settings.domains_folder / options.domain)
        repository = Repository(settings.repository_folder, settings.bundled_folder)
        for version in publish(pack, repository, partial(record_deployment, settings.database)):
            print(f"{version.model} version {version.number} serves {pack.name}")
    else:
        parser.error("name a --domain, or a folder to write to with --out")


if __name__ == "__main__":
    main()

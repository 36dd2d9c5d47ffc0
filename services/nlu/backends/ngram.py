"""Our own small bilingual model: one trunk on onnxruntime, a linear head a domain in numpy."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from govor.batching import Batcher, Observe
from govor.config import Device
from govor.entities import EntityFinder, Found
from govor.errors import NotFound
from govor.onnx import ModelRefused
from govor.repository import Version, VersionBroken
from govor.text import language_of
from services.nlu.backends import Parsed
from services.nlu.backends.features import Encoded, Features
from services.nlu.backends.heads import Head
from services.nlu.backends.tagger import spans
from services.nlu.backends.trunk import Read, Trunk

RANKED = 10
# What a text costs on the event loop grows with it; longer ones are encoded in a thread.
INLINE_CHARS = 500


@dataclass(frozen=True)
class Domain:
    """A head and the finder of its entities."""

    head: Head
    finder: EntityFinder


class Ngram:
    """A loaded version: trunk, features, and the heads of its domains."""

    def __init__(
        self,
        version: Version,
        *,
        threads: int = 1,
        device: Device = "cpu",
        max_batch: int = 16,
        max_queued: int = 512,
        observe: Observe | None = None,
    ) -> None:
        try:
            self._features = Features.load(version.path("features.json"))
            self._trunk = Trunk(version.path("trunk.onnx"), threads, device)
            self._domains = {
                name: _open(version, name, self._trunk.pooled_width) for name in domains_of(version)
            }
            self._trunk.read([self._features.encode("is it warm")])
        except (ModelRefused, KeyError, ValueError, OSError) as error:
            raise VersionBroken(f"{version.model} {version.number}: {error!r}") from error
        self._batcher: Batcher[Encoded, Read] = Batcher(
            self._trunk.read,
            name=f"{version.model} {version.number}",
            max_batch=max_batch,
            max_queued=max_queued,
            length=lambda text: len(text.rows),
            observe=observe,
        )

    @property
    def alive(self) -> bool:
        return self._batcher.alive

    async def understand(
        self,
        texts: Sequence[str],
        domain: str,
        language: str | None = None,
        deadline: float | None = None,
    ) -> list[Parsed]:
        chosen = self._domains.get(domain)
        if chosen is None:
            raise NotFound(
                f"the model knows no domain {domain}; `python -m trainer.recipes.intents "
                f"--domain {domain}` makes its head",
                code="domain_not_found",
                param="domain",
            )
        languages = chosen.head.languages
        if language is not None and language not in languages:
            raise NotFound(
                f"{domain} speaks {', '.join(languages)}, not {language}",
                code="language_not_found",
                param="language",
            )
        spoken = [language or language_of(text, languages) for text in texts]
        if sum(map(len, texts)) > INLINE_CHARS:
            prepared = await asyncio.to_thread(self._prepare, texts, spoken, chosen)
        else:
            prepared = self._prepare(texts, spoken, chosen)
        encoded, found = prepared
        reads = await self._batcher.submit_many(encoded, deadline)
        return [
            _decide(chosen.head, text, *parts)
            for text, parts in zip(
                texts, zip(encoded, reads, spoken, found, strict=True), strict=True
            )
        ]

    def close(self) -> None:
        self._batcher.close()

    def _prepare(
        self, texts: Sequence[str], spoken: Sequence[str], domain: Domain
    ) -> tuple[list[Encoded], list[list[Found]]]:
        """All that needs no model."""
        found = [
            domain.finder.find(text, language) for text, language in zip(texts, spoken, strict=True)
        ]
        return [self._features.encode(text) for text in texts], found


def domains_of(version: Version) -> list[str]:
    """The domains that a version has heads for."""
    names = version.names(".safetensors")
    return [n.removeprefix("heads/").removesuffix(".safetensors") for n in names]


def _open(version: Version, domain: str, pooled: int) -> Domain:
    folder = version.path(f"heads/{domain}.json").parent
    head = Head.load(folder, domain)
    if head.weights.shape[0] != len(head.labels) + head.background or len(head.bias) != len(
        head.weights
    ):
        raise ValueError(f"the head of {domain} does not fit its labels")
    if head.weights.shape[1] <= pooled:
        raise ValueError(f"the head of {domain} does not fit the trunk")
    return Domain(head, EntityFinder(head.entities))


def _decide(
    head: Head, text: str, encoded: Encoded, read: Read, language: str, found: Sequence[Found]
) -> Parsed:
    entities = [*found, *_tagged(head, text, encoded, read)]
    if not encoded.words:
        return Parsed(language, (), True, tuple(entities))
    scores = head.scores(encoded, read.pooled)
    confidences = head.confidences(scores)[: len(head.labels)]
    best = sorted(zip(head.labels, confidences.tolist(), strict=True), key=lambda pair: -pair[1])
    out_of_scope = bool(head.margin(scores) < head.threshold)
    return Parsed(language, tuple(best[:RANKED]), out_of_scope, tuple(entities))


def _tagged(head: Head, text: str, encoded: Encoded, read: Read) -> list[Found]:
    """The slots that the head's own tagger sees, as they stand in the text."""
    if head.tagger is None:
        return []
    found = []
    for name, first, last in spans(head.tagger.tag(read.states)):
        start, end = encoded.words[first].start, encoded.words[last - 1].end
        found.append(Found(name, text[start:end], start, end, 1.0))
    return found

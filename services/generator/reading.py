"""Which fields of a version a text names, by the entities of a domain pack."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from govor.domains import Collect, Pack, load_pack, walk
from govor.entities import EntityFinder, spec_of
from govor.text import language_of
from services.generator.backends.prompts import Declared, fields_found


class Reader:
    """Reads texts as the pack's flows do: a field is filled by its entity, or by the value in whose
    days a date falls that a flow takes it from."""

    def __init__(self, pack: Pack) -> None:
        self._entities = pack.entities
        self._finder = EntityFinder(spec_of(pack))
        steps = (step for flow in pack.flows.values() for step in walk(flow.steps))
        self._collects = [step for step in steps if isinstance(step, Collect)]

    def fields(self, text: str, declared: Declared, language: str | None) -> dict[str, str]:
        """What `text` says of the declared fields. Its language is told by its script when it is
        not given."""
        if "language" in declared:
            language = language or language_of(text, declared["language"])
            return {**self._named(text, language, declared), "language": language}
        return self._named(text, language or "", declared)

    def _named(self, text: str, language: str, declared: Declared) -> dict[str, str]:
        found = [(item.entity, item.value) for item in self._finder.find(text, language)]
        return fields_found([*self._by_date(found), *found], declared)

    def _by_date(self, found: list[tuple[str, object]]) -> Iterator[tuple[str, object]]:
        for step in self._collects:
            spec = self._entities.get(step.entity_name)
            for entity, value in found:
                if entity == step.entity_name:
                    yield step.collect, value
                elif spec and entity in step.sources and isinstance(value, str):
                    yield step.collect, spec.by_date(value)


@cache
def reader_of(folder: Path) -> Reader:
    """The reader of the pack in `folder`, read once a process."""
    return Reader(load_pack(folder))

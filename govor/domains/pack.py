"""A whole pack: its files put together, and what the services ask of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

from pydantic import ConfigDict, PrivateAttr

from govor.domains.flows import Collect, Flow, walk
from govor.domains.model import (
    PLACEHOLDER,
    Dialogue,
    DomainSpec,
    EntitySpec,
    IntentSpec,
    Menu,
    MenuButton,
    ReplySpec,
)
from govor.domains.prompts import Prompt
from govor.domains.safety import Safety
from govor.entities import EntityFinder, Found, format_value, spec_of
from govor.entities.tokens import words
from govor.templates import Template, parse


class Pack(DomainSpec):
    """A whole pack, checked. `digest` is SHA-256 over its files."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    digest: str
    intents: dict[str, IntentSpec]
    entities: dict[str, EntitySpec]
    rules: dict[str, dict[str, str]]
    flows: dict[str, Flow]
    replies: dict[str, ReplySpec]
    menus: dict[str, Menu]
    prompts: dict[str, dict[str, Prompt]]
    dialogues: tuple[Dialogue, ...]
    safe_phrases: Safety

    _templates: dict[tuple[str, str], tuple[Template, ...]] = PrivateAttr(default_factory=dict)
    _finders: dict[str, EntityFinder] = PrivateAttr(default_factory=dict)
    _titles: dict[tuple[str, ...], MenuButton] = PrivateAttr(default_factory=dict)

    def templates(self, intent: str, language: str) -> tuple[Template, ...]:
        """An intent's utterances, parsed."""
        key = (intent, language)
        if key not in self._templates:
            rules = self.rules_of(language)
            texts = self.intents[intent].utterances.get(language, ())
            self._templates[key] = tuple(parse(text, rules) for text in texts)
        return self._templates[key]

    def rules_of(self, language: str) -> dict[str, str]:
        return {name: texts[language] for name, texts in self.rules.items() if language in texts}

    def utterances(self, language: str) -> Iterator[tuple[str, Template]]:
        """Every `(intent, template)`, in the order of the files."""
        for intent in self.intents:
            for template in self.templates(intent, language):
                yield intent, template

    def flow_of(self, intent: str) -> str | None:
        """The flow that an intent starts."""
        if intent in self.flows:
            return intent
        return next((name for name, flow in self.flows.items() if intent in flow.intents), None)

    def pressed(self, text: str) -> MenuButton | None:
        """The button whose title was said, in any language and menu; emoji need not be said."""
        if not self._titles:
            for menu in self.menus.values():
                for button in (button for row in menu.buttons for button in row):
                    for title in button.title.values():
                        self._titles.setdefault(_said(title), button)
        return self._titles.get(_said(text))

    def parent(self, menu: str) -> str | None:
        """The menu whose button opens this one."""
        for name, spec in self.menus.items():
            if any(button.menu == menu for row in spec.buttons for button in row):
                return name
        return None

    def read(self, entity: str, text: str, language: str, today: date) -> list[Found]:
        """One entity alone in a text, as when a question for it is open: "15000" is an order's
        number to `nlu`, and an amount to who was asked for one."""
        if entity not in self._finders:
            self._finders[entity] = EntityFinder(spec_of(self, only=entity))
        return self._finders[entity].find(text, language, today)

    def entity_of(self, slot: str) -> EntitySpec | None:
        """The entity that fills a slot, if an entity does."""
        for flow in self.flows.values():
            for step in _collects(flow):
                if step.collect == slot:
                    return self.entities.get(step.entity_name)
        return self.entities.get(slot)

    def fill(self, text: str, slots: Mapping[str, Any], language: str) -> str:
        """A reply's text with its slots named. Slots are data: what they hold is not looked at
        for placeholders again."""

        def value(match: re.Match[str]) -> str:
            return self.shown(match[1], slots.get(match[1]), match[2], language)

        return PLACEHOLDER.sub(value, text)

    def shown(self, slot: str, value: Any, kind: str | None, language: str) -> str:
        """A slot's value as replies say it."""
        spec = self.entity_of(slot)
        if spec and spec.values and isinstance(value, str):
            return spec.shown(value, language)
        return format_value(value, kind or (spec.resolver if spec else None), language)


def _said(title: str) -> tuple[str, ...]:
    found = words(title)
    return tuple(word for word in found if word.isalnum()) or found


def _collects(flow: Flow) -> Iterator[Collect]:
    return (step for step in walk(flow.steps) if isinstance(step, Collect))

"""What must be true between the files of a pack: names exist, languages are whole, slots are
filled by someone."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import get_args

from govor.domains.flows import Action, Collect, Confirm, Flow, Generate, Handoff, If, Say, walk
from govor.domains.model import TEXT, ReplySpec
from govor.domains.pack import Pack
from govor.domains.safety import Category
from govor.domains.source import Location, Problem, Source
from govor.templates import TemplateError, parse

Sources = dict[str, Source]


def check(pack: Pack, sources: Sources, folder: str) -> Iterator[Problem]:
    """Every problem between the files."""
    if pack.name != folder:
        yield _problem(sources, "domain.yaml", ("name",), f"the folder is called {folder!r}")
    for checks in (_domain, _intents, _entities, _flows, _replies, _menus, _prompts, _dialogues):
        for file, location, message in checks(pack):
            yield _problem(sources, file, location, message)


_Wrong = tuple[str, Location, str]


def _problem(sources: Sources, file: str, location: Location, message: str) -> Problem:
    source = sources.get(file) or Source(file, None, {})
    return source.problem(location, message)


def _missing(kind: str, name: str | None, names: Collection[str]) -> str | None:
    if name is None or name in names:
        return None
    return f"there is no {kind} {name!r}"


def _languages(
    pack: Pack, file: str, where: Location, given: Iterable[str], *, all_of_them: bool = True
) -> Iterator[_Wrong]:
    given = set(given)
    for language in pack.languages if all_of_them else ():
        if language not in given:
            yield file, where, f"nothing for the language {language!r}"
    for language in sorted(given - set(pack.languages)):
        yield file, (*where, language), f"{language!r} is not a language of the pack"


def _domain(pack: Pack) -> Iterator[_Wrong]:
    file = "domain.yaml"
    for name in ("greeting", "fallback", "stopped", "repeat_please", "unavailable", "ended"):
        if message := _missing("reply", getattr(pack, name), pack.replies):
            yield file, (name,), message
    for category in get_args(Category):
        if message := _missing("reply", getattr(pack.safety, category), pack.replies):
            yield file, ("safety", category), message
    for ladder in ("no_match", "no_input"):
        for index, rung in enumerate(getattr(pack, ladder)):
            for kind, name, names in (
                ("reply", rung.say, pack.replies),
                ("flow", rung.flow, pack.flows),
            ):
                if message := _missing(kind, name, names):
                    yield file, (ladder, index), message
    if message := _missing("menu", pack.menu, pack.menus):
        yield file, ("menu",), message
    yield from _languages(pack, file, ("voices",), pack.voices, all_of_them=False)


def _intents(pack: Pack) -> Iterator[_Wrong]:
    for name, texts in pack.rules.items():
        yield from _languages(pack, "rules.yaml", (name,), texts)
    for name, intent in pack.intents.items():
        file = f"intents/{name}.yaml"
        yield from _languages(pack, file, ("utterances",), intent.utterances)
        yield from _languages(pack, file, ("not_this",), intent.not_this, all_of_them=False)
        for table in ("utterances", "not_this"):
            for language, texts in getattr(intent, table).items():
                for index, text in enumerate(texts):
                    for message in _template(pack, text, language):
                        yield file, (table, language, index), message


def _template(pack: Pack, text: str, language: str) -> Iterator[str]:
    try:
        template = parse(text, pack.rules_of(language))
    except TemplateError as error:
        yield str(error)
        return
    for entity in template.entities():
        if message := _missing("entity", entity, pack.entities):
            yield message


def _entities(pack: Pack) -> Iterator[_Wrong]:
    for name, entity in pack.entities.items():
        file = f"entities/{name}.yaml"
        for key, value in entity.values.items():
            yield from _languages(pack, file, ("values", key), value.forms)
        if entity.pattern and not entity.examples:
            yield file, ("pattern",), "a pattern needs examples in each language"
        yield from _languages(
            pack, file, ("examples",), entity.examples, all_of_them=bool(entity.pattern)
        )


def _flows(pack: Pack) -> Iterator[_Wrong]:
    filled = _filled(pack)
    for name, flow in pack.flows.items():
        if name not in pack.intents and not flow.intents and name not in _rung_flows(pack):
            yield "flows.yaml", (name,), "no intent starts this flow"
        for index, intent in enumerate(flow.intents):
            if message := _missing("intent", intent, pack.intents):
                yield "flows.yaml", (name, "intents", index), message
        for index, slot in enumerate(flow.keep):
            if message := _missing("slot", slot, filled):
                yield "flows.yaml", (name, "keep", index), message
        for where, message in _steps(pack, flow, filled):
            yield "flows.yaml", (name, "steps", *where), message


def _rung_flows(pack: Pack) -> set[str | None]:
    return {rung.flow for rung in (*pack.no_match, *pack.no_input)}


def _steps(pack: Pack, flow: Flow, filled: Collection[str]) -> Iterator[tuple[Location, str]]:
    for where, step in _located(flow.steps):
        for message in filter(None, _step(pack, step, filled)):
            yield where, message


def _located(steps: tuple[object, ...]) -> Iterator[tuple[Location, object]]:
    for index, step in enumerate(steps):
        yield (index,), step
        for key, attribute in (("then", "then"), ("else", "otherwise")):
            for where, inner in _located(getattr(step, attribute, ())):
                yield (index, key, *where), inner


def _step(pack: Pack, step: object, filled: Collection[str]) -> Iterator[str | None]:
    match step:
        case Say(say=name) | Confirm(confirm=name):
            yield _missing("reply", name, pack.replies)
        case Handoff(handoff=name):
            yield _missing("hand-over", name, pack.handoffs)
        case Generate(fields=fields):
            for slot in (fields or {}).values():
                yield _missing("slot", slot, filled)
        case If(condition=condition):
            for slot in sorted(condition.slots()):
                yield _missing("slot", slot, filled)
        case Collect():
            yield from _collect(pack, step)
        case _:
            pass


def _collect(pack: Pack, step: Collect) -> Iterator[str | None]:
    if step.entity_name != TEXT:
        yield _missing("entity", step.entity_name, pack.entities)
    for source in step.sources:
        yield _missing("entity", source, pack.entities)
    if step.default is None:
        yield _missing("reply", step.question, pack.replies)
    else:
        spec = pack.entities.get(step.entity_name)
        if spec and spec.values:
            yield _missing("value", str(step.default), spec.values)


def _filled(pack: Pack) -> set[str]:
    """Slots that some step fills."""
    slots: set[str] = set()
    for flow in pack.flows.values():
        for step in walk(flow.steps):
            if isinstance(step, Collect):
                slots.add(step.collect)
            elif isinstance(step, Action):
                slots.update(step.fills)
    return slots


def _replies(pack: Pack) -> Iterator[_Wrong]:
    filled = _filled(pack)
    for name, reply in pack.replies.items():
        yield from _languages(pack, "replies.yaml", (name,), reply.variants)
        yield from _languages(
            pack, "replies.yaml", (name, "again"), reply.again, all_of_them=bool(reply.again)
        )
        if message := _missing("menu", reply.buttons, pack.menus):
            yield "replies.yaml", (name, "buttons"), message
        for slot in sorted(_slots(reply) - filled):
            yield "replies.yaml", (name,), f"no flow fills the slot {slot!r}"


def _slots(reply: ReplySpec) -> set[str]:
    return {slot for slot, _ in reply.slots()}


def _menus(pack: Pack) -> Iterator[_Wrong]:
    for name, menu in pack.menus.items():
        if message := _missing("reply", menu.reply, pack.replies):
            yield "menus.yaml", (name, "reply"), message
        for row, buttons in enumerate(menu.buttons):
            for column, button in enumerate(buttons):
                where: Location = (name, "buttons", row, column)
                yield from _languages(pack, "menus.yaml", (*where, "title"), button.title)
                if button.text is not None:
                    yield from _languages(pack, "menus.yaml", (*where, "text"), button.text)
                if message := _missing("menu", button.menu, pack.menus):
                    yield "menus.yaml", (*where, "menu"), message


def _prompts(pack: Pack) -> Iterator[_Wrong]:
    known = _filled(pack) | {"utterance", "language"}
    for name, prompts in pack.prompts.items():
        yield from _languages(pack, f"prompts/{name}", (), prompts)
        for language, prompt in prompts.items():
            for slot in sorted(prompt.slots() - known):
                yield f"prompts/{name}.{language}.txt", (), f"no flow fills the slot {slot!r}"


def _dialogues(pack: Pack) -> Iterator[_Wrong]:
    for dialogue in pack.dialogues:
        if dialogue.language not in pack.languages:
            yield "tests", (), f"{dialogue.name}: {dialogue.language!r} is not a language of it"
        for turn in dialogue.turns:
            if turn.intent and turn.intent not in pack.intents:
                yield "tests", (), f"{dialogue.name}: there is no intent {turn.intent!r}"

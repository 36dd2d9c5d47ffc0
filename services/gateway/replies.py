"""The bot's words: which variant of a reply, its slots filled, the buttons that go with it."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from govor.domains import Pack
from govor.schemas.turn import Button
from services.gateway.dialogue import Say, State


def words(
    pack: Pack, state: State, name: str, language: str, rng: Random, *, again: bool = False
) -> Say:
    """One variant of the reply, remembered in `state`.

    Never the one that was drawn last, nor the words that were said last, while there are others.
    `again` are the words for asking a second time. What slots hold is data, never a template.
    """
    spec = pack.replies[name]
    texts = spec.texts(language, again)
    filled = [pack.fill(text, state.slots, language) for text in texts]
    chosen = _draw(filled, state, name, rng)
    if filled[chosen] == state.said:
        others = [
            pack.fill(text, state.slots, language) for text in spec.texts(language, not again)
        ]
        fresh = [text for text in others if text != state.said]
        filled, chosen = (fresh, rng.randrange(len(fresh))) if fresh else (filled, chosen)
    state.drawn[name] = chosen
    state.said = filled[chosen]
    state.menu = spec.buttons or state.menu
    return Say(name, state.said, buttons(pack, spec.buttons, language))


def _draw(filled: Sequence[str], state: State, name: str, rng: Random) -> int:
    fresh = [i for i, text in enumerate(filled) if text != state.said]
    fresh = [i for i in fresh if i != state.drawn.get(name)] or fresh
    return rng.choice(fresh or range(len(filled)))


def buttons(pack: Pack, menu: str | None, language: str) -> list[list[Button]]:
    """A menu's rows. A button that opens a menu, or goes back, says its title."""
    if menu is None:
        return []
    return [
        [
            Button(
                title=button.title[language],
                text=button.title[language]
                if button.menu or button.back
                else button.says(language),
            )
            for button in row
        ]
        for row in pack.menus[menu].buttons
    ]

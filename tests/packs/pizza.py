"""A pack that no code was written for, in one language: a pizzeria's telephone."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

FILES = {
    "domain.yaml": """
        name: pizza
        languages: [en]
        greeting: greeting
        fallback: fallback
        stopped: stopped
        repeat_please: repeat_please
        unavailable: unavailable
        ended: greeting
        no_match: [fallback, { flow: human }]
        no_input: [repeat_please]
        safety: { self_harm: safe, medical: safe, abuse: safe }
        handoffs: { kitchen: {} }
    """,
    "intents/order.yaml": """
        intent: order
        utterances:
          en:
            - "[I'd like] a [{size}] {pizza} [please]"
            - "I want to order a pizza"
            - "can I have a {size} {pizza}"
            - "one {pizza} to take away"
            - "{number} {pizza} pizzas"
            - "bring me {number} {size} {pizza}"
            - "I am hungry"
            - "get me some food"
            - "pizza please"
            - "order [a] {pizza}"
            - "we would like to eat {pizza}"
            - "a {size} one with the usual"
            - "let me order"
            - "make it a {size} {pizza}"
            - "do you have {pizza}"
            - "I'll take the {pizza}"
    """,
    "intents/hours.yaml": """
        intent: hours
        utterances:
          en:
            - "when are you open"
            - "opening hours"
            - "until when can I order"
            - "are you open on sunday"
            - "what time do you close"
            - "how late do you deliver"
            - "are you still there at midnight"
            - "when does the kitchen close"
            - "do you work today"
            - "what are your hours"
            - "from what time are you open"
            - "is the pizzeria open now"
            - "which days are you closed"
            - "do you open on holidays"
            - "at what time do you start"
    """,
    "intents/human.yaml": """
        intent: human
        utterances:
          en:
            - "let me talk to the cook"
            - "a person please"
            - "can I speak to somebody"
            - "get me a human"
            - "I want the manager"
            - "is there a real person"
            - "connect me to the kitchen"
            - "call your boss"
            - "operator"
            - "I don't want to talk to a bot"
            - "somebody else please"
            - "put me through to a human being"
            - "a waiter please"
            - "speak to a person"
            - "transfer me to the staff"
    """,
    "intents/affirm.yaml": """
        intent: affirm
        utterances:
          en: ["yes", "yeah", "yes please", "sure", "of course", "correct", "that's right", "ok",
            "okay", "exactly", "go ahead", "right", "yep", "sounds good", "absolutely"]
    """,
    "intents/deny.yaml": """
        intent: deny
        utterances:
          en: ["no", "nope", "no thanks", "not that", "wrong", "that's wrong", "not really",
            "don't", "no way", "incorrect", "I don't think so", "rather not", "never", "nah",
            "not now"]
    """,
    "entities/pizza.yaml": """
        entity: pizza
        fuzzy: 1
        values:
          margherita: { en: [Margherita, plain cheese] }
          funghi: { en: [Funghi, mushroom, mushrooms] }
          diavola: { en: [Diavola, spicy salami] }
    """,
    "entities/size.yaml": """
        entity: size
        values:
          small: { en: [small, little] }
          large: { en: [large, big, huge] }
    """,
    "entities/number.yaml": """
        entity: number
        resolver: number
    """,
    "flows.yaml": """
        order:
          steps:
            - collect: pizza
            - collect: size
            - collect: number
              default: 1
            - if: number > 20
              then: [{ say: too_many }, { end: true }]
            - confirm: summary
            - say: ordered
        hours:
          steps: [{ say: hours }]
        human:
          steps: [{ say: calling }, { handoff: kitchen }]
    """,
    "replies.yaml": """
        greeting: { en: ["Hello, this is the pizza machine.", "Hi, I am a bot that sells pizza."] }
        fallback: { en: ["I only know pizza.", "Sorry, I am all about pizza."] }
        stopped: { en: ["All right, no pizza.", "Fine, nothing ordered."] }
        repeat_please: { en: ["Once more, please?", "What was that?"] }
        unavailable: { en: ["Something is broken here.", "We have a small fault."] }
        safe: { en: ["Please talk to a person about this. Call 112 in danger."] }
        ask_pizza:
          en: ["Which pizza?", "What would you like on it?"]
          again: { en: ["We have Margherita, Funghi and Diavola."] }
        ask_size: { en: ["Small or large?", "Which size?"] }
        too_many: { en: ["{number} is more than our oven holds."] }
        summary: { en: ["{number} {size} {pizza}, right?", "So {number} {pizza}, {size}?"] }
        ordered: { en: ["Done, {pizza} is on its way.", "The oven is hot for your {pizza}."] }
        hours: { en: ["From noon to midnight.", "Noon to midnight, every day."] }
        calling: { en: ["I am calling the cook.", "One moment, the cook is coming."] }
    """,
    "tests/order.yaml": """
        - name: orders
          language: en
          turns:
            - { user: "I want to order a pizza", intent: order, reply: ask_pizza }
            - { user: "mushroom", slots: { pizza: funghi }, reply: ask_size }
    """,
}


def write(folder: Path, **changes: str | None) -> Path:
    """The pack in `folder/pizza`; `changes` are other contents by file name, None for no file."""
    for name, content in (FILES | changes).items():
        path = folder / "pizza" / name
        if content is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(content).lstrip(), "utf-8")
    return folder / "pizza"

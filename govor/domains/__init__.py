"""Domain packs: what a bot is about, as data. `load_pack` reads and checks one.

`python -m govor.domains check FOLDER` says what is wrong with a pack, `schema` prints the JSON
Schema of its files for editors.
"""

from govor.domains.conditions import Condition
from govor.domains.flows import (
    Action,
    Collect,
    Confirm,
    End,
    Flow,
    Generate,
    Handoff,
    If,
    Say,
    Step,
    walk,
)
from govor.domains.loading import digest, load_pack, load_packs
from govor.domains.model import (
    AFFIRM,
    DENY,
    REPEAT,
    STOP,
    TEXT,
    Dialogue,
    DialogueTurn,
    EntitySpec,
    Escalation,
    IntentSpec,
    ListValue,
    Menu,
    MenuButton,
    Pack,
    ReplySpec,
    Webhook,
)
from govor.domains.prompts import Prompt
from govor.domains.safety import CATEGORIES, Category, Safety
from govor.domains.source import PackError, Problem

__all__ = [
    "AFFIRM",
    "CATEGORIES",
    "DENY",
    "REPEAT",
    "STOP",
    "TEXT",
    "Action",
    "Category",
    "Collect",
    "Condition",
    "Confirm",
    "Dialogue",
    "DialogueTurn",
    "End",
    "EntitySpec",
    "Escalation",
    "Flow",
    "Generate",
    "Handoff",
    "If",
    "IntentSpec",
    "ListValue",
    "Menu",
    "MenuButton",
    "Pack",
    "PackError",
    "Problem",
    "Prompt",
    "ReplySpec",
    "Safety",
    "Say",
    "Step",
    "Webhook",
    "digest",
    "load_pack",
    "load_packs",
    "walk",
]

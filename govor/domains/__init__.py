"""Domain packs: what a bot is about, as data. `load_pack` reads and checks one.

`python -m govor.domains check FOLDER` says what is wrong with a pack, `schema` prints the JSON
Schema of its files for editors. `docs/packs.md` says what may be in them.
"""

from govor.domains.evaluation import Evaluation, load_evaluation
from govor.domains.flows import Collect, walk
from govor.domains.loading import load_pack, load_packs, pack_names
from govor.domains.model import Dialogue, DialogueTurn, EntitySpec
from govor.domains.pack import Pack
from govor.domains.prompts import Prompt
from govor.domains.safety import Safety
from govor.domains.source import PackError

__all__ = [
    "Collect",
    "Dialogue",
    "DialogueTurn",
    "EntitySpec",
    "Evaluation",
    "Pack",
    "PackError",
    "Prompt",
    "Safety",
    "load_evaluation",
    "load_pack",
    "load_packs",
    "pack_names",
    "walk",
]

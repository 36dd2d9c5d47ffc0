"""The packs' own dialogues, through the bundled model and the policy, as they are written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from govor.domains import Pack, load_packs
from govor.repository import Repository
from services.nlu.backends.ngram import Ngram
from tests.domains.dialogues import play

HOME = Path(__file__).resolve().parents[2]
PACKS = load_packs(HOME / "domains")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ngram]:
    repository = Repository(tmp_path_factory.mktemp("models"), HOME / "models")
    champion = repository.deployment("nlu").champion
    assert champion is not None
    ngram = Ngram(repository.open("nlu", champion))
    yield ngram
    ngram.close()


@pytest.mark.parametrize("pack", PACKS.values(), ids=PACKS)
async def test_dialogues(pack: Pack, model: Ngram) -> None:
    wrong = [line for dialogue in pack.dialogues for line in await play(pack, dialogue, model)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("pack", PACKS.values(), ids=PACKS)
def test_there_are_enough_of_them(pack: Pack) -> None:
    assert len(pack.dialogues) >= 12
    for language in pack.languages:
        assert sum(dialogue.language == language for dialogue in pack.dialogues) >= 6
    turns = [turn for dialogue in pack.dialogues for turn in dialogue.turns]
    tried = {turn.intent for turn in turns if turn.intent}
    assert set(pack.intents) - tried <= {"affirm", "deny", "repeat"}
    said = {name for turn in turns for name in turn.reply or ()}
    assert {f"safe_{kind}" for kind in ("self_harm", "medical", "abuse")} <= said
    assert {"handoff", "no_input", pack.fallback, pack.stopped} <= said

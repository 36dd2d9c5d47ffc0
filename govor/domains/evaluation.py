"""The frozen set of a pack: what its head of the `nlu` model is judged by, and never learns from.

    # evaluation/<language>.yaml
    intents:
      refund: ["money back pls", "i want my mony back"]
    out_of_scope: ["how tall is the eiffel tower"]

It changes nothing of what a bot does, so the pack's digest leaves it out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import Field

from govor.domains.flows import Part
from govor.domains.model import Name, Texts
from govor.domains.pack import Pack
from govor.domains.source import PackError, Problem, Source, read_yaml

FOLDER = "evaluation"


class Evaluation(Part):
    """A file of `evaluation/`: utterances by intent, and those that no intent should take."""

    intents: dict[Name, Texts] = Field(min_length=1)
    out_of_scope: Texts


def load_evaluation(folder: Path, pack: Pack) -> dict[str, Evaluation]:
    """The frozen sets of the pack in `folder`, by language; none when it has none.

    Raises PackError with all that is wrong: a language of the pack without a file, an intent
    without utterances, an intent or language that the pack does not have.
    """
    sets: dict[str, Evaluation] = {}
    problems: list[Problem] = []
    for path in sorted((folder / FOLDER).glob("*.yaml")):
        try:
            source = read_yaml(path, f"{folder.name}/{FOLDER}/{path.name}")
            sets[path.stem] = source.parse(Evaluation)
        except PackError as error:
            problems += error.problems
        else:
            problems += _check(source, path.stem, sets[path.stem].intents, pack)
    if sets:
        for language in sorted(set(pack.languages) - {p.stem for p in (folder / FOLDER).iterdir()}):
            shown = f"{folder.name}/{FOLDER}/{language}.yaml"
            problems.append(Problem(shown, 1, "", "the file is missing"))
    if problems:
        raise PackError(problems)
    return sets


def _check(
    source: Source, language: str, intents: Mapping[str, object], pack: Pack
) -> Iterator[Problem]:
    if language not in pack.languages:
        yield source.problem((), f"{language!r} is not a language of the pack")
    for name in sorted(set(intents) - set(pack.intents)):
        yield source.problem(("intents", name), f"there is no intent {name!r}")
    for name in sorted(set(pack.intents) - set(intents)):
        yield source.problem(("intents",), f"nothing for the intent {name!r}")

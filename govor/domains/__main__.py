"""`python -m govor.domains check FOLDER...` and `python -m govor.domains schema`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from govor.domains.evaluation import load_evaluation
from govor.domains.loading import FILES, load_pack
from govor.domains.source import PackError


def schema() -> dict[str, Any]:
    """JSON Schema by file pattern, as an editor's `yaml.schemas` wants them one by one."""
    return {pattern: _schema(model) for pattern, model in FILES.items()}


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | model.model_json_schema()


def check(folders: list[Path]) -> int:
    """Prints what is wrong; 1 when anything is."""
    wrong = 0
    for folder in folders:
        try:
            pack = load_pack(folder)
            load_evaluation(folder, pack)
        except PackError as error:
            print(error, file=sys.stderr)
            wrong = 1
        else:
            print(f"{pack.name}: {len(pack.intents)} intents, {len(pack.flows)} flows, fine")
    return wrong


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m govor.domains", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("schema", help="print the JSON Schema of each file of a pack")
    checking = commands.add_parser("check", help="say what is wrong with packs")
    checking.add_argument("folder", nargs="+", type=Path)
    options = parser.parse_args(arguments)
    if options.command == "check":
        return check(options.folder)
    print(json.dumps(schema(), ensure_ascii=False, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())

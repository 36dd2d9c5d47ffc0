"""`python -m monitoring` writes the rules and dashboards; its commands do the rest.

python -m monitoring                                   write what is made from objectives.yaml
python -m monitoring queries                           every panel's query, a line each
python -m monitoring empty URL                         panels that Prometheus has no data for
python -m monitoring preview URL FOLDER                the panels, plotted
python -m monitoring receivers FILE TO                 Alertmanager's configuration
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m monitoring",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("write")
    commands.add_parser("queries")
    commands.add_parser("empty").add_argument("url")
    preview = commands.add_parser("preview")
    preview.add_argument("url")
    preview.add_argument("folder", type=Path)
    preview.add_argument("--minutes", type=float, default=15)
    receivers = commands.add_parser("receivers")
    receivers.add_argument("file", type=Path)
    receivers.add_argument("to", type=Path)
    return _run(parser.parse_args(arguments))


def _run(asked: argparse.Namespace) -> int:
    """Imports what its command needs alone: the init container has no Grafana builders."""
    key = os.environ.get("GOVOR_KEY")
    match asked.command:
        case "queries":
            from monitoring.dashboards import queries

            print(*(f"{name}: {expr}" for name, expr in queries()), sep="\n")
        case "empty":
            from monitoring.prometheus_api import empty_panels

            empty = empty_panels(asked.url, key)
            print(*empty, sep="\n") if empty else print("every panel has data")
            return len(empty) > 0
        case "preview":
            from monitoring.preview import plot

            print(*plot(asked.url, asked.folder, asked.minutes * 60, key), sep="\n")
        case "receivers":
            from monitoring.receivers import BadReceivers, render

            try:
                render(asked.file, asked.to)
            except BadReceivers as error:
                print(error, file=sys.stderr)
                return 2
        case _:
            from monitoring.generated import write

            print(*(f"written: {path}" for path in write()), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

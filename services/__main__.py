"""`python -m services` starts all services in one process.

`python -m services stt` starts one alone, on a database that `python -m services init` prepared.
`python -m services secrets` makes the secrets of a stack of containers (`services.secrets`).
`python -m services doctor` tells what is well here and what is not (`services.doctor`).
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from fastapi import FastAPI

from govor import logs, server
from govor.config import ConfigurationError, Settings
from govor.database import migrate
from govor.refusals import refusal
from govor.routes import SERVICES
from services import doctor, secrets

_TRY = """\
Govor is ready: open {url} and speak or type, or try
  curl {url}/v1/converse {json} '{{"text": "what do the stars say for leo tomorrow"}}'
  curl {url}/v1/converse -F audio=@examples/thank-you.flac -F language=en
  curl {url}/v1/synthesize {json} '{{"text": "The stars are kind today."}}' -o speech.wav
  curl {url}/v1/transcribe -F file=@examples/thank-you.flac -F language=en"""
_JSON = "-H 'Content-Type: application/json' -d"


def main(arguments: Sequence[str]) -> int:
    """Runs until stopped. A bad configuration is one line and code 2."""
    parser = argparse.ArgumentParser(prog="python -m services", description=__doc__)
    parser.add_argument(
        "service",
        nargs="?",
        choices=(*SERVICES, "init", "secrets", "doctor"),
        help="all when absent",
    )
    service = parser.parse_args(arguments).service
    try:
        settings = Settings()
        if service == "doctor":
            return _examine(settings)
        logs.configure(settings)
        _check(settings)
        if service is None:
            run_embedded(settings)
        elif service == "init":
            migrate(settings.database)
        elif service == "secrets":
            secrets.make(settings.secrets_folder)
        else:
            run_alone(service, settings)
    except KeyboardInterrupt:
        pass
    except Exception as error:
        line = refusal(error)
        if line is None:
            raise
        print(line, file=sys.stderr)
        return 2
    return 0


def _examine(settings: Settings) -> int:
    """Prints the findings; 1 when one of them is `fail`."""
    failed = False
    for finding in doctor.examine(settings):
        print(finding, flush=True)
        failed = failed or finding.state == "fail"
    return int(failed)


def run_embedded(settings: Settings) -> None:
    from services.embedded import Embedded, Trainer, create_apps, trains

    apps = create_apps(settings)
    trainer = Trainer(settings) if trains(settings) else None

    def ready(url: str) -> None:
        print(_TRY.format(url=url, json=_JSON), flush=True)
        if trainer is not None:
            trainer.start()

    try:
        server.run(Embedded(apps), list(apps.values()), settings, ready)
    finally:
        if trainer is not None:
            trainer.stop()


def run_alone(name: str, settings: Settings) -> None:
    app: FastAPI = importlib.import_module(f"services.{name}.main").create_app()
    server.run(app, [app], settings, lambda url: print(f"Govor {name} is ready: {url}", flush=True))


def _check(settings: Settings) -> None:
    if not (settings.domains_folder / settings.domain).is_dir():
        raise ConfigurationError(
            f"GOVOR_DOMAIN={settings.domain}: there is no such pack in {settings.domains_folder}"
        )
    try:
        settings.var_folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"GOVOR_VAR: {settings.var_folder} cannot be made: {error.strerror}"
        ) from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Settings that every service shares; each service extends them.

One prefix, `GOVOR_`, for all of them, so that a shared variable reaches every process. Settings are
built once in `create_app` and passed on as arguments: nothing else reads the environment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from govor.schemas.jobs import QUEUES, Queue

Consent = Literal["answer", "store", "audio", "train"]
Device = Literal["cpu", "gpu"]


class ConfigurationError(Exception):
    """What the operator must change before a service starts: one line, naming the setting."""


class Settings(BaseSettings):
    """What every service reads."""

    model_config = SettingsConfigDict(
        env_prefix="GOVOR_", extra="ignore", frozen=True, use_attribute_docstrings=True
    )

    home: Path = Path(__file__).resolve().parent.parent
    """The checkout or image, where `models/` and `domains/` lie; where the code is."""
    var: Path | None = None
    """Everything that is written (database, spool, secrets, new model versions); `<home>/var`."""
    model_repository: Path | None = None
    """The writable model repository, looked up before the bundled one; `<var>/models`."""
    database_url: str | None = None
    """SQLAlchemy URL, SQLite or PostgreSQL (`postgresql+psycopg://`); `<var>/govor.db`."""
    database_url_file: Path | None = None
    """A file with the URL, which then stands in no environment."""
    broker_url: str | None = None
    """Redis that wakes the trainer's workers up (`redis://`); a folder, `<var>/broker`."""
    broker_url_file: Path | None = None
    """A file with that URL."""
    lake: Path | None = None
    """Where dataset versions are kept; `<var>/lake`."""
    domains: Path | None = None
    """The folder of domain packs; `<home>/domains`."""
    domain: str = "horoscope"
    """The domain pack that serves a request which names none."""

    host: str = "127.0.0.1"
    """Address to listen on. Any other than loopback needs a key."""
    port: int = Field(8080, ge=0, le=65535)
    """Port of the public door in the embedded mode, of the service when it runs alone."""
    metrics_port: int = Field(8081, ge=0, le=65535)
    """Port of `/metrics`, always on `metrics_host`; 0 takes a free one."""
    metrics_host: str = "127.0.0.1"
    """Address of `/metrics`."""

    keys_file: Path | None = None
    """API keys, a line each: `<name> <scopes, comma separated> <key or sha256:digest>`."""
    internal_key_file: Path | None = None
    """The key by which services call each other; `<var>/secrets/internal.key`."""
    subject_secret_file: Path | None = None
    """The secret that turns user ids into subjects; `<var>/secrets/subject.key`."""
    rate_limit_per_minute: int = Field(600, ge=0)
    """Requests per key (or address, without keys) and minute; 0 is no limit."""
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Origins, comma separated, that a browser may call from; none by default."""

    max_json_bytes: int = Field(1 << 20, ge=1024)
    """Largest JSON body."""
    max_text_chars: int = Field(4000, ge=1)
    """Longest text to understand or to speak."""
    max_audio_bytes: int = Field(25 << 20, ge=1024)
    """Largest audio upload."""
    max_audio_seconds: float = Field(300.0, gt=0)
    """Longest audio, counted while it is decoded."""
    max_new_tokens: int = Field(512, ge=1)
    """Most tokens one generation may ask for."""
    max_queued: int = Field(512, ge=1)
    """Requests that may wait for a model; one more is answered 503 with `Retry-After`."""
    default_timeout_seconds: float = Field(30.0, gt=0)
    """Deadline of a request that names none."""

    default_consent: Consent = "answer"
    """What may be kept of a conversation whose caller does not say."""
    poll_seconds: float = Field(2.0, gt=0)
    """How often deployments are looked at."""
    threads: int = Field(1, ge=1)
    """Threads of one inference session."""
    device: Device = "cpu"
    """Where `nlu` and `generator` run their models: `cpu`, or `gpu` (needs the extra `gpu`; where
    there is none that onnxruntime can use, the CPU, and the log says so)."""
    spool_max_bytes: int = Field(64 << 20, ge=0)
    """What may wait on disk for a database that is away."""
    trainer_queues: Annotated[tuple[Queue, ...], NoDecode] = QUEUES
    """Queues, comma separated, that a worker takes jobs from: `cpu`, `gpu`."""
    trainer_lease_seconds: float = Field(60.0, gt=0)
    """How long a job waits for a worker that fell silent, before another may have it."""
    trainer_tick_seconds: float = Field(15.0, gt=0)
    """How often the trainer looks for due schedules, lost jobs and lost rings of the doorbell."""
    trainer_time_limit_seconds: float = Field(21600.0, gt=0)
    """Longest training; then it is ended, and the job has failed."""
    trainer_embedded: bool = True
    """Whether `python -m services` starts the trainer, where it is installed."""
    trainer_metrics_port: int = Field(8082, ge=0, le=65535)
    """Port of the metrics of the trainer that `python -m services` starts."""
    log_format: Literal["text", "json"] = "text"
    """One line for people, or one JSON object a line."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least level that is logged."""

    @field_validator("cors_origins", "trainer_queues", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @model_validator(mode="before")
    @classmethod
    def _read_files(cls, values: dict[str, Any]) -> dict[str, Any]:
        """A URL that is given itself goes before one in a file."""
        read = {}
        for name in ("database_url", "broker_url"):
            if (file := values.get(f"{name}_file")) and not values.get(name):
                try:
                    read[name] = Path(file).read_text(encoding="utf-8").strip()
                except OSError as error:
                    raise ConfigurationError(
                        f"GOVOR_{name.upper()}_FILE: {file} cannot be read: {error.strerror}"
                    ) from None
        return values | read

    @property
    def var_folder(self) -> Path:
        return self.var or self.home / "var"

    @property
    def secrets_folder(self) -> Path:
        return self.var_folder / "secrets"

    @property
    def internal_key_path(self) -> Path:
        return self.internal_key_file or self.secrets_folder / "internal.key"

    @property
    def subject_secret_path(self) -> Path:
        return self.subject_secret_file or self.secrets_folder / "subject.key"

    @property
    def repository_folder(self) -> Path:
        return self.model_repository or self.var_folder / "models"

    @property
    def lake_folder(self) -> Path:
        return self.lake or self.var_folder / "lake"

    @property
    def bundled_folder(self) -> Path:
        return self.home / "models"

    @property
    def domains_folder(self) -> Path:
        return self.domains or self.home / "domains"

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite:///{self.var_folder / 'govor.db'}"

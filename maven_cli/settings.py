"""Settings: read once from the environment, checked, and kept away from logs where they are secret.

Every name is ``MAVEN_`` and the field's name in capitals; the platform's ``LOG_LEVEL`` keeps its own.
docs/reference/settings.md lists them, and a test compares that page with this class.
"""

from __future__ import annotations

import os
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from maven_cli.errors import ConfigurationError
from maven_cli.times import format_duration, parse_duration

LogLevel = Literal["debug", "info", "warn", "error"]
LogFormat = Literal["text", "json", "journal"]
EngineKind = Literal["none", "redis", "http"]


def _duration(value: Any) -> Any:
    return parse_duration(value) if isinstance(value, str) else value


def _home(value: Any) -> Any:
    """``~`` as a shell would have it: systemd and .env files leave it alone."""
    try:
        return Path(value).expanduser() if isinstance(value, str) else value
    except RuntimeError:
        raise PydanticCustomError("home", "names a user who has no home directory") from None


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


Duration = Annotated[timedelta, BeforeValidator(_duration)]
# Ten years: dates and the milliseconds of Redis have room for it everywhere.
LONGEST = timedelta(days=3650)


def _at_least(minimum: timedelta, what: str, default: timedelta, *, most: timedelta = LONGEST) -> Any:
    return Field(default=default, ge=minimum, le=most, description=what)


class Settings(BaseSettings):
    """What this process was told. Durations are ``5s``, ``250ms``, ``2min``, ``1h``; a bare number is seconds."""

    # An empty variable is an unset one: `MAVEN_REDIS_URL= maven …` and systemd's EnvironmentFile write it so.
    model_config = SettingsConfigDict(env_prefix="MAVEN_", env_ignore_empty=True, frozen=True, extra="ignore")

    database_url: SecretStr | None = Field(
        None,
        description="PostgreSQL, as postgresql://user:password@host:port/name. Unset: the embedded default.",
    )
    lock_database_url: SecretStr | None = Field(
        None,
        description="PostgreSQL for the lock connections alone, when the work goes through a small pool.",
    )
    redis_url: SecretStr | None = Field(
        None, description="Redis or Valkey, as redis://, rediss:// or unix://. Unset: the embedded default."
    )
    home: Annotated[Path | None, BeforeValidator(_home)] = Field(
        None, description="Where the embedded default keeps its data. Unset: the user's XDG data directory."
    )
    log_level: Annotated[LogLevel, BeforeValidator(_lower)] = Field(
        "info",
        validation_alias=AliasChoices("LOG_LEVEL", "log_level"),
        description="The least severe message that is printed.",
    )
    log_format: Annotated[LogFormat, BeforeValidator(_lower)] = Field(
        "text",
        description="How messages are printed: text, json (one object a line) or journal (syslog prefix).",
    )
    ticker_ttl: Duration = _at_least(
        timedelta(milliseconds=100), "Freshness that the ticker keys promise.", timedelta(seconds=5)
    )
    ticker_ttl_grace: Duration = _at_least(
        timedelta(0),
        "Extra life of a ticker key, so that a late pass is no hole. 0 gives the plain TTL.",
        timedelta(seconds=10),
    )
    ticker_batch: int = Field(
        0, ge=0, description="Pairs per ticker statement; 0 computes all pairs at once."
    )
    candle_ttl_grace: Duration = _at_least(
        timedelta(0), "Life of a candle key beyond 60 s.", timedelta(seconds=30)
    )
    candle_keep: int = Field(
        2, ge=1, le=1000, description="Newest candles per pair and interval kept in Redis."
    )
    candle_chunk: Duration = _at_least(
        timedelta(minutes=1), "The most market time that one transaction closes per pair.", timedelta(days=1)
    )
    candle_budget: Duration = _at_least(
        timedelta(seconds=1),
        "Time after which a candle pass leaves the rest to the next one.",
        timedelta(seconds=45),
    )
    expiry_budget: Duration = _at_least(
        timedelta(milliseconds=100),
        "Time after which an expiry pass leaves the rest to the next one.",
        timedelta(seconds=8),
    )
    expiry_formula: Annotated[Literal["apply", "refuse"], BeforeValidator(_lower)] = Field(
        "apply",
        description="Orders without a lock: apply releases remaining quantity × price + unspent fee (buy) or the remaining "
        "quantity (sell); refuse makes them dead letters.",
    )
    expiry_require_engine: bool = Field(
        False, description="Never expire an order without the engine's word, however long it is gone."
    )
    engine_grace: Duration = _at_least(
        timedelta(0),
        "How long an order waits for an engine that can't be asked, and for a fill that is still on its way.",
        timedelta(minutes=1),
    )
    engine_settle: Duration = _at_least(
        timedelta(0),
        "How long an order that the engine doesn't know must stay unchanged before it expires.",
        timedelta(seconds=30),
    )
    settlement_fence: Annotated[Literal["enforced", "absent"], BeforeValidator(_lower)] = Field(
        "enforced",
        description="Whether the database refuses trades of ended orders. Without it no order expires without the engine's word.",
    )
    retry_after: Duration = _at_least(
        timedelta(seconds=1),
        "How long an item that failed is left alone; twice as long after each further failure.",
        timedelta(seconds=30),
    )
    retry_longest: Duration = _at_least(
        timedelta(seconds=1), "The longest that a failed item is left alone.", timedelta(hours=1)
    )
    engine: Annotated[EngineKind, BeforeValidator(_lower)] = Field(
        "none",
        description="How the matching engine is told that an order is over: over redis or http; none: the database is "
        "the book.",
    )
    engine_url: SecretStr | None = Field(
        None, description="The engine's HTTP API, as https://host:port/path. Needed for MAVEN_ENGINE=http."
    )
    engine_token: SecretStr | None = Field(
        None, description="Sent to the engine's HTTP API as a bearer token."
    )
    engine_timeout: Duration = _at_least(
        timedelta(milliseconds=50),
        "The longest wait for an engine's answer to one removal, tries included.",
        timedelta(seconds=2),
    )
    engine_stream: str = Field(
        "maven:engine:commands",
        description="The Redis Stream that an engine reads its commands from. It answers on the stream of that name "
        "with :replies for :commands.",
    )
    events_stream: str = Field(
        "maven:events", min_length=1, description="The Redis stream that gets the events."
    )
    events_maxlen: int = Field(
        100_000, ge=0, description="About how many events the stream keeps; 0 never trims it."
    )
    events_retention: Duration = _at_least(
        timedelta(hours=1),
        "How long delivered events stay in the outbox, for maven events replay.",
        timedelta(days=7),
    )
    events_budget: Duration = _at_least(
        timedelta(seconds=1),
        "Time after which a pass leaves the delivery of events to the next one.",
        timedelta(seconds=5),
    )
    node_timeout: Duration = _at_least(
        timedelta(milliseconds=100),
        "The longest wait for one answer of a blockchain node.",
        timedelta(seconds=15),
    )
    scan_blocks: int = Field(
        1000, ge=1, description="The most blocks of one chain that a scan reads before it leaves the rest."
    )
    scan_budget: Duration = _at_least(
        timedelta(seconds=1),
        "Time after which a scan leaves the rest of a chain to the next one.",
        timedelta(seconds=45),
    )
    credit_evidence_max_age: Duration = _at_least(
        timedelta(seconds=1),
        "How old the look at the chain may be on which a deposit is credited; an older one is repeated.",
        timedelta(minutes=2),
    )
    statement_timeout: Duration = _at_least(
        timedelta(seconds=1),
        "The longest that one SQL statement of a pass may run.",
        timedelta(minutes=1),
        most=timedelta(days=24),  # PostgreSQL counts it in 31 bits of milliseconds
    )
    circuit_failures: int = Field(
        5,
        ge=1,
        description="Failures in a row of a dependency, or of a worker as a whole, that open its circuit.",
    )
    circuit_cool_down: Duration = _at_least(
        timedelta(seconds=1),
        "How long an open circuit waits before it lets one probe through.",
        timedelta(seconds=20),
    )
    circuit_longest: Duration = _at_least(
        timedelta(seconds=1),
        "The most that this wait, doubled after each failed probe, may grow to; for an engine at most half of its grace.",
        timedelta(minutes=5),
    )
    operator: str | None = Field(
        None, description="Who decides by hand, for the record. Unset: the login name."
    )
    run_retention: Duration = _at_least(
        timedelta(hours=1), "How long run records are kept.", timedelta(days=7)
    )

    @property
    def embedded(self) -> bool:
        """Whether anything at all runs on the embedded default."""
        return self.database_url is None or self.redis_url is None


def variable(field: str) -> str:
    """The environment variable that sets a field."""
    return "LOG_LEVEL" if field == "log_level" else f"MAVEN_{field.upper()}"


def load_settings() -> Settings:
    """The settings of this process. Raises ConfigurationError naming every wrong variable, never its value."""
    names = {variable(field) for field in Settings.model_fields}
    for name in os.environ:
        if (
            name.startswith("MAVEN_")
            and name not in names
            and (close := get_close_matches(name, names, 1, 0.88))
        ):
            raise ConfigurationError(f"{name} is not a setting of maven; did you mean {close[0]}?")
    try:
        settings = Settings()  # type: ignore[call-arg]  # pydantic reads them from the environment
    except ValidationError as error:
        raise ConfigurationError("; ".join(_explain(problem) for problem in error.errors())) from None
    _check_url("MAVEN_DATABASE_URL", settings.database_url, ("postgresql", "postgres"))
    _check_url("MAVEN_LOCK_DATABASE_URL", settings.lock_database_url, ("postgresql", "postgres"))
    _check_url("MAVEN_REDIS_URL", settings.redis_url, ("redis", "rediss", "unix"))
    _check_url("MAVEN_ENGINE_URL", settings.engine_url, ("http", "https"))
    if settings.embedded and settings.home is not None and _is_file(settings.home / "bin" / "mvn"):
        raise ConfigurationError(
            f"MAVEN_HOME={settings.home} is an installation of Apache Maven, which uses the same variable; "
            "set MAVEN_HOME to a directory for maven's own data"
        )
    return settings


def _is_file(path: Path) -> bool:
    """False also for what can't be looked at: whoever uses the directory says why it can't be used."""
    try:
        return path.is_file()
    except OSError:
        return False


def _explain(problem: Any) -> str:
    """One wrong value in words. pydantic's own text would repeat the value, which may be a secret."""
    place = str(problem["loc"][0]) if problem["loc"] else "?"
    name = variable(place.lower()) if place != "LOG_LEVEL" else place
    context = problem.get("ctx", {})
    match problem["type"]:
        case "bool_parsing" | "bool_type":
            accepts = "accepts true or false"
        case "literal_error":
            accepts = f"accepts {context['expected'].replace(chr(39), '')}"
        case "greater_than_equal":
            accepts = f"must be at least {_bound(place, 'ge', context['ge'])}"
        case "less_than_equal":
            accepts = f"must be at most {_bound(place, 'le', context['le'])}"
        case "int_parsing" | "int_type":
            accepts = "must be a whole number"
        case "value_error" | "time_delta_parsing" | "time_delta_type":
            accepts = "must be a duration like 5s, 250ms, 2min or 1h"
        case _:
            accepts = problem["msg"].lower()
    return f"{name} {accepts}"


def _bound(field: str, side: str, value: Any) -> str:
    """A bound (``ge`` or ``le``) as it would be written; pydantic words a duration's as ``100000 microseconds``."""
    info = Settings.model_fields.get(field)
    bounds = [getattr(item, side, None) for item in info.metadata] if info else []
    return next((format_duration(bound) for bound in bounds if isinstance(bound, timedelta)), str(value))


def _check_url(name: str, value: SecretStr | None, schemes: tuple[str, ...]) -> None:
    if value is None:
        return
    scheme, separator, rest = value.get_secret_value().partition("://")
    if not separator or scheme not in schemes or not rest:
        raise ConfigurationError(
            f"{name} must be a URL that starts with " + " or ".join(f"{s}://" for s in schemes)
        )

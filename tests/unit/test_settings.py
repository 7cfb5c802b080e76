"""Settings: each wrong value is named with what it should be (E06), and never repeated, since it may be a secret."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest

from maven_cli.errors import ConfigurationError
from maven_cli.settings import Settings, load_settings, variable

SECRET = "hunter2-very-secret"


def refused(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert caught.value.exit_code == 78
    assert caught.value.__cause__ is None
    return str(caught.value)


def test_defaults_are_the_documented_ones() -> None:
    settings = load_settings()
    assert settings.embedded
    assert (settings.log_level, settings.log_format) == ("info", "text")
    assert settings.ticker_ttl == timedelta(seconds=5)
    assert settings.ticker_ttl_grace == timedelta(seconds=10)
    assert settings.candle_ttl_grace == timedelta(seconds=30)
    assert settings.ticker_batch == 0
    assert settings.candle_keep == 2


def test_values_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "MAVEN_DATABASE_URL": "postgresql://u:p@h/d",
        "MAVEN_REDIS_URL": "rediss://h",
        "MAVEN_TICKER_TTL_GRACE": "0",
        "MAVEN_STATEMENT_TIMEOUT": "1.5min",
        "MAVEN_TICKER_BATCH": "7",
        "LOG_LEVEL": "DEBUG",
        "MAVEN_LOG_FORMAT": "Journal",
    }.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert not settings.embedded
    assert settings.ticker_ttl_grace == timedelta(0)
    assert settings.statement_timeout == timedelta(seconds=90)
    assert (settings.ticker_batch, settings.log_level, settings.log_format) == (7, "debug", "journal")


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAVEN_DATABASE_URL", "MAVEN_TICKER_TTL", "LOG_LEVEL", "MAVEN_CANDLE_KEEP"):
        monkeypatch.setenv(name, "")
    settings = load_settings()
    assert settings.database_url is None
    assert settings == Settings.model_validate({})


@pytest.mark.parametrize(
    ("name", "value", "accepts"),
    [
        ("LOG_LEVEL", "loud", "accepts debug, info, warn or error"),
        ("MAVEN_LOG_FORMAT", "xml", "accepts text, json or journal"),
        ("MAVEN_TICKER_TTL", "soon", "must be a duration like 5s, 250ms, 2min or 1h"),
        ("MAVEN_TICKER_TTL", "-5s", "must be a duration like 5s, 250ms, 2min or 1h"),
        ("MAVEN_TICKER_TTL", "99ms", "must be at least 100ms"),
        ("MAVEN_CANDLE_CHUNK", "59s", "must be at least 1min"),
        ("MAVEN_STATEMENT_TIMEOUT", "0", "must be at least 1s"),
        ("MAVEN_TICKER_BATCH", "-1", "must be at least 0"),
        ("MAVEN_TICKER_BATCH", "many", "must be a whole number"),
        ("MAVEN_TICKER_BATCH", "1.5", "must be a whole number"),
        ("MAVEN_CANDLE_KEEP", "0", "must be at least 1"),
        ("MAVEN_CANDLE_KEEP", "1001", "must be at most 1000"),
        ("MAVEN_ENGINE", "fix", "accepts none, redis or http"),
        ("MAVEN_ENGINE_TIMEOUT", "0", "must be at least 50ms"),
        ("MAVEN_RUN_RETENTION", "9" * 400, "must be a duration like"),
        ("MAVEN_RUN_RETENTION", "3651d", "must be at most 3650d"),
        ("MAVEN_TICKER_TTL_GRACE", "999999999d", "must be at most 3650d"),
        ("MAVEN_CANDLE_TTL_GRACE", "999999999d", "must be at most 3650d"),
        ("MAVEN_CANDLE_CHUNK", "999999999d", "must be at most 3650d"),
        ("MAVEN_STATEMENT_TIMEOUT", "25d", "must be at most 24d"),
        ("MAVEN_HOME", "~nobody-of-that-name/x", "names a user who has no home directory"),
    ],
)
def test_e06_a_wrong_value_names_its_variable_and_what_it_accepts(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, accepts: str
) -> None:
    message = refused(monkeypatch, **{name: value})
    assert message.startswith(f"{name} {accepts}")
    assert "\n" not in message


def test_e06_every_wrong_value_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refused(monkeypatch, MAVEN_TICKER_TTL="x", LOG_LEVEL="y", MAVEN_CANDLE_KEEP="z")
    assert all(name in message for name in ("MAVEN_TICKER_TTL", "LOG_LEVEL", "MAVEN_CANDLE_KEEP"))


@pytest.mark.parametrize("name", ["MAVEN_DATABASE_URL", "MAVEN_LOCK_DATABASE_URL", "MAVEN_REDIS_URL"])
@pytest.mark.parametrize(
    "value", [f"mysql://u:{SECRET}@h/d", f"u:{SECRET}@host", f"://{SECRET}", f"password={SECRET}"]
)
def test_e06_a_wrong_url_is_named_without_its_secret(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    message = refused(monkeypatch, **{name: value})
    assert message.startswith(f"{name} must be a URL that starts with ")
    assert SECRET not in message


def test_e06_a_wrong_engine_address_is_named_without_its_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refused(monkeypatch, MAVEN_ENGINE_URL=f"ftp://u:{SECRET}@h/")
    assert message == "MAVEN_ENGINE_URL must be a URL that starts with http:// or https://"


def test_e06_a_misspelt_variable_is_not_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refused(monkeypatch, MAVEN_DATABASE_URI=f"postgresql://u:{SECRET}@h/d")
    assert message == "MAVEN_DATABASE_URI is not a setting of maven; did you mean MAVEN_DATABASE_URL?"


@pytest.mark.parametrize(
    "name", ["MAVEN_OPTS", "MAVEN_ARGS", "MAVEN_SKIP_RC", "MAVEN_PROJECTBASEDIR", "MAVEN_BASEDIR"]
)
def test_apache_maven_s_variables_are_nobody_s_typo(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "-Xmx1g")
    assert load_settings() == Settings.model_validate({})


def test_apache_maven_s_home_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "mvn").touch()
    assert "an installation of Apache Maven" in refused(monkeypatch, MAVEN_HOME=str(tmp_path))


def test_apache_maven_s_home_is_nobody_s_business_when_nothing_is_embedded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "mvn").touch()
    monkeypatch.setenv("MAVEN_HOME", str(tmp_path))
    monkeypatch.setenv("MAVEN_DATABASE_URL", "postgresql://h/d")
    monkeypatch.setenv("MAVEN_REDIS_URL", "redis://h")
    assert load_settings().home == tmp_path


def test_a_home_that_can_not_be_looked_into_is_left_to_who_uses_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    long = tmp_path / ("x" * 300)
    load_settings()  # imports what it needs
    me = os.geteuid()
    for home in (closed, closed / "home", long):
        monkeypatch.setenv("MAVEN_HOME", str(home))
        if me == 0:
            os.seteuid(65534)  # root may look into everything
        try:
            assert load_settings().home == home
        finally:
            os.seteuid(me)


def test_a_tilde_is_the_home_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MAVEN_HOME", "~/data")
    assert load_settings().home == tmp_path / "data"


def test_secrets_do_not_show_in_the_settings_text() -> None:
    settings = Settings.model_validate({"database_url": f"postgresql://u:{SECRET}@h/d"})
    assert SECRET not in repr(settings)
    assert SECRET not in str(settings.model_dump())
    assert SECRET not in settings.model_dump_json()


def test_every_setting_has_a_description_and_its_own_variable() -> None:
    names = [variable(field) for field in Settings.model_fields]
    assert len(set(names)) == len(names)
    assert all(info.description for info in Settings.model_fields.values())
    assert {name for name in names if not name.startswith("MAVEN_")} == {"LOG_LEVEL"}

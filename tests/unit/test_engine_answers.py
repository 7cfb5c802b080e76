"""What counts as an engine's answer, and how an engine is opened."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal
from typing import Any

import pytest

from maven_cli.engines import Removal, Removed, open_engine
from maven_cli.engines.answers import removed
from maven_cli.engines.redis import reply_stream
from maven_cli.errors import ConfigurationError
from maven_cli.settings import Settings

REMOVAL = Removal(1042, "BTC/USDT", "sell", "expire-1042-1")
SECRET = "hunter2-very-secret"


@pytest.mark.parametrize(
    ("said", "remaining"),
    [
        ("6.5", "6.5"),
        ("0", "0"),
        ("0.000", "0"),
        ("0.000000000000000001", "0.000000000000000001"),
        ("999999999999999999.999999999999999999", "999999999999999999.999999999999999999"),
        ("1.50000000000000000000000", "1.5"),
        (7, "7"),
        (0, "0"),
        (Decimal("0.1"), "0.1"),
        (Decimal("1E-18"), "0.000000000000000001"),
        (Decimal("1E+17"), "100000000000000000"),
        (Decimal("0E-999"), "0"),
        (Decimal("-0.0"), "0"),
    ],
)
def test_a_remaining_quantity_is_taken_exactly(said: Any, remaining: str) -> None:
    assert removed(REMOVAL, "1042", said, None) == Removed(Decimal(remaining), None)


@pytest.mark.parametrize(
    "said",
    [
        "-1",
        "+1",
        "",
        " 1",
        "1 ",
        "1e3",
        "NaN",
        "Infinity",
        "1,5",
        "٣",
        "0.0000000000000000001",
        "1000000000000000000",
        "9" * 10_000,
        Decimal("-1"),
        Decimal("1E+18"),
        Decimal("1E+999999999"),
        Decimal("1E-19"),
        Decimal("NaN"),
        Decimal("Infinity"),
        -1,
        10**18,
        True,
        None,
        1.5,
        ["6.5"],
    ],
)
def test_what_is_no_quantity_is_refused_and_not_repeated(said: Any) -> None:
    with pytest.raises(ValueError, match="remaining quantity") as caught:
        removed(REMOVAL, 1042, said, None)
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize("order_id", ["1043", 1043, "01042", None, True, 1042.0, [1042], ""])
def test_another_order_s_answer_is_refused(order_id: Any) -> None:
    with pytest.raises(ValueError, match=r"another order's|names no order"):
        removed(REMOVAL, order_id, "6.5", None)


@pytest.mark.parametrize(
    ("said", "kept"), [(None, None), ("", None), ("a-17", "a-17"), (88120417, "88120417"), (0, "0")]
)
def test_the_sequence_is_kept_as_text(said: Any, kept: str | None) -> None:
    assert removed(REMOVAL, 1042, "1", said).sequence == kept


@pytest.mark.parametrize("said", ["x" * 201, "a\nb", 1.5, True, {"a": 1}])
def test_a_sequence_that_is_none_is_refused(said: Any) -> None:
    with pytest.raises(ValueError, match="sequence"):
        removed(REMOVAL, 1042, "1", said)


# ---------------------------------------------------------------------------------------------------------- opening


def settings(**values: Any) -> Settings:
    return Settings.model_validate(values)


def test_no_engine() -> None:
    assert open_engine(settings(), "redis://nowhere") is None


def test_opening_connects_to_nothing() -> None:
    def url() -> str:
        raise AssertionError("asked for the URL")

    engine = open_engine(settings(engine="redis"), url)
    assert engine is not None
    assert engine.name == "redis"
    engine.close()
    engine = open_engine(settings(engine="http", engine_url="http://192.0.2.1:9/x"), url)
    assert engine is not None
    assert engine.name == "http"
    engine.close()


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({}, "MAVEN_ENGINE_URL"),
        ({"engine_url": f"http://{SECRET}:notaport/"}, "MAVEN_ENGINE_URL"),
        ({"engine_url": f"http://h:0/{SECRET}"}, "MAVEN_ENGINE_URL"),
        ({"engine_url": f"http://h:70000/{SECRET}"}, "MAVEN_ENGINE_URL"),
        ({"engine_url": f"http:///{SECRET}"}, "MAVEN_ENGINE_URL"),
        ({"engine_url": f"http://[::1/{SECRET}"}, "MAVEN_ENGINE_URL"),
        ({"engine_url": f"http://h/?key={SECRET}"}, "MAVEN_ENGINE_URL"),
        ({"engine_url": f"http://h/#{SECRET}"}, "MAVEN_ENGINE_URL"),
        ({"engine_url": f"http://u:{SECRET}@h/", "engine_token": "t"}, "MAVEN_ENGINE_TOKEN"),
        ({"engine_url": "http://h/", "engine_token": f"{SECRET}\n"}, "MAVEN_ENGINE_TOKEN"),
        ({"engine_url": "http://h/", "engine_token": f"{SECRET} ü"}, "MAVEN_ENGINE_TOKEN"),
    ],
)
def test_settings_that_no_engine_can_be_reached_with(values: dict[str, Any], names: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_engine(settings(engine="http", **values), "redis://nowhere")
    assert caught.value.exit_code == 78
    assert names in str(caught.value)
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("kind", "loaded"), [("none", set()), ("redis", {"redis"}), ("http", {"httpx"})])
def test_what_an_engine_needs_is_imported_when_it_is_opened(kind: str, loaded: set[str]) -> None:
    code = f"""
import sys
from maven_cli.engines import open_engine
from maven_cli.settings import Settings
known = ("redis", "httpx")
assert not [name for name in known if name in sys.modules]
open_engine(Settings.model_validate({{"engine": {kind!r}, "engine_url": "http://h"}}), "redis://h")
print(*[name for name in known if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = set(done.stdout.split())
    assert loaded <= found
    assert kind == "http" or "httpx" not in found


def test_the_reply_stream_has_its_name_from_the_commands() -> None:
    assert reply_stream("maven:engine:commands") == "maven:engine:replies"
    assert reply_stream("venue") == "venue:replies"

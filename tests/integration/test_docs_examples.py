"""The documentation's examples are run: every ``sh`` block with a `maven` in it, in order, as a reader would.

What stands in the block after one is compared with what it printed: ``text`` line by line, ``json`` by its shape. An
``export NAME=…`` of a page gets the test's own value, so that examples never leave the test's databases.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from maven_cli import embedded
from tests.evm_pool import Pool
from tests.support import Cli, Market

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    page
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if page.name != "commands.md"
]

# Lines that a test can't run as they are, and what it runs instead (nothing, when None).
INSTEAD: dict[str, tuple[str | None, str]] = {
    "make demo": ("maven demo --pairs 1", "sets up a venv first; one pair is enough"),
    "maven every 5s -- tickers update": (
        "maven every 1s --for 1s -- tickers update",
        "runs until somebody stops it",
    ),
    "rm -r /tmp/maven-first-hour": (None, "the test has a home of its own, and removes it"),
}
# What follows the = isn't looked at: the test's own values count.
EXPORT = re.compile(r"export (\w+)=")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

TRADES = """\
trade_id,executed_at_ms,side,price,quantity
1,1769864405000,buy,84200.10,0.5
2,1769866841000,sell,84150,0.25
"""
MORE = TRADES.replace("\n1,", "\n11,").replace("\n2,", "\n12,")


@dataclass
class Example:
    """A block to run, and the block that shows what it prints."""

    line: int
    script: str
    shown: str = ""
    language: str = ""


def examples(text: str) -> list[Example]:
    """Every ``sh`` block that calls `maven`, or whose lines are in INSTEAD or export something."""
    found: list[Example] = []
    fresh = False
    for block in FENCE.finditer(text):
        language, body = block.groups()
        if language == "sh":
            fresh = any(re.search(r"\bmaven |^(make|export) ", line) for line in body.splitlines())
            if fresh:
                found.append(Example(text[: block.start()].count("\n") + 1, body))
        elif fresh and language in ("text", "json"):
            found[-1].shown, found[-1].language = body, language
            fresh = False
    return found


@dataclass
class Shell:
    """Runs blocks one after the other in one directory; exports stay."""

    directory: Path
    environment: dict[str, str]
    values: dict[str, str] = field(default_factory=dict)

    def run(self, example: Example) -> subprocess.CompletedProcess[str]:
        script = "\n".join(self.prepare(example.script))
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def prepare(self, script: str) -> Iterator[str]:
        """The lines to run. Exports and unsets go into the environment of this block and those after it."""
        for line in script.splitlines():
            bare = re.sub(r"\s+#.*$", "", line).strip()
            if match := EXPORT.match(bare):
                if match[1] != "PATH":  # `maven` is on it
                    self.environment[match[1]] = self.values[match[1]]
            elif bare.startswith("unset "):
                for name in bare.split()[1:]:
                    del self.environment[name]
            elif bare in INSTEAD:
                instead = INSTEAD[bare][0]
                if instead is not None:
                    yield instead
            elif re.match(r"(\w+=\S+ )*make ", bare):
                continue  # the set-up, and the tests themselves
            else:
                yield line


@pytest.fixture
def shell(tmp_path: Path, cli: Cli, database_url: str, redis_url: str) -> Shell:
    """A shell with the real `maven` on its path, pointing at this test's databases."""
    return Shell(
        tmp_path,
        {**cli.environment(), **with_maven_on_path(tmp_path)},
        {"MAVEN_DATABASE_URL": database_url, "MAVEN_REDIS_URL": redis_url},
    )


def with_maven_on_path(directory: Path) -> dict[str, str]:
    """A PATH on which `maven` is this checkout's, run by this Python."""
    command = directory / "bin" / "maven"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m maven_cli "$@"\n')
    command.chmod(0o755)
    return {"PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


# ------------------------------------------------------------------------------------------------------- comparing

VOLATILE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z|\d+(\.\d+)? ?m?s\b")


def masked(line: str, *, numbers: bool) -> str:
    """The line without what differs at each run: times with a fraction, durations; with `numbers` every number."""
    line = re.sub(r"\d[\d,.]*", "0", line) if numbers else VOLATILE.sub("0", line)
    return " ".join(line.split())


def missing_lines(shown: str, printed: str, *, numbers: bool) -> list[str]:
    """Which lines of the documentation weren't printed, in this order. Lines that are alike need to come only once."""
    rest = iter([masked(line, numbers=numbers) for line in printed.splitlines()])
    missing, last = [], ""
    for line in shown.splitlines():
        wanted = masked(line, numbers=numbers)
        if wanted != last and wanted not in rest:
            missing.append(line)
        last = wanted
    return missing


def shape(value: Any) -> Any:
    """What kind of thing it is: a document's keys, a list's first element, a text's form."""
    match value:
        case dict():
            return {key: shape(item) for key, item in value.items()}
        case list():
            return [shape(item) for item in value[:1]]
        case str() if re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", value):
            return "time"
        case str() if re.fullmatch(r"-?\d+(\.\d+)?", value):
            return "decimal"
        case _:
            return type(value).__name__


def differences(shown: Any, real: Any, where: str = "") -> list[str]:
    """Where two shapes differ. None stands for anything, and an empty list or object for one with elements."""
    if "NoneType" in (shown, real):
        return []
    if isinstance(shown, dict) and isinstance(real, dict):
        if where.rpartition(".")[2] in ("inserted", "changed", "removed"):  # by interval
            return []
        if list(shown) != list(real):
            return [f"{where}: {list(shown)} in the documentation, {list(real)} in truth"]
        return [text for key in shown for text in differences(shown[key], real[key], f"{where}.{key}")]
    if isinstance(shown, list) and isinstance(real, list):
        return differences(shown[0], real[0], f"{where}[]") if shown and real else []
    return [] if shown == real else [f"{where}: {shown} in the documentation, {real} in truth"]


def check(example: Example, done: subprocess.CompletedProcess[str]) -> None:
    told = f"line {example.line}: {example.script}\n{done.stdout}{done.stderr}"
    if example.language == "json":
        shown, real = json.loads(example.shown), json.loads(done.stdout)
        assert differences(shape(shown), shape(real)) == []
        for key in ("schema", "command", "status", "exit_code"):
            assert shown[key] == real[key], told
        assert done.returncode == shown["exit_code"], told
        return
    assert done.returncode == 0, told
    numbers = "demo" in example.script
    assert missing_lines(example.shown, done.stdout + done.stderr, numbers=numbers) == [], told


def run_page(page: Path, shell: Shell) -> None:
    for example in examples(page.read_text()):
        check(example, shell.run(example))


# ---------------------------------------------------------------------------------------------------------- pages


def test_readme(shell: Shell) -> None:
    import gzip

    (shell.directory / "trades.csv.gz").write_bytes(gzip.compress(TRADES.encode()))
    with Pool() as node:
        address = shell.directory / "node"
        address.write_text(node.url)
        (shell.directory / "chains.toml").write_text(
            '[[chains]]\nname = "anvil"\nfamily = "evm"\nidentity = "31337"\n'
            f'[[chains.endpoints]]\nname = "one"\nsecret = "file:{address}"\n'
            '[[chains.tokens]]\nasset = "ETH"\ndecimals = 18\n'
        )
        run_page(ROOT / "README.md", shell)


def test_import_trades(shell: Shell) -> None:
    import gzip

    (shell.directory / "trades.csv").write_text(TRADES)
    (shell.directory / "more.csv.gz").write_bytes(gzip.compress(MORE.encode()))
    run_page(ROOT / "docs/how-to/import-trades.md", shell)


OTHERS = [
    page
    for page in PAGES
    if page.name not in ("README.md", "import-trades.md", "first-hour.md") and examples(page.read_text())
]


@pytest.mark.parametrize("page", OTHERS, ids=lambda page: page.name)
def test_other_pages(page: Path, shell: Shell, market: Market, cli: Cli) -> None:
    """Pages that presuppose a pair with trades and candles."""
    for minutes in (70, 61, 10, 3):
        market.trade(timedelta(minutes=-minutes), "84444.44", "0.75")
    assert cli("candles", "gen", "--interval", "1m").code == 0
    assert cli("tickers", "update").code == 0
    run_page(page, shell)


@pytest.fixture
def own_home() -> Iterator[Path]:
    """A maven home on the embedded default. Below /tmp itself: root's servers run as nobody, who must get there."""
    directory = Path(tempfile.mkdtemp(prefix="maven-docs-", dir="/tmp"))
    directory.chmod(0o755)
    home = directory / "home"
    try:
        yield home
    finally:
        for used in (home / "demo", home):
            if used.exists():
                embedded.stop(used, force=True)
        shutil.rmtree(directory)


def test_tutorial(own_home: Path, shell: Shell) -> None:
    """On the embedded default, as the tutorial says, and from its last part on on the test's own servers."""
    for name in ("MAVEN_DATABASE_URL", "MAVEN_REDIS_URL"):
        del shell.environment[name]
    shell.environment |= {"MAVEN_HOME": str(own_home), "MAVEN_EMBEDDED_LINGER": "5"}
    shell.values["MAVEN_HOME"] = str(own_home)
    run_page(ROOT / "docs/tutorial/first-hour.md", shell)
    assert not embedded.is_running(own_home)


def test_every_replaced_line_is_still_in_the_docs() -> None:
    lines = {
        re.sub(r"\s+#.*$", "", line).strip()
        for page in PAGES
        for example in examples(page.read_text())
        for line in example.script.splitlines()
    }
    assert set(INSTEAD) <= lines


# ----------------------------------------------------------------------------------------------------------- Redis


def documented_keys(section: str) -> list[str]:
    """The names in the first column of a section's table."""
    rows = re.findall(r"^\| (`[^|]+) \|", section, re.MULTILINE)
    return [key for row in rows for key in re.findall(r"`(\w+)`", row)]


def test_redis_payloads_have_the_documented_keys(cli: Cli, market: Market, cache: redis.Redis) -> None:
    market.trade(timedelta(minutes=-3), "100", "1")
    assert cli("tickers", "update").code == 0
    assert cli("candles", "gen", "--interval", "1m").code == 0
    page = (ROOT / "docs/reference/redis.md").read_text()
    ticker_section, _, candle_section = page.partition("## `ticker:24h:")[2].partition("## `candles:")
    pair = market.pair().id
    ticker = json.loads(str(cache.get(f"ticker:24h:{pair}")))
    assert documented_keys(ticker_section) == list(ticker)
    candles = json.loads(str(cache.get(f"candles:1m:{pair}")))
    assert documented_keys(candle_section) == list(candles)
    each = re.search(r"^Each candle: (.*?)\. ", candle_section, re.MULTILINE | re.DOTALL)
    assert each is not None
    assert re.findall(r"`(\w+)`", each[1]) == list(candles["candles"][0])


# --------------------------------------------------------------------------------------------- the checks themselves


def test_examples_are_found() -> None:
    text = (
        "```sh\nmaven up\n```\nso:\n```text\nyes\n```\n```text\nno\n```\n```sh\nls\n```\n```text\nno\n```\n"
    )
    assert examples(text) == [Example(1, "maven up\n", "yes\n", "text")]


def test_a_line_that_was_not_printed_is_found() -> None:
    printed = "a 1\nb 12ms 2026-01-31T00:00:00.5Z\nc 3\n"
    assert missing_lines("a 1\nb 7ms 2026-02-01T00:00:00.123Z\n", printed, numbers=False) == []
    assert missing_lines("a 2\nc 3\n", printed, numbers=False) == ["a 2", "c 3"]
    assert missing_lines("c 3\na 1\n", printed, numbers=False) == ["a 1"]
    assert missing_lines("a 9\n", printed, numbers=True) == []
    # A loop on a busy machine may skip a slot.
    assert (
        missing_lines("b 1ms 2026-01-31T00:00:00.5Z\nb 2ms 2026-01-31T00:00:01.5Z\n", printed, numbers=False)
        == []
    )


@pytest.mark.parametrize(
    ("shown", "real"),
    [
        ({"a": 1}, {"b": 1}),
        ({"a": 1}, {"a": "1"}),
        ({"a": [{"b": "1.5"}]}, {"a": [{"b": "x"}]}),
        ({"a": "2026-01-31T00:00:00Z"}, {"a": "2026-01-31"}),
        ([{"a": 1, "b": 2}], [{"b": 2, "a": 1}]),
    ],
)
def test_another_shape_is_found(shown: Sequence[Any], real: Sequence[Any]) -> None:
    assert differences(shape(shown), shape(real))
    assert differences(shape(shown), shape(shown)) == []


def test_a_failing_example_is_found(shell: Shell) -> None:
    example = Example(1, "maven tickers gone\n")
    with pytest.raises(AssertionError, match="gone"):
        check(example, shell.run(example))

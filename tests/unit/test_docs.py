"""The documentation says what the program does: generated pages, links, names, exit codes, log lines, command lines."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer._click.exceptions import ClickException, MissingParameter, NoArgsIsHelpError
from typer.core import TyperGroup

from docs import generate
from maven_cli import errors
from maven_cli.__main__ import run
from maven_cli.cli.app import PASSES
from maven_cli.errors import MavenError, UsageError
from maven_cli.runner import SKIPPED
from maven_cli.settings import Settings, variable
from tests.conftest import TEST_VARIABLES

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
SOURCES = sorted((ROOT / "maven_cli").rglob("*.py"))

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^ {4}.*\n)+", re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?)\s*$", re.MULTILINE)
SPAN = re.compile(r"`([^`\n]+)`")
# min hour day month weekday, the user, and the rest.
CRON = re.compile(r"^(?:[-*/,\d]+ +){5}(?:maven +)?(maven .*)$", re.MULTILINE)
VARIABLE = re.compile(r"\b(MAVEN_[A-Z_]*[A-Z]|LOG_LEVEL)\b")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(text: str) -> str:
    """The text without its code blocks."""
    return INDENTED.sub("\n", FENCE.sub("\n", text))


every_page = pytest.mark.parametrize("page", PAGES, ids=name)


# --------------------------------------------------------------------------------------------------- generated pages


def test_generated_pages_are_up_to_date() -> None:
    outdated = [name(path) for path in generate.stale()]
    assert not outdated, f"out of date: {', '.join(outdated)}; run: {generate.COMMAND}"


def test_a_note_about_nothing_and_a_table_without_a_note_are_refused() -> None:
    with pytest.raises(ValueError, match="no_such_table"):
        generate.check_notes({**generate.TABLES, "no_such_table": ""}, generate.COLUMNS)
    with pytest.raises(ValueError, match="trades"):
        generate.check_notes({key: "" for key in generate.TABLES if key != "trades"}, generate.COLUMNS)
    with pytest.raises(ValueError, match="no_such_column"):
        generate.check_notes(generate.TABLES, {"trades.no_such_column": ""})


@pytest.mark.parametrize(
    "path", [(), *(path for path, _ in generate.walk(generate.parser(), ()))], ids=" ".join
)
def test_help_does_not_say_what_a_flag_takes(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*path, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--help" in shown
    assert not re.findall("<(?:bool|int|float).*?>", shown.partition("Options ─")[2])


def test_what_every_may_run_are_commands() -> None:
    assert set(PASSES) <= {" ".join(path) for path, _ in generate.walk(generate.parser(), ())}


def test_every_command_and_option_is_documented() -> None:
    text = (ROOT / "docs/reference/commands.md").read_text()
    for path, command in generate.walk(generate.parser(), ()):
        heading = "maven " + " ".join(path)
        assert re.search(rf"^##+ {heading}$", text, re.MULTILINE), f"{heading} has no section"
        section = text.partition(f" {heading}\n")[2].partition("\n##")[0]
        shared = text.partition("## Options of every command")[2].partition("\n##")[0]
        for parameter in command.params:
            for option in [*parameter.opts, *parameter.secondary_opts]:
                if option.startswith("--"):
                    assert option in section or option in shared, f"{heading}: {option} is missing"


# -------------------------------------------------------------------------------------------------------------- links


def slug(heading: str) -> str:
    """GitHub's #anchor of a heading."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    return re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")


def anchors(text: str) -> set[str]:
    found: set[str] = set()
    for heading in HEADING.findall(FENCE.sub("", text)):
        base, number = slug(heading), 1
        unique = base
        while unique in found:
            unique, number = f"{base}-{number}", number + 1
        found.add(unique)
    return found


def broken_links(page: Path, text: str) -> list[str]:
    broken = []
    for target in LINK.findall(prose(text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            broken.append(f"{target}: no such file")
        elif fragment and fragment not in anchors(file.read_text() if file != page else text):
            broken.append(f"{target}: no such heading")
    return broken


@every_page
def test_internal_links_resolve(page: Path) -> None:
    assert broken_links(page, page.read_text()) == []


def test_a_broken_link_is_found() -> None:
    text = "# One *two*\n[a](#one-two) [b](#gone) [c](gone.md) [d](LICENSE) [e](https://example.org/gone)\n"
    assert broken_links(ROOT / "README.md", text) == ["#gone: no such heading", "gone.md: no such file"]


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    todo = [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in seen or page.suffix != ".md" or not page.is_file():
            continue
        seen.add(page)
        targets = LINK.findall(prose(page.read_text()))
        todo += [
            (page.parent / target.partition("#")[0]).resolve() for target in targets if ":" not in target
        ]
    assert [name(page) for page in PAGES if page not in seen] == []


# --------------------------------------------------------------------------------------------------------- exit codes


def subclasses(of: type[MavenError]) -> Iterator[type[MavenError]]:
    yield of
    for sub in of.__subclasses__():
        yield from subclasses(sub)


def test_exit_codes_are_those_of_the_error_classes() -> None:
    text = (ROOT / "docs/reference/exit-codes.md").read_text()
    documented = [int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)]
    ours = {found.exit_code for found in subclasses(MavenError) if found.__module__ == errors.__name__}
    # Success, items that failed, and Ctrl-C have no class.
    assert documented == sorted(ours | {0, 1, 130})


# ---------------------------------------------------------------------------------------------------------- log lines


@dataclass(frozen=True)
class LogCall:
    """A place in the code that logs: its level, its action, and a pattern of its message."""

    level: str
    action: str
    message: re.Pattern[str]


def pattern(node: ast.expr) -> re.Pattern[str]:
    """What a message looks like: an f-string's fields stand for anything."""
    match node:
        case ast.Constant(value=str(text)):
            return re.compile(re.escape(text))
        case ast.JoinedStr(values=parts):
            pieces = [
                re.escape(str(part.value)) if isinstance(part, ast.Constant) else ".+" for part in parts
            ]
            return re.compile("".join(pieces))
        case ast.Name(id="SKIPPED"):
            return re.compile(re.escape(SKIPPED))
        case _:
            return re.compile(".+")


def log_calls(source: str) -> set[LogCall]:
    levels = {"debug": "debug", "info": "info", "warning": "warn", "error": "error"}
    found = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(
                func=ast.Attribute(attr=method), args=[ast.Constant(value=str(action)), message, *_]
            ) if method in levels and re.fullmatch(r"[a-z-]+\.[a-z_-]+", action):
                found.add(LogCall(levels[method], action, pattern(message)))
    return found


CALLS = {call for path in SOURCES for call in log_calls(path.read_text())}
LOG_ROW = re.compile(r"^\| (debug|info|warn|error) \| `([a-z._-]+)` \| `(.*?)` \|", re.MULTILINE)
LOG_LINES = LOG_ROW.findall((ROOT / "docs/reference/log-lines.md").read_text())


def test_log_lines_are_those_of_the_code() -> None:
    assert len(CALLS) > 5, "the calls aren't found any more"
    assert {(level, action) for level, action, _ in LOG_LINES} == {
        (call.level, call.action) for call in CALLS
    }


@pytest.mark.parametrize(("level", "action", "line"), LOG_LINES, ids=[line[1] for line in LOG_LINES])
def test_a_documented_log_line_has_the_wording_of_the_code(level: str, action: str, line: str) -> None:
    label, _, message = line.partition("] ")
    assert label.startswith("[")
    calls = [call for call in CALLS if (call.level, call.action) == (level, action)]
    assert any(call.message.fullmatch(message) for call in calls), [call.message.pattern for call in calls]


def test_every_worker_label_is_documented() -> None:
    code = "".join(map(Path.read_text, SOURCES))
    labels = set(re.findall(r'\bLABEL = "([^"]+)"|WorkerLog\("([^"]+)"|\bWorker\("[^"]+", "([^"]+)"', code))
    documented = {line.partition("]")[0].removeprefix("[") for _, _, line in LOG_LINES}
    assert {"".join(groups) for groups in labels} == documented - {"…"}


# ----------------------------------------------------------------------------------------------------------- settings

SETTINGS = {variable(field) for field in Settings.model_fields}


@every_page
def test_settings_that_the_docs_name_exist(page: Path) -> None:
    known = SETTINGS | set(generate.OTHER_VARIABLES) | set(TEST_VARIABLES)
    assert set(VARIABLE.findall(page.read_text())) <= known


def test_every_variable_that_the_code_reads_is_documented() -> None:
    named = set(re.findall(r'"(MAVEN_[A-Z_]*[A-Z])"', "".join(map(Path.read_text, SOURCES))))
    assert named <= SETTINGS | set(generate.OTHER_VARIABLES)
    code = "".join(path.read_text() for path in SOURCES)
    assert [other for other in generate.OTHER_VARIABLES if f'"{other}"' not in code] == []


# ------------------------------------------------------------------------------------------------------ command lines


def parse(line: str, *, whole: bool = True) -> None:
    """Parses ``maven …`` without running it. With `whole` False it may be a beginning, or stop at a group.

    Raises what the command line would end with.
    """
    _descend(generate.parser(), shlex.split(line, comments=True)[1:], whole)


def _descend(group: Any, words: list[str], whole: bool) -> None:
    label: str | None = "maven"
    parent = None
    if not whole and not words:
        return
    try:
        context = group.make_context(label, words)
        while isinstance(group, TyperGroup):
            rest = [*context._protected_args, *context.args]
            if not rest:
                if whole:
                    raise UsageError("name a command")
                return
            parent = context
            label, group, rest = group.resolve_command(context, rest)
            if not rest and isinstance(group, TyperGroup) and not whole:
                return
            context = group.make_context(label, rest, parent=parent)
    except (MissingParameter, NoArgsIsHelpError):
        if whole:
            raise
        return
    except UsageError:
        # `every` alone is a name; with words after it they must be right.
        if whole or len(words) > 1:
            raise
        return
    if label == "every":
        _descend(generate.parser(), list(context.params["words"]), whole)


def simple_commands(script: str) -> Iterator[list[str]]:
    """The words of each command of a shell script; here documents and assignments left out."""
    script = re.sub(r"<<'?(\w+)'?.*?^\1$", "", script.replace("\\\n", " "), flags=re.MULTILINE | re.DOTALL)
    for line in script.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("();|&"):
                while words and re.fullmatch(r"\w+=.*", words[0]):
                    words.pop(0)
                if words:
                    yield words
                words = []
            else:
                words.append(word)


def quoted(text: str) -> Iterator[tuple[str, bool]]:
    """Every ``maven …`` that a page quotes, and whether it is a whole command line."""
    for language, block in FENCE.findall(text):
        if language == "sh":
            for words in simple_commands(block):
                if words[0] == "maven":
                    yield shlex.join(words), True
        for line in CRON.findall(block) if language == "cron" else ():
            yield line, True
    for block in INDENTED.findall(FENCE.sub("\n", text)):
        for line in block.splitlines():
            if line.strip().startswith("maven ") and "[" not in line and line.strip().isascii():
                yield line.strip(), True
    for span in SPAN.findall(prose(text)):
        if re.match(r"maven [a-z-]", span):
            yield span.replace(" …", ""), False


# Usage lines of this page are made from the parser itself.
QUOTED = sorted(
    {(name(page), *item) for page in PAGES if page.name != "commands.md" for item in quoted(page.read_text())}
)


@pytest.mark.parametrize(
    ("page", "line", "whole"), QUOTED, ids=[f"{page}: {line}" for page, line, _ in QUOTED]
)
def test_quoted_command_lines_parse(page: str, line: str, whole: bool) -> None:
    parse(line, whole=whole)


@pytest.mark.parametrize(
    "line",
    [
        "maven tickers updat",
        "maven candles gen",
        "maven candles gen --interval 2m",
        "maven candles verify --repairs",
        "maven candles",
        "maven every 5s tickers update",
        "maven every 5s -- tickers updat",
        "maven every 5s --for 1x -- tickers update",
    ],
)
def test_a_wrong_command_line_is_found(line: str) -> None:
    with pytest.raises((ClickException, MavenError)):
        parse(line)


@pytest.mark.parametrize(
    "line", ["maven candles gen", "maven candles", "maven every", "maven -q candles show"]
)
def test_a_beginning_is_enough_in_a_sentence(line: str) -> None:
    parse(line, whole=False)
    with pytest.raises((ClickException, MavenError)):
        parse(line)


@pytest.mark.parametrize("line", ["maven candle gone", "maven nothing", "maven every 5s -- gone"])
def test_a_wrong_name_is_found_in_a_sentence(line: str) -> None:
    with pytest.raises((ClickException, MavenError)):
        parse(line, whole=False)


def test_commands_are_found_in_a_script() -> None:
    script = "A=1 maven up # x\nzcat a | maven trades import - && \\\n  maven down\ncat >a <<'EOF'\nmaven x\nEOF\nls\n"
    assert [words for words in simple_commands(script) if words[0] == "maven"] == [
        ["maven", "up"],
        ["maven", "trades", "import", "-"],
        ["maven", "down"],
    ]
    page = f"```sh\n{script}```\n\n```cron\n* * * * * maven  maven -q up\n```\n\n    maven down x\n\n`maven db` `other`\n"
    assert list(quoted(page)) == [
        ("maven up", True),
        ("maven trades import -", True),
        ("maven down", True),
        ("maven -q up", True),
        ("maven down x", True),
        ("maven db", False),
    ]

"""Dead letters: recorded once, tried later and later, resolved by themselves, given up by a person only."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest

from maven_cli.operations import dead_letters
from maven_cli.operations.dead_letters import NOT_DUE, DeadLetter
from tests.support import Cli

BASE = timedelta(seconds=10)
LIMIT = timedelta(minutes=1)
WORKER = "orders-expire"
SECRET = "hunter2-never-to-be-seen"


def fail(
    conn: psycopg.Connection, item: str = "order:1", error: str = "wallet 5 is missing", worker: str = WORKER
) -> DeadLetter:
    return dead_letters.record(conn, worker, item, error, base=BASE, limit=LIMIT)


def not_due(conn: psycopg.Connection, *, later: timedelta = timedelta(0)) -> list[str]:
    """The items that a pass must not select, as the anti-join of a pass would see it."""
    row = conn.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    found = conn.execute(
        f"SELECT item FROM dead_letters WHERE worker = %(worker)s AND {NOT_DUE} ORDER BY item",
        {"worker": WORKER, "as_of": row[0] + later},
    )
    return [item for (item,) in found]


def wait(letter: DeadLetter) -> timedelta:
    return letter.next_attempt_at - letter.last_failed_at


# --- recording


def test_an_item_has_one_row_and_its_waits_double_up_to_the_limit(conn: psycopg.Connection) -> None:
    letters = [fail(conn, error=f"error {number}") for number in range(6)]
    assert [letter.attempts for letter in letters] == [1, 2, 3, 4, 5, 6]
    assert [wait(letter).total_seconds() for letter in letters] == [10, 20, 40, 60, 60, 60]
    assert {letter.id for letter in letters} == {letters[0].id}
    assert {letter.first_failed_at for letter in letters} == {letters[0].first_failed_at}
    assert letters[5].last_failed_at > letters[0].last_failed_at
    assert letters[5].error == "error 5"
    assert dead_letters.listed(conn) == [letters[5]]


def test_a_million_attempts_are_still_a_wait_of_the_limit(conn: psycopg.Connection) -> None:
    fail(conn)
    conn.execute("UPDATE dead_letters SET attempts = 1000000")
    assert wait(fail(conn)) == LIMIT


def test_the_first_wait_is_never_longer_than_the_limit(conn: psycopg.Connection) -> None:
    assert wait(dead_letters.record(conn, WORKER, "a", "x", base=LIMIT, limit=BASE)) == BASE


def test_workers_have_their_own_rows(conn: psycopg.Connection) -> None:
    first, second = fail(conn), fail(conn, worker="deposits-credit")
    assert first.id != second.id
    assert second.attempts == 1


@pytest.mark.parametrize(
    ("error", "stored"),
    [
        ("two\nlines\t and \x00 more", "two lines and more"),
        (f"no way to http://maven:{SECRET}@engine/x", "no way to http://maven:***@engine/x"),
        ("\ud800 half a letter \x1b[31m", "half a letter [31m"),
        (" \n ", "no reason was given"),
        ("<html>" + "x" * 1_000_000, "<html>" + "x" * 493 + "…"),
        ("[bold]kept[/bold] %s {x}", "[bold]kept[/bold] %s {x}"),
    ],
    ids=["lines", "secret", "not text", "empty", "long", "markup"],
)
def test_an_error_is_stored_as_one_clean_line(conn: psycopg.Connection, error: str, stored: str) -> None:
    assert fail(conn, error=error).error == stored


def test_what_was_resolved_opens_again_and_counts_from_one(conn: psycopg.Connection) -> None:
    fail(conn)
    before = fail(conn)
    assert dead_letters.resolve(conn, WORKER, ["order:1"]) == 1
    again = fail(conn)
    assert (again.id, again.state, again.attempts, again.closed_at, again.closed_by) == (
        before.id,
        "OPEN",
        1,
        None,
        None,
    )
    assert again.first_failed_at == again.last_failed_at > before.last_failed_at
    assert wait(again) == BASE


def test_what_was_discarded_stays_so_and_is_kept_up_to_date(conn: psycopg.Connection) -> None:
    letter = fail(conn)
    [gone] = dead_letters.discard(conn, [letter.id], by="ada", reason="a test order")
    again = fail(conn, error="still there")
    assert (again.state, again.closed_by, again.reason) == ("DISCARDED", "ada", "a test order")
    assert again.closed_at == gone.closed_at
    assert (again.attempts, again.error) == (2, "still there")
    assert not_due(conn, later=timedelta(days=10_000)) == ["order:1"]


# --- what passes select


def test_not_due_is_what_waits_or_was_given_up(conn: psycopg.Connection) -> None:
    for number in range(4):
        fail(conn, f"order:{number}")
    dead_letters.resolve(conn, WORKER, ["order:1"])
    found = {letter.item: letter.id for letter in dead_letters.listed(conn)}
    dead_letters.discard(conn, [found["order:2"]], by="ada", reason="gone")
    dead_letters.retry(conn, ids=[found["order:3"]])
    assert not_due(conn) == ["order:0", "order:2"]
    assert not_due(conn, later=BASE) == ["order:2"]


# --- resolving


def test_only_named_items_of_the_worker_are_resolved_and_only_open_ones(conn: psycopg.Connection) -> None:
    for item in ("a", "b", "c"):
        fail(conn, item)
    other = fail(conn, "a", worker="other")
    dead_letters.discard(conn, [dead_letters.listed(conn)[1].id], by="ada", reason="gone")
    assert dead_letters.resolve(conn, WORKER, ["a", "b", "unknown"]) == 1
    states = {
        (letter.worker, letter.item): (letter.state, letter.closed_by)
        for letter in dead_letters.listed(conn, everything=True)
    }
    assert states == {
        (WORKER, "a"): ("RESOLVED", WORKER),
        (WORKER, "b"): ("DISCARDED", "ada"),
        (WORKER, "c"): ("OPEN", None),
        (other.worker, "a"): ("OPEN", None),
    }
    assert dead_letters.resolve(conn, WORKER, ["a"]) == 0


def test_resolving_nothing_costs_next_to_nothing(conn: psycopg.Connection) -> None:
    """Without items not even a statement; without open dead letters one read, however many items."""
    fail(conn, worker="other")
    with conn.transaction():
        conn.execute(
            "LOCK TABLE dead_letters IN SHARE MODE"
        )  # nobody but us may write, and we must not want to
        with psycopg.connect(conn.info.dsn, password=conn.info.password, autocommit=True) as second:
            second.execute("SET lock_timeout = '1s'")
            assert dead_letters.resolve(second, WORKER, [str(number) for number in range(500)]) == 0
            with pytest.raises(psycopg.errors.LockNotAvailable):
                dead_letters.resolve(second, "other", ["order:1"])
    with psycopg.connect(conn.info.dsn, password=conn.info.password) as closed:
        closed.close()
        assert dead_letters.resolve(closed, WORKER, []) == 0


def test_a_rollback_takes_the_record_with_it(conn: psycopg.Connection) -> None:
    with conn.transaction(force_rollback=True):
        fail(conn)
    assert dead_letters.listed(conn) == []


# --- retrying


def test_retry_of_a_worker_or_of_all_leaves_closed_ones_alone(conn: psycopg.Connection) -> None:
    mine, gone, done = fail(conn, "a"), fail(conn, "b"), fail(conn, "c")
    other = fail(conn, "a", worker="other")
    dead_letters.discard(conn, [gone.id], by="ada", reason="gone")
    dead_letters.resolve(conn, WORKER, ["c"])
    assert [letter.id for letter in dead_letters.retry(conn, worker=WORKER)] == [mine.id]
    assert [letter.id for letter in dead_letters.retry(conn)] == [mine.id, other.id]
    assert not_due(conn) == ["b"]
    [again] = dead_letters.retry(conn, ids=[gone.id, done.id])
    assert (again.id, again.state, again.closed_by, again.reason) == (gone.id, "OPEN", None, None)
    assert dead_letters.retry(conn, ids=[]) == []


# --- the commands


@pytest.fixture
def three(conn: psycopg.Connection) -> list[int]:
    """An open one, a discarded one and a resolved one."""
    letters = [
        fail(conn, f"order:{number}", "engine says [no]: a long story " + "x" * 200) for number in range(3)
    ]
    dead_letters.discard(conn, [letters[1].id], by="ada", reason="a test order")
    dead_letters.resolve(conn, WORKER, ["order:2"])
    return [letter.id for letter in letters]


def test_list_in_a_pipe_is_whole(cli: Cli, three: list[int]) -> None:
    header, line = cli("dlq", "list").out.splitlines()
    names = header.split()
    cells = line.split(maxsplit=len(names) - 1)
    row = dict(zip(names, cells, strict=True))
    assert names == [
        "id", "worker", "item", "state", "attempts", "first_failed_at", "last_failed_at", "next_attempt_at", "error",
    ]  # fmt: skip
    assert (row["id"], row["item"], row["state"], row["attempts"]) == (str(three[0]), "order:0", "OPEN", "1")
    assert row["error"] == "engine says [no]: a long story " + "x" * 200
    assert len(cli("dlq", "list", "--all").out.splitlines()) == 4


def test_list_as_json_is_a_list(cli: Cli, three: list[int]) -> None:
    document = cli("dlq", "list", "--json").document
    [row] = document["data"]
    assert (row["id"], row["worker"], row["attempts"], row["closed_at"]) == (three[0], WORKER, 1, None)
    assert row["next_attempt_at"].endswith("Z")
    everything = cli("dlq", "list", "--all", "--worker", WORKER, "--json").document["data"]
    assert [row["state"] for row in everything] == ["OPEN", "DISCARDED", "RESOLVED"]
    assert cli("dlq", "list", "--worker", "nobody", "--json").document["data"] == []
    assert cli("dlq", "list", "--worker", "nobody").out == "there are no open dead letters\n"


def test_show(cli: Cli, three: list[int]) -> None:
    lines = cli("dlq", "show", str(three[1])).out.splitlines()
    shown = dict(line.split(maxsplit=1) for line in lines)
    assert (shown["state"], shown["closed_by"], shown["reason"]) == ("DISCARDED", "ada", "a test order")
    assert shown["error"].startswith("engine says [no]: a long story")
    assert cli("dlq", "show", str(three[0]), "--json").document["data"]["item"] == "order:0"


def test_retry(cli: Cli, conn: psycopg.Connection, three: list[int]) -> None:
    done = cli("dlq", "retry", *map(str, three))
    assert done.code == 0
    assert done.out.splitlines() == [
        f"{three[0]} (orders-expire order:0) is due now",
        f"{three[1]} (orders-expire order:1) is due now",
        f"{three[2]} (orders-expire order:2) was already RESOLVED by orders-expire",
    ]
    assert not_due(conn) == []
    fail(conn, "order:0")
    assert cli("dlq", "retry", "--worker", WORKER).out == "2 dead letters are due now\n"
    conn.execute("DELETE FROM dead_letters WHERE item <> 'order:0'")
    assert cli("dlq", "retry", "--worker", WORKER).out == "1 dead letter is due now\n"
    fail(conn, "order:1")
    document = cli("dlq", "retry", "--all", "--json").document
    assert [(row["item"], row["changed"]) for row in document["data"]] == [
        ("order:0", True),
        ("order:1", True),
    ]


def test_discard_says_who_and_why(cli: Cli, conn: psycopg.Connection, three: list[int]) -> None:
    env = {"MAVEN_OPERATOR": " Grace Hopper "}
    done = cli("dlq", "discard", *map(str, three), "--reason", " by\nhand ", env=env)
    assert done.out.splitlines() == [
        f"{three[0]} (orders-expire order:0) is discarded",
        f"{three[1]} (orders-expire order:1) was already DISCARDED by ada: a test order",
        f"{three[2]} (orders-expire order:2) was already RESOLVED by orders-expire",
    ]
    found = dead_letters.find(conn, three)[three[0]]
    assert (found.state, found.closed_by, found.reason) == ("DISCARDED", "Grace Hopper", "by hand")
    document = cli("dlq", "discard", str(three[1]), "--reason", "again", "--json").document
    assert [(row["id"], row["changed"], row["reason"]) for row in document["data"]] == [
        (three[1], False, "a test order")
    ]


def test_behind_sudo_the_person_is_on_record(cli: Cli, conn: psycopg.Connection, three: list[int]) -> None:
    env = {"SUDO_USER": "linus", "LOGNAME": "root"}
    assert cli("dlq", "discard", str(three[0]), "--reason", "gone", env=env).code == 0
    assert dead_letters.find(conn, three)[three[0]].closed_by == "linus"


def test_one_unknown_id_changes_nothing(cli: Cli, conn: psycopg.Connection, three: list[int]) -> None:
    before = dead_letters.listed(conn, everything=True)
    for command in (("retry",), ("discard", "--reason", "x")):
        done = cli("dlq", *command, str(three[0]), "999999")
        assert (done.code, done.out) == (2, "")
        assert done.err == "maven: there is no dead letter 999999; see: maven dlq list --all\n"
    assert dead_letters.listed(conn, everything=True) == before


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("show", "order:1"), "'order:1' is not an id; write the number that the list shows"),
        (("show", "0"), "'0' is not an id"),
        (("show", "99999999999999999999"), "is not an id"),
        (("retry", "1", "x2"), "'x2' is not an id"),
        (("show", "7"), "there is no dead letter 7"),
        (("retry",), "name either IDs, or --worker NAME, or --all"),
        (("retry", "1", "--all"), "name either IDs, or --worker NAME, or --all"),
        (("retry", "--worker", "x", "--all"), "name either IDs, or --worker NAME, or --all"),
        (("discard", "1"), "missing option '--reason'"),
        (("discard", "1", "--reason", " \n"), "--reason must say why"),
        (("discard", "--reason", "x"), "missing argument 'ID...'"),
    ],
)
def test_wrong_input_is_one_line_and_exit_2(cli: Cli, args: tuple[str, ...], message: str) -> None:
    done = cli("dlq", *args, "--json")
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1
    assert done.document["status"] == "error"

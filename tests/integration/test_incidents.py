"""Incidents: one open per kind and item, closed by a person with a reason, or by the pass that finds it settled."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal

import psycopg
import pytest

from maven_cli.operations import incidents
from tests.support import Cli, utc

KIND, ITEM = "engine-mismatch", "order:123"


def opened(conn: psycopg.Connection, summary: str = "engine has 6, books have 10", item: str = ITEM) -> int:
    """Opens one and returns its id."""
    assert incidents.open_incident(conn, KIND, item, summary)
    return next(found.id for found in incidents.listed(conn) if found.item == item)


def test_an_open_incident_is_brought_up_to_date_not_repeated(conn: psycopg.Connection) -> None:
    assert incidents.open_incident(conn, KIND, ITEM, "first", {"a": 1})
    [first] = incidents.listed(conn)
    assert not incidents.open_incident(conn, KIND, ITEM, "second", {"b": 2})
    [second] = incidents.listed(conn)
    assert (second.id, second.opened_at) == (first.id, first.opened_at)
    assert (second.summary, second.details) == ("second", {"b": 2})
    assert second.last_seen_at > first.last_seen_at == first.opened_at
    assert incidents.open_incident(conn, KIND, "order:124", "another")
    assert incidents.open_incident(conn, "other", ITEM, "another")


def test_after_it_was_resolved_the_next_one_is_new(conn: psycopg.Connection) -> None:
    first = opened(conn)
    assert incidents.close(conn, [KIND], [ITEM], "orders-expire", "the books agree now")
    assert not incidents.close(conn, [KIND], [ITEM], "orders-expire", "again")
    assert incidents.listed(conn) == []
    assert opened(conn) != first
    old, new = incidents.listed(conn, everything=True)
    assert (old.resolved_by, old.reason) == ("orders-expire", "the books agree now")
    assert (new.resolved_at, new.resolved_by, new.reason) == (None, None, None)


def test_what_somebody_has_looked_at_comes_back_only_when_it_changes(conn: psycopg.Connection) -> None:
    def see(**details: int) -> bool:
        return incidents.open_incident(conn, KIND, ITEM, "seen", details, unless_resolved=True)

    assert see(left=6)
    assert not see(left=6)
    (found,) = incidents.listed(conn)
    assert incidents.resolve(conn, found.id, by="ada", reason="known")
    assert not see(left=6)
    assert incidents.listed(conn) == []
    assert see(left=5)
    assert incidents.open_incident(conn, KIND, "order:124", "seen", {"left": 6}, unless_resolved=True)
    # And by default, whatever was resolved.
    assert incidents.close(conn, [KIND], [ITEM, "order:124"], "orders-expire", "over") == 2
    assert incidents.open_incident(conn, KIND, ITEM, "seen", {"left": 6})


def test_many_passes_that_see_the_same_open_it_once(conn: psycopg.Connection) -> None:
    def see(number: int) -> bool:
        with psycopg.connect(conn.info.dsn, password=conn.info.password, autocommit=True) as own:
            return incidents.open_incident(own, KIND, ITEM, f"seen by {number}")

    with ThreadPoolExecutor(8) as pool:
        news = list(pool.map(see, range(16)))
    assert news.count(True) == 1
    assert len(incidents.listed(conn)) == 1


def test_an_incident_appears_with_its_transaction_or_not_at_all(conn: psycopg.Connection) -> None:
    with conn.transaction(force_rollback=True):
        opened(conn)
    assert incidents.listed(conn) == []


def test_details_are_json_without_secrets(conn: psycopg.Connection) -> None:
    details = {
        "remaining": Decimal("1E-18"),
        "at": utc("2026-01-31T13:45:00"),
        "waited": timedelta(seconds=61),
        "answer": "http://u:hunter2@engine said\nno\x00",
        "orders": [1, None, True, {"deep": Decimal("10.50")}],
    }
    assert incidents.open_incident(conn, KIND, ITEM, "a\nb", details)
    [found] = incidents.listed(conn)
    assert found.summary == "a b"
    assert found.details == {
        "remaining": "0.000000000000000001",
        "at": "2026-01-31T13:45:00Z",
        "waited": 61.0,
        "answer": "http://u:***@engine said no",
        "orders": [1, None, True, {"deep": "10.5"}],
    }
    with pytest.raises(TypeError, match="object has no place in an incident's details"):
        incidents.open_incident(conn, KIND, ITEM, "x", {"what": object()})


# --- the commands


def test_list(cli: Cli, conn: psycopg.Connection) -> None:
    assert cli("incidents", "list").out == "there are no open incidents\n"
    first, second = opened(conn, "engine has [6], books have 10"), opened(conn, item="order:124")
    incidents.resolve(conn, second, by="ada", reason="looked at it")
    header, line = cli("incidents", "list").out.splitlines()
    assert header.split() == ["id", "kind", "item", "opened_at", "last_seen_at", "resolved_at", "summary"]
    cells = line.split(maxsplit=6)
    assert (cells[:3], cells[5:]) == ([str(first), KIND, ITEM], ["-", "engine has [6], books have 10"])
    assert len(cli("incidents", "list", "--all").out.splitlines()) == 3
    assert [row["id"] for row in cli("incidents", "list", "--json").document["data"]] == [first]
    everything = cli("incidents", "list", "--all", "--kind", KIND, "--json").document["data"]
    assert [(row["id"], row["resolved_by"]) for row in everything] == [(first, None), (second, "ada")]
    assert cli("incidents", "list", "--kind", "other", "--json").document["data"] == []


def test_show(cli: Cli, conn: psycopg.Connection) -> None:
    number = opened(conn)
    incidents.open_incident(conn, KIND, ITEM, "newer", {"engine": Decimal("6"), "orders": [1, 2]})
    lines = cli("incidents", "show", str(number)).out.splitlines()
    shown = dict(line.split(maxsplit=1) for line in lines)
    assert (shown["summary"], shown["resolved_at"]) == ("newer", "-")
    assert (shown["details.engine"], shown["details.orders"]) == ("6", "[1, 2]")
    data = cli("incidents", "show", str(number), "--json").document["data"]
    assert (data["id"], data["details"]) == (number, {"engine": "6", "orders": [1, 2]})


def test_resolve_takes_a_reason_and_a_name_and_happens_once(cli: Cli, conn: psycopg.Connection) -> None:
    number = opened(conn)
    env = {"MAVEN_OPERATOR": "grace"}
    done = cli("incidents", "resolve", str(number), "--reason", "checked by hand", env=env)
    assert (done.code, done.out) == (0, f"incident {number} ({KIND} {ITEM}) is resolved\n")
    found = incidents.find(conn, number)
    assert found is not None
    assert (found.resolved_by, found.reason) == ("grace", "checked by hand")
    again = cli("incidents", "resolve", str(number), "--reason", "me too", env={"MAVEN_OPERATOR": "ada"})
    assert (again.code, again.out) == (
        0,
        f"incident {number} ({KIND} {ITEM}) was already resolved by grace: checked by hand\n",
    )
    assert incidents.find(conn, number) == found
    data = cli("incidents", "resolve", str(number), "--reason", "x", "--json").document["data"]
    assert (data["changed"], data["reason"]) == (False, "checked by hand")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("show", "order:1"), "'order:1' is not an id; write the number that the list shows"),
        (("show", "99999999999999999999"), "is not an id"),
        (("show", "7"), "there is no incident 7; see: maven incidents list --all"),
        (("resolve", "7", "--reason", "x"), "there is no incident 7"),
        (("resolve", "7"), "missing option '--reason'"),
        (("resolve", "7", "--reason", ""), "--reason must say why"),
    ],
)
def test_wrong_input_is_one_line_and_exit_2(cli: Cli, args: tuple[str, ...], message: str) -> None:
    done = cli("incidents", *args, "--json")
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1
    assert done.document["status"] == "error"

"""`maven ledger`: look, adjust with a second person, change the mode. The real command."""

from __future__ import annotations

import psycopg
import pytest

from tests.books import Books
from tests.integration.test_audit import wrong
from tests.support import Cli

ALICE, BOB = {"MAVEN_OPERATOR": "alice"}, {"MAVEN_OPERATOR": "bob"}


@pytest.fixture
def books(conn: psycopg.Connection) -> Books:
    return Books(conn)


def test_show_tells_balances_locks_and_entries(books: Books, cli: Cli) -> None:
    wallet = books.deposit(42, "BTC", "1.50")
    order = books.place(42, "sell", "0.4", "100")
    by_id, by_name = cli("ledger", "show", str(wallet)), cli("ledger", "show", "42/btc")
    assert by_id.code == 0, by_id.err
    assert by_id.out == by_name.out
    lines = by_id.out.splitlines()
    assert lines[0] == f"wallet {wallet}: user 42, 1.1 BTC available, 0.4 locked"
    assert lines[1].split() == ["LOCK", "KIND", "REFERENCE", "REMAINING", "OF", "SINCE", "ORDERS"]
    cells = lines[2].split()
    assert (cells[1:5], cells[6]) == (["order", str(order), "0.4", "0.4"], str(order))
    assert [line.split()[2:] for line in lines[4:]] == [
        ["lock", f"order:{order}", "-0.4", "+0.4", "1.1", "0.4"],
        ["deposit", "tx-1", "+1.5", "0", "1.5", "0"],
    ]
    data = cli("ledger", "show", "42/BTC", "--limit", "1", "--json").document["data"]
    assert data["wallet"] == {
        "id": wallet, "user_id": 42, "asset": "BTC", "available": "1.1", "locked": "0.4", "seq": 2,
        "entry_available": "1.1", "entry_locked": "0.4",
    }  # fmt: skip
    assert [entry["seq"] for entry in data["entries"]] == [2]
    assert data["locks"][0]["order_ids"] == [order]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("7", "there is no wallet 7"),
        ("42/ETH", "user 42 has no ETH wallet"),
        ("42/ETH/x", "user 42 has no ETH/X wallet"),
        ("BTC", "'BTC' is not a wallet; write its id, or USER/ASSET like 42/BTC"),
        ("9223372036854775808", "is not a wallet"),
        ("", "'' is not a wallet"),
    ],
)
def test_a_wallet_that_is_none(books: Books, cli: Cli, name: str, words: str) -> None:
    for line in (("show", name), ("adjust", "propose", name, "1", "--reason", "r")):
        done = cli("ledger", *line)
        assert (done.code, done.out) == (2, "")
        assert words in done.err
        assert done.err.count("\n") == 1


def test_an_empty_wallet(books: Books, conn: psycopg.Connection, cli: Cli) -> None:
    conn.execute("INSERT INTO wallets (user_id, asset_id) VALUES (1, 1)")
    assert cli("ledger", "show", "1").out.splitlines()[1:] == ["no open locks", "no entries"]


def test_one_proposes_another_approves_and_the_ledger_tells(books: Books, cli: Cli) -> None:
    wallet = books.deposit(1, "USDT", "10")
    made = cli(
        "ledger",
        "adjust",
        "propose",
        "1/USDT",
        "-0.000000000000000001",
        "--reason",
        " a fee ",
        "--json",
        env=ALICE,
    )
    assert made.code == 0, made.err
    row = made.document["data"]
    assert (row["amount"], row["reason"], row["proposed_by"], row["state"]) == (
        "-0.000000000000000001",
        "a fee",
        "alice",
        "PROPOSED",
    )
    number = row["id"]
    assert books.value("SELECT seq FROM wallets WHERE id = %s", wallet) == 1
    listed = cli("ledger", "adjust", "list")
    assert number in listed.out
    same = cli("ledger", "adjust", "approve", number, env={"MAVEN_OPERATOR": " Alice "})
    assert (same.code, same.out) == (1, "")
    assert same.err == (
        f"maven: adjustment {number} was proposed by Alice; somebody else must approve it (MAVEN_OPERATOR names you)\n"
    )
    done = cli("ledger", "adjust", "approve", number, env=BOB)
    assert done.code == 0, done.err
    assert "as entry 2 (proposed by alice, approved by bob): a fee" in done.out
    again = cli("ledger", "adjust", "approve", number, env=BOB)
    assert again.code == 2
    assert f"adjustment {number} is APPROVED already, by bob" in again.err
    assert "a fee (proposed by alice, approved by bob)" in cli("ledger", "show", "1/USDT").out
    assert cli("ledger", "adjust", "list").out == "no adjustments\n"
    assert number in cli("ledger", "adjust", "list", "--all").out
    assert books.value("SELECT available::text FROM wallets WHERE id = %s", wallet) == "9.999999999999999999"
    assert wrong(books.conn) == []


def test_a_proposal_is_turned_down_with_a_reason(books: Books, cli: Cli) -> None:
    books.deposit(1, "USDT", "10")
    number = cli(
        "ledger", "adjust", "propose", "1/USDT", "+5", "--reason", "r", "--json", env=ALICE
    ).document["data"]["id"]
    assert cli("ledger", "adjust", "reject", number, "--reason", " ").code == 2
    done = cli("ledger", "adjust", "reject", number, "--reason", "no ticket", env=ALICE)
    assert (done.code, done.out) == (0, f"rejected {number} by alice: no ticket\n")
    assert cli("ledger", "adjust", "approve", number, env=BOB).code == 2
    assert "r; rejected: no ticket" in cli("ledger", "adjust", "list", "--all").out
    assert wrong(books.conn) == []


def test_an_adjustment_that_the_balance_does_not_bear_stays_proposed(books: Books, cli: Cli) -> None:
    wallet = books.deposit(1, "USDT", "10")
    number = cli(
        "ledger", "adjust", "propose", "1/USDT", "-11", "--reason", "r", "--json", env=ALICE
    ).document["data"]["id"]
    done = cli("ledger", "adjust", "approve", number, env=BOB)
    assert done.code == 1
    assert f"adjustment {number} can't be posted: wallet {wallet} has 10 available" in done.err
    assert books.value("SELECT state FROM ledger_adjustments") == "PROPOSED"


@pytest.mark.parametrize(
    "amount", ["1e3", "1.0000000000000000001", "0", "-0", "--1", "1,5", "", "1000000000000000000", "NaN"]
)
def test_an_amount_that_does_not_fit_is_refused(books: Books, cli: Cli, amount: str) -> None:
    books.deposit(1, "USDT", "10")
    done = cli("ledger", "adjust", "propose", "1/USDT", amount, "--reason", "r")
    assert (done.code, done.out) == (2, ""), done.err
    assert done.err.count("\n") == 1
    assert books.value("SELECT count(*) FROM ledger_adjustments") == 0


@pytest.mark.parametrize("number", ["x", "00000000-0000-0000-0000-000000000000", "' OR true"])
def test_an_adjustment_that_is_none(books: Books, cli: Cli, number: str) -> None:
    for line in (("approve", number), ("reject", number, "--reason", "r")):
        done = cli("ledger", "adjust", *line)
        assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert cli("ledger", "adjust", "propose", "1", "1").code == 2  # without a reason


def test_the_mode_is_shown_changed_and_kept(books: Books, conn: psycopg.Connection, cli: Cli) -> None:
    assert cli("ledger", "mode").out.startswith("enforced since ")
    assert cli("ledger", "mode", "observed", env=ALICE).out.endswith(", by alice\n")
    conn.execute("INSERT INTO wallets (user_id, asset_id, available) VALUES (1, 1, 5), (2, 1, 5)")
    assert ": the platform has moved it since" in cli("ledger", "show", "1/BTC").out
    done = cli("ledger", "mode", "enforced", "--json", env=BOB).document["data"]
    assert (done["mode"], done["changed_by"], done["opened"]) == ("enforced", "bob", 2)
    assert cli("ledger", "mode", "enforced", env=ALICE).out.endswith(", by bob\n")
    assert cli("ledger", "mode", "lenient").code == 2
    assert wrong(conn) == []


def test_a_wallet_that_no_opening_explains_stops_the_mode(
    books: Books, conn: psycopg.Connection, cli: Cli
) -> None:
    wallet = books.deposit(1, "BTC", "5")
    books.place(1, "sell", "5", "10")
    cli("ledger", "mode", "observed")
    conn.execute("UPDATE wallets SET locked = 4")
    done = cli("ledger", "mode", "enforced")
    assert done.code == 1
    assert (
        f"the mode stays as it is: wallet {wallet} has 4 locked, less than the 5 that its locks hold"
        in done.err
    )
    assert cli("ledger", "mode").out.startswith("observed since ")


def test_a_mode_that_must_wait_for_long_gives_up(books: Books, conn: psycopg.Connection, cli: Cli) -> None:
    books.deposit(1, "BTC", "5")
    cli("ledger", "mode", "observed")
    with conn.transaction():
        conn.execute("SELECT FROM wallets FOR UPDATE")
        done = cli("ledger", "mode", "enforced")
    assert done.code == 75, done.err
    assert cli("ledger", "mode").out.startswith("observed since ")

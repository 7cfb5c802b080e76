"""What operators decide: retry, release, reject, and tokens that are suspended. All or none, once, on record."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from maven_cli.deposits import decisions, follow
from maven_cli.deposits.decisions import Decided
from maven_cli.errors import UsageError
from maven_cli.passes.deposits_credit import credit
from tests.conftest import TestServices
from tests.deposit_books import CONTRACT, DepositBooks, block
from tests.support import Cli

ETHER = 10**18
ADA = {"MAVEN_OPERATOR": "ada"}


@pytest.fixture
def books(conn: psycopg.Connection) -> DepositBooks:
    return DepositBooks(conn, minimum="1")


def failed(books: DepositBooks, *transfers: Any) -> list[int]:
    """Confirmed deposits that crediting refused."""
    ids = books.confirmed(*transfers)
    for number in ids:
        with books.conn.transaction():
            assert follow.fail(books.conn, number, "the wallet is closed")
    return ids


def history(books: DepositBooks, number: int) -> list[tuple[str, str | None]]:
    rows = books.conn.execute(
        "SELECT status, detail FROM deposit_history WHERE deposit_id = %s ORDER BY id", [number]
    )
    return rows.fetchall()


# --------------------------------------------------------------------------------------------------------------- retry


def test_d32_retry_verifies_anew_and_credits_once(
    books: DepositBooks, cli: Cli, services: TestServices
) -> None:
    transfer = books.transfer(1, 2 * ETHER)
    (number,) = failed(books, transfer)
    done = cli("deposits", "retry", str(number), env=ADA)
    assert (done.code, done.out) == (0, f"deposit {number} is followed again\n")
    assert books.rows("status", "verified_at", "evidence", "reason") == [("CONFIRMING", None, None, None)]
    assert history(books, number)[-1] == ("CONFIRMING", "retried by ada")
    credit(services)
    assert books.balance(1) == 0, "not without being verified"
    books.confirm(transfer)
    credit(services)
    credit(services)
    assert books.balance(1) == 2
    assert books.statuses() == ["CREDITED"]


def test_d31_two_retries_at_once_have_one_effect(books: DepositBooks, services: TestServices) -> None:
    transfer = books.transfer(1, 2 * ETHER)
    (number,) = failed(books, transfer)

    def once(operator: str) -> list[Decided]:
        with (
            psycopg.connect(books.conn.info.dsn, password=books.conn.info.password, autocommit=True) as own,
            own.transaction(),
        ):
            return decisions.retry(own, [number], operator)

    with ThreadPoolExecutor(4) as pool:
        done = [found for [found] in pool.map(once, ["ada", "grace", "mary", "joan"])]
    assert [one.changed for one in done].count(True) == 1
    assert [what for _, what in history(books, number) if what and what.startswith("retried")] != []
    assert len([what for _, what in history(books, number) if what and what.startswith("retried")]) == 1
    books.confirm(transfer)
    credit(services)
    assert books.balance(1) == 2


def test_retry_of_what_is_on_its_way_changes_nothing(books: DepositBooks, cli: Cli) -> None:
    (number,) = books.confirmed(books.transfer(1, 2 * ETHER))
    before = books.rows("status", "verified_at", "updated_at")
    done = cli("deposits", "retry", str(number), "--json")
    assert done.document["data"] == [
        {
            "id": number,
            "status": "CONFIRMED",
            "changed": False,
            "message": f"deposit {number} is on its way already",
        }
    ]
    assert books.rows("status", "verified_at", "updated_at") == before


def test_retry_of_others_is_refused_and_changes_none(
    books: DepositBooks, cli: Cli, services: TestServices
) -> None:
    (credited,) = books.confirmed(books.transfer(1, 2 * ETHER))
    credit(services)
    (number,) = failed(books, books.transfer(2, 2 * ETHER))
    (held,) = books.detect(books.transfer(3, 1))
    for other, status in ((credited, "CREDITED"), (held, "HELD")):
        done = cli("deposits", "retry", str(number), str(other))
        assert done.code == 2
        assert (
            f"deposit {other} is {status}: only a FAILED one can be retried. Nothing was changed" in done.err
        )
    assert books.statuses() == ["CREDITED", "FAILED", "HELD"]


def test_retry_all_of_one_chain(conn: psycopg.Connection, cli: Cli) -> None:
    first = DepositBooks(conn)
    second = DepositBooks(conn, name="bsc", columns={"identity": "56"})
    failed(first, first.transfer(1, ETHER), first.transfer(2, ETHER))
    failed(second, second.transfer(1, ETHER))
    assert len(cli("deposits", "retry", "--all", "--chain", "ethereum").out.splitlines()) == 2
    assert first.statuses() == ["CONFIRMING", "CONFIRMING", "FAILED"]
    assert len(cli("deposits", "retry", "--all").out.splitlines()) == 1
    assert cli("deposits", "retry", "--all").out == "no deposit has failed\n"


# ---------------------------------------------------------------------------------------------------- release and reject


def test_d17_release_of_one_below_the_minimum(books: DepositBooks, cli: Cli, services: TestServices) -> None:
    transfer = books.transfer(1, ETHER // 2, at=block(998))
    (number,) = books.detect(transfer)
    done = cli("deposits", "release", str(number), "--reason", "a gift of the  house", env=ADA)
    assert done.code == 0
    assert done.out == f"deposit {number} is released; it is credited once it has its confirmations\n"
    assert books.rows("status", "reason", "released_by", "confirmations") == [("PENDING", None, "ada", 0)]
    assert history(books, number)[-1] == ("PENDING", "released by ada: a gift of the house")
    books.confirm(transfer, head=999)
    credit(services)
    assert books.statuses() == ["CONFIRMING"], "2 of 3 confirmations"
    books.confirm(transfer, head=1000)
    credit(services)
    assert books.balance(1) == ETHER // 2 / 10**18
    again = cli("deposits", "release", str(number), "--reason", "again")
    assert (again.code, again.out) == (0, f"deposit {number} was released already, by ada\n")
    # A reorganisation doesn't hold it again.
    assert books.statuses() == ["CREDITED"]


def test_a_released_deposit_that_moves_stays_released(books: DepositBooks, cli: Cli) -> None:
    transfer = books.transfer(1, 1)
    (number,) = books.detect(transfer)
    cli("deposits", "release", str(number), "--reason", "x")
    moved = books.transfer(1, 1, tx=transfer.tx_hash, at=block(101, "other"))
    books.record(moved)
    assert books.rows("status", "block_height") == [("PENDING", 101)]


def test_release_of_others_is_refused(books: DepositBooks, cli: Cli) -> None:
    (below,) = books.detect(books.transfer(1, 1))
    (pending,) = books.detect(books.transfer(2, 2 * ETHER))
    (young,) = books.detect(books.transfer(3, 2 * ETHER, immature=True))
    done = cli("deposits", "release", str(below), str(pending), "--reason", "x")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert f"deposit {pending} is PENDING: only a HELD one can be released" in done.err
    done = cli("deposits", "release", str(below), str(young), "--reason", "x")
    assert "can't be spent yet" in done.err
    assert books.statuses() == ["HELD", "PENDING", "HELD"]


def test_a_halted_token_s_deposits_are_not_released(books: DepositBooks, cli: Cli) -> None:
    (number,) = books.detect(books.transfer(1, 1))
    books.conn.execute("UPDATE tokens SET state = 'HALTED', state_reason = 'it has 6 decimals on the chain'")
    done = cli("deposits", "release", str(number), "--reason", "x")
    assert done.code == 2
    assert "while ETH on ethereum is halted: it has 6 decimals on the chain" in done.err
    assert books.statuses() == ["HELD"]


def test_reject(books: DepositBooks, cli: Cli, services: TestServices) -> None:
    transfer = books.transfer(1, 1)
    (held,) = books.detect(transfer)
    (bad,) = failed(books, books.transfer(2, 2 * ETHER))
    (pending,) = books.detect(books.transfer(3, 2 * ETHER))
    done = cli("deposits", "reject", str(held), str(pending), "--reason", "x")
    assert done.code == 2
    assert f"deposit {pending} is PENDING: only a HELD, FAILED or ORPHANED one can be rejected" in done.err
    done = cli("deposits", "reject", str(held), str(bad), "--reason", "sent back", env=ADA)
    assert (done.code, done.out) == (0, f"deposit {held} is rejected\ndeposit {bad} is rejected\n")
    assert books.rows("status", "reason")[:2] == [("REJECTED", "sent back (ada)")] * 2
    assert history(books, held)[-1] == ("REJECTED", "sent back (ada)")
    # Terminal: neither a block nor another decision brings it back.
    books.record(books.transfer(1, 1, tx=transfer.tx_hash, at=block(101, "other")))
    assert cli("deposits", "release", str(held), "--reason", "x").code == 2
    assert cli("deposits", "retry", str(bad)).code == 2
    again = cli("deposits", "reject", str(held), "--reason", "y")
    assert (again.code, again.out) == (0, f"deposit {held} was rejected already: sent back (ada)\n")
    credit(services)
    assert books.statuses() == ["REJECTED", "REJECTED", "PENDING"]


def test_a_decision_waits_for_whoever_holds_the_deposit(books: DepositBooks) -> None:
    (number,) = books.detect(books.transfer(1, 1))
    with psycopg.connect(books.conn.info.dsn, password=books.conn.info.password) as other:
        decisions.release(other, [number], "ada", "first")
        with ThreadPoolExecutor(1) as pool:
            later = pool.submit(decisions.reject, books.conn, [number], "grace", "second")
            other.commit()
            with pytest.raises(UsageError, match="is PENDING: only a HELD, FAILED or ORPHANED"):
                later.result(timeout=20)
    assert books.rows("status", "released_by") == [("PENDING", "ada")]


# ---------------------------------------------------------------------------------------------------------- suspension


def test_a_suspended_token_s_deposits_are_held_and_let_go(
    books: DepositBooks, cli: Cli, services: TestServices
) -> None:
    on_its_way = books.transfer(1, 5_000_000, token=CONTRACT)
    books.detect(on_its_way)
    done = cli("chains", "suspend", "ethereum", "--token", "usdt", "--reason", "bridge was hacked", env=ADA)
    assert (done.code, done.out) == (0, "USDT on ethereum is suspended\n")
    again = cli("chains", "suspend", "ethereum", "--token", "0x" + CONTRACT.hex(), "--reason", "and again")
    assert again.out == "USDT on ethereum was suspended already; the reason is the new one\n"
    other = books.transfer(2, 7_000_000, token=CONTRACT)
    eth = books.transfer(3, 2 * ETHER)
    books.detect(other, eth)
    assert books.statuses() == ["PENDING", "HELD", "PENDING"]
    books.confirm(on_its_way, other, eth)
    assert books.statuses() == ["CONFIRMING", "HELD", "CONFIRMED"]
    [_, usdt] = cli("chains", "tokens", "--json").document["data"]
    assert (usdt["asset"], usdt["state"]) == ("USDT", "SUSPENDED")
    assert usdt["reason"].startswith("and again (")
    done = cli("chains", "unsuspend", "ethereum", "--token", "USDT")
    assert done.out == "USDT on ethereum is active; 1 held deposits are followed now\n"
    assert (
        cli("chains", "unsuspend", "ethereum", "--token", "USDT").out
        == "USDT on ethereum was active already\n"
    )
    books.confirm(on_its_way, other, eth)
    credit(services)
    assert books.statuses() == ["CREDITED"] * 3


def test_unsuspending_keeps_other_reasons(books: DepositBooks, cli: Cli) -> None:
    cli("chains", "suspend", "ethereum", "--token", "ETH", "--reason", "x")
    books.detect(books.transfer(1, 1), books.transfer(2, 2 * ETHER, immature=True))
    assert books.statuses() == ["HELD", "HELD"]
    done = cli("chains", "unsuspend", "ethereum", "--token", "ETH")
    assert "0 held deposits are followed now" in done.out
    assert books.rows("status", "reason") == [("HELD", "below the minimum of 1"), ("HELD", "immature")]


def test_a_halted_token_is_asked_again_and_its_deposits_wait(books: DepositBooks, cli: Cli) -> None:
    books.conn.execute(
        "UPDATE tokens SET state = 'HALTED', state_reason = 'no token', checked_at = now() WHERE contract IS NOT NULL"
    )
    books.detect(books.transfer(1, 5_000_000, token=CONTRACT))
    assert cli("chains", "suspend", "ethereum", "--token", "USDT", "--reason", "x").code == 2
    done = cli("chains", "unsuspend", "ethereum", "--token", "USDT")
    assert done.code == 0
    assert "the next scan asks the chain again" in done.out
    assert books.statuses() == ["HELD"]
    row = books.conn.execute("SELECT state, checked_at FROM tokens WHERE contract IS NOT NULL").fetchone()
    assert row == ("ACTIVE", None)


def test_a_token_that_is_not_there_or_not_one(books: DepositBooks, cli: Cli) -> None:
    books.conn.execute(
        "INSERT INTO tokens (chain_id, contract, asset_id, decimals)"
        " SELECT chain_id, %s, asset_id, 6 FROM tokens WHERE contract IS NOT NULL",
        [bytes(20)],
    )
    for name, message in (
        ("DOGE", "no token 'DOGE' on ethereum; choose from ETH, USDT"),
        ("0x12", "no token '0x12' on ethereum"),
        ("USDT", "USDT is 2 tokens on ethereum; name one by its contract: 0x0000"),
    ):
        done = cli("chains", "suspend", "ethereum", "--token", name, "--reason", "x")
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert message in done.err

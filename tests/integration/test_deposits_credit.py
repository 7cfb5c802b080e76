"""The credit pass: exactly once, on young evidence only, each failure alone."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
import redis

from maven_cli.deposits import follow
from maven_cli.deposits.chains import set_state
from maven_cli.passes.deposits_credit import credit
from tests.conftest import TestServices
from tests.deposit_books import CONTRACT, DepositBooks
from tests.integration.test_audit import wrong
from tests.support import Cli

ETHER = 10**18


@pytest.fixture
def books(conn: psycopg.Connection) -> DepositBooks:
    return DepositBooks(conn)


def run(services: TestServices) -> dict[str, Any]:
    outcome = credit(services)
    assert outcome.data is not None
    return outcome.data


def test_credits_once_with_its_events(
    books: DepositBooks, services: TestServices, cache: redis.Redis
) -> None:
    transfers = [
        books.transfer(1, ETHER),
        books.transfer(1, 2 * ETHER),
        books.transfer(2, 5_000_000, token=CONTRACT),
    ]
    books.confirmed(*transfers)
    assert run(services)["credited"] == 3
    assert run(services)["credited"] == 0
    assert books.balance(1) == 3
    assert books.balance(2, "USDT") == 5
    assert books.statuses() == ["CREDITED"] * 3
    entries = books.conn.execute(
        "SELECT kind, reference, available_delta FROM ledger_entries ORDER BY wallet_id, seq"
    ).fetchall()
    assert entries[0] == ("deposit", f"ethereum:0x{transfers[0].tx_hash.hex()}:native:0", 1)
    told = books.events(["DepositCreditedEvent", "BalanceCreditedEvent"])
    assert len(told) == len(set(told)) == 6
    entries_of_stream: Any = cache.xrange("maven:events")
    published = [json.loads(fields["event"]) for _, fields in entries_of_stream]
    assert [event["type"] for event in published].count("BalanceCreditedEvent") == 3
    credited = next(event for event in published if event["type"] == "DepositCreditedEvent")
    assert credited["data"]["amount"] == "1"
    assert credited["data"]["txHash"] == "0x" + transfers[0].tx_hash.hex()


def test_the_platform_s_log_lines(books: DepositBooks, cli: Cli) -> None:
    transfer = books.transfer(1, 15 * 10**17)
    (number,) = books.confirmed(transfer)
    done = cli("deposits", "credit", "--verbose")
    assert done.code == 0
    assert "[DepositMonitoringWorker] Crediting confirmed deposits..." in done.err
    assert (
        f"[DepositMonitoringWorker] Credited deposit {number}: 1.5 ETH (tx: 0x{transfer.tx_hash.hex()})"
        in done.err
    )
    assert "[DepositMonitoringWorker] Credited 1 deposits, 0 errors (" in done.err


def test_d02_a_pass_that_died_after_its_commit(
    books: DepositBooks, services: TestServices, cache: redis.Redis
) -> None:
    books.confirmed(books.transfer(1, ETHER))
    books.conn.execute(
        "SELECT * FROM maven_credit_deposits(%s, %s, '2 minutes')",
        [books.chain.id, [row[0] for row in books.rows("id")]],
    )
    assert cache.xlen("maven:events") == 0
    assert run(services)["credited"] == 0
    assert books.balance(1) == 1
    assert cache.xlen("maven:events") == len(books.events()) == 4


def test_d37_stale_evidence_is_taken_again(books: DepositBooks, services: TestServices) -> None:
    transfer = books.transfer(1, ETHER)
    books.confirmed(transfer)
    # The chain was reorganised meanwhile, somewhere.
    books.conn.execute("UPDATE chains SET reorg_epoch = reorg_epoch + 1")
    data = run(services)
    assert (data["credited"], data["stale"]) == (0, 1)
    assert books.rows("status", "verified_at", "evidence") == [("CONFIRMING", None, None)]
    assert books.balance(1) == 0
    books.confirm(transfer)
    assert run(services)["credited"] == 1


def test_old_evidence_is_taken_again(books: DepositBooks, services: TestServices) -> None:
    transfer = books.transfer(1, ETHER)
    books.confirmed(transfer)
    books.conn.execute("UPDATE deposits SET verified_at = verified_at - interval '3 minutes'")
    data = run(services)
    assert (data["credited"], data["stale"]) == (0, 1)
    services.settings = services.settings.model_copy(
        update={"credit_evidence_max_age": timedelta(minutes=10)}
    )
    books.confirm(transfer)
    books.conn.execute("UPDATE deposits SET verified_at = verified_at - interval '3 minutes'")
    assert run(services)["credited"] == 1


@pytest.mark.parametrize("state", ["PAUSED", "HALTED"])
def test_a_chain_that_stands_still_credits_nothing(
    books: DepositBooks, services: TestServices, state: str
) -> None:
    (number,) = books.confirmed(books.transfer(1, ETHER))
    set_state(books.conn, books.chain, state, "to see")
    assert run(services)["credited"] == 0
    with pytest.raises(psycopg.Error) as refused:
        books.conn.execute(
            "SELECT * FROM maven_credit_deposits(%s, %s, '2 minutes')", [books.chain.id, [number]]
        )
    assert refused.value.sqlstate == "MVD01"
    assert books.statuses() == ["CONFIRMED"]


def test_d32_one_that_can_t_be_credited_fails_alone(books: DepositBooks, services: TestServices) -> None:
    good = [books.transfer(user, ETHER) for user in (1, 2, 3)]
    bad = books.transfer(4, 2**256 - 1)
    ids = books.confirmed(good[0], bad, *good[1:])
    outcome = credit(services)
    assert (outcome.status, outcome.exit_code) == ("partial", 1)
    assert outcome.data is not None
    assert (outcome.data["credited"], outcome.data["failed"]) == (3, 1)
    assert [error.item for error in outcome.errors] == [f"deposit:{ids[1]}"]
    (reason,) = [reason for status, reason in books.rows("status", "reason") if status == "FAILED"]
    assert "numeric(36,18)" in reason
    assert [books.balance(user) for user in (1, 2, 3, 4)] == [1, 1, 1, 0]
    assert len(books.events(["DepositFailedEvent"])) == 1
    assert credit(services).exit_code == 0


def test_d32_a_reference_that_was_credited_before(books: DepositBooks, services: TestServices) -> None:
    transfer = books.transfer(1, ETHER)
    books.confirmed(transfer)
    asset = books.conn.execute("SELECT id FROM assets WHERE symbol = 'ETH'").fetchone()
    assert asset is not None
    books.conn.execute(
        "SELECT * FROM maven_ledger_credit(%s, %s, %s, %s)",
        [[1], [asset[0]], [f"ethereum:0x{transfer.tx_hash.hex()}:native:0"], [Decimal(1)]],
    )
    assert credit(services).exit_code == 1
    assert books.statuses() == ["FAILED"]
    assert books.balance(1) == 1


def test_d41_a_wallet_that_is_held_is_no_failure(
    books: DepositBooks, services: TestServices, database_url: str
) -> None:
    first, second = books.transfer(1, ETHER), books.transfer(2, ETHER)
    books.confirmed(first)
    assert run(services)["credited"] == 1
    third = books.transfer(1, ETHER)
    books.confirmed(second, third)
    with psycopg.connect(database_url) as holder:
        holder.execute("SELECT FROM wallets WHERE user_id = 1 FOR UPDATE")
        outcome = credit(services)
    assert outcome.exit_code == 0
    assert outcome.data is not None
    assert (outcome.data["credited"], outcome.data["busy"]) == (1, 1)
    assert books.statuses() == ["CREDITED", "CREDITED", "CONFIRMED"]
    assert run(services)["credited"] == 1


def test_what_was_credited_can_t_be_changed(books: DepositBooks, services: TestServices) -> None:
    books.confirmed(books.transfer(1, ETHER))
    run(services)
    for change in (
        "status = 'CONFIRMED'",
        "units = 5",
        "user_id = 2",
        "entry_seq = NULL",
        "tx_hash = '\\x00'",
    ):
        with pytest.raises(psycopg.Error) as refused:
            books.conn.execute(f"UPDATE deposits SET {change}")
        assert refused.value.sqlstate == "MVD02", change
    with pytest.raises(psycopg.Error) as refused:
        books.conn.execute("DELETE FROM deposits")
    assert refused.value.sqlstate == "MVD02"
    assert not follow.fail(books.conn, books.rows("id")[0][0], "no")


def test_more_than_one_batch(books: DepositBooks, services: TestServices) -> None:
    transfers = [books.transfer(1 + number % 5, ETHER) for number in range(1203)]
    books.confirmed(*transfers)
    data = run(services)
    assert data["credited"] == 1203
    assert sum(books.balance(user) for user in range(1, 6)) == 1203
    assert books.conn.execute(
        "SELECT count(*), count(DISTINCT reference) FROM ledger_entries"
    ).fetchone() == (1203, 1203)


def test_redis_off_loses_nothing(books: DepositBooks, services: TestServices) -> None:
    books.confirmed(books.transfer(1, ETHER))
    off = replace(services, redis_url="redis://127.0.0.1:1/0")
    assert run(off)["credited"] == 1
    assert books.conn.execute("SELECT count(*) FROM outbox WHERE delivered_at IS NULL").fetchone() == (4,)


def test_the_audit_names_what_was_changed_by_hand(books: DepositBooks, services: TestServices) -> None:
    """As somebody would who may switch the guards off."""
    books.confirmed(books.transfer(1, ETHER), books.transfer(2, 5_000_000, token=CONTRACT))
    run(services)
    assert wrong(books.conn) == []
    books.conn.execute("ALTER TABLE deposits DISABLE TRIGGER USER")
    changes = {
        "UPDATE deposits SET units = units + 1 WHERE id = 1": "deposit 1: it is 1.000000000000000001, its entry says 1",
        "UPDATE deposits SET user_id = 3 WHERE id = 1": "its entry is in another wallet than its user's",
        "UPDATE deposits SET token_id = 3 - token_id WHERE id = 1": "its entry is in another wallet than its user's",
        "UPDATE deposits SET tx_hash = '\\x00' WHERE id = 1": "deposit 1: its entry is of ethereum:",
        "UPDATE deposits SET status = 'CONFIRMED' WHERE id = 1": "it was credited, but is CONFIRMED",
        "UPDATE deposits SET entry_seq = 9 WHERE id = 1": "its entry 1/9 doesn't exist",
        "UPDATE deposits SET credited_at = now() WHERE id = 1": "deposit 1: it was credited at",
        "DELETE FROM deposit_history; DELETE FROM deposits WHERE id = 1": "no deposit was credited by it",
        "DELETE FROM outbox WHERE type = 'DepositCreditedEvent'": "no DepositCreditedEvent says so",
        "DELETE FROM outbox WHERE type = 'BalanceCreditedEvent'": "no BalanceCreditedEvent says so",
    }
    for change, words in changes.items():
        with books.conn.transaction(force_rollback=True):
            books.conn.execute(change)
            found = wrong(books.conn)
            assert any(words in text for text in found), (change, found)

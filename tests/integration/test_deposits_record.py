"""What a scan writes down: identities, reorganisations, transactions that are mined again. Without a node."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import psycopg
import pytest

from maven_cli.deposits import record
from maven_cli.deposits.chains import ChainMovedError
from maven_cli.passes.deposits_credit import credit
from tests.conftest import TestServices
from tests.deposit_books import CONTRACT, DepositBooks, block, digest, key


@pytest.fixture
def books(conn: psycopg.Connection) -> DepositBooks:
    return DepositBooks(conn)


def credited(services: TestServices) -> int:
    """How many a credit pass credits."""
    data = credit(services).data
    assert data is not None
    return int(data["credited"])


def test_d01_the_same_again_changes_nothing(books: DepositBooks) -> None:
    transfers = [books.transfer(1, 5), books.transfer(2, 7, token=CONTRACT, ordinal=3)]
    assert len(books.detect(*transfers)) == 2
    before = books.rows("*")
    assert books.record(*transfers) == record.Recorded()
    assert books.rows("*") == before
    assert len(books.events()) == 2


def test_d01_two_scanners_at_once_write_one(books: DepositBooks, database_url: str) -> None:
    transfer = books.transfer(1, 5)
    with psycopg.connect(database_url) as other:
        record.record(other, books.chain, [transfer])
        books.conn.execute("SET lock_timeout = '200ms'")
        # The first one holds the row of the unique key until its end.
        with pytest.raises(psycopg.errors.LockNotAvailable):
            books.record(transfer)
        other.commit()
    assert books.record(transfer) == record.Recorded()
    assert len(books.statuses()) == 1


def test_d03_d04_each_output_and_each_log_is_a_deposit(books: DepositBooks) -> None:
    tx = digest("one")
    transfers = [books.transfer(1, 5, token=CONTRACT, ordinal=n, tx=tx) for n in (0, 1)]
    transfers += [books.transfer(1, 5, tx=tx)]
    assert len(books.detect(*transfers)) == 3


def test_d05_mined_again_with_another_log_index(books: DepositBooks) -> None:
    tx = digest("one")
    first = [books.transfer(1, 5, token=CONTRACT, ordinal=n, tx=tx) for n in (0, 4)]
    first.append(books.transfer(2, 9, token=CONTRACT, ordinal=2, tx=tx))
    ids = books.detect(*first)
    books.confirm(*first, head=101)
    assert books.rows("confirmations") == [(2,)] * 3
    fork = block(101, "fork")
    again = [books.transfer(1, 5, token=CONTRACT, ordinal=n, tx=tx, at=fork) for n in (1, 2)]
    again.append(books.transfer(2, 9, token=CONTRACT, ordinal=0, tx=tx, at=fork))
    assert sorted(books.record(*again).detected) == sorted(ids)
    rows = books.rows("id", "ordinal", "user_id", "units", "block_hash", "confirmations", "status")
    assert [row[0] for row in rows] == sorted(ids)
    assert {(row[1], row[2], row[3]) for row in rows} == {(1, 1, 5), (2, 1, 5), (0, 2, 9)}
    assert {row[4:] for row in rows} == {(fork.hash, 0, "PENDING")}


def test_d06_orphaned_and_found_again(books: DepositBooks) -> None:
    transfer = books.transfer(1, 5)
    (number,) = books.confirmed(transfer)
    assert books.statuses() == ["CONFIRMED"]
    _read_up_to(books, 105)
    with books.conn.transaction():
        found = record.rewind(books.conn, books.chain, block(99), (105, block(105).hash))
    assert found.orphaned == [number]
    assert books.rows("status", "confirmations", "verified_at", "evidence") == [("ORPHANED", 0, None, None)]
    assert books.chain.reorg_epoch == 1
    again = replace(transfer, block=block(101, "fork"))
    assert books.detect(again) == [number]
    assert books.rows("status", "block_hash") == [("PENDING", block(101, "fork").hash)]
    assert [event.split(":")[0] for event in books.events()] == [
        "DepositDetectedEvent",
        "DepositConfirmedEvent",
        "DepositOrphanedEvent",
        "DepositDetectedEvent",
    ]


def test_d07_a_credited_one_is_never_debited(books: DepositBooks, services: TestServices) -> None:
    transfer = books.transfer(1, 5 * 10**17)
    (number,) = books.confirmed(transfer)
    assert credit(services).exit_code == 0
    _read_up_to(books, 105)
    with books.conn.transaction():
        assert record.rewind(books.conn, books.chain, block(99), (105, block(105).hash)).orphaned == []
    assert books.statuses() == ["CREDITED"]
    assert books.balance(1) == Decimal("0.5")
    incident = books.conn.execute(
        "SELECT item, details->>'exposure', details->>'asset' FROM incidents WHERE kind = 'credited_orphan' AND resolved_at IS NULL"
    ).fetchall()
    assert incident == [(f"deposit:{number}", "0.5", "ETH")]
    # The same transaction in another block: nothing is wrong any more, and nothing is credited again.
    books.record(replace(transfer, block=block(101, "fork")))
    assert books.rows("status", "block_height") == [("CREDITED", 101)]
    assert books.conn.execute("SELECT count(*) FROM incidents WHERE resolved_at IS NULL").fetchone() == (0,)
    assert credited(services) == 0
    assert books.balance(1) == Decimal("0.5")


def test_d08_mined_again_with_another_amount(books: DepositBooks, services: TestServices) -> None:
    tx, other = digest("one"), digest("two")
    books.confirmed(books.transfer(1, 10**18, tx=tx))
    assert credit(services).exit_code == 0
    books.detect(books.transfer(2, 10**18, tx=other))
    fork = block(101, "fork")
    books.record(
        books.transfer(1, 3 * 10**18, tx=tx, at=fork), books.transfer(2, 3 * 10**18, tx=other, at=fork)
    )
    assert books.rows("status", "amount", "block_hash") == [
        ("CREDITED", Decimal(1), block(100).hash),
        ("PENDING", Decimal(3), fork.hash),
    ]
    open_ones = "SELECT kind FROM incidents WHERE resolved_at IS NULL"
    assert books.conn.execute(open_ones).fetchall() == [("credited_orphan",)]
    assert books.balance(1) == 1


def test_what_a_transaction_no_longer_pays_is_orphaned(books: DepositBooks) -> None:
    tx = digest("one")
    keep, gone = books.detect(
        books.transfer(1, 5, token=CONTRACT, ordinal=0, tx=tx),
        books.transfer(2, 6, token=CONTRACT, ordinal=1, tx=tx),
    )
    found = books.record(books.transfer(1, 5, token=CONTRACT, ordinal=0, tx=tx, at=block(101, "fork")))
    assert (found.detected, found.orphaned) == ([keep], [gone])
    assert books.statuses() == ["PENDING", "ORPHANED"]


def test_d13_unknown_tokens_are_kept_apart(books: DepositBooks) -> None:
    fake = bytes(20)
    found = books.record(books.transfer(1, 5, token=fake, ordinal=1))
    assert (found.detected, found.unmatched) == ([], 1)
    assert books.conn.execute(
        "SELECT contract, user_id, units, reason FROM unmatched_transfers"
    ).fetchall() == [(fake, 1, 5, "unknown token")]


def test_d15_decimals_are_a_chain_s_own(books: DepositBooks) -> None:
    other = DepositBooks(books.conn, name="bsc", decimals=8)
    books.detect(books.transfer(1, 1_500_000, token=CONTRACT))
    other.detect(other.transfer(1, 150_000_000))
    assert books.rows("amount") == [(Decimal("1.5"),), (Decimal("1.5"),)]


def test_d17_below_the_minimum_is_held(conn: psycopg.Connection, services: TestServices) -> None:
    books = DepositBooks(conn, minimum="0.001")
    books.detect(books.transfer(1, 10**15), books.transfer(2, 10**15 - 1))
    assert books.rows("status", "reason") == [("PENDING", None), ("HELD", "below the minimum of 0.001")]
    books.confirm()
    assert credited(services) == 0
    assert books.statuses()[1] == "HELD"


def test_d26_a_coinbase_output_waits_to_mature(books: DepositBooks) -> None:
    transfer = books.transfer(1, 5, immature=True)
    books.detect(transfer)
    books.confirm(transfer, head=100 + record.MATURITY - 1)
    assert books.rows("status", "reason") == [("HELD", "immature")]
    books.confirm(transfer, head=100 + record.MATURITY)
    assert books.statuses() == ["CONFIRMED"]


def test_d29_what_the_exchange_sends_is_no_deposit(books: DepositBooks) -> None:
    hot = digest("hot wallet")[:20]
    books.conn.execute(
        "INSERT INTO internal_addresses (chain_id, key, address, label) VALUES (%s, %s, 'hot', 'gas station')",
        [books.chain.id, hot],
    )
    found = books.record(
        books.transfer(1, 5, senders=(hot,)),
        books.transfer(1, 6, senders=(key(2),)),
        books.transfer(1, 7, senders=(bytes(20),)),
    )
    assert (len(found.detected), found.unmatched) == (1, 2)
    assert books.rows("units") == [(7,)]


def test_d38_amounts_are_exact(books: DepositBooks, services: TestServices) -> None:
    books.confirmed(books.transfer(1, 123456789000000000000000001))
    assert credit(services).exit_code == 0
    assert books.balance(1) == Decimal("123456789.000000000000000001")


def test_another_pass_moved_the_cursor(books: DepositBooks) -> None:
    _read_up_to(books, 105)
    with pytest.raises(ChainMovedError), books.conn.transaction():
        record.advance(books.conn, books.chain, (104, block(104).hash), [block(106)], 106)
    with pytest.raises(ChainMovedError), books.conn.transaction():
        record.rewind(books.conn, books.chain, block(99), (105, block(105, "fork").hash))
    with books.conn.transaction():
        record.advance(books.conn, books.chain, (105, block(105).hash), [block(106)], 106)


def _read_up_to(books: DepositBooks, height: int) -> None:
    """The chain as it is after a scan up to a height."""
    books.conn.execute(
        "UPDATE chain_progress SET cursor = %s, cursor_hash = %s WHERE chain_id = %s",
        [98, block(98).hash, books.chain.id],
    )
    with books.conn.transaction():
        record.advance(
            books.conn,
            books.chain,
            (98, block(98).hash),
            [block(number) for number in range(99, height + 1)],
            height,
        )

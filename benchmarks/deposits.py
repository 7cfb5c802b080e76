"""P8: crediting in batches, against one transaction per deposit."""

from __future__ import annotations

from statistics import median

import psycopg
from psycopg.types.json import Json

from benchmarks.bench import Bench, Services
from benchmarks.books import cloud_event
from benchmarks.report import PLATFORM, Finding
from benchmarks.timing import in_turns
from maven_cli.db.connection import connect, database_now
from maven_cli.db.locks import work_lock
from maven_cli.passes.deposits_credit import BATCH
from maven_cli.runner import _MONEY, limit_statements

USERS = 5_000
BATCHES = 4  # of 500 deposits, per measured step

_CHAIN = """
WITH chain AS (
    INSERT INTO chains (name, family, identity, confirmations) VALUES ('ethereum', 'evm', '1', 12) RETURNING id
), asset AS (
    INSERT INTO assets (symbol) VALUES ('ETH') RETURNING id
), token AS (
    INSERT INTO tokens (chain_id, asset_id, decimals) SELECT chain.id, asset.id, 18 FROM chain, asset
)
INSERT INTO deposit_addresses (chain_id, key, address, user_id)
SELECT chain.id, decode(lpad(to_hex(n), 40, '0'), 'hex'), '0x' || lpad(to_hex(n), 40, '0'), n FROM chain, generate_series(1, %s) n
"""
# As a scan and a confirm pass leave them. Wallets are there already: the first deposit of a user isn't the usual one.
_DEPOSITS = """
INSERT INTO deposits (chain_id, tx_hash, kind, ordinal, token_id, key, user_id, units, decimals, status, block_height, block_hash,
                      block_at, confirmations, required, verified_at, verified_epoch, evidence, confirmed_at)
SELECT c.id, sha256(n::text::bytea), 'native', 0, t.id, decode(lpad(to_hex(n %% %(users)s + 1), 40, '0'), 'hex'), n %% %(users)s + 1,
       1500000000000000000, 18, 'CONFIRMED', 100, sha256('block'), now(), 12, 12, now(), 0, '{"endpoint": "node-1"}', now()
  FROM chains c JOIN tokens t ON t.chain_id = c.id, generate_series(1, %(count)s) n
"""
_WALLETS = "INSERT INTO wallets (user_id, asset_id) SELECT n, a.id FROM assets a, generate_series(1, %s) n"
# The usual design has the same tables and indexes, without our triggers and digests: they aren't its cost.
_USUAL = """
CREATE SCHEMA usual;
CREATE TABLE usual.deposits (LIKE deposits INCLUDING ALL);
CREATE TABLE usual.wallets (LIKE wallets INCLUDING ALL);
CREATE TABLE usual.ledger_entries (LIKE ledger_entries INCLUDING ALL);
CREATE TABLE usual.outbox (LIKE outbox INCLUDING ALL);
ALTER TABLE usual.ledger_entries ALTER COLUMN digest DROP NOT NULL;
ALTER TABLE usual.outbox ALTER COLUMN digest DROP NOT NULL;
INSERT INTO usual.wallets OVERRIDING SYSTEM VALUE SELECT * FROM wallets;
"""
_LOCK_DEPOSIT = "SELECT user_id, amount, encode(tx_hash, 'hex') FROM usual.deposits WHERE id = %s AND status = 'CONFIRMED' FOR UPDATE"
_ADD = """
UPDATE usual.wallets SET available = available + %s, seq = seq + 1 WHERE user_id = %s AND asset_id = %s
RETURNING id, seq, available, locked
"""
_ENTRY = """
INSERT INTO usual.ledger_entries (wallet_id, seq, kind, reference, available_delta, locked_delta, available_after, locked_after)
VALUES (%s, %s, 'deposit', %s, %s, 0, %s, %s)
"""
_CREDITED = """
UPDATE usual.deposits SET status = 'CREDITED', wallet_id = %s, entry_seq = %s, credited_at = now(), updated_at = now() WHERE id = %s
"""
_EVENTS = """
INSERT INTO usual.outbox (event_id, type, aggregate, event)
VALUES (%s, 'DepositCreditedEvent', %s, %s), (%s, 'BalanceCreditedEvent', %s, %s)
"""


def crediting(bench: Bench) -> None:
    """P8. Both credit the same deposits, and what is measured is their database work, the commits included."""
    services = bench.database("bench_deposits")
    rounds = max(3, bench.rounds)
    each = BATCH * BATCHES
    with (
        connect(services.database_url, "benchmark") as conn,
        connect(services.database_url, "benchmark") as usual,
    ):
        with bench.telling(f"making {USERS:,} users and {each * (rounds + 1):,} deposits"):
            conn.execute(_CHAIN, [USERS])
            conn.execute(_WALLETS, [USERS])
            conn.execute(_DEPOSITS, {"users": USERS, "count": each * (rounds + 1)})
            _copy(conn)
        samples = in_turns(
            # Of the usual design a quarter is enough: its time grows with the deposits, one by one.
            {"usual": lambda: _one_by_one(usual, BATCH), "maven": lambda: _credit(services, conn)},
            rounds,
            warm_up=1,
        )
        for table, count in (("deposits", each * (rounds + 1)), ("usual.deposits", BATCH * (rounds + 1))):
            found = conn.execute(f"SELECT count(*) FROM {table} WHERE status = 'CREDITED'").fetchone()
            assert found == (count,), (table, found)
    bench.drop("bench_deposits")
    ratios = [one * BATCHES for one in samples.ratios("usual", "maven")]
    bench.report.add(
        Finding(
            "P8",
            "a transaction per deposit / batches of 500, the same deposits",
            median(ratios),
            at_least=25,
            rounds=rounds,
            spread=(min(ratios), max(ratios)),
            detail=f"{each / samples.median('maven'):,.0f} deposits/s against {BATCH / samples.median('usual'):,.0f}; "
            f"{PLATFORM['credit']}",
        )
    )


def _credit(services: Services, conn: psycopg.Connection) -> None:
    """The transactions of the credit pass."""
    row = conn.execute("SELECT id FROM chains").fetchone()
    assert row is not None
    for _ in range(BATCHES):
        ids = [
            number
            for (number,) in conn.execute(
                "SELECT id FROM deposits WHERE status = 'CONFIRMED' AND chain_id = %s ORDER BY id LIMIT %s",
                [row[0], BATCH],
            )
        ]
        with conn.transaction():
            limit_statements(conn, services.settings)
            conn.execute(_MONEY)
            work_lock(conn, "deposits:credit", timeout_ms=0)
            done = conn.execute(
                "SELECT deposit_id, status, amount, asset, tx FROM maven_credit_deposits(%s, %s, '1 day')",
                [row[0], ids],
            ).fetchall()
        assert len(done) == BATCH


def _copy(conn: psycopg.Connection) -> None:
    conn.execute(_USUAL)
    columns = conn.execute(
        "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute"
        " WHERE attrelid = 'deposits'::regclass AND attnum > 0 AND attgenerated = '' AND NOT attisdropped"
    ).fetchone()
    assert columns is not None
    conn.execute(
        f"INSERT INTO usual.deposits ({columns[0]}) OVERRIDING SYSTEM VALUE SELECT {columns[0]} FROM deposits"
    )
    conn.execute("VACUUM (FREEZE, ANALYZE)")


def _one_by_one(conn: psycopg.Connection, count: int) -> None:
    """The usual design: look for what is confirmed, then a transaction for each, its statements prepared once."""
    as_of = database_now(conn)
    asset = conn.execute("SELECT id FROM assets WHERE symbol = 'ETH'").fetchone()
    assert asset is not None
    found = conn.execute(
        "SELECT id FROM usual.deposits WHERE status = 'CONFIRMED' ORDER BY id LIMIT %s", [count], prepare=True
    ).fetchall()
    assert len(found) == count
    for (deposit,) in found:
        with conn.transaction():
            row = conn.execute(_LOCK_DEPOSIT, [deposit], prepare=True).fetchone()
            if row is None:
                continue
            user, amount, tx = row
            wallet = conn.execute(_ADD, [amount, user, asset[0]], prepare=True).fetchone()
            assert wallet is not None
            reference = f"ethereum:0x{tx}:native:0"
            conn.execute(
                _ENTRY, [wallet[0], wallet[1], reference, amount, wallet[2], wallet[3]], prepare=True
            )
            conn.execute(_CREDITED, [wallet[0], wallet[1], deposit], prepare=True)
            names = [
                f"DepositCreditedEvent:{reference}",
                f"deposit:{deposit}",
                f"BalanceCreditedEvent:{reference}",
            ]
            credited = {
                "depositId": str(deposit), "reference": reference, "chain": "ethereum", "txHash": f"0x{tx}", "userId": str(user),
                "asset": "ETH", "amount": str(amount), "status": "CREDITED", "confirmations": 12, "requiredConfirmations": 12,
            }  # fmt: skip
            balance = {
                "walletId": str(wallet[0]), "userId": str(user), "asset": "ETH", "amount": str(amount),
                "available": str(wallet[2]), "locked": str(wallet[3]), "sequence": str(wallet[1]), "depositId": str(deposit),
                "reason": "DEPOSIT_CREDITED",
            }  # fmt: skip
            conn.execute(
                _EVENTS,
                [
                    *names[:2],
                    Json(cloud_event(names[0], names[1], as_of, credited)),
                    names[2],
                    f"wallet:{wallet[0]}",
                    Json(cloud_event(names[2], f"wallet:{wallet[0]}", as_of, balance)),
                ],
                prepare=True,
            )

"""Commands that ask a node, on a real EVM node: chains test, chains rescan, deposits explain, and stuck's second try."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from maven_cli.chains import Block
from maven_cli.deposits import record
from maven_cli.deposits import rescan as again
from maven_cli.deposits.chains import ChainMovedError, hold, set_state
from maven_cli.deposits.config import read_file, write
from maven_cli.operations import incidents
from maven_cli.passes.chains_rescan import rescan
from maven_cli.passes.deposits_stuck import stuck
from tests.conftest import TestServices
from tests.evm_pool import Pool
from tests.integration.test_deposits_evm import ALICE, BOB, CAROL, ETHER, NODE, Exchange, file_of
from tests.support import Cli, Done

# A number of base units that no other test's transfer has.
UNITS = 7_654_321


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    with Pool() as anvil:
        monkeypatch.setenv(NODE, anvil.url)
        yield anvil


@pytest.fixture
def exchange(conn: psycopg.Connection, services: TestServices, node: Pool, tmp_path: Path) -> Exchange:
    token = node.deploy()
    path = tmp_path / "chains.toml"
    path.write_text(file_of(token))
    write(conn, read_file(path))
    return Exchange(conn, services, node, token)


@pytest.fixture
def maven(cli: Cli, node: Pool) -> Any:
    """`maven …` that knows where the node is, and a node that nobody listens at."""

    def run(*args: str) -> Done:
        return cli(
            *args, env={NODE: node.url, "DEAD": "http://127.0.0.1:9/key-of-mine", "MAVEN_OPERATOR": "ada"}
        )

    return run


def add_endpoint(exchange: Exchange, name: str, secret: str) -> None:
    exchange.conn.execute(
        "INSERT INTO chain_endpoints (chain_id, name, secret, priority) VALUES (%s, %s, %s, 9)",
        [exchange.chain.id, name, secret],
    )


def by_user(exchange: Exchange) -> dict[int, str]:
    """The status of the one deposit that each user has."""
    return dict(exchange.rows("user_id", "status"))


# --------------------------------------------------------------------------------------------------------- chains test


def test_endpoints_are_asked_everything(exchange: Exchange, maven: Any) -> None:
    exchange.node.mine(5)
    done = maven("chains", "test", "anvil", "--json")
    [one] = done.document["data"]
    assert (done.code, one["error"]) == (0, None)
    assert (one["identity"], one["head"], one["lag"]) == ("31337", exchange.node.head, 0)
    assert (one["reads"], one["batches"], one["circuit"]) == (True, True, "closed")
    assert one["latency"] > 0
    assert one["finalized"] is not None
    # Neither progress nor circuits are touched.
    assert exchange.progress.head_height is None


def test_an_endpoint_that_is_down_beside_one_that_is_up(exchange: Exchange, maven: Any) -> None:
    add_endpoint(exchange, "dead", "env:DEAD")
    done = maven("chains", "test")
    assert done.code == 1
    assert "key-of-mine" not in done.out + done.err
    assert exchange.node.url not in done.out + done.err
    [_, good, dead] = done.out.splitlines()
    assert dead.split()[:3] == ["anvil", "dead", "failed"]
    assert "node dead can't be reached" in dead
    assert good.split()[:3] == ["anvil", "one", "ok"]
    exchange.conn.execute("DELETE FROM chain_endpoints WHERE name = 'one'")
    assert maven("chains", "test").code == 69


def test_wrong_chains_missing_secrets_and_no_endpoint(exchange: Exchange, maven: Any) -> None:
    exchange.conn.execute("UPDATE chains SET identity = '1'")
    done = maven("chains", "test", "--json")
    assert done.code == 78
    [one] = done.document["data"]
    assert one["identity"] == "31337"
    assert "endpoint one is on chain 31337, not on anvil (1)" in one["error"]
    exchange.conn.execute("UPDATE chain_endpoints SET secret = 'env:NOT_SET'")
    assert "the variable NOT_SET is not set" in maven("chains", "test").out
    exchange.conn.execute("DELETE FROM chain_endpoints")
    done = maven("chains", "test")
    assert (done.code, "chain anvil has no endpoint" in done.out) == (78, True)
    assert maven("chains", "test", "gone").code == 2


def test_a_node_that_lags_fails(exchange: Exchange, maven: Any) -> None:
    exchange.conn.execute("UPDATE chain_progress SET head_height = %s", [exchange.node.head + 50])
    done = maven("chains", "test", "--json")
    [one] = done.document["data"]
    assert (done.code, one["lag"], one["error"]) == (69, 50, "node one is 50 blocks behind")


# -------------------------------------------------------------------------------------------------------------- rescan


def test_rescan_finds_what_was_left_out_and_changes_nothing_else(exchange: Exchange, maven: Any) -> None:
    node = exchange.node
    node.pay(ALICE, ETHER)
    node.pay(CAROL, 2 * ETHER)
    node.mine(5)
    exchange.scan()
    exchange.confirm()
    exchange.credit()
    before = exchange.rows("id", "status", "block_hash", "credited_at")
    assert [row[1] for row in before] == ["CREDITED"]
    # Known only later, and older than what is looked back for.
    exchange.conn.execute(
        "INSERT INTO deposit_addresses (chain_id, key, address, user_id, scanned_from) VALUES (%s, %s, %s, 3, 1)",
        [exchange.chain.id, bytes.fromhex(CAROL[2:]), CAROL],
    )
    done = maven("chains", "rescan", "anvil", "--from", "1", "--dry-run", "--json")
    data = done.document["data"]
    assert (done.code, data["complete"]) == (0, True)
    assert [(row["id"], row["amount"], row["user_id"]) for row in data["changes"]["created"]] == [
        (None, "2", 3)
    ]
    assert (data["changes"]["moved"], data["changes"]["orphaned"]) == ([], [])
    assert exchange.rows("id", "status", "block_hash", "credited_at") == before
    shown = maven("chains", "rescan", "anvil", "--from", "1", "--dry-run").out.splitlines()
    assert shown[1].split()[:6] == ["create", "-", "3", "2", "ETH", "PENDING"]
    assert shown[-1] == f"nothing was written; all of blocks 1 to {node.head} were read"
    epoch = exchange.chain.reorg_epoch
    done = maven("chains", "rescan", "anvil", "--from", "1")
    assert done.code == 0
    assert f"anvil will be read again from block 1 on, by ada; it was at {node.head}" in done.err
    assert (exchange.progress.cursor, exchange.progress.final_cursor) == (0, 0)
    assert exchange.chain.reorg_epoch == epoch + 1
    data = exchange.scan()
    assert (data["blocks"], data["detected"], data["orphaned"]) == (node.head, 1, 0)
    assert exchange.rows("id", "status", "block_hash", "credited_at")[:1] == before
    assert exchange.rows("user_id", "status")[1] == (3, "PENDING")


def test_rescan_makes_evidence_void(exchange: Exchange, maven: Any) -> None:
    exchange.node.pay(ALICE, ETHER)
    exchange.node.mine(5)
    exchange.scan()
    assert exchange.confirm()["confirmed"] == 1
    maven("chains", "rescan", "anvil", "--from", "1")
    assert exchange.credit()["credited"] == 0
    exchange.scan()
    exchange.confirm()
    assert exchange.credit()["credited"] == 1
    assert exchange.balance(1) == 1


def test_a_halted_chain_goes_on_from_a_block_that_somebody_chose(exchange: Exchange, maven: Any) -> None:
    node = exchange.node
    node.mine(3)
    node.pay(ALICE, ETHER)
    node.pay(BOB, ETHER)
    node.mine(14)
    exchange.scan()
    exchange.confirm()
    exchange.conn.execute("UPDATE deposits SET status = 'CONFIRMING', confirmed_at = NULL WHERE user_id = 2")
    exchange.credit()
    node.reorganise(14)
    assert maven("deposits", "scan").code == 1
    assert exchange.chain.state == "HALTED"
    assert [one.kind for one in incidents.listed(exchange.conn)] == ["chain_halted"]
    stuck_data = stuck(exchange.services, older_than=timedelta(0)).data
    assert stuck_data is not None
    assert {one.cause for one in stuck_data["stuck"]} == {"chain_halted"}
    done = maven("chains", "rescan", "anvil", "--from", "2", "--dry-run", "--json")
    changes = done.document["data"]["changes"]
    assert [(row["user_id"], row["status"]) for row in changes["orphaned"]] == [(2, "ORPHANED")]
    assert "of user 1 was credited with 1" in changes["incidents"][0]
    assert by_user(exchange) == {1: "CREDITED", 2: "CONFIRMING"}
    assert exchange.chain.state == "HALTED"
    assert maven("chains", "rescan", "anvil", "--from", "2").code == 0
    assert (exchange.chain.state, exchange.chain.state_reason) == ("ACTIVE", None)
    assert incidents.listed(exchange.conn) == []
    assert exchange.conn.execute("SELECT height FROM chain_blocks").fetchall() == [(1,)]
    exchange.scan()
    assert exchange.progress.cursor == node.head
    # Nothing that is attached to a block of the old chain can be credited.
    exchange.confirm()
    assert exchange.credit()["credited"] == 0


def test_what_is_attached_to_other_blocks_than_were_read_is_taken_back(exchange: Exchange) -> None:
    exchange.node.pay(ALICE, ETHER)
    exchange.node.pay(BOB, ETHER)
    exchange.node.mine(5)
    exchange.scan()
    exchange.confirm()
    exchange.conn.execute("UPDATE deposits SET status = 'CONFIRMING', confirmed_at = NULL WHERE user_id = 2")
    exchange.credit()
    [(height,), _] = exchange.rows("block_height")
    stored = exchange.conn.execute(
        "SELECT height, hash, parent, at FROM chain_blocks ORDER BY height"
    ).fetchall()
    same = [Block(*row) for row in stored]
    other = [Block(row[0], bytes(32), row[2], row[3]) for row in stored]

    def settle(blocks: list[Block], first: int, last: int) -> list[int]:
        with exchange.conn.transaction():
            hold(exchange.conn, exchange.chain)
            return record.settle(exchange.conn, exchange.chain, blocks, first, last)

    assert settle(same, 1, height + 5) == []
    assert settle([], 1, height - 1) == []
    assert by_user(exchange) == {1: "CREDITED", 2: "CONFIRMING"}
    assert len(settle(other, height, height)) == 1
    assert by_user(exchange) == {1: "CREDITED", 2: "ORPHANED"}
    [incident] = incidents.listed(exchange.conn)
    assert (incident.kind, incident.details["exposure"]) == ("credited_orphan", "1")
    assert settle(other, height, height) == []


@pytest.mark.parametrize(
    ("first", "code", "message"),
    [
        ("0", 2, "--from must be at least 1: block 0 is the genesis"),
        ("100000", 2, "would leave blocks out"),
        ("-1", 2, "--from"),
        ("x", 2, "--from"),
    ],
)
def test_rescan_of_what_is_not_there(
    exchange: Exchange, maven: Any, first: str, code: int, message: str
) -> None:
    assert "was never read" in maven("chains", "rescan", "anvil", "--from", "1").err
    exchange.scan()
    before = exchange.progress
    done = maven("chains", "rescan", "anvil", "--from", first)
    assert (done.code, done.err.count("\n")) == (code, 1)
    assert message in done.err
    assert exchange.progress == before


def test_a_dry_run_reads_no_more_than_a_scan(exchange: Exchange, cli: Cli) -> None:
    exchange.node.mine(70)
    exchange.scan()
    env = {NODE: exchange.node.url, "MAVEN_SCAN_BLOCKS": "60"}
    done = cli("chains", "rescan", "anvil", "--from", "5", "--dry-run", env=env)
    left = exchange.node.head - 64
    assert done.out.splitlines() == [
        "no deposit would change",
        f"nothing was written; blocks 5 to 64 were read, as many as one scan does; {left} are left",
    ]


def test_rescan_beside_somebody_who_was_faster(exchange: Exchange) -> None:
    exchange.scan()
    chain = exchange.chain
    below = Block(0, bytes(32), bytes(32), datetime.now(UTC))
    with exchange.conn.transaction():
        again.go_back(exchange.conn, chain, 1, below, "ada")
    with pytest.raises(ChainMovedError), exchange.conn.transaction():
        again.go_back(exchange.conn, chain, 1, below, "grace")


def test_a_paused_chain_stays_paused(exchange: Exchange) -> None:
    exchange.scan()
    set_state(exchange.conn, exchange.chain, "PAUSED", "maintenance")
    rescan(exchange.services, "anvil", 1, operator="ada")
    assert (exchange.chain.state, exchange.progress.cursor) == ("PAUSED", 0)


# ------------------------------------------------------------------------------------------------------------- explain


def test_a_deposit_s_story(exchange: Exchange, maven: Any) -> None:
    tx = exchange.node.pay(ALICE, 15 * ETHER // 10)
    exchange.node.mine(1)
    exchange.node.rpc("evm_increaseTime", 12)
    exchange.node.mine(1)
    exchange.scan()
    exchange.confirm()
    [one] = maven("deposits", "explain", tx, "--json").document["data"]["deposits"]
    assert one["diagnosis"]["cause"] == "confirming"
    assert one["diagnosis"]["why"] == "it has 2 of 3 confirmations"
    assert one["diagnosis"]["expected"] is not None
    exchange.node.mine(1)
    exchange.scan()
    exchange.confirm()
    exchange.credit()
    by_hash = maven("deposits", "explain", tx)
    assert by_hash.code == 0
    lines = by_hash.out.splitlines()
    assert lines[0] == f"Deposit {one['id']} of user 1: 1.5 ETH on anvil, CREDITED, 3 of 3 confirmations"
    told = [line.split()[1] for line in lines[3:] if "T" in line.split()[0]]
    assert [what for what in told if what != "event"] == [
        "mined", "pending", "confirming", "verified", "confirmed", "ledger", "credited",
    ]  # fmt: skip
    assert "by one against block 0x" in by_hash.out
    assert f"BalanceCreditedEvent:deposit:anvil:{tx}:native:0" in by_hash.out
    assert "now: it was credited by entry 1 of wallet 1" in by_hash.out
    assert maven("deposits", "explain", str(one["id"])).out == by_hash.out


def test_what_is_no_deposit(exchange: Exchange, maven: Any) -> None:
    node = exchange.node

    def looked(tx: str, *options: str) -> dict[str, Any]:
        done = maven("deposits", "explain", tx, *options, "--json")
        assert done.code == 0, done.err
        [one] = done.document["data"]["looked"]
        assert isinstance(one, dict)
        return one

    exchange.scan()
    fake = node.deploy("USDT", 6)
    stranger = node.pay(CAROL, ETHER)
    reverted = node.send(to=exchange.token, value=hex(1), data="0xdeadbeef")
    inner = node.call(exchange.token, "forward(address)", ALICE, wei=ETHER)
    unlisted = node.call(fake, "transfer(address,uint256)", ALICE, UNITS)
    unread = node.pay(ALICE, ETHER)
    node.mine()
    waiting = node.pay(ALICE, ETHER)
    assert looked("0x" + "ab" * 32)["state"] == "unknown"
    assert looked(waiting)["state"] == "pending"
    assert looked(stranger)["state"] == "not_ours"
    assert looked(reverted)["state"] == "failed"
    assert looked(inner)["state"] == "not_ours"
    found = looked(unlisted, "--chain", "anvil")
    assert (found["state"], found["height"]) == ("unmatched", node.head)
    assert f"pays user 1 {UNITS} base units of token" in found["why"]
    assert found["why"].endswith("unknown token")
    found = looked(unread)
    assert (found["state"], found["next"]) == ("not_read", "maven deposits scan --chain anvil")
    exchange.scan()
    # Now the books know both.
    data = maven("deposits", "explain", unlisted, "--json").document["data"]
    assert (data["looked"], data["unmatched"][0]["reason"]) == ([], "unknown token")
    assert "No deposit on anvil: " in maven("deposits", "explain", unlisted).out
    assert looked(unread, "--on-chain")["state"] == "deposit"


def test_a_transaction_that_was_passed_before_its_address_was_known(exchange: Exchange, maven: Any) -> None:
    tx = exchange.node.pay(CAROL, ETHER)
    exchange.node.mine()
    height = exchange.node.head
    exchange.scan()
    exchange.conn.execute(
        "INSERT INTO deposit_addresses (chain_id, key, address, user_id, scanned_from) VALUES (%s, %s, %s, 3, 99)",
        [exchange.chain.id, bytes.fromhex(CAROL[2:]), CAROL],
    )
    done = maven("deposits", "explain", tx)
    assert "that block was passed before the address or the token was known" in done.out
    assert done.out.endswith(f"next: maven chains rescan anvil --from {height} --dry-run\n")


def test_explain_where_no_node_answers(exchange: Exchange, maven: Any) -> None:
    exchange.node.stop()
    done = maven("deposits", "explain", "0x" + "ab" * 32)
    assert done.code == 69
    assert "no endpoint of anvil can be used" in done.err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("0x12",), "'0x12' is not a transaction's hash"),
        (("7",), "there is no deposit 7"),
        (("0x" + "ab" * 32, "--chain", "gone"), "no chain 'gone'; choose from anvil"),
    ],
)
def test_explain_of_what_is_neither(
    exchange: Exchange, maven: Any, args: tuple[str, ...], message: str
) -> None:
    done = maven("deposits", "explain", *args)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert message in done.err


# --------------------------------------------------------------------------------------------------------------- stuck


def test_stuck_tries_again_before_it_says_that_monitoring_is_not_active(
    exchange: Exchange, maven: Any
) -> None:
    exchange.node.pay(ALICE, ETHER)
    exchange.node.mine(5)
    exchange.scan()
    exchange.conn.execute("UPDATE deposits SET first_seen_at = now() - interval '25 hours'")
    exchange.conn.execute("UPDATE chain_progress SET head_seen_at = now() - interval '1 hour'")
    done = maven("deposits", "stuck", "--json")
    [one] = done.document["data"]["stuck"]
    assert (one["cause"], one["next"]) == ("not_running", "maven deposits scan --chain anvil")
    assert "not active" not in done.err
    # Now a head was told; the next look asks nobody.
    exchange.node.stop()
    assert "not active" not in maven("deposits", "stuck").err
    exchange.conn.execute("UPDATE chain_progress SET head_seen_at = now() - interval '1 hour'")
    done = maven("deposits", "stuck", "--json")
    assert "Blockchain monitoring is not active!" in done.err
    assert done.document["data"]["stuck"][0]["cause"] == "no_endpoint"

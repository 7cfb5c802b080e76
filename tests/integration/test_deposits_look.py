"""Looking at deposits: stats, stuck, list, show, unmatched. None of them asks a node of a chain that is well."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta

import psycopg
import pytest

from maven_cli.chains import Head
from maven_cli.deposits import follow
from maven_cli.deposits.chains import record_head, set_state
from maven_cli.passes.deposits_stats import stats
from maven_cli.passes.deposits_stuck import hours
from maven_cli.passes.deposits_stuck import stuck as run_stuck
from tests.conftest import TestServices
from tests.deposit_books import CONTRACT, DepositBooks, block, key
from tests.support import Cli

ETHER = 10**18


@pytest.fixture
def books(conn: psycopg.Connection) -> DepositBooks:
    return DepositBooks(conn)


def healthy(books: DepositBooks, head: int = 1000) -> None:
    """A chain whose head was told just now, and read up to it."""
    newest = block(head)
    record_head(books.conn, books.chain, Head(newest, head - 10, head - 20), "node-1")
    books.conn.execute(
        "UPDATE chain_progress SET head_at = now(), cursor = %s, cursor_hash = %s", [head, newest.hash]
    )


def age(books: DepositBooks, number: int, interval: str = "36 hours") -> None:
    """Makes a deposit look as if it was first seen so long ago."""
    books.conn.execute(
        "UPDATE deposits SET first_seen_at = now() - %s::interval WHERE id = %s", [interval, number]
    )


def causes(services: TestServices) -> dict[int, str]:
    data = run_stuck(services).data
    assert data is not None
    return {one.id: one.cause for one in data["stuck"]}


def fail(books: DepositBooks, number: int, reason: str) -> None:
    with books.conn.transaction():
        assert follow.fail(books.conn, number, reason)


# --------------------------------------------------------------------------------------------------------------- stats


def test_the_platform_s_line_of_stats(books: DepositBooks, cli: Cli) -> None:
    transfers = [books.transfer(1, number * ETHER) for number in range(1, 9)]
    ids = books.confirmed(*transfers[:4])
    books.conn.execute("SELECT * FROM maven_credit_deposits(%s, %s, '2 minutes')", [books.chain.id, ids[:3]])
    books.detect(*transfers[4:])
    fail(books, ids[3] + 1, "the wallet is closed")
    done = cli("deposits", "stats")
    assert done.code == 0
    assert (
        "[DepositMonitoringWorker] Deposit stats - Pending: 3, Confirming: 0, Confirmed: 1, Credited: 3\n"
        in done.err
    )
    header, line = done.out.splitlines()
    assert dict(zip(header.split(), line.split(), strict=True)) == {
        "chain": "ethereum", "pending": "3", "confirming": "0", "confirmed": "1", "credited": "3", "held": "0",
        "failed": "1", "orphaned": "0", "rejected": "0",
    }  # fmt: skip


def test_stats_count_what_is_held_by_reason_and_chain(
    conn: psycopg.Connection, services: TestServices
) -> None:
    first = DepositBooks(conn, minimum="1")
    second = DepositBooks(conn, name="bsc", columns={"identity": "56"})
    first.detect(first.transfer(1, 5), first.transfer(2, 6), first.transfer(3, ETHER))
    second.detect(second.transfer(1, ETHER))
    data = stats(services).data
    assert data is not None
    assert (data["pending"], data["held"], data["waiting"]) == (2, 2, 0)
    assert data["held_reasons"] == {"below the minimum of 1": 2}
    assert [(row["chain"], row["pending"], row["held"]) for row in data["chains"]] == [
        ("bsc", 1, 0),
        ("ethereum", 1, 2),
    ]


def test_stats_warn_of_deposits_that_wait_to_be_credited(books: DepositBooks, cli: Cli) -> None:
    ids = books.confirmed(books.transfer(1, ETHER), books.transfer(2, ETHER))
    assert "wait to be credited" not in cli("deposits", "stats").err
    books.conn.execute(
        "UPDATE deposits SET confirmed_at = now() - interval '5 minutes' WHERE id = %s", [ids[0]]
    )
    done = cli("deposits", "stats", "--json")
    assert done.document["data"]["waiting"] == 1
    assert (
        "1 confirmed deposits of ethereum wait to be credited, the longest for 5min: is maven deposits credit running?"
        in done.err
    )
    set_state(books.conn, books.chain, "PAUSED", "maintenance")
    assert "the chain is paused" in cli("deposits", "stats").err


def test_without_chains(cli: Cli) -> None:
    done = cli("deposits", "stats")
    assert (done.code, done.out) == (0, "there are no chains yet: maven chains add FILE\n")
    assert "Deposit stats - Pending: 0, Confirming: 0, Confirmed: 0, Credited: 0" in done.err
    done = cli("deposits", "stuck")
    assert (done.code, done.out, done.err) == (0, "no deposit is stuck for >24h\n", "")


# --------------------------------------------------------------------------------------------------------------- stuck


def test_d36_the_platform_s_lines_of_stuck(books: DepositBooks, cli: Cli) -> None:
    healthy(books)
    slow, failed = books.detect(
        books.transfer(1, ETHER, at=block(998)), books.transfer(2, ETHER, at=block(997))
    )
    follow.count(books.conn, books.chain, 999)
    fail(books, failed, "the wallet is closed")
    age(books, slow)
    age(books, failed, "25 hours")
    done = cli("deposits", "stuck")
    assert done.code == 0
    hashes = {number: f"0x{tx.hex()}" for number, tx in books.rows("id", "tx_hash")}
    assert [line.partition("[DepositMonitoringWorker] ")[2] for line in done.err.splitlines()] == [
        "Found 2 deposits stuck for >24h:",
        f"  - id: {slow}, txHash: {hashes[slow]}, status: CONFIRMING, confirmations: 2, age: 36h",
        f"  - id: {failed}, txHash: {hashes[failed]}, status: FAILED, confirmations: 3, age: 25h",
    ]
    data = cli("deposits", "stuck", "--json").document["data"]
    assert [(one["id"], one["cause"], one["next"]) for one in data["stuck"]] == [
        (slow, "not_counted", "maven deposits confirm --chain ethereum"),
        (failed, "failed", f"maven deposits retry {failed}"),
    ]
    assert "it failed: the wallet is closed" in data["stuck"][1]["why"]
    assert cli("deposits", "stuck", "--exit-code").code == 1
    assert cli("deposits", "stuck", "--exit-code", "--older-than", "40h").code == 0
    _, line, _ = done.out.splitlines()
    assert line.split()[:3] == [str(slow), "ethereum", "CONFIRMING"]
    assert line.endswith("; next: maven deposits confirm --chain ethereum")


def test_what_is_done_held_or_young_is_not_stuck(books: DepositBooks, services: TestServices) -> None:
    healthy(books)
    books.conn.execute("UPDATE tokens SET minimum = 1 WHERE contract IS NULL")
    ids = books.confirmed(books.transfer(1, ETHER), books.transfer(2, ETHER))
    books.conn.execute("SELECT * FROM maven_credit_deposits(%s, %s, '2 minutes')", [books.chain.id, ids])
    held = books.detect(books.transfer(3, 1), books.transfer(4, ETHER))
    books.conn.execute(
        "UPDATE deposits SET first_seen_at = now() - interval '23 hours' WHERE id = %s", [held[1]]
    )
    for number in (*ids, held[0]):
        age(books, number)
    assert causes(services) == {}


@pytest.mark.parametrize(
    ("sql", "cause"),
    [
        ("UPDATE chains SET state = 'PAUSED', state_reason = 'x'", "chain_paused"),
        ("UPDATE chains SET state = 'HALTED', state_reason = 'x'", "chain_halted"),
        ("UPDATE tokens SET state = 'SUSPENDED', state_reason = 'x'", "token_suspended"),
        ("UPDATE tokens SET state = 'HALTED', state_reason = 'x'", "token_halted"),
        ("UPDATE chain_progress SET head_at = now() - interval '11 minutes'", "node_behind"),
        ("UPDATE deposits SET missing_since = now()", "vanished"),
        ("UPDATE deposits SET status = 'ORPHANED'", "orphaned"),
        ("UPDATE deposits SET confirmations = 3", "not_verified"),
        ("UPDATE deposits SET confirmations = 3; UPDATE chains SET finality = 'finalized'", "not_final"),
        ("UPDATE chain_progress SET head_height = 999", "confirming"),
    ],
)
def test_why(books: DepositBooks, services: TestServices, sql: str, cause: str) -> None:
    healthy(books)
    (number,) = books.detect(books.transfer(1, ETHER, at=block(998)))
    follow.count(books.conn, books.chain, 999)
    age(books, number)
    books.conn.execute(sql)
    assert causes(services) == {number: cause}


def test_confirmed_but_not_credited(books: DepositBooks, services: TestServices) -> None:
    healthy(books)
    (number,) = books.confirmed(books.transfer(1, ETHER))
    age(books, number)
    assert causes(services) == {number: "not_credited"}


def test_a_vanished_deposit_and_a_scan_that_is_behind(books: DepositBooks, services: TestServices) -> None:
    healthy(books)
    (number,) = books.detect(books.transfer(1, ETHER, at=block(998)))
    age(books, number)
    books.conn.execute("UPDATE deposits SET missing_since = now()")
    books.conn.execute("UPDATE chain_progress SET cursor = 500")
    data = run_stuck(services).data
    assert data is not None
    [one] = data["stuck"]
    assert "the scan is 500 blocks behind" in one.why
    assert one.next == "maven deposits scan --chain ethereum"


def test_more_than_the_limit_are_counted(books: DepositBooks, cli: Cli) -> None:
    healthy(books)
    for number in books.detect(*(books.transfer(1, ETHER, at=block(998)) for _ in range(5))):
        age(books, number)
    done = cli("deposits", "stuck", "--limit", "2")
    assert "Found 5 deposits stuck for >24h:" in done.err
    assert done.err.count("  - id: ") == 2
    assert done.out.endswith("and 3 more; see --limit\n")


def test_monitoring_is_not_active_when_no_endpoint_answers(books: DepositBooks, cli: Cli) -> None:
    (number,) = books.detect(books.transfer(1, ETHER))
    age(books, number)
    books.conn.execute(
        "INSERT INTO chain_endpoints (chain_id, name, secret) VALUES (%s, 'one', 'env:NODE')",
        [books.chain.id],
    )
    env = {"NODE": "http://127.0.0.1:9/secret-key"}
    done = cli("deposits", "stuck", "--json", env=env)
    assert done.code == 0
    assert "[DepositMonitoringWorker] Blockchain monitoring is not active!" in done.err
    assert "secret-key" not in done.err + done.out
    data = done.document["data"]
    assert [one["chain"] for one in data["inactive"]] == ["ethereum"]
    assert [(one["cause"], one["next"]) for one in data["stuck"]] == [
        ("no_endpoint", "maven chains test ethereum")
    ]
    assert cli("deposits", "stuck", "--exit-code", env=env).code == 1
    # A chain that somebody has paused isn't expected to be watched.
    set_state(books.conn, books.chain, "PAUSED", "maintenance")
    assert "not active" not in cli("deposits", "stuck", env=env).err


@pytest.mark.parametrize(
    ("seconds", "text"), [(36 * 3600 + 5, "36h"), (100 * 3600, "100h"), (1510, "25min"), (5, "5s"), (0, "0s")]
)
def test_hours(seconds: int, text: str) -> None:
    assert hours(timedelta(seconds=seconds)) == text


# ------------------------------------------------------------------------------------------------------- list and show


def test_list(books: DepositBooks, cli: Cli) -> None:
    first, second, held = books.detect(
        books.transfer(1, 123456789000000000000000001),
        books.transfer(2, 5_500_000, token=CONTRACT),
        books.transfer(2, ETHER, immature=True),
    )
    header, *lines = cli("deposits", "list").out.splitlines()
    assert header.split() == [
        "id", "chain", "status", "confirmations", "amount", "asset", "user_id", "first_seen_at", "tx_hash", "reason",
    ]  # fmt: skip
    assert [line.split()[0] for line in lines] == [str(held), str(second), str(first)]
    assert lines[2].split()[4] == "123456789.000000000000000001"
    assert lines[0].endswith("immature")

    def ids(*options: str) -> list[int]:
        return [row["id"] for row in cli("deposits", "list", *options, "--json").document["data"]]

    assert ids("--status", "held") == [held]
    assert ids("--user", "2", "--status", "PENDING") == [second]
    assert ids("--chain", "ethereum", "--limit", "1") == [held]
    assert "the newest 1 of 3; see --limit" in cli("deposits", "list", "-n", "1").out
    assert cli("deposits", "list", "--user", "9").out == "there is no such deposit\n"


def test_show(books: DepositBooks, cli: Cli) -> None:
    transfer = books.transfer(1, 15 * 10**17)
    (number,) = books.confirmed(transfer)
    shown = dict(line.split(maxsplit=1) for line in cli("deposits", "show", str(number)).out.splitlines())
    assert shown["amount"] == "1.5 ETH"
    assert shown["tx_hash"] == "0x" + transfer.tx_hash.hex()
    assert shown["evidence.endpoint"] == "node-1"
    assert shown["credited_at"] == "-"
    data = cli("deposits", "show", str(number), "--json").document["data"]
    assert (data["units"], data["amount"], data["address"]) == (str(15 * 10**17), "1.5", "0x" + key(1).hex())
    assert data["reference"] == f"ethereum:0x{transfer.tx_hash.hex()}:native:0"


def test_unmatched(books: DepositBooks, cli: Cli) -> None:
    fake = bytes(20)
    assert cli("deposits", "unmatched").out.startswith("nothing arrived")
    books.record(books.transfer(3, 10**30, token=fake, at=block(77)))
    header, line = cli("deposits", "unmatched").out.splitlines()
    assert header.split()[:5] == ["chain", "user_id", "units", "contract", "block_height"]
    assert line.split()[:5] == ["ethereum", "3", str(10**30), "0x" + fake.hex(), "77"]
    assert line.endswith("unknown token")
    [row] = cli("deposits", "unmatched", "--json", "--chain", "ethereum").document["data"]
    assert (row["units"], row["reason"]) == (str(10**30), "unknown token")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("list", "--status", "gone"), "no status 'gone'; choose from PENDING"),
        (("list", "--chain", "gone"), "no chain 'gone'; choose from ethereum"),
        (("show", "7"), "there is no deposit 7; see: maven deposits list"),
        (("show", "0x12"), "is not an id"),
        (("stuck", "--older-than", "soon"), "is not a duration"),
        (("retry",), "name either IDs, or --all"),
        (("retry", "1", "--all"), "name either IDs, or --all"),
        (("retry", "1", "--chain", "ethereum"), "name either IDs, or --all"),
        (("retry", "7", "8"), "there is no deposit 7, 8"),
        (("release", "7", "--reason", " "), "--reason must say why"),
        (("reject", "7"), "missing option '--reason'"),
    ],
)
def test_wrong_input_is_one_line_and_exit_2(
    books: DepositBooks, cli: Cli, args: tuple[str, ...], message: str
) -> None:
    done = cli("deposits", *args)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    "command", [["stats"], ["stuck"], ["list"], ["credit"], ["show", "1"], ["retry", "--all"]]
)
def test_no_adapter_and_no_web3_is_imported(books: DepositBooks, cli: Cli, command: list[str]) -> None:
    healthy(books)
    (number,) = books.detect(books.transfer(1, ETHER))
    age(books, number)
    code = (
        "import sys\nfrom maven_cli.__main__ import main\n"
        f"sys.argv = ['maven', 'deposits', *{command!r}]\n"
        "try:\n    code = main()\nexcept SystemExit as end:\n    code = end.code\n"
        "bad = [name for name in sys.modules if name.split('.')[0] in ('web3', 'solders', 'eth_utils', 'httpx')"
        " or name.startswith(('maven_cli.chains.evm', 'maven_cli.chains.bitcoin', 'maven_cli.chains.solana'))]\n"
        "print('code', code, 'imported', bad, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=cli.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr.splitlines()[-1] == "code 0 imported []", done.stderr

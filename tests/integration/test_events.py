"""Events: from the SQL functions that write them to whoever reads the stream, whatever dies in between.

The processes here are real ones: publishers, relays, readers, and a Valkey of their own where it has to die.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import jsonschema
import psycopg
import pytest
import redis
from psycopg.types.json import Jsonb

from maven_cli.cache import open_cache
from maven_cli.db.locks import WORK_NAMESPACE, lock_key
from maven_cli.embedded.binaries import valkey_bin
from maven_cli.errors import ConfigurationError, DatabaseDownError, RedisDownError, TryLaterError, UsageError
from maven_cli.events import publish as publishing
from maven_cli.events.publish import Published, publish, publish_after, waiting
from maven_cli.events.replay import replay
from maven_cli.events.stream import Entry, following, newest
from maven_cli.events.types import TYPES, schema
from maven_cli.logs import WorkerLog, configure
from maven_cli.passes.events import relay
from maven_cli.runner import Outcome
from tests.conftest import FULL, TestServices
from tests.deposit_books import CONTRACT, DepositBooks, block
from tests.support import Cli, Done, Market

STREAM = "maven:events"
LONG = timedelta(seconds=60)
PATIENCE = 30.0  # seconds; a busy box is slow, not wrong
LOG = WorkerLog("EventTest", "events-test")
CLOSED = "redis://127.0.0.1:1/0"
PAGE = Path(__file__).resolve().parents[2] / "docs/reference/events.md"


# --- helpers


def add(conn: psycopg.Connection, aggregate: str, number: int, kind: str = "OrderExpiredEvent") -> str:
    """One event as a SQL function would write it; its id."""
    event_id = f"{kind}:{aggregate}:{number}"
    conn.execute(
        "INSERT INTO outbox (event_id, type, aggregate, event)"
        " SELECT %(id)s, %(type)s, %(about)s, maven_cloud_event(%(id)s, %(type)s, %(about)s, %(data)s)",
        {"id": event_id, "type": kind, "about": aggregate, "data": Jsonb({"number": number})},
    )
    return event_id


def add_many(conn: psycopg.Connection, count: int, aggregates: int = 7, start: int = 0) -> list[str]:
    """Events of several aggregates in turn, in one transaction; their ids in order."""
    with conn.transaction():
        return [add(conn, f"order:{number % aggregates}", number) for number in range(start, start + count)]


def streamed(cache: redis.Redis, stream: str = STREAM) -> list[str]:
    """The event ids in the stream, oldest first."""
    entries: Any = cache.xrange(stream)
    return [fields["id"] for _, fields in entries]


def first_seen(ids: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(ids))


def in_order(ids: Sequence[str]) -> bool:
    """Whether each aggregate's events, repeated ones dropped, are numbered upwards."""
    last: dict[str, int] = defaultdict(lambda: -1)
    for event_id in first_seen(ids):
        aggregate, _, number = event_id.rpartition(":")
        if int(number) <= last[aggregate]:
            return False
        last[aggregate] = int(number)
    return True


def undelivered(conn: psycopg.Connection) -> list[str]:
    rows = conn.execute("SELECT event_id FROM outbox WHERE delivered_at IS NULL ORDER BY id")
    return [row[0] for row in rows]


def deliver(services: TestServices, conn: psycopg.Connection, **options: Any) -> Published:
    chosen = {"stream": STREAM, "maxlen": 0, "budget": LONG, **options}
    with open_cache(services.redis_url) as client:
        return publish(conn, client, **chosen)


def relayed(services: TestServices, **options: Any) -> dict[str, Any]:
    outcome: Outcome = relay(services, **options)
    assert (outcome.status, outcome.exit_code) == ("success", 0)
    assert outcome.data is not None
    return outcome.data


def eventually(found: Callable[[], Any], what: str) -> Any:
    give_up = time.monotonic() + PATIENCE
    while not (answer := found()):
        assert time.monotonic() < give_up, f"waited in vain for {what}"
        time.sleep(0.02)
    return answer


def age(conn: psycopg.Connection, ids: str, delivered: str | None = None, created: str | None = None) -> None:
    """Makes events older: `ids` is an SQL condition, the others are intervals."""
    if delivered:
        conn.execute(f"UPDATE outbox SET delivered_at = delivered_at - interval '{delivered}' WHERE {ids}")
    if created:
        conn.execute(f"UPDATE outbox SET created_at = created_at - interval '{created}' WHERE {ids}")


def pruned_until(conn: psycopg.Connection) -> Any:
    row = conn.execute("SELECT nullif(pruned_until, '-infinity') FROM outbox_state").fetchone()
    assert row is not None
    return row[0]


@dataclass
class OwnValkey:
    """A Valkey that a test may kill, and start again on the same socket with the same data."""

    directory: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.directory}/v.sock"

    def start(self, *options: str) -> None:
        socket = self.directory / "v.sock"
        socket.unlink(missing_ok=True)
        settings = ["--port", "0", "--unixsocket", str(socket), "--dir", str(self.directory), "--save", ""]
        self.process = subprocess.Popen(
            [valkey_bin(), *settings, "--appendonly", "yes", "--appendfsync", "always", *options],
            stdout=subprocess.DEVNULL,
        )

        def answers() -> bool:
            with suppress(redis.RedisError), redis.Redis.from_url(self.url) as client:
                return bool(client.ping())
            return False

        eventually(answers, "a Valkey of the test's own")

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


@pytest.fixture
def valkey() -> Iterator[OwnValkey]:
    import tempfile

    with tempfile.TemporaryDirectory(prefix="maven-v-", dir="/tmp") as directory:
        own = OwnValkey(Path(directory))
        own.start()
        yield own
        own.kill()


@pytest.fixture(autouse=True)
def _logs(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "text")


# --- the publish path


def test_events_leave_in_order_with_all_their_fields(
    services: TestServices, conn: psycopg.Connection, cache: redis.Redis
) -> None:
    ids = add_many(conn, 1203)
    assert deliver(services, conn) == Published(delivered=1203, pending=0)
    assert streamed(cache) == ids
    assert undelivered(conn) == []
    entries: Any = cache.xrange(STREAM, count=1)
    [(_, fields)] = entries
    assert list(fields) == ["id", "type", "aggregate", "event"]
    [row] = conn.execute("SELECT event_id, type, aggregate, event FROM outbox WHERE event_id = %s", [ids[0]])
    assert (fields["id"], fields["type"], fields["aggregate"], json.loads(fields["event"])) == row
    assert deliver(services, conn) == Published(delivered=0, pending=0)
    assert streamed(cache) == ids


def test_a_limit_and_a_budget_leave_the_rest(
    services: TestServices, conn: psycopg.Connection, cache: redis.Redis
) -> None:
    ids = add_many(conn, 25)
    assert deliver(services, conn, batch=10, limit=12) == Published(delivered=12, pending=13)
    assert deliver(services, conn, batch=5, budget=timedelta(0)) == Published(delivered=5, pending=8)
    assert deliver(services, conn, batch=8, limit=8) == Published(delivered=8, pending=0)
    assert streamed(cache) == ids


def test_a_stop_between_batches_keeps_what_was_delivered(
    services: TestServices, conn: psycopg.Connection, cache: redis.Redis
) -> None:
    ids = add_many(conn, 25)
    calls = []

    def stop() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise TryLaterError("stop")

    with pytest.raises(TryLaterError):
        deliver(services, conn, batch=10, stop=stop)
    assert streamed(cache) == ids[:20]
    assert undelivered(conn) == ids[20:]


def test_publishing_inside_a_transaction_is_refused(services: TestServices, conn: psycopg.Connection) -> None:
    """A mark that the caller could still roll back would be no mark."""
    add_many(conn, 1)
    with pytest.raises(ValueError, match="outside of any transaction"), conn.transaction():
        deliver(services, conn)


def test_somebody_else_s_turn_is_no_error(
    services: TestServices, conn: psycopg.Connection, database_url: str, cache: redis.Redis
) -> None:
    ids = add_many(conn, 3)
    with psycopg.connect(database_url) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s, %s)", [WORK_NAMESPACE, lock_key("events")])
        assert deliver(services, conn) == Published(busy=True)
        assert publish_after(services, conn, LOG) == Published(busy=True)
        data = relayed(services)
        assert (data["delivered"], data["pending"], data["busy"]) == (0, 3, True)
    assert streamed(cache) == []
    assert relayed(services)["delivered"] == 3
    assert streamed(cache) == ids


def test_the_stream_is_trimmed_to_about_its_length(
    services: TestServices, conn: psycopg.Connection, cache: redis.Redis
) -> None:
    ids = add_many(conn, 2000)
    deliver(services, conn, maxlen=300)
    kept = streamed(cache)
    assert 300 <= len(kept) < 600
    assert kept == ids[-len(kept) :]
    add_many(conn, 2000, start=2000)
    deliver(services, conn, maxlen=0)
    assert len(streamed(cache)) == len(kept) + 2000


def test_redis_gets_each_batch_in_one_transaction(
    services: TestServices, conn: psycopg.Connection, valkey: OwnValkey
) -> None:
    """Another writer never comes between, and a server that dies has all of a batch or none of it."""
    add_many(conn, 1203)
    deliver(replace(services, redis_url=valkey.url), conn)
    with redis.Redis.from_url(valkey.url) as client:
        calls: Any = client.info("commandstats")
    assert {name: calls[f"cmdstat_{name}"]["calls"] for name in ("multi", "xadd", "exec")} == {
        "multi": 3,
        "xadd": 1203,
        "exec": 3,
    }


# --- Redis refuses


def test_a_key_that_is_no_stream(
    services: TestServices, conn: psycopg.Connection, cache: redis.Redis
) -> None:
    """EXEC succeeds and every command in it fails: nothing may be marked."""
    ids = add_many(conn, 3)
    cache.set(STREAM, "x")
    with pytest.raises(ConfigurationError, match="maven:events isn't a stream"):
        deliver(services, conn)
    with (
        pytest.raises(ConfigurationError, match="maven:events isn't a stream"),
        open_cache(services.redis_url) as c,
    ):
        newest(c, STREAM, 3)
    assert undelivered(conn) == ids
    cache.delete(STREAM)
    deliver(services, conn)
    assert streamed(cache) == ids


def test_only_what_comes_before_the_first_refusal_is_marked(
    services: TestServices, conn: psycopg.Connection, cache: redis.Redis
) -> None:
    """EXEC can fail half-way: here the stream runs out of ids after the second of five."""
    ids = add_many(conn, 5)
    top = 2**64 - 1
    cache.xadd(STREAM, {"id": "older"}, id=f"{top}-{top - 2}")
    with pytest.raises(RedisDownError, match="answered: The stream has exhausted"):
        deliver(services, conn)
    assert streamed(cache) == ["older", *ids[:2]]
    assert undelivered(conn) == ids[2:]
    cache.delete(STREAM)
    deliver(services, conn)
    assert streamed(cache) == ids[2:]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--maxmemory", "1mb"], r"out of memory \(maxmemory\)"),
        (["--replicaof", "127.0.0.1", "1", "--replica-serve-stale-data", "yes"], "read-only replica"),
    ],
)
def test_a_server_that_takes_no_writes(
    services: TestServices, conn: psycopg.Connection, valkey: OwnValkey, options: list[str], message: str
) -> None:
    valkey.kill()
    valkey.start(*options)
    ids = add_many(conn, 600)
    with pytest.raises(RedisDownError, match=message):
        relay(replace(services, redis_url=valkey.url))
    assert undelivered(conn) == ids
    valkey.kill()
    valkey.start("--maxmemory", "0")
    assert relayed(replace(services, redis_url=valkey.url))["delivered"] == 600
    with redis.Redis.from_url(valkey.url, decode_responses=True) as client:
        assert streamed(client) == ids


def test_a_relay_without_redis_leaves_everything_pending(
    services: TestServices,
    conn: psycopg.Connection,
    cli: Cli,
    cache: redis.Redis,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ids = add_many(conn, 5)
    age(conn, "true", created="95 seconds")
    done = cli("events", "relay", "--json", env={"MAVEN_REDIS_URL": CLOSED})
    assert (done.code, done.document["status"]) == (69, "error")
    assert "Redis at 127.0.0.1:1 can't be reached" in done.err
    assert re.search(r"warn  \[EventRelayWorker\] 5 events wait in the outbox, the oldest for 9\ds", done.err)
    assert undelivered(conn) == ids
    done = cli("events", "relay", "--json")
    assert done.code == 0
    assert (done.document["data"]["delivered"], done.document["data"]["pending"]) == (5, 0)
    assert re.search(r"info  \[EventRelayWorker\] Relayed 5 events, 0 pending \(\d+ms\)", done.err)
    assert streamed(cache) == ids
    # Nothing waits: Redis isn't needed, so it isn't asked.
    assert cli("events", "relay", env={"MAVEN_REDIS_URL": CLOSED}).code == 0


def test_x19_a_pass_goes_on_without_redis_and_says_so_once(
    services: TestServices, conn: psycopg.Connection, cache: redis.Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = add_many(conn, 1200)
    assert publish_after(replace(services, redis_url=CLOSED), conn, LOG) == Published(pending=1200)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert (
        "[EventTest] 1200 events wait in the outbox for maven events relay: Redis at 127.0.0.1:1" in lines[0]
    )
    assert undelivered(conn) == ids
    cache.set(STREAM, "x")
    assert publish_after(services, conn, LOG) == Published(pending=1200)
    assert "isn't a stream" in capsys.readouterr().err
    cache.delete(STREAM)
    assert publish_after(services, conn, LOG) == Published(delivered=1200, pending=0)
    assert streamed(cache) == ids
    assert capsys.readouterr().err == ""


def test_without_events_a_pass_pays_one_small_query(
    services: TestServices, conn: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(services, conn)
    statements: list[str] = []
    execute = psycopg.Connection.execute

    def counted(self: psycopg.Connection, query: Any, *args: Any, **options: Any) -> Any:
        statements.append(str(query))
        return execute(self, query, *args, **options)

    monkeypatch.setattr(psycopg.Connection, "execute", counted)
    assert publish_after(replace(services, redis_url=CLOSED), conn, LOG) == Published(pending=0)
    assert len(statements) == 1


def test_a_redis_that_dies_in_mid_run_loses_nothing(
    services: TestServices, conn: psycopg.Connection, valkey: OwnValkey
) -> None:
    ids = add_many(conn, 1000)
    own = replace(services, redis_url=valkey.url)
    batches = []

    def stop() -> None:
        batches.append(1)
        if len(batches) == 5:
            valkey.kill()

    with pytest.raises(RedisDownError):
        deliver(own, conn, batch=50, stop=stop)
    assert undelivered(conn) == ids[200:]
    valkey.start()
    assert relayed(own)["delivered"] == 800
    with redis.Redis.from_url(valkey.url, decode_responses=True) as client:
        assert streamed(client) == ids


# --- processes that die, and many at once

DYING = """
import os, signal, sys
from functools import partial
from redis.client import Pipeline
from maven_cli.__main__ import run
from maven_cli.passes import events
when, number = sys.argv[1], int(sys.argv[2])
events.publish = partial(events.publish, batch=10)
execute, calls = Pipeline.execute, []
def dies(self, *args, **options):
    calls.append(1)
    if when == "before" and len(calls) == number: os.kill(os.getpid(), signal.SIGKILL)
    found = execute(self, *args, **options)
    if when == "after" and len(calls) == number: os.kill(os.getpid(), signal.SIGKILL)
    return found
Pipeline.execute = dies
sys.exit(run(["events", "relay"]))
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_relay_killed_around_exec_loses_and_reorders_nothing(
    conn: psycopg.Connection, cli: Cli, cache: redis.Redis, when: str
) -> None:
    ids = add_many(conn, 35)
    for number in (1, 2, 3):
        done = subprocess.run(
            [sys.executable, "-c", DYING, when, str(number)],
            env=cli.environment(),
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    # 0, 1 and 2 batches were committed before the three kills.
    assert undelivered(conn) == ids[30:]
    assert cli("events", "relay").code == 0
    found = streamed(cache)
    assert first_seen(found) == ids
    assert len(found) == (35 if when == "before" else 35 + 20 + 5)
    assert in_order(found)


def test_e09_a_publisher_that_was_frozen_does_no_harm_when_it_wakes_up(
    services: TestServices,
    conn: psycopg.Connection,
    database_url: str,
    cache: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PostgreSQL ends its transaction, others go on, and what it sends in the end are ids that were there."""
    ids = add_many(conn, 10)
    send = publishing.send
    monkeypatch.setattr(publishing, "LONGEST", "200ms")

    def frozen(*args: Any, **options: Any) -> Any:
        monkeypatch.setattr(publishing, "send", send)
        time.sleep(1.0)
        with psycopg.connect(database_url, autocommit=True) as other:
            ids.extend(add_many(other, 5, start=100))
            assert deliver(services, other) == Published(delivered=15, pending=0)
        return send(*args, **options)

    monkeypatch.setattr(publishing, "send", frozen)
    with pytest.raises(DatabaseDownError, match="idle-in-transaction timeout"):
        relay(services)
    assert streamed(cache) == [*ids, *ids[:10]]
    assert undelivered(conn) == []
    assert in_order(streamed(cache))


PUBLISHER = """
from functools import partial
from maven_cli.cli.services import LazyServices
from maven_cli.db.connection import connect
from maven_cli.events import publish as publishing
from maven_cli.logs import WorkerLog, configure
from maven_cli.settings import load_settings
publishing._publish = partial(publishing._publish, batch=17)
configure("warn", "text")
services = LazyServices(load_settings())
conn = connect(services.database_url, "publisher")
while True:
    publishing.publish_after(services, conn, WorkerLog("P", "p"))
    if conn.execute("SELECT to_regclass('writers_are_done') IS NOT NULL").fetchone() == (True,):
        break
"""


def write_events(url: str, seed: int, transactions: int, aggregates: int) -> None:
    """Transactions that hold their aggregates' row locks, as passes and the platform do; some roll back."""
    random = Random(seed)
    with psycopg.connect(url, autocommit=True) as conn:
        for _ in range(transactions):
            chosen = sorted(random.sample(range(aggregates), random.randint(1, 4)))
            with conn.transaction(force_rollback=random.random() < 0.1):
                for aggregate in chosen:
                    row = conn.execute(
                        "UPDATE aggregates SET n = n + 1 WHERE id = %s RETURNING n", [aggregate]
                    ).fetchone()
                    assert row is not None
                    add(conn, f"order:{aggregate}", row[0])
                if random.random() < 0.2:
                    time.sleep(random.random() / 200)


def test_several_publishers_at_once_keep_every_aggregate_s_order(
    conn: psycopg.Connection, database_url: str, cli: Cli, cache: redis.Redis
) -> None:
    transactions = 2000 if FULL else 500
    conn.execute("CREATE TABLE aggregates (id int PRIMARY KEY, n int NOT NULL DEFAULT 0)")
    conn.execute("INSERT INTO aggregates SELECT generate_series(0, 24)")
    publishers = [
        subprocess.Popen([sys.executable, "-c", PUBLISHER], env=cli.environment(), stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    relays = [cli.start("every", "200ms", "--", "events", "relay") for _ in range(2)]
    writers = [
        threading.Thread(target=write_events, args=(database_url, seed, transactions, 25))
        for seed in range(4)
    ]
    for writer in writers:
        writer.start()
    # One of them dies every now and then, wherever it happens to be.
    while any(writer.is_alive() for writer in writers):
        time.sleep(1.0)
        publishers[0].kill()
        publishers[0].communicate()
        publishers[0] = subprocess.Popen(
            [sys.executable, "-c", PUBLISHER], env=cli.environment(), stderr=subprocess.PIPE
        )
    conn.execute("CREATE TABLE writers_are_done ()")
    for publisher in publishers:
        _, complaints = publisher.communicate(timeout=PATIENCE)
        assert (publisher.returncode, complaints.decode()) == (0, "")
    for loop in relays:
        loop.send_signal(signal.SIGTERM)
        _, complaints = loop.communicate(timeout=PATIENCE)
        assert (loop.returncode, b"Traceback" in complaints) == (143, False), complaints.decode()
    assert cli("events", "relay").code == 0
    assert undelivered(conn) == []
    found = streamed(cache)
    written = [row[0] for row in conn.execute("SELECT event_id FROM outbox ORDER BY id")]
    assert len(written) > 3 * transactions
    assert sorted(first_seen(found)) == sorted(written)
    assert in_order(found)
    # The ids themselves were in order, too: that is what delivery stands on.
    assert in_order(written)


def test_row_locks_alone_keep_two_publishers_in_order(
    services: TestServices,
    conn: psycopg.Connection,
    database_url: str,
    cache: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Even if the advisory lock excluded nobody: the second waits at the first row."""
    ids = add_many(conn, 40)
    monkeypatch.setattr(publishing, "take_turn", lambda conn, wait_ms=0: None)
    send, inside, go = publishing.send, threading.Event(), threading.Event()

    def slow(*args: Any, **options: Any) -> Any:
        if not inside.is_set():
            inside.set()
            assert go.wait(PATIENCE)
        return send(*args, **options)

    monkeypatch.setattr(publishing, "send", slow)
    results: list[Published] = []

    def other() -> None:
        with psycopg.connect(database_url, autocommit=True) as second:
            results.append(deliver(services, second, batch=10))

    threads = [threading.Thread(target=other), threading.Thread(target=other)]
    threads[0].start()
    assert inside.wait(PATIENCE)
    threads[1].start()
    eventually(
        lambda: (
            conn.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            ).fetchone()
            == (1,)
        ),
        "the second publisher at the first row",
    )
    assert streamed(cache) == []
    go.set()
    for thread in threads:
        thread.join()
    assert sum(result.delivered for result in results) == 40
    assert in_order(streamed(cache))
    assert first_seen(streamed(cache)) == streamed(cache)
    assert sorted(streamed(cache)) == sorted(ids)


# --- the relay


def test_a_dry_relay_counts_and_touches_nothing(
    services: TestServices, conn: psycopg.Connection, cache: redis.Redis
) -> None:
    add_many(conn, 5)
    deliver(services, conn)
    age(conn, "id <= 2", delivered="8 days")
    waiting_ids = add_many(conn, 4, start=100)
    before = cache.xlen(STREAM)
    data = relayed(replace(services, redis_url=CLOSED), dry_run=True, limit=3)
    assert (data["delivered"], data["pending"], data["pruned"]) == (3, 1, 2)
    assert (cache.xlen(STREAM), undelivered(conn)) == (before, waiting_ids)
    assert conn.execute("SELECT count(*) FROM outbox").fetchone() == (9,)
    assert pruned_until(conn) is None


def test_the_relay_s_limit_and_its_warning(
    services: TestServices, conn: psycopg.Connection, cache: redis.Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = add_many(conn, 5)
    data = relayed(services, limit=2)
    assert (data["delivered"], data["pending"]) == (2, 3)
    assert "wait in the outbox" not in capsys.readouterr().err
    age(conn, "true", created="1 hour")
    assert relayed(services, limit=1)["pending"] == 2
    assert "[EventRelayWorker] 2 events wait in the outbox, the oldest for 360" in capsys.readouterr().err
    assert relayed(services)["pending"] == 0
    assert "wait in the outbox" not in capsys.readouterr().err
    assert streamed(cache) == ids


def test_pruning_draws_its_line_where_it_is_true(
    services: TestServices, conn: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was created at or after pruned_until is there; and it never goes back."""
    monkeypatch.setattr("maven_cli.passes.events.PRUNED_AT_ONCE", 4)
    add_many(conn, 20)
    deliver(services, conn)
    conn.execute("UPDATE outbox SET created_at = now() - interval '30 days' + id * interval '1 hour'")
    # Delivered late: an old event that stays, between those that go.
    age(conn, "id <> 6 AND id <= 15", delivered="8 days")
    waiting_ids = add_many(conn, 1, start=500)
    age(conn, "id = 21", created="29 days 20 hours")
    rows: dict[int, Any] = dict(conn.execute("SELECT id, created_at FROM outbox").fetchall())
    with_redis_down = replace(services, redis_url=CLOSED)
    with pytest.raises(RedisDownError):
        relay(with_redis_down)
    assert conn.execute("SELECT count(*) FROM outbox").fetchone() == (21,)
    assert undelivered(conn) == waiting_ids
    assert relayed(services)["pruned"] == 14
    kept = {row[0] for row in conn.execute("SELECT id FROM outbox")}
    assert kept == {6, 16, 17, 18, 19, 20, 21}
    line = pruned_until(conn)
    assert line == rows[15] + timedelta(microseconds=1)
    assert {number for number, created in rows.items() if created >= line} <= kept
    # An older one that goes later doesn't move the line back.
    age(conn, "id = 6", delivered="8 days")
    assert relayed(services)["pruned"] == 1
    assert pruned_until(conn) == line


def test_events_that_wait_are_never_pruned(services: TestServices, conn: psycopg.Connection) -> None:
    ids = add_many(conn, 3)
    age(conn, "true", created="400 days")
    with pytest.raises(RedisDownError):
        relay(replace(services, redis_url=CLOSED))
    assert undelivered(conn) == ids
    assert relayed(services) | {"as_of": None} == {
        "as_of": None, "delivered": 3, "pending": 0, "pruned": 0, "busy": False,
    }  # fmt: skip


# --- replay


def run_replay(
    services: TestServices, conn: psycopg.Connection, first: str, last: str | None = None, **o: Any
) -> Any:
    chosen = {"stream": STREAM, "maxlen": 0, "types": None, **o}
    with open_cache(services.redis_url) as client:
        return replay(conn, client, first, last, chosen.pop("types"), **chosen)


def test_replay_sends_a_range_again_and_leaves_what_waits_to_the_relay(
    services: TestServices, conn: psycopg.Connection, cache: redis.Redis
) -> None:
    ids = add_many(conn, 10)
    deliver(services, conn)
    late = add_many(conn, 2, start=100)
    cache.delete(STREAM)
    found = run_replay(services, conn, "3", batch=3)
    assert (found.first, found.last, found.replayed, found.pending) == (3, None, 8, 2)
    assert (found.pruned_until, found.trimmed) == (None, 0)
    assert streamed(cache) == ids[2:]
    assert undelivered(conn) == late
    relayed(services)
    assert streamed(cache) == [*ids[2:], *late]
    assert in_order(streamed(cache))
    found = run_replay(services, conn, ids[0], ids[1])
    assert (found.replayed, found.pending) == (2, 0)
    assert streamed(cache)[-2:] == ids[:2]


def test_nothing_new_comes_between_the_events_of_a_replay(
    services: TestServices,
    conn: psycopg.Connection,
    database_url: str,
    cache: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A consumer that had lost everything reads them in order: a pass that publishes meanwhile waits, or is busy."""
    ids = add_many(conn, 30)
    deliver(services, conn)
    cache.delete(STREAM)
    results: list[Published] = []

    def other() -> None:
        with psycopg.connect(database_url, autocommit=True) as second:
            add_many(second, 5, start=1000)
            results.append(publish_after(services, second, LOG))

    thread = threading.Thread(target=other)
    send = publishing.send
    calls = []

    def slow(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            thread.start()
            time.sleep(1.5)
        return send(*args, **options)

    monkeypatch.setattr("maven_cli.events.replay.send", slow)
    run_replay(services, conn, "1", batch=5)
    thread.join()
    assert results == [Published(busy=True)]
    assert streamed(cache) == ids
    relayed(services)
    assert in_order(streamed(cache))
    assert len(streamed(cache)) == 35


def test_replay_by_type_and_by_the_command(conn: psycopg.Connection, cli: Cli, cache: redis.Redis) -> None:
    for number in range(6):
        add(conn, "wallet:1", number, "BalanceUnlockedEvent" if number % 2 else "OrderExpiredEvent")
    assert cli("events", "relay").code == 0
    done = cli("events", "replay", "--from", "2", "--type", "BalanceUnlockedEvent", "--json")
    assert done.code == 0
    assert done.document["data"] == {
        "first": 2, "last": None, "replayed": 3, "pending": 0, "trimmed": 0, "pruned_until": None,
    }  # fmt: skip
    assert streamed(cache)[6:] == [f"BalanceUnlockedEvent:wallet:1:{number}" for number in (1, 3, 5)]
    done = cli("events", "replay", "--from", "1", "--to", "4", env={"MAVEN_EVENTS_MAXLEN": "3"})
    assert done.out == "sent 4 events again, from 1 to 4\nthe stream keeps 3 of them (MAVEN_EVENTS_MAXLEN)\n"


def test_replay_says_when_part_of_the_range_is_gone(
    services: TestServices, conn: psycopg.Connection, cli: Cli, cache: redis.Redis
) -> None:
    ids = add_many(conn, 6)
    relayed(services)
    conn.execute("UPDATE outbox SET created_at = created_at + id * interval '1 second'")
    age(conn, "id <= 3", delivered="8 days")
    assert relayed(services)["pruned"] == 3
    found = run_replay(services, conn, "2")
    assert (found.replayed, found.pruned_until) == (3, pruned_until(conn))
    assert run_replay(services, conn, "4").pruned_until is None
    assert run_replay(services, conn, "1", "3").replayed == 0
    done = cli("events", "replay", "--from", "2")
    assert done.code == 0
    assert re.search(
        r"^part of the range may be missing: events created before \S+Z were pruned$", done.out, re.MULTILINE
    )
    done = cli("events", "replay", "--from", ids[0])
    assert done.code == 2
    assert re.search(r"no such event; .*\(those created before \S+Z may have been pruned\)$", done.err)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "99"], "--from 99: no such event; the newest is 2 (OrderExpiredEvent:order:1:1)"),
        (["--from", "0"], "--from 0: no such event; write an outbox id like 2"),
        (["--from", "-1"], "--from -1: no such event"),
        (["--from", "x\x01y"], "no such event"),
        (["--from", "OrderExpiredEvent:77"], "--from OrderExpiredEvent:77: no such event"),
        (["--from", "1", "--to", "99999999999999999999"], "--to 99999999999999999999: no such event"),
        (["--from", "2", "--to", "1"], "--from 2 comes after --to 1"),
        (
            ["--from", "1", "--type", "OrderExpired"],
            "no event type 'OrderExpired'; choose from OrderExpiredEvent, ",
        ),
        ([], "missing option '--from'"),
    ],
)
def test_a_wrong_replay_is_one_line(
    conn: psycopg.Connection, cli: Cli, cache: redis.Redis, arguments: list[str], message: str
) -> None:
    add_many(conn, 2)
    assert cli("events", "relay").code == 0
    done = cli("events", "replay", *arguments, "--json")
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert message in done.err
    assert done.document["exit_code"] == 2
    assert cache.xlen(STREAM) == 2


def test_replay_of_an_empty_outbox(services: TestServices, conn: psycopg.Connection) -> None:
    with pytest.raises(UsageError, match=r"--from 1: the outbox has no events$"):
        run_replay(services, conn, "1")


def test_replay_waits_for_its_turn_and_then_says_try_later(
    services: TestServices, conn: psycopg.Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_many(conn, 1)
    deliver(services, conn)
    monkeypatch.setattr("maven_cli.events.replay.WAIT_MS", 50)
    with psycopg.connect(database_url) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s, %s)", [WORK_NAMESPACE, lock_key("events")])
        with pytest.raises(TryLaterError, match="nothing was sent"):
            run_replay(services, conn, "1")


# --- tail and pending


def test_tail_shows_the_newest_oldest_first(conn: psycopg.Connection, cli: Cli, cache: redis.Redis) -> None:
    done = cli("events", "tail", "--json")
    assert (done.code, done.document["data"]) == (0, [])
    ids = add_many(conn, 15)
    assert cli("events", "relay").code == 0
    done = cli("events", "tail", "--json", "-v")
    assert [entry["event_id"] for entry in done.document["data"]] == ids[-10:]
    entry = done.document["data"][0]
    assert list(entry) == ["id", "event_id", "type", "aggregate", "event"]
    assert entry["event"]["data"] == {"number": 5}
    assert cli("events", "tail", "--count", "0").out == ""
    done = cli("events", "tail", "--count", "2", env={"COLUMNS": "20"})
    lines = done.out.splitlines()
    assert [re.split(r"  +", line)[1:] for line in lines] == [
        [ids[13], "order:6", '{"number":13}'],
        [ids[14], "order:0", '{"number":14}'],
    ]
    assert "\x1b" not in done.out


def test_tail_by_type_looks_as_far_back_as_it_must(
    services: TestServices, conn: psycopg.Connection, cli: Cli
) -> None:
    wanted = [add(conn, "wallet:1", number, "BalanceUnlockedEvent") for number in range(3)]
    add_many(conn, 1300)
    relayed(services)
    done = cli("events", "tail", "-t", "BalanceUnlockedEvent", "-n", "2", "--json")
    assert [entry["event_id"] for entry in done.document["data"]] == wanted[1:]
    with open_cache(services.redis_url) as client:
        assert len(newest(client, STREAM, 5000)[0]) == 1303
        assert len(newest(client, STREAM, 5000, ["TradeRejectedEvent"])[0]) == 0


@pytest.mark.parametrize("arguments", [["tail"], ["tail", "--follow"]])
def test_tail_of_an_unknown_type(cli: Cli, arguments: list[str]) -> None:
    done = cli("events", *arguments, "--type", "Order", "--json")
    assert done.code == 2
    assert f"no event type 'Order'; choose from {', '.join(TYPES)}" in done.err
    assert done.document["exit_code"] == 2


@pytest.mark.parametrize("count", ["-1", "x", "10001"])
def test_tail_of_a_wrong_count(cli: Cli, count: str) -> None:
    done = cli("events", "tail", "--count", count)
    assert (done.code, done.err.count("\n")) == (2, 1)


@contextmanager
def tailing(cli: Cli, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], list[bytes]]]:
    """A reader that follows, and its lines as they come."""
    lines: list[bytes] = []
    with cli.start("events", "tail", "--follow", *arguments) as process:
        assert process.stdout is not None
        reader = threading.Thread(target=lambda out=process.stdout: lines.extend(iter(out.readline, b"")))
        reader.start()
        try:
            yield process, lines
        finally:
            process.kill()
            process.wait()
            reader.join()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_tail_follows_from_before_the_stream_exists(
    services: TestServices, conn: psycopg.Connection, cli: Cli, number: signal.Signals, code: int
) -> None:
    with tailing(cli, "--json") as (process, lines):

        def shown() -> list[str]:
            documents = [json.loads(line) for line in lines]
            assert all(document["command"] == "events tail" for document in documents)
            return [entry["event_id"] for document in documents for entry in document["data"] or ()]

        ids = add_many(conn, 3)
        relayed(services)
        eventually(lambda: shown() == ids, "the first events")
        ids += add_many(conn, 4, start=10)
        relayed(services)
        eventually(lambda: shown() == ids, "the next events")
        process.send_signal(number)
        assert process.wait(PATIENCE) == code
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()
    assert shown() == ids


def test_tail_follows_some_types_without_losing_its_place(
    services: TestServices, conn: psycopg.Connection, cli: Cli
) -> None:
    first = add(conn, "wallet:1", 0, "BalanceUnlockedEvent")
    add_many(conn, 20)
    relayed(services)
    with tailing(cli, "--type", "BalanceUnlockedEvent", "--type", "TradeRejectedEvent") as (process, lines):
        eventually(lambda: len(lines) == 1, "what was there")
        add_many(conn, 5, start=50)
        second = add(conn, "trade:1", 1, "TradeRejectedEvent")
        relayed(services)
        eventually(lambda: len(lines) == 2, "the next of these types")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
    assert [re.split(rb"  +", line)[1].decode() for line in lines] == [first, second]


def test_tail_survives_what_others_write(services: TestServices, cache: redis.Redis, cli: Cli) -> None:
    cache.xadd(STREAM, {"hello": "world"})
    cache.xadd(STREAM, {"id": "\x1b[31mred", "event": "{not json\x07"})
    cache.xadd(STREAM, {"id": "n", "event": '{"data": [1.50, NaN]}'})
    done = cli("events", "tail")
    assert done.code == 0
    assert "\x1b" not in done.out
    assert "\x07" not in done.out
    assert done.out.splitlines()[2] == '-  n  -  ["1.5","NaN"]'
    assert len(cli("events", "tail", "--json").document["data"]) == 3


@pytest.mark.parametrize("protocol", ["2", "3"])
def test_following_understands_both_protocols(redis_url: str, cache: redis.Redis, protocol: str) -> None:
    with open_cache(f"{redis_url}{'&' if '?' in redis_url else '?'}protocol={protocol}") as client:
        found, position = newest(client, STREAM, 5)
        assert (found, position) == ([], "0-0")
        assert following(client, STREAM, position, 10) == ([], "0-0")
        one, two = (str(cache.xadd(STREAM, {"id": name, "type": "T", "event": "{}"})) for name in "ab")
        entries, position = following(client, STREAM, position, 10, ["T"])
        assert entries == [Entry(one, "a", "T", "", {}), Entry(two, "b", "T", "", {})]
        assert position == two
        assert following(client, STREAM, one, 10, ["U"]) == ([], two)
        assert newest(client, STREAM, 1) == ([entries[1]], two)


def test_pending_lists_what_waits(services: TestServices, conn: psycopg.Connection, cli: Cli) -> None:
    assert cli("events", "pending").out == "no events wait\n"
    ids = add_many(conn, 3)
    age(conn, "id = 1", created="2 minutes")
    done = cli("events", "pending", "--limit", "2", env={"COLUMNS": "20"})
    lines = done.out.splitlines()
    assert re.split(r"  +", lines[0].strip()) == ["ID", "EVENT", "AGGREGATE", "CREATED", "AGE"]
    assert re.fullmatch(rf" 1  {ids[0]}  order:0    \S+Z  12\ds", lines[1])
    assert lines[3:] == ["2 of 3 events that wait"]
    data = cli("events", "pending", "--json").document["data"]
    assert data["total"] == 3
    assert [event["event_id"] for event in data["events"]] == ids
    assert list(data["events"][0]) == ["id", "event_id", "type", "aggregate", "created_at", "age"]
    assert data["events"][0]["age"] > 120
    assert waiting(conn)[0] == 3
    for wrong in ("0", "x"):
        assert cli("events", "pending", "--limit", wrong).code == 2


def test_every_command_prints_one_document(conn: psycopg.Connection, cli: Cli) -> None:
    """E07: logs on, and still exactly one document, also when it fails."""
    add_many(conn, 2)
    for arguments in (
        ["relay"],
        ["relay", "--dry-run"],
        ["tail"],
        ["pending"],
        ["replay", "--from", "1"],
        ["replay", "--from", "77"],
        ["relay", "--limit", "0"],
    ):
        done = cli("events", *arguments, "--json", "-v")
        assert done.document["exit_code"] == done.code
        assert done.document["command"] == f"events {arguments[0]}"


def test_a_stream_and_a_length_of_one_s_own(conn: psycopg.Connection, cli: Cli, cache: redis.Redis) -> None:
    add_many(conn, 1000)
    own = {"MAVEN_EVENTS_STREAM": "exchange:events", "MAVEN_EVENTS_MAXLEN": "100"}
    assert cli("events", "relay", env=own).code == 0
    assert 100 <= cache.xlen("exchange:events") < 400
    assert cache.exists(STREAM) == 0
    assert len(cli("events", "tail", "--json", env=own).document["data"]) == 10
    done: Done = cli("events", "relay", env={"MAVEN_EVENTS_MAXLEN": "-1"})
    assert (done.code, "MAVEN_EVENTS_MAXLEN must be at least 0" in done.err) == (78, True)


# --- the events themselves


@pytest.fixture
def real_events(conn: psycopg.Connection, market: Market) -> list[dict[str, Any]]:
    """Events of every type, in every variety that their SQL functions can make."""
    pair = market.pair()
    base, quote = conn.execute(
        "SELECT base_asset_id, quote_asset_id FROM trading_pairs WHERE id = %s", [pair.id]
    ).fetchone() or (0, 0)

    def credit(asset: int, reference: str, amount: str) -> int:
        row = conn.execute(
            "SELECT wallet_id FROM maven_ledger_credit(ARRAY[42], ARRAY[%s], ARRAY[%s], ARRAY[%s]::numeric[])",
            [asset, reference, amount],
        ).fetchone()
        assert row is not None
        return int(row[0])

    usdt, btc = credit(quote, "a", "100000"), credit(base, "b", "10")

    def lock(wallet: int, reference: str, amount: str) -> int:
        row = conn.execute(
            "SELECT maven_ledger_lock(%s, 'order', %s, %s)", [wallet, reference, amount]
        ).fetchone()
        assert row is not None
        return int(row[0])

    shared = lock(btc, "oco", "0.50")
    orders = [
        {"side": "buy", "price": "84000.10", "quantity": "0.5", "filled_quantity": "0.2", "fee_asset_id": quote, "lock_id": lock(usdt, "1", "30000")},
        {"side": "buy", "type": "market", "quote_quantity": "100", "lock_id": lock(usdt, "2", "100.00")},
        {"side": "sell", "type": "limit", "price": "90000", "quantity": "0.5", "lock_id": shared},
        {"side": "sell", "type": "stop_limit", "price": "80000", "stop_price": "80001", "quantity": "0.5", "lock_id": shared},
    ]  # fmt: skip
    for order in orders:
        _order(conn, pair.id, order)
    _expire(conn, formula=False)
    # Where the platform keeps no locks, the rule says what to release.
    conn.execute("SELECT maven_ledger_mode('observed', 'test')")
    conn.execute("UPDATE wallets SET locked = 5 WHERE id = %s", [btc])
    _order(conn, pair.id, {"side": "sell", "price": "1", "quantity": "1.5"})
    _expire(conn, formula=True)
    for number, buyer in ((5001, 1), (5002, None)):
        conn.execute(
            "SELECT maven_reject_trade(%s, %s, now(), 84000.50, 0.20, %s::bigint, NULL::bigint, 'order 1 is EXPIRED')",
            [pair.id, number, buyer],
        )
    _deposits(conn)
    return [row[0] for row in conn.execute("SELECT event FROM outbox ORDER BY id")]


def _deposits(conn: psycopg.Connection) -> None:
    """One that is credited, one that is held, one that fails, and one that its chain takes back."""
    books = DepositBooks(conn, minimum="0.001")
    held, good, bad = books.transfer(1, 1), books.transfer(1, 10**18), books.transfer(2, 10**18)
    books.detect(held)
    (number,) = books.confirmed(good)
    conn.execute("SELECT * FROM maven_credit_deposits(%s, %s, '2 minutes')", [books.chain.id, [number]])
    (number,) = books.detect(bad)
    conn.execute("SELECT maven_fail_deposit(%s, 'the transaction was reverted')", [number])
    gone = [books.transfer(3, 5 * 10**18, token=CONTRACT, ordinal=n, tx=bytes(32)) for n in (0, 1)]
    books.detect(*gone)
    books.record(replace(gone[0], block=block(101, "fork")))


def _order(conn: psycopg.Connection, pair: int, values: dict[str, Any]) -> None:
    columns = {"user_id": 42, "trading_pair_id": pair, "expires_at": "2026-01-31T16:00Z", **values}
    names, places = ", ".join(columns), ", ".join(["%s"] * len(columns))
    conn.execute(f"INSERT INTO orders ({names}) VALUES ({places})".encode(), list(columns.values()))


def _expire(conn: psycopg.Connection, *, formula: bool) -> None:
    conn.execute(
        "SELECT maven_expire_orders(now(), array_agg(id ORDER BY id), array_agg(remaining_quantity ORDER BY id),"
        " array_agg(updated_at ORDER BY id), %s)"
        " FROM orders WHERE status = 'OPEN'",
        [formula],
    )


def test_real_events_fit_their_schemas(real_events: list[dict[str, Any]]) -> None:
    assert {event["type"] for event in real_events} == set(TYPES)
    seen: dict[tuple[str, str], set[bool]] = defaultdict(set)
    for event in real_events:
        found = schema(event["type"])
        jsonschema.Draft202012Validator(found).validate(event)
        fields = found["properties"]["data"]["properties"]
        assert (set(event), set(event["data"])) == (set(found["properties"]), set(fields))
        for name, value in event["data"].items():
            seen[event["type"], name].add(value is None)
    # What the schemas call nullable really comes with and without a value, and nothing else is ever null.
    for kind in TYPES:
        for name, field in schema(kind)["properties"]["data"]["properties"].items():
            if (kind, name) == ("TradeRejectedEvent", "sellOrderId"):
                continue  # as buyOrderId
            expected = {True, False} if "null" in field["type"] else {False}
            assert seen[kind, name] == expected, f"{kind}.{name}"


def test_the_schemas_refuse_what_is_no_event(real_events: list[dict[str, Any]]) -> None:
    """Their own examples fit; a field that is missing, empty or of another kind doesn't."""
    for kind in TYPES:
        found = schema(kind)
        jsonschema.Draft202012Validator.check_schema(found)
        check = jsonschema.Draft202012Validator(found)
        event = next(event for event in real_events if event["type"] == kind)
        for name, field in found["properties"]["data"]["properties"].items():
            (example,) = field["examples"]
            assert check.is_valid({**event, "data": {**event["data"], name: example}}), name
            assert not check.is_valid({**event, "data": {**event["data"], name: 1}}), name
            rest = {key: value for key, value in event["data"].items() if key != name}
            assert not check.is_valid({**event, "data": rest}), name
        for name in found["properties"]:
            assert not check.is_valid({key: value for key, value in event.items() if key != name}), name
            assert not check.is_valid({**event, name: "x"}), name


def test_the_page_shows_the_fields_of_the_schemas() -> None:
    sections = re.findall(r"^## (\w+Event)\n(.*?)(?=^## )", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert [name for name, _ in sections] == list(TYPES)
    for name, section in sections:
        found = schema(name)
        assert found["title"] == name
        assert section.strip().startswith(found["description"])
        assert f"`{found['properties']['id']['examples'][0]}`" in section
        rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| `([^|]+)` \| ([^|]+) \|$", section, re.MULTILINE)
        expected = []
        for key, field in found["properties"]["data"]["properties"].items():
            kind = (
                "array of strings"
                if field["type"] == "array"
                else "string or null"
                if "null" in field["type"]
                else "string"
            )
            expected.append((key, kind, json.dumps(field["examples"][0]), field["description"]))
        assert rows == expected


def test_the_page_s_envelope_is_the_real_one(real_events: list[dict[str, Any]]) -> None:
    section = PAGE.read_text().partition("## The envelope\n")[2].partition("\n## ")[0]
    documented = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert all(set(documented) == set(event) for event in real_events)


def test_the_page_s_consumer_has_each_event_once_in_order(
    services: TestServices, conn: psycopg.Connection, cache: redis.Redis
) -> None:
    """Killed twice, with a relay that repeats itself: every event is handled once."""
    match = re.search(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert match is not None
    names: dict[str, Any] = {}
    exec(match[1], names)
    ids = add_many(conn, 250)
    relayed(services)
    run_replay(services, conn, "1", "20")
    ids += add_many(conn, 1, start=900)
    relayed(services)
    known: set[bytes] = set()
    handled: list[str] = []

    class EndError(Exception):
        pass

    def seen(event_id: bytes) -> bool:
        before = event_id in known
        known.add(event_id)
        return before

    def handle(event: dict[str, Any]) -> None:
        handled.append(event["id"])
        if len(handled) in (120, 251):
            raise EndError

    for _ in range(2):
        with pytest.raises(EndError), redis.Redis.from_url(services.redis_url) as client:
            names["consume"](client, "group", "one", seen, handle)
    assert handled == ids
    assert in_order(handled)

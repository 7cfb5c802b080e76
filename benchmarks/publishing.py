"""P3: 2,000 tickers into Redis and published, against bytes packed by hand and written to the socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from urllib.parse import parse_qs, urlsplit

from benchmarks.bench import Bench
from benchmarks.report import Finding, scale
from benchmarks.timing import in_turns
from maven_cli.cache import AS_OF, open_cache, write_newer
from maven_cli.db.connection import database_now
from maven_cli.market import tickers
from maven_cli.market.pairs import all_pairs
from maven_cli.times import iso_micros

TTL = timedelta(seconds=15)


def publishing(bench: Bench) -> None:
    """P3. Every round writes tickers that are newer and all changed."""
    market = bench.market(bench.most_pairs, bench.trades // 30)
    with market.connect() as conn, conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        found = tickers.compute(conn, all_pairs(conn), database_now(conn))
    values = [(tickers.key(ticker.pair.id), tickers.payload(ticker)) for ticker in found]
    fresh = _fresh(values)
    batch: list[tuple[str, str]] = []

    def renew() -> None:
        batch[:] = next(fresh)

    with open_cache(bench.redis_url) as client, _connect(bench.redis_url) as raw:
        samples = in_turns(
            {
                "raw": lambda: _write(raw, batch),
                "maven": lambda: write_newer(client, batch, ttl=TTL, channel=tickers.CHANNEL),
            },
            bench.rounds * 3,
            warm_up=3,
            before={"raw": renew, "maven": renew},
        )
    ratios = samples.ratios("maven", "raw")
    bench.report.add(
        Finding(
            "P3",
            f"{len(values):,} tickers written and published / raw RESP pipeline",
            samples.ratio("maven", "raw"),
            at_most=2.5,
            rounds=samples.rounds,
            spread=(min(ratios), max(ratios)),
            detail=scale([(name, samples.median(name) * 1000) for name in ("maven", "raw")]),
        )
    )


def _fresh(values: list[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """The same tickers again and again, each time newer and with another count of trades."""
    start = datetime.now(UTC)
    head = len(AS_OF % iso_micros(start))
    for number in count():
        as_of = AS_OF % iso_micros(start + timedelta(milliseconds=number))
        yield [(key, f'{as_of},"round":{number:09}{value[head:]}') for key, value in values]


def _connect(url: str) -> socket.socket:
    """A socket that is logged in."""
    parts = urlsplit(url)
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(parts.path)
    connection.sendall(_packed(b"AUTH", parse_qs(parts.query)["password"][0].encode()))
    _read_replies(connection, 1)
    return connection


def _write(connection: socket.socket, values: list[tuple[str, str]]) -> None:
    ttl = str(TTL // timedelta(milliseconds=1)).encode()
    commands = [_packed(b"SET", key.encode(), value.encode(), b"PX", ttl) for key, value in values]
    message = "[" + ",".join(value for _, value in values) + "]"
    commands.append(_packed(b"PUBLISH", tickers.CHANNEL.encode(), message.encode()))
    connection.sendall(b"".join(commands))
    _read_replies(connection, len(commands))


def _packed(*parts: bytes) -> bytes:
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


def _read_replies(connection: socket.socket, expected: int) -> None:
    """Reads that many one-line replies, and refuses errors."""
    seen, tail = 0, b""
    while seen < expected:
        lines = (tail + connection.recv(65536)).split(b"\r\n")
        tail = lines.pop()
        for line in lines:
            assert not line.startswith(b"-"), line
        seen += len(lines)

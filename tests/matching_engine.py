"""A real matching engine in a process of its own, which speaks both protocols of docs/reference/engine-protocols.md.

    with MatchingEngine(journal, redis_url) as engine:      # starts; ends with the block, or with this process
        engine.place(1, "BTC/USDT", "sell", "100", "10")    # rests in the book
        fills = engine.fill(1, "4")                         # a counter-order takes 4 of it
        engine.book()                                       # {1: Decimal("6")}
        engine.url                                          # for MAVEN_ENGINE_URL
        engine.fault("late", seconds=3, times=1)            # the next answer comes late
        engine.kill(); engine.start()                       # SIGKILL; it comes back with its book and its answers

The book is pyorderbook's (price-time priority, real fills). Everything it does runs under one lock and gets a number from
one sequence, so fills and removals are in one order. Commands are written to a journal before they are answered, and a
start replays it. `removals` counts how often each key really took an order out; `commands` what arrived.

Faults wait for the next `times` commands (all, when None) of either protocol:

    late      carried out, answered after `seconds`
    mute      carried out, never answered
    deaf      neither carried out nor answered
    twice     answered twice, the second time with `fields` if there are any (over HTTP: once)
    raw       not carried out, answered with `fields` (Redis), or with `status`, `content_type` and `body` (HTTP)
    removed_raw  the same, but carried out
    die       carried out, then the process kills itself before it answers
    unacked   Redis: carried out and answered, then the process kills itself before it acknowledges the command
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from maven_cli.numbers import plain

COMMANDS, REPLIES = "maven:engine:commands", "maven:engine:replies"
GROUP, CONSUMER = "engine", "engine-1"
TOKEN = "hunter2-very-secret-token"
# Orders of `fill`, so that they can't be taken for a test's own.
FIRST_COUNTER_ORDER = 10**12


@dataclass(frozen=True)
class Fill:
    """One match: the resting order gave `quantity` to the arriving one, at the resting order's price."""

    sequence: int
    resting: int
    arriving: int
    price: Decimal
    quantity: Decimal


# ---------------------------------------------------------------------------------------------------- for the tests


class MatchingEngine:
    """Starts the engine's process and talks to it on a control channel that faults don't touch."""

    def __init__(self, journal: Path, redis_url: str = "", *, token: str = "") -> None:
        self._settings = {"journal": str(journal), "redis_url": redis_url, "token": token}
        self._process: subprocess.Popen[str] | None = None
        self._control = self._http = 0

    def __enter__(self) -> MatchingEngine:
        self.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The address of the HTTP protocol; the same after a restart."""
        return f"http://127.0.0.1:{self._http}/v1"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Starts it, with what its journal says; returns when it can be asked."""
        assert self._process is None, "it runs already"
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.matching_engine"],
            cwd=Path(__file__).resolve().parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        # The Redis URL holds a password: not on a command line. The pipe stays open, and ends the engine when it closes.
        process.stdin.write(json.dumps({**self._settings, "http": self._http}) + "\n")
        process.stdin.flush()
        try:
            ports = json.loads(process.stdout.readline())
        except ValueError:
            self.kill()
            raise RuntimeError("the matching engine did not start; its error is on stderr") from None
        self._http, self._control = ports["http"], ports["control"]

    def stop(self) -> None:
        """Ends it, if it runs."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
            self._gone()

    def kill(self) -> None:
        """SIGKILL, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._gone()

    def wait_dead(self) -> None:
        """Waits for the end that a fault brings about."""
        assert self._process is not None
        assert self._process.wait(10) == -signal.SIGKILL
        self._gone()

    def _gone(self) -> None:
        process, self._process = self._process, None
        assert process is not None
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()

    def place(
        self, order_id: int, pair: str, side: str, price: str | Decimal, quantity: str | Decimal
    ) -> list[Fill]:
        """A limit order arrives: it takes what matches, and the rest of it rests in the book."""
        fills = self._call(
            "place",
            order_id=order_id,
            pair=pair,
            side=side,
            price=str(price),
            quantity=str(quantity),
        )
        return [_fill(item) for item in fills]

    def fill(self, order_id: int, quantity: str | Decimal) -> list[Fill]:
        """A counter-order at the order's price arrives, and matches whoever is first at the best price.

        Nothing when the order isn't in the book. What the counter-order doesn't get, it doesn't wait for.
        """
        return [_fill(item) for item in self._call("fill", order_id=order_id, quantity=str(quantity))]

    def book(self) -> dict[int, Decimal]:
        """What rests in the book: the remaining quantity of each order."""
        return {int(key): Decimal(value) for key, value in self._call("book").items()}

    def fills(self, after: int = 0) -> list[Fill]:
        """All fills with a sequence above `after`, in order: what a settlement would write down."""
        return [_fill(item) for item in self._call("fills", after=after)]

    def removals(self) -> dict[str, int]:
        """How often each request key took an order out of the book. Never more than once, or the engine is broken."""
        return dict(self._call("removals"))

    def commands(self) -> dict[str, int]:
        """How often each request key has arrived since the last start."""
        return dict(self._call("commands"))

    def fault(self, kind: str, *, times: int | None = None, **details: Any) -> None:
        """See the module's docstring. Replaces an earlier fault; ``none`` ends it."""
        self._call("fault", kind=kind, times=times, details=details)

    def forget(self) -> None:
        """Empties the book, the recorded answers and the journal: an engine without a memory."""
        self._call("forget")

    def _call(self, method: str, **arguments: Any) -> Any:
        connection = HTTPConnection("127.0.0.1", self._control, timeout=30)
        try:
            connection.request("POST", f"/{method}", json.dumps(arguments))
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["result"]


def _fill(item: Mapping[str, Any]) -> Fill:
    return Fill(
        item["sequence"],
        item["resting"],
        item["arriving"],
        Decimal(item["price"]),
        Decimal(item["quantity"]),
    )


# ------------------------------------------------------------------------------------------------------- the engine


class Market:
    """The books, the recorded answers, and the journal they come back from. Methods hold the lock."""

    def __init__(self, journal: Path) -> None:
        from pyorderbook import Book

        self._new_book = Book
        self._lock = threading.RLock()
        self._path = journal
        self._clear()
        for line in journal.read_text().splitlines() if journal.exists() else []:
            event = json.loads(line)
            getattr(self, f"_{event.pop('event')}")(**event)
        self._journal = journal.open("a")

    def _clear(self) -> None:
        self._book = self._new_book()
        self._orders: dict[int, Any] = {}
        self._sequence = 0
        self._counter_orders = FIRST_COUNTER_ORDER
        self._fills: list[dict[str, Any]] = []
        self._answers: dict[str, dict[str, str]] = {}
        self._removals: Counter[str] = Counter()

    def _record(self, event: str, **details: Any) -> None:
        self._journal.write(json.dumps({"event": event, **details}) + "\n")
        self._journal.flush()

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

    def place(self, order_id: int, pair: str, side: str, price: str, quantity: str) -> list[dict[str, Any]]:
        with self._lock:
            self._record("place", order_id=order_id, pair=pair, side=side, price=price, quantity=quantity)
            return self._place(order_id, pair, side, price, quantity)

    def _place(self, order_id: int, pair: str, side: str, price: str, quantity: str) -> list[dict[str, Any]]:
        from pyorderbook import Order, Side

        order = Order(Side.BID if side == "buy" else Side.ASK, pair, Decimal(price), Decimal(quantity))
        order.id = order_id
        self._next()
        fills = [
            {
                "sequence": self._next(),
                "resting": trade.standing_order_id,
                "arriving": trade.incoming_order_id,
                "price": plain(trade.fill_price),
                "quantity": plain(trade.fill_quantity),
            }
            for trade in self._book.match(order).trades
        ]
        self._fills += fills
        if order.quantity:
            self._orders[order_id] = order
        for fill in fills:
            if not self._orders[fill["resting"]].quantity:
                del self._orders[fill["resting"]]
        return fills

    def fill(self, order_id: int, quantity: str) -> list[dict[str, Any]]:
        with self._lock:
            if order_id not in self._orders:
                return []
            self._record("fill", order_id=order_id, quantity=quantity)
            return self._fill(order_id, quantity)

    def _fill(self, order_id: int, quantity: str) -> list[dict[str, Any]]:
        order = self._orders[order_id]
        self._counter_orders += 1
        counter = self._counter_orders
        side = "sell" if order.side == "bid" else "buy"
        fills = self._place(counter, order.symbol, side, str(order.price), quantity)
        if counter in self._orders:
            self._book.cancel(self._orders.pop(counter))
        return fills

    def cancel(self, key: str, order_id: int) -> dict[str, str]:
        """The answer to a cancel: recorded under its key when it removes the order, and the same ever after."""
        with self._lock:
            if key in self._answers:
                return self._answers[key]
            if order_id not in self._orders:
                return {"status": "not_found", "orderId": str(order_id)}
            self._record("cancel", key=key, order_id=order_id)
            return self._cancel(key, order_id)

    def _cancel(self, key: str, order_id: int) -> dict[str, str]:
        order = self._orders.pop(order_id)
        self._book.cancel(order)
        self._removals[key] += 1
        self._answers[key] = {
            "status": "removed",
            "orderId": str(order_id),
            "remaining": plain(order.quantity),
            "sequence": str(self._next()),
        }
        return self._answers[key]

    def answer(self, key: str) -> dict[str, str] | None:
        with self._lock:
            return self._answers.get(key)

    def book(self) -> dict[str, str]:
        with self._lock:
            return {str(order_id): plain(order.quantity) for order_id, order in self._orders.items()}

    def fills(self, after: int) -> list[dict[str, Any]]:
        with self._lock:
            return [fill for fill in self._fills if fill["sequence"] > after]

    def removals(self) -> dict[str, int]:
        with self._lock:
            return dict(self._removals)

    def forget(self) -> None:
        with self._lock:
            self._journal.truncate(0)
            self._clear()


class Faults:
    """What goes wrong, and for how many commands more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kind, self._details = "none", dict[str, Any]()
        self._left: int | None = None
        self.seen: Counter[str] = Counter()

    def set(self, kind: str, times: int | None, details: dict[str, Any]) -> None:
        with self._lock:
            self._kind, self._left, self._details = kind, times, details

    def take(self, key: str) -> tuple[str, dict[str, Any]]:
        """The fault of a command that has arrived."""
        with self._lock:
            self.seen[key] += 1
            if self._left == 0:
                return "none", {}
            if self._left is not None:
                self._left -= 1
            return self._kind, self._details


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class RedisSide(threading.Thread):
    """The engine's half of the Redis protocol: one consumer of a group, which takes up what it left behind."""

    def __init__(self, market: Market, faults: Faults, url: str) -> None:
        super().__init__(daemon=True)
        self._market, self._faults = market, faults
        self._client = redis.Redis.from_url(url, decode_responses=True, retry=Retry(NoBackoff(), 0))

    def run(self) -> None:
        mine = "0"  # first what was delivered to this consumer and never acknowledged
        while True:
            try:
                if mine == "0":
                    self._join()
                found: Any = self._client.xreadgroup(GROUP, CONSUMER, {COMMANDS: mine}, count=100, block=200)
                entries = found[0][1] if found else []
                if mine == "0" and not entries:
                    mine = ">"
                for entry, fields in entries:
                    if fields:  # a pending entry that was trimmed away has none
                        self._command(entry, fields)
                    self._client.xack(COMMANDS, GROUP, entry)
            except redis.RedisError:
                mine = "0"
                time.sleep(0.05)

    def _join(self) -> None:
        try:
            self._client.xgroup_create(COMMANDS, GROUP, id="0", mkstream=True)
        except redis.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    def _command(self, entry: str, fields: Mapping[str, str]) -> None:
        key, order_id = fields["correlationId"], int(fields["orderId"])
        kind, details = self._faults.take(key)
        if kind == "deaf":
            return
        if kind == "raw":
            self._reply(fields, details["fields"])
            return
        seconds, micros = self._client.time()
        if seconds * 1000 + micros // 1000 > int(fields["validUntil"]):
            answer = self._market.answer(key)  # too late to carry out; what was, is told all the same
            if answer is None:
                return
        else:
            answer = self._market.cancel(key, order_id)
        if kind == "die":
            die()
        if kind == "mute":
            return
        if kind == "late":
            time.sleep(details["seconds"])
        self._reply(fields, details["fields"] if kind == "removed_raw" else answer)
        if kind == "twice":
            self._reply(fields, details.get("fields", answer))
        if kind == "unacked":
            die()

    def _reply(self, fields: Mapping[str, str], answer: Mapping[str, str]) -> None:
        reply: dict[Any, Any] = {"correlationId": fields["correlationId"], **answer}
        self._client.xadd(fields["replyTo"], reply, maxlen=20_000, approximate=True)


def http_side(market: Market, faults: Faults, token: str, port: int) -> ThreadingHTTPServer:
    """The engine's half of the HTTP protocol."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_DELETE(self) -> None:
            parts = urlsplit(self.path)
            number = parts.path.removeprefix("/v1/orders/")
            if token and self.headers["Authorization"] != f"Bearer {token}":
                return self.answer(401, {"error": "unauthorized"})
            if not number.isdigit() or set(parse_qs(parts.query)) != {"pair", "side"}:
                return self.answer(404, {"error": "no_such_path"})
            key = self.headers["Idempotency-Key"]
            if not key:
                return self.answer(400, {"error": "no_idempotency_key"})
            kind, details = faults.take(key)
            if kind == "deaf":
                time.sleep(details.get("seconds", 60))
                self.close_connection = True
                return None
            if kind != "raw":
                found = market.cancel(key, int(number))
            if kind == "die":
                die()
            if kind == "mute":
                time.sleep(details.get("seconds", 60))
                self.close_connection = True
                return None
            if kind in ("raw", "removed_raw"):
                return self.send(
                    details["status"],
                    details["body"].encode(),
                    details["content_type"],
                    details.get("headers", {}),
                )
            if kind == "late":
                time.sleep(details["seconds"])
            if found["orderId"] != number:
                return self.answer(409, {"error": "key_reused"})
            if found["status"] == "removed":
                return self.answer(200, {name: found[name] for name in ("orderId", "remaining", "sequence")})
            return self.answer(404, {"error": "order_not_found", "orderId": number})

        def answer(self, status: int, document: Mapping[str, str]) -> None:
            self.send(status, json.dumps(document).encode(), "application/json", {})

        def send(self, status: int, body: bytes, kind: str, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return _Server(("127.0.0.1", port), Handler)


def control_side(market: Market, faults: Faults) -> ThreadingHTTPServer:
    """The tests' own way in: POST /method with its arguments as JSON."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            arguments = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                answer = {"result": self.call(self.path.strip("/"), arguments)}
            except Exception as error:  # noqa: BLE001 — whatever it was, the test is told
                answer = {"error": f"{type(error).__name__}: {error}"}
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def call(self, method: str, arguments: dict[str, Any]) -> Any:
            match method:
                case "fault":
                    return faults.set(**arguments)
                case "commands":
                    return dict(faults.seen)
                case "place" | "fill" | "book" | "fills" | "removals" | "forget":
                    return getattr(market, method)(**arguments)
            raise ValueError(f"no such method: {method}")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return _Server(("127.0.0.1", 0), Handler)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is what half of the tests are about."""


def main() -> None:
    settings = json.loads(sys.stdin.readline())
    market, faults = Market(Path(settings["journal"])), Faults()
    http = http_side(market, faults, settings["token"], settings["http"])
    control = control_side(market, faults)
    if settings["redis_url"]:
        RedisSide(market, faults, settings["redis_url"]).start()
    for server in (http, control):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps({"http": http.server_address[1], "control": control.server_address[1]}), flush=True)
    sys.stdin.read()  # until whoever started this closes the pipe, or dies
    os._exit(0)


if __name__ == "__main__":
    main()

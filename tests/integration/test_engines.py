"""Both engine protocols against a real matching engine in its own process: real book, real fills, and every fault."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import redis

from maven_cli.embedded.binaries import valkey_bin
from maven_cli.engines import (
    Answer,
    Engine,
    Nonsense,
    NotAsked,
    NotFound,
    Removal,
    Removed,
    Unreachable,
    open_engine,
)
from maven_cli.engines import http as http_side
from maven_cli.engines import redis as redis_engine
from maven_cli.settings import Settings
from tests.matching_engine import COMMANDS, REPLIES, TOKEN, MatchingEngine

PAIR = "BTC/USDT"
PAGE = (Path(__file__).resolve().parents[2] / "docs/reference/engine-protocols.md").read_text()
HTML = "<!DOCTYPE html><html><body>It works!</body></html>"

# Long enough for a busy machine; faults that have to run into it use their own.
PATIENT = "5s"

both = pytest.mark.parametrize("kind", ["redis", "http"])

Open = Callable[..., Engine]


@pytest.fixture
def venue(tmp_path: Path, redis_url: str) -> Iterator[MatchingEngine]:
    """A matching engine that runs, and is gone after the test."""
    with MatchingEngine(tmp_path / "journal", redis_url, token=TOKEN) as engine:
        yield engine


@pytest.fixture
def talk(venue: MatchingEngine, redis_url: str) -> Open:
    """maven's side of a protocol, pointed at the matching engine."""

    def opened(kind: str, timeout: str = PATIENT, **values: Any) -> Engine:
        given = {"engine_url": venue.url, "engine_token": TOKEN, "engine_timeout": timeout, **values}
        engine = open_engine(Settings.model_validate({"engine": kind, **given}), lambda: redis_url)
        assert engine is not None
        return engine

    return opened


def removal(order_id: int, key: str = "") -> Removal:
    return Removal(order_id, PAIR, "sell", key or f"expire-{order_id}-1")


def ask(engine: Engine, *removals: Removal) -> list[Answer]:
    """The answers in the order of the removals; each exactly once."""
    found = list(engine.cancel(removals))
    assert sorted(item.request_key for item, _ in found) == sorted(item.request_key for item in removals)
    answers = dict(found)
    return [answers[item] for item in removals]


def rest(venue: MatchingEngine, *order_ids: int, quantity: str = "10") -> None:
    for order_id in order_ids:
        assert venue.place(order_id, PAIR, "sell", "100", quantity) == []


def remainders(answers: Sequence[Answer]) -> list[str]:
    return [str(answer.remaining) if isinstance(answer, Removed) else str(answer) for answer in answers]


# ------------------------------------------------------------------------------------------------------ all is well


@both
def test_what_a_partial_fill_left_is_removed(kind: str, venue: MatchingEngine, talk: Open) -> None:
    rest(venue, 1)
    (fill,) = venue.fill(1, "4")
    (answer,) = ask(talk(kind), removal(1))
    assert isinstance(answer, Removed)
    assert answer.remaining == Decimal(6)
    assert answer.sequence is not None
    assert int(answer.sequence) > fill.sequence
    assert venue.book() == {}
    assert venue.fill(1, "1") == []
    assert venue.place(2, PAIR, "buy", "100", "1") == []


@both
def test_an_order_that_is_not_in_the_book(kind: str, venue: MatchingEngine, talk: Open) -> None:
    rest(venue, 1)
    venue.fill(1, "10")
    assert ask(talk(kind), removal(1), removal(2)) == [NotFound(), NotFound()]


@both
def test_not_found_is_no_answer_for_ever(kind: str, venue: MatchingEngine, talk: Open) -> None:
    assert ask(talk(kind), removal(1)) == [NotFound()]
    rest(venue, 1)
    assert remainders(ask(talk(kind), removal(1))) == ["10"]


@both
def test_the_same_key_gets_the_same_answer(kind: str, venue: MatchingEngine, talk: Open) -> None:
    rest(venue, 1, 2)
    venue.fill(1, "0.000000000000000001")
    first = ask(talk(kind), removal(1))
    assert remainders(first) == ["9.999999999999999999"]
    venue.fill(2, "3")
    assert [ask(talk(kind), removal(1)) for _ in range(3)] == [first] * 3
    assert venue.removals() == {"expire-1-1": 1}
    assert ask(talk(kind), removal(1, "another-key")) == [NotFound()]


@both
def test_the_key_of_another_order_removes_nothing(kind: str, venue: MatchingEngine, talk: Open) -> None:
    rest(venue, 1, 2)
    ask(talk(kind), removal(1, "key"))
    (answer,) = ask(talk(kind), removal(2, "key"))
    assert isinstance(answer, Nonsense)
    assert venue.book() == {2: Decimal(10)}


@both
def test_every_digit_arrives(kind: str, venue: MatchingEngine, talk: Open) -> None:
    quantities = ["0.000000000000000001", "123456789012345678.123456789012345678", "1000", "0.1"]
    for order_id, quantity in enumerate(quantities, 1):
        rest(venue, order_id, quantity=quantity)
    assert remainders(ask(talk(kind), *map(removal, range(1, 5)))) == [
        "1E-18",
        *quantities[1:],
    ]


@both
def test_hundreds_in_one_call(kind: str, venue: MatchingEngine, talk: Open) -> None:
    orders = range(1, 451)
    for order_id in orders:
        venue.place(order_id, f"P{order_id % 7}/USDT", "buy", "100", "10")
    for order_id in orders[:7]:  # the first of each book
        venue.fill(order_id, "2.5")
    answers = ask(talk(kind), *(removal(order_id) for order_id in [*orders, 9_001]))
    assert remainders(answers[:8]) == ["7.5"] * 7 + ["10"]
    assert remainders(answers[8:-1]) == ["10"] * 442
    assert answers[-1] == NotFound()
    assert venue.book() == {}
    assert set(venue.commands().values()) == {1}


@both
def test_nothing_asked(kind: str, venue: MatchingEngine, talk: Open) -> None:
    assert list(talk(kind).cancel([])) == []


@both
def test_one_key_for_two_orders_is_a_mistake_of_the_caller(
    kind: str, venue: MatchingEngine, talk: Open
) -> None:
    rest(venue, 1, 2)
    with pytest.raises(ValueError, match="share a request key"):
        list(talk(kind).cancel([removal(1, "key"), removal(2, "key")]))
    assert len(venue.book()) == 2


@both
def test_fills_that_race_the_removal_are_on_one_side_of_it(
    kind: str, venue: MatchingEngine, talk: Open
) -> None:
    """Whatever the threads do: the fills before the removal and its remainder make the whole order, and none follows."""
    orders = list(range(1, 61))
    for order_id in orders:
        venue.place(order_id, f"P{order_id}/USDT", "sell", "100", "10")
    stop = threading.Event()

    def trade() -> None:
        while not stop.is_set():
            for order_id in orders:
                venue.fill(order_id, "0.3")

    traders = [threading.Thread(target=trade) for _ in range(2)]
    for trader in traders:
        trader.start()
    try:
        while not venue.fills():
            time.sleep(0.01)
        answers = ask(talk(kind), *(removal(order_id) for order_id in orders))
    finally:
        stop.set()
        for trader in traders:
            trader.join()
    filled = dict.fromkeys(orders, Decimal(0))
    last = dict.fromkeys(orders, 0)
    for fill in venue.fills():
        filled[fill.resting] += fill.quantity
        last[fill.resting] = fill.sequence
    removed = 0
    for order_id, answer in zip(orders, answers, strict=True):
        if isinstance(answer, Removed):
            removed += 1
            assert filled[order_id] + answer.remaining == 10
            assert int(answer.sequence or 0) > last[order_id]
        else:
            assert answer == NotFound()
            assert filled[order_id] == 10
    assert removed


# ----------------------------------------------------------------------------------------------------------- faults


@both
def test_an_answer_that_comes_late_is_there_at_the_next_asking(
    kind: str, venue: MatchingEngine, talk: Open
) -> None:
    rest(venue, 1)
    venue.fill(1, "4")
    venue.fault("late", seconds=0.6, times=1)
    (answer,) = ask(talk(kind, "200ms"), removal(1))
    assert isinstance(answer, Unreachable)
    assert "200ms" in answer.reason
    assert venue.book() == {}
    assert remainders(ask(talk(kind), removal(1))) == ["6"]
    assert venue.removals() == {"expire-1-1": 1}


@both
def test_carried_out_and_never_answered(kind: str, venue: MatchingEngine, talk: Open) -> None:
    rest(venue, 1)
    venue.fault("mute", times=1)
    (answer,) = ask(talk(kind, "200ms"), removal(1))
    assert isinstance(answer, Unreachable)
    assert venue.book() == {}
    assert remainders(ask(talk(kind), removal(1))) == ["10"]
    assert venue.removals() == {"expire-1-1": 1}


@both
def test_neither_carried_out_nor_answered(kind: str, venue: MatchingEngine, talk: Open) -> None:
    rest(venue, 1)
    venue.fault("deaf")
    started = time.monotonic()
    (answer,) = ask(talk(kind, "200ms"), removal(1))
    assert time.monotonic() - started < 2
    assert isinstance(answer, Unreachable)
    assert venue.book() == {1: Decimal(10)}
    venue.fault("none")
    assert remainders(ask(talk(kind), removal(1))) == ["10"]


@both
def test_x05_killed_after_removing_and_before_answering(kind: str, venue: MatchingEngine, talk: Open) -> None:
    rest(venue, 1)
    venue.fill(1, "2.5")
    venue.fault("die", times=1)
    (answer,) = ask(talk(kind, "400ms"), removal(1))
    assert isinstance(answer, Unreachable)
    venue.wait_dead()
    venue.start()
    assert venue.book() == {}
    assert remainders(ask(talk(kind), removal(1))) == ["7.5"]
    assert venue.removals() == {"expire-1-1": 1}


@both
def test_killed_in_the_middle_and_started_again(kind: str, venue: MatchingEngine, talk: Open) -> None:
    """Every removal has an answer; what had none has the same one as ever afterwards, and each order leaves once."""
    orders = range(1, 401)
    rest(venue, *orders)
    venue.fill(1, "4")
    first: dict[Removal, Answer] = {}
    for item, answer in talk(kind, "2s").cancel([removal(order_id) for order_id in orders]):
        assert item not in first
        first[item] = answer
        if len(first) == 120:
            venue.kill()
    assert len(first) == 400
    assert any(isinstance(answer, Unreachable) for answer in first.values())
    assert any(isinstance(answer, Removed) for answer in first.values())
    venue.start()
    second = dict(zip(first, ask(talk(kind), *first), strict=True))
    for item, answer in first.items():
        assert isinstance(second[item], Removed)
        assert isinstance(answer, Unreachable | NotAsked) or answer == second[item]
    assert remainders([second[removal(1)]]) == ["6"]
    assert venue.book() == {}
    assert set(venue.removals().values()) == {1}


@both
def test_a_dead_engine_costs_one_wait_and_not_one_for_each_order(
    kind: str, venue: MatchingEngine, talk: Open
) -> None:
    venue.fault("deaf")
    started = time.monotonic()
    answers = ask(talk(kind, "500ms"), *map(removal, range(1, 501)))
    assert time.monotonic() - started < 4
    unasked = [answer for answer in answers if isinstance(answer, NotAsked)]
    assert len(unasked) + sum(isinstance(answer, Unreachable) for answer in answers) == 500
    assert len(venue.commands()) == 500 - len(unasked) <= redis_engine.WINDOW
    assert all("not asked" in answer.reason for answer in unasked)


@both
def test_a_caller_that_stops_listening_leaves_nothing_running(
    kind: str, venue: MatchingEngine, talk: Open
) -> None:
    rest(venue, *range(1, 51))
    before = threading.active_count()
    answers = talk(kind).cancel([removal(order_id) for order_id in range(1, 51)])
    next(answers)
    answers.close()  # type: ignore[attr-defined]  # both are generators
    assert threading.active_count() == before


@both
def test_no_secret_shows_in_a_reason(kind: str, venue: MatchingEngine, talk: Open, redis_url: str) -> None:
    secret = "hunter2-very-secret"
    assert secret in TOKEN
    venue.kill()
    settings = Settings.model_validate({"engine": "redis", "engine_timeout": "100ms"})
    engines: list[Engine | None] = [talk(kind, "100ms")]
    if kind == "http":
        urls = [f"http://u:{secret}@127.0.0.1:1/{secret}", f"https://{secret}@127.0.0.1:1/"]
        engines += [talk("http", "100ms", engine_url=url, engine_token=None) for url in urls]
    else:
        wrong = redis_url.replace("password=", f"password={secret}")
        urls = [f"redis://u:{secret}@127.0.0.1:1/0", f"unix:///nowhere?password={secret}", wrong, secret]
        engines += [open_engine(settings, url) for url in urls]
    for engine in engines:
        assert engine is not None
        (answer,) = ask(engine, removal(1))
        assert isinstance(answer, Unreachable)
        assert answer.reason
        assert secret not in f"{answer} {engine!r}"
        assert "\n" not in answer.reason


# -------------------------------------------------------------------------------------------------------- nonsense

WRONG_REPLIES: list[dict[str, Any]] = [
    {},
    {"status": "ok", "orderId": "1", "remaining": "6"},
    {"status": "removed", "orderId": "1"},
    {"status": "removed", "orderId": "1", "remaining": "-6"},
    {"status": "removed", "orderId": "1", "remaining": "NaN"},
    {"status": "removed", "orderId": "1", "remaining": "6", "sequence": "x" * 500},
    {"status": "removed", "orderId": "2", "remaining": "6"},
    {"status": "removed", "remaining": "6"},
    {"status": "not_found", "orderId": "2"},
]


@pytest.mark.parametrize("fields", WRONG_REPLIES, ids=str)
def test_redis_a_reply_that_is_none(fields: dict[str, Any], venue: MatchingEngine, talk: Open) -> None:
    rest(venue, 1)
    venue.fault("raw", fields=fields)
    (answer,) = ask(talk("redis"), removal(1))
    assert isinstance(answer, Nonsense)
    venue.fault("none")
    assert remainders(ask(talk("redis"), removal(1))) == ["10"]


JSON = "application/json"
WRONG_RESPONSES: list[tuple[int, str, str]] = [
    (200, "text/html", HTML),
    (404, "text/html", HTML),
    (404, JSON, '{"error": "no_such_path"}'),
    (404, JSON, '{"error": "no_such_path", "orderId": 1}'),
    (404, JSON, '{"error": "order_not_found"}'),
    (404, JSON, '{"error": "order_not_found", "orderId": 2}'),
    (404, JSON, '["order_not_found"]'),
    (204, JSON, ""),
    (200, JSON, ""),
    (200, JSON, "null"),
    (200, JSON, '{"orderId": 1}'),
    (200, JSON, '{"orderId": 1, "remaining": -6}'),
    (200, JSON, '{"orderId": 1, "remaining": NaN}'),
    (200, JSON, '{"orderId": 1, "remaining": true}'),
    (200, JSON, '{"orderId": 1, "remaining": 1e999999999}'),
    (200, JSON, '{"orderId": 1, "remaining": ' + "9" * 5000 + "}"),
    (200, JSON, '{"orderId": 1, "remaining": 1E' + "9" * 5000 + "}"),
    (200, JSON, '{"orderId": 2, "remaining": "6"}'),
    (200, JSON, '{"remaining": "6"}'),
    (200, JSON, '{"orderId": 1, "remaining": "6", "sequence": [1]}'),
    (200, JSON, "[" * 60_000),
    (200, JSON, '{"orderId": 1, "remaining": "6"}' + " " * 70_000),
    (201, JSON, '{"orderId": 1, "remaining": "6"}'),
    (400, JSON, '{"error": "bad_request"}'),
    (409, JSON, '{"error": "key_reused"}'),
    (302, "text/html", HTML),
]


@pytest.mark.parametrize(
    ("status", "content_type", "body"),
    WRONG_RESPONSES,
    ids=[f"{status} {body[:50]}" for status, _, body in WRONG_RESPONSES],
)
def test_http_a_response_that_is_none(
    status: int, content_type: str, body: str, venue: MatchingEngine, talk: Open
) -> None:
    rest(venue, 1)
    headers = {"Location": f"{venue.url}/orders/1?pair=BTC/USDT&side=sell"} if status == 302 else {}
    venue.fault("raw", status=status, content_type=content_type, body=body, headers=headers)
    (answer,) = ask(talk("http"), removal(1))
    assert isinstance(answer, Nonsense)
    assert f"HTTP {status}" in answer.reason or "KiB" in answer.reason
    assert "\n" not in answer.reason
    assert venue.commands() == {"expire-1-1": 1}  # not tried again, a redirect not followed
    venue.fault("none")
    assert remainders(ask(talk("http"), removal(1))) == ["10"]


# ------------------------------------------------------------------------------------------------------ redis alone


@pytest.fixture
def stream(redis_url: str) -> Iterator[Any]:
    """A client of the engine's Redis; redis-py's types of stream entries are of no help."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


def test_redis_commands_are_as_documented(stream: Any, redis_url: str) -> None:
    shown = fields(blocks("### Command")[0])
    settings = Settings.model_validate({"engine": "redis", "engine_timeout": "50ms"})
    engine = open_engine(settings, redis_url)
    assert engine is not None
    before = int(str(stream.xadd("clock", {"a": "b"})).partition("-")[0])
    ask(engine, Removal(1042, PAIR, "sell", "expire-1042-1"))
    ((entry, sent),) = stream.xrange(COMMANDS)
    valid = int(sent.pop("validUntil")) - before
    assert 30_050 <= valid < 32_000
    assert valid - 30_050 <= int(entry.partition("-")[0]) - before
    del shown["validUntil"]
    assert list(sent.items()) == list(shown.items())


def test_redis_delivered_again_is_answered_again_and_carried_out_once(
    venue: MatchingEngine, talk: Open, stream: Any
) -> None:
    rest(venue, 1)
    venue.fill(1, "1")
    venue.fault("unacked", times=1)
    first = ask(talk("redis"), removal(1))
    venue.wait_dead()
    venue.start()
    until(lambda: stream.xlen(REPLIES) == 2)
    replies = [reply for _, reply in stream.xrange(REPLIES)]
    assert replies[0] == replies[1]
    assert remainders(first) == ["9"]
    assert ask(talk("redis"), removal(1)) == first
    assert venue.removals() == {"expire-1-1": 1}


def test_redis_the_same_reply_twice(venue: MatchingEngine, talk: Open) -> None:
    rest(venue, 1, 2, 3)
    venue.fault("twice")
    engine = talk("redis")
    assert remainders(ask(engine, removal(1), removal(2))) == ["10", "10"]
    assert remainders(ask(engine, removal(3), removal(2))) == ["10", "10"]


def test_redis_the_first_reply_counts(venue: MatchingEngine, talk: Open) -> None:
    rest(venue, 1, 2)
    venue.fault("twice", fields={"orderId": "1", "status": "removed", "remaining": "3"}, times=1)
    assert remainders(ask(talk("redis"), removal(1), removal(2))) == ["10", "10"]


def test_redis_other_replies_go_by(venue: MatchingEngine, talk: Open, stream: Any) -> None:
    """Those of others, broken ones and old ones, in hundreds, before the command and after it."""

    def noise() -> None:
        with stream.pipeline() as pipe:
            for number in range(600):
                pipe.xadd(REPLIES, {"correlationId": f"x-{number}", "orderId": "1", "status": "not_found"})
                pipe.xadd(REPLIES, {"orderId": "1", "status": "removed", "remaining": "1"})
                pipe.xadd(REPLIES, {b"\xff": b"\xfe", "correlationId": b"\xff"})
            pipe.execute()

    rest(venue, 1)
    noise()
    venue.fault("late", seconds=0.5)
    timer = threading.Timer(0.2, noise)
    timer.start()
    started = time.monotonic()
    assert remainders(ask(talk("redis", "8s"), removal(1))) == ["10"]
    assert time.monotonic() - started < 6  # read where it came, not found when the wait was over
    timer.join()


def test_redis_a_late_reply_is_found_when_the_engine_is_gone(venue: MatchingEngine, talk: Open) -> None:
    rest(venue, 1)
    venue.fill(1, "4")
    venue.fault("late", seconds=0.4, times=1)
    assert isinstance(ask(talk("redis", "100ms"), removal(1))[0], Unreachable)
    time.sleep(0.6)
    venue.kill()
    assert remainders(ask(talk("redis", "100ms"), removal(1), removal(2)))[0] == "6"


def test_redis_an_engine_that_is_always_late_gets_through(venue: MatchingEngine, talk: Open) -> None:
    rest(venue, 1)
    venue.fault("late", seconds=0.4)
    answers = []
    for _ in range(3):
        answers += ask(talk("redis", "100ms"), removal(1))
        time.sleep(0.5)
    assert isinstance(answers[0], Unreachable)
    assert remainders(answers[1:]) == ["10", "10"]


def test_redis_an_engine_that_lost_its_memory_does_not_make_a_removal_unseen(
    venue: MatchingEngine, talk: Open
) -> None:
    """It removed 6, its reply came late and nobody has read it, and now it knows neither the order nor the key."""
    rest(venue, 1)
    venue.fill(1, "4")
    venue.fault("late", seconds=0.3, times=1)
    assert isinstance(ask(talk("redis", "100ms"), removal(1))[0], Unreachable)
    time.sleep(0.5)
    venue.forget()
    assert remainders(ask(talk("redis"), removal(1), removal(2))) == ["6", "NotFound()"]


def test_redis_the_search_backwards_goes_as_far_as_documented(
    venue: MatchingEngine, talk: Open, stream: Any
) -> None:
    reply = {"correlationId": "expire-1-1", "orderId": "1", "status": "removed", "remaining": "6"}
    foreign = {"correlationId": "x", "orderId": "1", "status": "not_found"}
    stream.xadd(REPLIES, {**reply, "remaining": "-6"})
    stream.xadd(REPLIES, reply)
    for count in (redis_engine.REPLIES_SEARCHED - 100, 200):
        with stream.pipeline(transaction=False) as pipe:
            for _ in range(count):
                pipe.xadd(REPLIES, foreign)
            pipe.execute()
        expected = "6" if count != 200 else "NotFound()"
        assert remainders(ask(talk("redis"), removal(1))) == [expected]


def test_redis_not_found_from_before_is_not_believed(venue: MatchingEngine, talk: Open, stream: Any) -> None:
    assert ask(talk("redis"), removal(1)) == [NotFound()]
    rest(venue, 1)
    venue.fault("deaf")
    assert isinstance(ask(talk("redis", "100ms"), removal(1))[0], Unreachable)


def test_redis_unavailable_is_no_answer(venue: MatchingEngine, talk: Open) -> None:
    rest(venue, 1)
    venue.fault("raw", fields={"orderId": "1", "status": "unavailable"}, times=1)
    (answer,) = ask(talk("redis"), removal(1))
    assert isinstance(answer, Unreachable)
    assert remainders(ask(talk("redis"), removal(1))) == ["10"]


def test_redis_a_command_that_nobody_stands_behind_is_not_carried_out(
    venue: MatchingEngine, talk: Open, stream: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_engine, "GRACE", redis_engine.GRACE * 0)
    rest(venue, 1, 2)
    ask(talk("redis"), removal(1))
    venue.kill()
    ask(talk("redis", "100ms"), removal(1), removal(2))
    time.sleep(0.1)
    venue.start()
    until(lambda: len(venue.commands()) == 2)
    assert venue.book() == {2: Decimal(10)}
    until(lambda: stream.xlen(REPLIES) == 2)  # the answer that is recorded is told all the same
    assert remainders(ask(talk("redis"), removal(2))) == ["10"]


def test_redis_the_command_stream_is_trimmed(
    venue: MatchingEngine, talk: Open, stream: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_engine, "COMMANDS_KEPT", 200)
    venue.kill()
    for at in range(0, 1000, 100):
        ask(talk("redis", "50ms"), *(removal(at + number) for number in range(1, 101)))
    assert 200 <= stream.xlen(COMMANDS) <= 400
    venue.start()
    rest(venue, 1)
    assert remainders(ask(talk("redis"), removal(1))) == ["10"]


def test_redis_two_passes_at_once_get_their_own_answers(venue: MatchingEngine, talk: Open) -> None:
    rest(venue, *range(1, 301))
    found: dict[int, list[Answer]] = {}

    def run(number: int) -> None:
        keys = [removal(order_id) for order_id in range(1, 301) if order_id % 3 != number]
        found[number] = ask(talk("redis"), *keys)

    threads = [threading.Thread(target=run, args=[number]) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(answers) for answers in found.values()] == [200] * 3
    assert {text for answers in found.values() for text in remainders(answers)} == {"10"}
    assert set(venue.removals().values()) == {1}


def test_redis_a_stream_that_is_none(talk: Open, stream: Any) -> None:
    stream.set(REPLIES, "x")
    (answer,) = ask(talk("redis"), removal(1))
    assert isinstance(answer, Unreachable)
    assert "WRONGTYPE" in answer.reason


@contextmanager
def own_valkey(directory: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A server that a test may stop."""
    path = directory / "s"
    process = subprocess.Popen(
        [valkey_bin(), "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(directory)],
        stdout=subprocess.DEVNULL,
    )
    try:
        until(path.exists)
        yield f"unix://{path}?db=0", process
    finally:
        process.kill()
        process.wait()


def test_redis_goes_down_and_comes_back(tmp_path: Path) -> None:
    """Killed in the middle of a call, gone, there again: each removal has its one answer, and nothing raises."""
    with own_valkey(tmp_path) as (url, server), MatchingEngine(tmp_path / "journal", url) as venue:
        rest(venue, *range(1, 301))
        settings = Settings.model_validate({"engine": "redis", "engine_timeout": "500ms"})
        engine = open_engine(settings, url)
        assert engine is not None
        answers = {}
        for item, answer in engine.cancel([removal(order_id) for order_id in range(1, 301)]):
            answers[item] = answer
            if len(answers) == 50:
                server.kill()
                server.wait()
        assert len(answers) == 300
        assert remainders(list(answers.values())[:100]) == ["10"] * 100
        assert all(isinstance(answer, Unreachable) for answer in list(answers.values())[100:200])
        assert all(isinstance(answer, NotAsked) for answer in list(answers.values())[200:])
        (answer,) = ask(engine, removal(1))
        assert isinstance(answer, Unreachable)
        assert "can't be reached" in answer.reason
        (tmp_path / "s").unlink(missing_ok=True)
        with own_valkey(tmp_path):
            until(lambda: remainders(ask(engine, removal(1))) == ["10"])
            assert remainders(ask(engine, *answers)) == ["10"] * 300
        assert set(venue.removals().values()) == {1}


def test_redis_that_hangs(tmp_path: Path) -> None:
    with own_valkey(tmp_path) as (url, server):
        settings = Settings.model_validate({"engine": "redis", "engine_timeout": "100ms"})
        engine = open_engine(settings, url)
        assert engine is not None
        server.send_signal(signal.SIGSTOP)
        try:
            started = time.monotonic()
            answers = ask(engine, *map(removal, range(1, 501)))
            assert time.monotonic() - started < 5
        finally:
            server.send_signal(signal.SIGCONT)
        assert [type(answer) for answer in answers] == [Unreachable] * 100 + [NotAsked] * 400


# ------------------------------------------------------------------------------------------------------- http alone


@contextmanager
def listener(serve: Callable[[socket.socket, bytes], None]) -> Iterator[str]:
    """A server that reads a request's head and does with the connection what it is told. Its address."""
    server = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                head = b""
                while b"\r\n\r\n" not in head and (more := connection.recv(4096)):
                    head += more
                try:
                    serve(connection, head)
                except OSError:
                    continue

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/v1"
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()


def respond(connection: socket.socket, body: str, status: str = "200 OK") -> None:
    data = body.encode()
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    connection.sendall(head.encode() + data)


def http_engine(url: str, timeout: str = PATIENT, **values: Any) -> Engine:
    settings = Settings.model_validate(
        {"engine": "http", "engine_url": url, "engine_timeout": timeout, **values}
    )
    engine = open_engine(settings, "")
    assert engine is not None
    return engine


def test_http_requests_are_as_documented() -> None:
    heads: list[str] = []

    def serve(connection: socket.socket, head: bytes) -> None:
        heads.append(head.decode())
        respond(connection, blocks("## HTTP", "json")[0])

    with listener(serve) as url:
        engine = http_engine(url, engine_token="t0ken")
        answers = ask(engine, Removal(1042, PAIR, "sell", "expire-1042-1"))
    assert answers == [Removed(Decimal("6.5"), "88120417")]
    shown = blocks("## HTTP")[0].replace("engine.example", url.split("/")[2]).replace("…", "t0ken")
    sent = heads[0].splitlines()
    assert sent[0] == shown.splitlines()[0]
    # User-Agent and Connection are anybody's.
    mine = {line for line in sent[1:] if line and not line.startswith(("User-Agent", "Connection"))}
    assert mine == set(shown.splitlines()[1:])


def test_http_the_token_is_checked(venue: MatchingEngine, talk: Open) -> None:
    rest(venue, 1)
    (answer,) = ask(talk("http", engine_token="wrong"), removal(1))
    assert isinstance(answer, Nonsense)
    assert "MAVEN_ENGINE_TOKEN" in answer.reason
    assert venue.book() == {1: Decimal(10)}


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_http_a_passing_failure_is_tried_again_with_the_same_key(
    status: int, venue: MatchingEngine, talk: Open
) -> None:
    rest(venue, 1)
    venue.fault("raw", status=status, content_type="text/html", body=HTML, times=2)
    assert remainders(ask(talk("http"), removal(1))) == ["10"]
    assert venue.commands() == {"expire-1-1": 3}


def test_http_a_lasting_failure_is_no_answer(venue: MatchingEngine, talk: Open) -> None:
    rest(venue, 1)
    venue.fault("raw", status=503, content_type="text/html", body=HTML)
    (answer,) = ask(talk("http"), removal(1))
    assert isinstance(answer, Unreachable)
    assert "HTTP 503" in answer.reason
    assert venue.commands() == {"expire-1-1": 3}


def test_http_a_failure_after_the_removal_is_healed_by_the_key(venue: MatchingEngine, talk: Open) -> None:
    """A proxy that gives up after the engine has removed the order: the second attempt gets the recorded answer."""
    rest(venue, 1)
    venue.fault("removed_raw", status=504, content_type="text/html", body=HTML, times=1)
    assert remainders(ask(talk("http"), removal(1))) == ["10"]
    assert venue.removals() == {"expire-1-1": 1}


def test_http_json_numbers_are_exact(venue: MatchingEngine, talk: Open) -> None:
    for text in ("6.500000000000000001", "0.1", "123456789012345678.123456789012345678", "1e-18", "0"):
        venue.fault("raw", status=200, content_type=JSON, body=f'{{"orderId": 1, "remaining": {text}}}')
        assert ask(talk("http"), removal(1)) == [Removed(Decimal(text), None)]


def test_http_not_found_as_documented(venue: MatchingEngine, talk: Open) -> None:
    venue.fault("raw", status=404, content_type=JSON, body=blocks("## HTTP", "json")[1])
    assert ask(talk("http"), removal(1042)) == [NotFound()]


@pytest.mark.parametrize(
    "start",
    [b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: "],
    ids=["body", "head"],
)
def test_http_an_answer_that_drips_is_cut_off(start: bytes) -> None:
    """Each byte comes in time; the whole doesn't."""

    def serve(connection: socket.socket, _head: bytes) -> None:
        connection.sendall(start)
        for _ in range(100):
            connection.sendall(b" ")
            time.sleep(0.05)

    with listener(serve) as url:
        started = time.monotonic()
        (answer,) = ask(http_engine(url, "300ms"), removal(1))
        assert time.monotonic() - started < 2
    assert isinstance(answer, Unreachable)
    assert "300ms" in answer.reason


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"\x00" * 200_000,
    ],
    ids=["nothing", "another protocol", "half a body", "zeros"],
)
def test_http_what_breaks_off_or_is_another_protocol(junk: bytes) -> None:
    with listener(lambda connection, _head: connection.sendall(junk)) as url:
        (answer,) = ask(http_engine(url), removal(1))
    assert isinstance(answer, Unreachable | Nonsense)


def test_http_a_name_server_that_hangs_does_not_hold_up_the_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo
    asked = threading.Event()

    def slow(*args: Any, **kwargs: Any) -> Any:
        asked.set()
        time.sleep(6)
        return real(*args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    started = time.monotonic()
    (answer,) = ask(http_engine("http://localhost:1", "200ms"), removal(1))
    assert time.monotonic() - started < 4
    assert asked.is_set()
    assert isinstance(answer, Unreachable)


def test_http_nobody_listens(venue: MatchingEngine, talk: Open) -> None:
    venue.kill()
    (answer,) = ask(talk("http"), removal(1))
    assert isinstance(answer, Unreachable)
    assert answer.reason.startswith("127.0.0.1:")


def test_http_no_tls_where_tls_is_expected(venue: MatchingEngine, talk: Open) -> None:
    rest(venue, 1)
    (answer,) = ask(talk("http", engine_url=venue.url.replace("http:", "https:")), removal(1))
    assert isinstance(answer, Unreachable)
    assert "SSL" in answer.reason
    assert venue.book() == {1: Decimal(10)}


def test_http_the_wrong_path_does_not_make_an_order_look_gone(venue: MatchingEngine, talk: Open) -> None:
    rest(venue, 1)
    (answer,) = ask(talk("http", engine_url=venue.url + "/elsewhere"), removal(1))
    assert isinstance(answer, Nonsense)


def test_http_proxies_are_not_used(
    venue: MatchingEngine, talk: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    rest(venue, 1)
    assert remainders(ask(talk("http"), removal(1))) == ["10"]


def test_http_an_answer_in_between_keeps_the_call_going(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three orders in a row are needed, not three in all."""
    monkeypatch.setattr(http_side, "CONCURRENCY", 1)
    bad = {2, 3, 5, 7, 8}

    def serve(connection: socket.socket, head: bytes) -> None:
        order_id = int(head.split(b"?")[0].rsplit(b"/")[-1])
        if order_id not in bad:
            respond(connection, json.dumps({"orderId": order_id, "remaining": "1"}))
        else:
            respond(connection, "", "503 Service Unavailable")

    with listener(serve) as url:
        answers = ask(http_engine(url), *map(removal, range(1, 10)))
    assert {at for at, answer in enumerate(answers, 1) if not isinstance(answer, Removed)} == bad
    assert all("HTTP 503" in str(answer) for answer in answers if isinstance(answer, Unreachable))


# ------------------------------------------------------------------------------------------------ documented replies


def blocks(heading: str, language: str = "text") -> list[str]:
    """The code blocks of a section of the protocols' page."""
    following = rf"^#{{1,{heading.index(' ')}}} "
    section = re.split(following, PAGE.partition(f"\n{heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def fields(block: str) -> dict[str, str]:
    """``name value`` lines."""
    return dict(line.split(" ", 1) for line in block.splitlines())


def test_redis_documented_replies_are_understood(venue: MatchingEngine, talk: Open) -> None:
    expected: list[Answer] = [Removed(Decimal("6.5"), "88120417"), NotFound()]
    shown = blocks("### Reply")
    for block, answer in zip(shown, expected, strict=True):
        reply = fields(block)
        venue.fault("raw", fields=reply)
        asked = Removal(int(reply["orderId"]), PAIR, "sell", reply["correlationId"])
        assert ask(talk("redis"), asked) == [answer]


def test_the_matching_engine_answers_as_documented(venue: MatchingEngine, talk: Open, stream: Any) -> None:
    """What the tests stand on speaks the protocol of the page: the same fields, and the same documents."""
    rest(venue, 1042, 1044, quantity="6.5")
    ask(talk("redis"), removal(1042), removal(1043))
    replies = [reply for _, reply in stream.xrange(REPLIES)]
    shown = [fields(block) for block in blocks("### Reply")]
    assert [reply.keys() for reply in replies] == [reply.keys() for reply in shown]
    assert [{**reply, "sequence": ""} for reply in replies] == [{**reply, "sequence": ""} for reply in shown]
    documents = []
    for order_id in (1044, 1045):
        request = Request(
            f"{venue.url}/orders/{order_id}?pair=BTC%2FUSDT&side=sell",
            method="DELETE",
            headers={"Idempotency-Key": f"expire-{order_id}", "Authorization": f"Bearer {TOKEN}"},
        )
        try:
            with urlopen(request) as response:
                documents.append(json.load(response))
        except HTTPError as error:
            with error:
                documents.append(json.load(error))
    examples = [json.loads(text) for text in blocks("## HTTP", "json")]
    differing = {"orderId": "", "sequence": ""}
    assert [document.keys() for document in documents] == [example.keys() for example in examples]
    assert [{**document, **differing} for document in documents] == [
        {**example, **differing} for example in examples
    ]


def test_nothing_is_left_of_a_matching_engine(tmp_path: Path) -> None:
    with MatchingEngine(tmp_path / "journal") as venue:
        pid, url = venue.pid, venue.url
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", int(url.split(":")[2].split("/")[0])))


def until(true: Callable[[], Any], limit: float = 10) -> None:
    """Waits for something to become true."""
    give_up = time.monotonic() + limit
    while not true():
        assert time.monotonic() < give_up, "it never became true"
        time.sleep(0.02)

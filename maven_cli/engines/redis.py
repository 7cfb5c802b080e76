"""An engine behind Redis Streams: commands go out on one stream, replies come back on another.

Replies are read without a race: the end of the reply stream is noted before a command is sent, and reading goes on from
there. Everybody reads every reply and takes those whose correlation id is a key of their own.

A reply that comes after its pass has gone stays in the stream. So nothing but `Removed` is believed at once: before a
removal ends as NotFound, Unreachable or Nonsense, the stream is searched backwards for an earlier removal under the same
key. It is found even when the engine is dead by now, always answers too late, or came back with an empty memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import redis

from maven_cli.cache import open_cache, target
from maven_cli.engines import Answer, Nonsense, NotAsked, NotFound, Removal, Removed, Unreachable, check_keys
from maven_cli.engines.answers import check_order, removed
from maven_cli.errors import MavenError
from maven_cli.times import format_duration

# Commands in flight at once, and so the ones that share one wait.
WINDOW = 100
# Older commands than so many are cut off the stream; what nobody answered is asked again anyway.
COMMANDS_KEPT = 10_000
# How many replies the search backwards looks at: what the specification has engines keep.
REPLIES_SEARCHED = 10_000
# Beyond the wait for it, a command may be carried out for so long: then nobody stands behind it any more.
GRACE = timedelta(seconds=30)

_PAGE = 1_000
_MILLISECOND = timedelta(milliseconds=1)


class RedisEngine:
    """An engine that speaks the Redis protocol of docs/reference/engine-protocols.md."""

    name = "redis"

    def __init__(self, url: str | Callable[[], str], stream: str, timeout: timedelta) -> None:
        self._url = url
        self._timeout = timeout
        self.commands = stream
        self.replies = reply_stream(stream)

    def cancel(self, removals: Sequence[Removal]) -> Iterator[tuple[Removal, Answer]]:
        """As `Engine.cancel`: `WINDOW` removals at a time, and no more of them after a window that nobody answered."""
        check_keys(removals)
        outstanding = {removal.request_key: removal for removal in removals}
        # What is asked next, and so what a failure is about.
        window = {removal.request_key: removal for removal in removals[:WINDOW]}
        try:
            url = self._url if isinstance(self._url, str) else self._url()
            # An answer of Redis itself may take a little longer than the wait for the engine's.
            with open_cache(url, timeout=self._timeout.total_seconds() + 1) as client:
                reason = (
                    f"no answer on {self.replies} at {target(url)} within {format_duration(self._timeout)}"
                )
                for at in range(0, len(removals), WINDOW):
                    window = {removal.request_key: removal for removal in removals[at : at + WINDOW]}
                    answers = self._ask(client, window)
                    for key, removal in window.items():
                        del outstanding[key]
                        yield removal, answers.get(key, Unreachable(reason))
                    if all(isinstance(answer, Unreachable) for answer in answers.values()):
                        break
            window = {}
        except (MavenError, redis.RedisError) as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
        for key, removal in outstanding.items():
            if key in window:
                yield removal, Unreachable(reason)
            else:
                yield removal, NotAsked(f"not asked, because of those before: {reason}")

    def close(self) -> None:
        """Nothing stays open between two calls."""

    def _ask(self, client: redis.Redis, window: Mapping[str, Removal]) -> dict[str, Answer]:
        """Sends one window and waits for it. Answers by key, none for a removal that got no reply."""
        position = self._send(client, window.values())
        answers: dict[str, Answer] = {}
        deadline = time.monotonic() + self._timeout.total_seconds()
        while len(answers) < len(window) and (left := deadline - time.monotonic()) > 0:
            for entry, reply in self._read(client, position, left):
                position = entry
                key = reply.get("correlationId", "")
                # Other passes' replies, late ones for earlier calls and repetitions go by.
                if key in window and key not in answers:
                    answers[key] = _answer(window[key], reply)
        doubtful = {
            key: removal for key, removal in window.items() if not isinstance(answers.get(key), Removed)
        }
        if doubtful:
            answers.update(self._earlier(client, doubtful))
        return answers

    def _send(self, client: redis.Redis, removals: Iterable[Removal]) -> str:
        """Appends a command for each removal. Returns where the reply stream ended before."""
        with client.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.xrevrange(self.replies, count=1)
            (seconds, micros), newest = pipe.execute()
            # Redis's clock, so that the engine can compare with the same one.
            now = seconds * 1000 + micros // 1000
            for removal in removals:
                pipe.xadd(
                    self.commands,
                    {
                        "type": "cancel",
                        "correlationId": removal.request_key,
                        "orderId": str(removal.order_id),
                        "pair": removal.pair,
                        "side": removal.side,
                        "replyTo": self.replies,
                        "validUntil": str(now + (self._timeout + GRACE) // _MILLISECOND),
                    },
                    maxlen=COMMANDS_KEPT,
                    approximate=True,
                )
            pipe.execute()
        return _text(newest[0][0]) if newest else "0-0"

    def _read(self, client: redis.Redis, after: str, wait: float) -> list[tuple[str, dict[str, str]]]:
        """The replies after a position; waits for the first one."""
        # 0 would wait for ever. What XREAD returns looks different under RESP3; XRANGE's entries don't.
        if not client.xread({self.replies: after}, count=1, block=max(round(wait * 1000), 1)):
            return []
        return _entries(client.xrange(self.replies, min=f"({after}", count=_PAGE))

    def _earlier(self, client: redis.Redis, removals: Mapping[str, Removal]) -> dict[str, Removed]:
        """Removals that an earlier reply tells, or one that came after the wait was over; by key."""
        found: dict[str, Removed] = {}
        newest = "+"
        for _ in range(REPLIES_SEARCHED // _PAGE):
            page = _entries(client.xrevrange(self.replies, max=newest, count=_PAGE))
            for _, reply in page:
                key = reply.get("correlationId", "")
                if key in removals and isinstance(answer := _answer(removals[key], reply), Removed):
                    found.setdefault(key, answer)
            if len(page) < _PAGE or len(found) == len(removals):
                break
            newest = f"({page[-1][0]}"
        return found


def reply_stream(commands: str) -> str:
    """The stream of the replies: ``maven:engine:commands`` → ``maven:engine:replies``."""
    return commands.removesuffix(":commands") + ":replies"


def _answer(removal: Removal, reply: Mapping[str, str]) -> Answer:
    """What a reply to this removal means."""
    try:
        match reply.get("status"):
            case "removed":
                return removed(removal, reply.get("orderId"), reply.get("remaining"), reply.get("sequence"))
            case "not_found":
                check_order(removal, reply.get("orderId"))
                return NotFound()
            case "unavailable":
                return Unreachable("the engine says that it is unavailable")
            case _:
                return Nonsense("a reply without a status that the protocol knows")
    except ValueError as error:
        return Nonsense(str(error))


def _entries(raw: Any) -> list[tuple[str, dict[str, str]]]:
    """Stream entries as text: (id, fields)."""
    return [
        (_text(entry), {_text(name): _text(value) for name, value in fields.items()}) for entry, fields in raw
    ]


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)

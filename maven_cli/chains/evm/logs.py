"""Transfer events of a range of blocks, however little of it a node gives at once.

Every provider bounds eth_getLogs by something else (blocks, results, bytes, seconds) and says so in its own words, often
under the same code as other errors. So a refusal of any kind makes the range shorter: to what the refusal proposes, if
it does, else to the half. Only a single block that is refused is an error, and even its events can be had otherwise: from
all its receipts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from maven_cli.chains import Block, NodeBehindError
from maven_cli.chains.evm import answers
from maven_cli.chains.evm.answers import TRANSFER, MalformedError, UnsettledError
from maven_cli.chains.rpc import Rpc, RpcError, TooMuchError

TOPICS = 500  # recipients in one filter; geth takes 1,000
GROWING = 4  # ranges in a row that are answered before a longer one is tried
BLOCKS = 20  # blocks in one request where each is asked for by its hash

# "… this block range should work: [0x99, 0xa0]"
_PROPOSED = re.compile(r"\[(0x[0-9a-f]+), ?(0x[0-9a-f]+)\]", re.IGNORECASE)
# "exceed maximum block range: 5000", "up to a 2K block range", "limited to a 10,000 range", "(49999 > 2000)"
_STATED = re.compile(
    r"(?:\bmax(?:imum)?|\blimit(?:ed)?|\bup to|\ballowed|\bover|>)(?:(?!logs|results|response)\D){0,30}?(\d[\d,]{0,8})(k?)\b"
    r"(?! ?(?:results|logs|events|entries|bytes|mb|ms|s\b|sec))",
    re.IGNORECASE,
)


class LogReader:
    """Reads events of one node, and remembers how many blocks at once it takes."""

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc
        self._span: int | None = None  # as many as there are, until the node refuses
        self._ceiling: int | None = None  # what the node itself named
        self._successes = 0  # since the last refusal

    def final(self, blocks: Sequence[Block], recipients: frozenset[bytes] | None) -> Iterator[list[Any]]:
        """The events of consecutive blocks that no reorganisation reaches, by ranges of heights.

        The header of a range's last block travels in the same request, so that it comes from the same node behind a
        balancer: one that lags answers "no events" to what it doesn't know yet. Raises NodeDownError, NodeBehindError and
        UnsettledError.
        """
        filters = _topics(recipients)
        start = 0
        while start < len(blocks):
            part = blocks[start : start + (self._span or len(blocks))]
            first, last = part[0], part[-1]
            bounds = {"fromBlock": hex(first.height), "toBlock": hex(last.height)}
            calls = [("eth_getLogs", [{**bounds, "topics": topics}]) for topics in filters]
            try:
                *found, header = self._rpc.batch(
                    [*calls, ("eth_getBlockByNumber", [hex(last.height), False])], divisible=len(part) > 1
                )
            except TooMuchError:
                if len(part) == 1:
                    yield self._receipts(first)
                    start += 1
                    continue
                self._span = max(len(part) // 4, 1)
                self._successes = 0
                continue
            refusal = next((result for result in found if isinstance(result, RpcError)), None)
            if refusal is not None and len(part) > 1:
                self._shrink(first.height, len(part), refusal)
                continue
            if refusal is not None:
                if answers.is_behind(refusal):
                    answers.accepted(self._rpc.name, "eth_getLogs", refusal)
                yield self._receipts(first)
            else:
                header = answers.accepted(self._rpc.name, "eth_getBlockByNumber", header)
                if header is None:
                    raise NodeBehindError(f"node {self._rpc.name} has no block {last.height}")
                if answers.block(header).hash != last.hash:
                    raise UnsettledError(f"changed block {last.height} while its events were read")
                yield self._within(part, found)
            start += len(part)
            self._grow()

    def unsettled(self, blocks: Sequence[Block], recipients: frozenset[bytes] | None) -> Iterator[list[Any]]:
        """The events of blocks that may yet be reorganised away, each by the block's hash. Raises as `final`."""
        filters = _topics(recipients)
        for start in range(0, len(blocks), BLOCKS * self._rpc.concurrency):
            part = blocks[start : start + BLOCKS * self._rpc.concurrency]
            calls = [
                ("eth_getLogs", [{"blockHash": f"0x{block.hash.hex()}", "topics": topics}])
                for block in part
                for topics in filters
            ]
            results = self._rpc.batch(calls, size=BLOCKS)
            for place, block in enumerate(part):
                found = results[place * len(filters) : (place + 1) * len(filters)]
                refusal = next((result for result in found if isinstance(result, RpcError)), None)
                if refusal is None:
                    yield self._within([block], found)
                elif answers.is_behind(refusal):
                    raise UnsettledError(f"doesn't know block {block.height} by its hash any more")
                else:
                    yield self._receipts(block)

    def _within(self, part: Sequence[Block], found: Sequence[Any]) -> list[Any]:
        """The events, each of them proven to be of one of these blocks."""
        hashes = {block.height: block.hash for block in part}
        if not all(isinstance(logs, list) for logs in found):
            raise MalformedError("logs")
        together = [log for logs in found for log in logs]
        for log in together:
            height = answers.quantity(log, "blockNumber")
            if hashes.get(height) != answers.octets(log, "blockHash", 32):
                raise UnsettledError(f"has events of another block {height} than the one it gave")
        return together

    def _receipts(self, block: Block) -> list[Any]:
        """All events of a block, from its receipts: far more than asked for, but there is no other way."""
        receipts = self._rpc.call("eth_getBlockReceipts", f"0x{block.hash.hex()}")
        if receipts is None:
            raise UnsettledError(f"has no receipts of block {block.height}")
        if not isinstance(receipts, list):
            raise MalformedError("receipts")
        return self._within([block], [answers.sequence(receipt, "logs") for receipt in receipts])

    def _shrink(self, first: int, span: int, refusal: RpcError) -> None:
        self._successes = 0
        proposed = _PROPOSED.search(refusal.message)
        if proposed is not None:
            start, end = (int(bound, 16) for bound in proposed.groups())
            if start == first and 0 < end - start + 1 < span:
                self._span = end - start + 1
                return
        stated = [
            int(digits.replace(",", "")) * (1000 if kilo else 1)
            for digits, kilo in _STATED.findall(refusal.message)
        ]
        fitting = [number for number in stated if 0 < number < span]
        if fitting:
            self._span = self._ceiling = max(fitting)
        else:
            self._span = span // 2

    def _grow(self) -> None:
        """Asks for more again, but not at once: most of what is refused is refused again a block later."""
        self._successes += 1
        if self._span is not None and self._successes % GROWING == 0:
            self._span += max(self._span // 4, 1)
            if self._ceiling is not None:
                self._span = min(self._span, self._ceiling)


def _topics(recipients: frozenset[bytes] | None) -> list[list[Any]]:
    """The filters that together let through what pays these recipients, or every transfer."""
    if recipients is None:
        return [[TRANSFER]]
    ordered = sorted(recipients)
    return [
        [TRANSFER, None, [answers.topic_of(key) for key in ordered[start : start + TOPICS]]]
        for start in range(0, len(ordered), TOPICS)
    ]

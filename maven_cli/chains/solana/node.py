"""The node: its head, its blocks, and the proof that a range of them is whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from maven_cli.chains import (
    Block,
    Head,
    NodeBehindError,
    NodeDownError,
    Reference,
    Scan,
    Sighting,
    Token,
    Transfer,
    Watch,
)
from maven_cli.chains.rpc import BATCH, Rpc, RpcError
from maven_cli.chains.solana import accounts
from maven_cli.chains.solana.asking import (
    BEHIND,
    FINALIZED,
    NOT_YET,
    READABLE,
    SKIPPED,
    Asking,
    header_call,
)
from maven_cli.chains.solana.notation import KEY, encode
from maven_cli.chains.solana.reading import Header, Transaction, bytes_of, key_of, pick, slots, transaction

# A block with all its transactions has several MB. Two make a request, and eight are in memory at once.
BLOCKS_PER_REQUEST = 2
BLOCKS_AT_ONCE = 8
# How far below a finalized slot that can't be shown the head is looked for: so many slots, and so many blocks in them.
_STEP_BACK, _TRIES = 500, 10


class SolanaNode:
    """One endpoint. See the interface, `maven_cli.chains.Node`."""

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc
        self._ask = Asking(rpc)

    @property
    def name(self) -> str:
        return self._rpc.name

    @property
    def requests(self) -> int:
        return self._rpc.requests

    def close(self) -> None:
        self._rpc.close()

    def identity(self) -> str:
        return encode(self._ask.read("getGenesisHash", self._ask.one("getGenesisHash"), key_of))

    def head(self) -> Head:
        """The newest finalized block that the node can show. There is no `safe`: short of final, Solana promises nothing."""
        slot = self._ask.slot("getSlot", self._ask.one("getSlot", FINALIZED))
        (answer,) = self._rpc.batch([header_call(slot)])
        if isinstance(answer, RpcError) and answer.code in NOT_YET:
            # The slot was told by another node behind the same address, or its block isn't written down yet.
            slot, answer = self._before(slot)
        return Head(self._ask.header(slot, answer).block, safe=None, finalized=slot)

    def blocks(self, heights: Sequence[int]) -> list[Block | None]:
        wanted = sorted(set(heights))
        if not wanted:
            return []
        newest, *answers = self._rpc.batch(
            [("getSlot", [FINALIZED]), *(header_call(slot) for slot in wanted)], size=BATCH + 1
        )
        head = self._ask.slot("getSlot", newest)
        found: dict[int, Block | None] = {}
        skipped = []
        for slot, answer in zip(wanted, answers, strict=True):
            code = answer.code if isinstance(answer, RpcError) else None
            if slot > head and (answer is None or code in BEHIND):
                found[slot] = None
            elif code in SKIPPED:
                found[slot] = None
                skipped.append(slot)
            else:
                found[slot] = self._ask.header(slot, answer).block
        self._prove_skipped(skipped)
        return [found[height] for height in heights]

    def scan(self, first: int, last: int, watch: Watch, *, final: bool) -> Scan:
        """`final` makes no difference: only finalized blocks are read, and each is read whole."""
        listed, closing = self._range(first, last)
        blocks, transfers = list[Block](), list[Transfer]()
        previous: Header | None = None
        for start in range(0, len(listed), BLOCKS_AT_ONCE):
            contents = self._contents(listed[start : start + BLOCKS_AT_ONCE])
            for header, _ in contents:
                self._link(previous, header, first)
                previous = header
                blocks.append(header.block)
            transfers += self._ask.read("getBlock", contents, lambda contents: _watched(contents, watch))
        if closing > last:
            (answer,) = self._rpc.batch([header_call(closing)])
            self._link(previous, self._ask.header(closing, answer), first)
        return Scan(tuple(blocks), tuple(transfers))

    def look(self, references: Sequence[Reference]) -> list[Sighting]:
        return [
            sighting
            for start in range(0, len(references), BATCH)
            for sighting in self._look(references[start : start + BATCH])
        ]

    def token(self, token: bytes) -> Token | None:
        answer = self._ask.one("getAccountInfo", encode(token), {"encoding": "base64", **FINALIZED})
        return self._ask.read("getAccountInfo", answer, accounts.mint)

    def balances(self, keys: Sequence[bytes], token: bytes | None) -> list[int]:
        """In lamports, or the sum of all token accounts of that mint."""
        if token is None:
            answers = self._rpc.batch([("getBalance", [encode(key), FINALIZED]) for key in keys])
            return [self._ask.read("getBalance", answer, accounts.lamports) for answer in answers]
        mint, method = token, "getTokenAccountsByOwner"
        config = {"encoding": "base64", "dataSlice": accounts.HOLDING, **FINALIZED}
        answers = self._rpc.batch([(method, [encode(key), {"mint": encode(mint)}, config]) for key in keys])
        return [
            self._ask.read(method, answer, partial(accounts.held, token=mint, owner=key))
            for key, answer in zip(keys, answers, strict=True)
        ]

    def _before(self, slot: int) -> tuple[int, Any]:
        """The newest block below a slot that the node can show."""
        first, last = max(slot - _STEP_BACK, 0), slot - 1
        listed = self._ask.one("getBlocks", first, last, FINALIZED) if last >= 0 else []
        found = self._ask.read("getBlocks", listed, lambda value: slots(value, first, last))[-_TRIES:]
        if not found:
            raise NodeBehindError(f"node {self.name} has no block up to its finalized slot {slot}")
        answers = self._rpc.batch([header_call(earlier) for earlier in found])
        shown = [
            (earlier, answer)
            for earlier, answer in zip(found, answers, strict=True)
            if not (isinstance(answer, RpcError) and answer.code in NOT_YET)
        ]
        return shown[-1] if shown else (found[-1], answers[-1])

    # ------------------------------------------------------------------------------------------------------- one range

    def _range(self, first: int, last: int) -> tuple[list[int], int]:
        """The slots that have a block, and the first one from `last` on that has, wherever it is."""
        oldest, listed, following = self._rpc.batch(
            [
                ("getFirstAvailableBlock", []),
                ("getBlocks", [first, last, FINALIZED]),
                ("getBlocksWithLimit", [last, 1, FINALIZED]),
            ]
        )
        available = self._ask.slot("getFirstAvailableBlock", oldest)
        if available > first:
            # getBlocks would answer with what is left of the range.
            raise NodeBehindError(
                f"node {self.name} keeps blocks from slot {available} on, but slot {first} is needed"
            )
        found = self._ask.read("getBlocks", listed, lambda value: slots(value, first, last))
        closing = self._next(last, following)
        if closing is None:
            raise NodeBehindError(f"node {self.name} has no finalized block at slot {last} or above")
        if (closing == last) != (last in found):
            raise NodeBehindError(f"node {self.name} contradicts itself about a block at slot {last}")
        return found, closing

    def _next(self, slot: int, answer: Any) -> int | None:
        """What getBlocksWithLimit calls the first block at `slot` or above."""
        found = self._ask.read("getBlocksWithLimit", answer, lambda value: slots(value, slot, None))
        return found[0] if found else None

    def _link(self, previous: Header | None, header: Header, first: int) -> None:
        """Nothing is missing between two blocks, or between the start of the range and its first block."""
        slot = header.block.height
        if previous is None:
            linked = header.parent_slot < first or slot == 0
        else:
            linked = (header.parent_slot, header.block.parent) == (previous.block.height, previous.block.hash)
        if not linked:
            raise NodeBehindError(
                f"node {self.name} lacks blocks: the one at slot {slot} comes after slot {header.parent_slot}"
            )

    def _prove_skipped(self, skipped: Sequence[int]) -> None:
        """The next block comes after one below the slot: it was skipped, and isn't only lost by this node."""
        answers = self._rpc.batch([("getBlocksWithLimit", [slot, 1, FINALIZED]) for slot in skipped])
        following = dict[int, int]()
        for slot, answer in zip(skipped, answers, strict=True):
            closing = self._next(slot, answer)
            if closing is None or closing == slot:
                raise NodeBehindError(f"node {self.name} lacks the block at slot {slot}")
            following[slot] = closing
        headers = self._headers(following.values())
        for slot, closing in following.items():
            self._link(None, headers[closing], slot)

    def _headers(self, wanted: Iterable[int]) -> dict[int, Header]:
        order = sorted(set(wanted))
        answers = self._rpc.batch([header_call(slot) for slot in order])
        return {slot: self._ask.header(slot, answer) for slot, answer in zip(order, answers, strict=True)}

    def _contents(self, wanted: Sequence[int]) -> list[tuple[Header, list[Transaction]]]:
        config = {"encoding": "json", "transactionDetails": "full", "rewards": False, **READABLE}
        answers = self._rpc.batch([("getBlock", [slot, config]) for slot in wanted], size=BLOCKS_PER_REQUEST)
        return [
            (self._ask.header(slot, answer), self._ask.read("getBlock", answer, _transactions))
            for slot, answer in zip(wanted, answers, strict=True)
        ]

    # ----------------------------------------------------------------------------------------------- some transactions

    def _look(self, references: Sequence[Reference]) -> list[Sighting]:
        names = [encode(reference.tx_hash) for reference in references]
        newest, oldest, statuses, *answers = self._rpc.batch(
            [
                # Where the node stands is asked first: what it doesn't find, it lacks up to there.
                ("getSlot", [FINALIZED]),
                ("getFirstAvailableBlock", []),
                ("getSignatureStatuses", [names, {"searchTransactionHistory": True}]),
                *(("getTransaction", [name, {"encoding": "json", **READABLE}]) for name in names),
            ],
            size=BATCH + 3,
        )
        kept = range(self._ask.slot("getFirstAvailableBlock", oldest), self._ask.slot("getSlot", newest) + 1)
        known = self._ask.read("getSignatureStatuses", statuses, lambda value: pick(value, "value", list))
        if len(known) != len(names):
            raise NodeDownError(f"node {self.name} answered for {len(known)} of {len(names)} signatures")
        found = [self._ask.read("getTransaction", answer, _confirmed) for answer in answers]
        headers = self._headers(item[0] for item in found if item is not None)
        sightings = []
        for reference, name, item, status in zip(references, names, found, known, strict=True):
            if item is None:
                sightings.append(self._absence(reference, status, kept))
                continue
            slot, content = item
            if content.signature != name:
                raise NodeDownError(f"node {self.name} answered with another transaction than was asked for")
            block = headers[slot].block
            transfers = self._ask.read("getTransaction", content, partial(_all, block=block))
            sightings.append(
                Sighting(
                    "mined" if content.error is None else "failed", block, transfers, content.digest(block)
                )
            )
        return sightings

    def _absence(self, reference: Reference, status: Any, kept: range) -> Sighting:
        """Of a transaction that no finalized block holds, as far as this node can tell."""
        if status is not None:
            if self._ask.read("getSignatureStatuses", status, _commitment) == "finalized":
                raise NodeBehindError(f"node {self.name} calls a transaction final that it doesn't have")
            return Sighting("pending")
        if reference.height is not None and reference.height not in kept:
            raise NodeBehindError(
                f"node {self.name} has slots {kept.start} to {kept.stop - 1}, but slot {reference.height} is needed"
            )
        return Sighting("missing")


def _transactions(block: Any) -> list[Transaction]:
    return [transaction(item) for item in pick(block, "transactions", list)]


def _confirmed(answer: Any) -> tuple[int, Transaction] | None:
    return None if answer is None else (pick(answer, "slot", int), transaction(answer))


def _commitment(status: Any) -> str:
    return pick(status, "confirmationStatus", str)


def _all(item: Transaction, block: Block) -> tuple[Transfer, ...]:
    return tuple(item.transfer(gain, block) for gain in item.gains())


def _watched(contents: Sequence[tuple[Header, list[Transaction]]], watch: Watch) -> list[Transfer]:
    gains = [
        (header.block, item, gain) for header, items in contents for item in items for gain in item.gains()
    ]
    keys = {text: bytes_of(text, KEY) for text in {gain.to for _, _, gain in gains}}
    owned = watch.owned(keys.values())
    return [item.transfer(gain, block) for block, item, gain in gains if keys[gain.to] in owned]

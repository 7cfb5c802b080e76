"""What a node's answers mean: headers, and what accounts gained. Asks nobody.

Everything here raises OddAnswerError for an answer that lacks what it must have. A missing list of token balances is one:
taken for an empty list, it would hide deposits.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Literal, TypeVar

from maven_cli.chains import Block, Transfer
from maven_cli.chains.solana.notation import KEY, SIGNATURE, decode, encode

T = TypeVar("T")


class OddAnswerError(Exception):
    """An answer that can't be one."""


def pick(source: Any, name: str, kind: type[T]) -> T:
    """A member of an object, of exactly this type: true is no number."""
    value = source.get(name) if isinstance(source, dict) else None
    if type(value) is not kind:
        raise OddAnswerError(f"{name} is missing" if value is None else f"{name} is no {kind.__name__}")
    return value


def unwrap(answer: Any) -> Any:
    """The value of an answer that tells its context."""
    if not isinstance(answer, dict) or "value" not in answer:
        raise OddAnswerError("value is missing")
    return answer["value"]


def slots(answer: Any, first: int, last: int | None) -> list[int]:
    """A list of slots in order, none out of range."""
    if not isinstance(answer, list) or any(type(slot) is not int for slot in answer):
        raise OddAnswerError("slots are not a list of numbers")
    if any(one >= other for one, other in pairwise(answer)):
        raise OddAnswerError("slots are out of order")
    if answer and (answer[0] < first or (last is not None and answer[-1] > last)):
        raise OddAnswerError("slots are out of the range that was asked for")
    return answer


def bytes_of(text: str, size: int) -> bytes:
    try:
        return decode(text, size)
    except ValueError as error:
        raise OddAnswerError(f"{text[:100]!r}: {error}") from None


def key_of(answer: Any) -> bytes:
    """An answer that is a key or hash."""
    if type(answer) is not str:
        raise OddAnswerError("it is no text")
    return bytes_of(answer, KEY)


def slot_of(answer: Any) -> int:
    if type(answer) is not int or answer < 0:
        raise OddAnswerError("it is no slot")
    return answer


@dataclass(frozen=True, slots=True)
class Header:
    """A block, and the slot of the block before it."""

    block: Block
    parent_slot: int


def header(slot: int, answer: Any) -> Header:
    seconds = pick(answer, "blockTime", int)
    try:
        at = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        raise OddAnswerError("blockTime is no time") from None
    block = Block(
        slot,
        bytes_of(pick(answer, "blockhash", str), KEY),
        bytes_of(pick(answer, "previousBlockhash", str), KEY),
        at,
    )
    return Header(block, pick(answer, "parentSlot", int))


# -------------------------------------------------------------------------------------------------------- transactions


@dataclass(frozen=True, slots=True)
class Gain:
    """What an account gained. to, token: still in base58, since most of a block's gains are nobody's we know."""

    kind: Literal["native", "token"]
    ordinal: int
    to: str
    token: str | None
    amount: int


@dataclass(frozen=True, slots=True)
class Holding:
    """A token account's content. account: its index among the transaction's accounts."""

    account: int
    owner: str
    mint: str
    amount: int


@dataclass(frozen=True, slots=True)
class Transaction:
    """What a transaction did to its accounts. signature, keys: in base58. keys: static ones, then those loaded from tables, writable first; that is the
    order of all indexes."""

    signature: str
    keys: tuple[str, ...]
    error: Any
    fee: int
    lamports_before: tuple[int, ...]
    lamports_after: tuple[int, ...]
    holdings_before: tuple[Holding, ...]
    holdings_after: tuple[Holding, ...]

    def gains(self) -> Iterator[Gain]:
        """None for a transaction that failed: it costs its fee and moves nothing."""
        if self.error is not None:
            return
        for index, key in enumerate(self.keys):
            gained = self.lamports_after[index] - self.lamports_before[index]
            if gained > 0:
                yield Gain("native", index, key, None, gained)
        lost = self._lost()
        for holding, gained in self._gained():
            # What the owner's other accounts lost only moved.
            moved = min(gained, lost[holding.owner, holding.mint])
            lost[holding.owner, holding.mint] -= moved
            if gained > moved:
                yield Gain("token", holding.account, holding.owner, holding.mint, gained - moved)

    def senders(self, gain: Gain) -> tuple[bytes, ...]:
        """Who lost what this gain is of, after who paid the fee. An account of wrapped SOL that is closed into a wallet was
        its owner's, not its own."""
        payers = [self.keys[0]]
        if gain.token is None:
            payers += [
                key
                for key, before, after in zip(
                    self.keys, self.lamports_before, self.lamports_after, strict=True
                )
                if after < before
            ]
            payers += [holding.owner for holding in self._closed()]
        else:
            payers += [
                owner for (owner, mint), amount in self._lost().items() if mint == gain.token and amount > 0
            ]
        return tuple(bytes_of(key, KEY) for key in dict.fromkeys(payers))

    def transfer(self, gain: Gain, block: Block) -> Transfer:
        return Transfer(
            bytes_of(self.signature, SIGNATURE),
            gain.kind,
            gain.ordinal,
            bytes_of(gain.to, KEY),
            None if gain.token is None else bytes_of(gain.token, KEY),
            gain.amount,
            block,
            self.senders(gain),
        )

    def digest(self, block: Block) -> bytes:
        """Of what every node of every version tells the same: a node's own additions (logs, figures, deprecated members)
        would make two honest nodes disagree."""
        evidence = {
            "signature": self.signature,
            "slot": block.height,
            "blockhash": encode(block.hash),
            "accounts": self.keys,
            "err": self.error,
            "fee": self.fee,
            "preBalances": self.lamports_before,
            "postBalances": self.lamports_after,
            "preTokenBalances": [_evidence(holding) for holding in self.holdings_before],
            "postTokenBalances": [_evidence(holding) for holding in self.holdings_after],
        }
        text = json.dumps(evidence, sort_keys=True, separators=(",", ":"), default=str)
        return hashlib.sha256(text.encode()).digest()

    def _gained(self) -> Iterator[tuple[Holding, int]]:
        before = {holding.account: holding for holding in self.holdings_before}
        for holding in self.holdings_after:
            had = before.get(holding.account)
            # Made in this transaction, come from another owner, or closed and made anew for another mint: it had nothing.
            same = had is not None and (had.owner, had.mint) == (holding.owner, holding.mint)
            gained = holding.amount - (had.amount if had is not None and same else 0)
            if gained > 0:
                yield holding, gained

    def _lost(self) -> defaultdict[tuple[str, str], int]:
        """By owner and mint."""
        after = {holding.account: holding for holding in self.holdings_after}
        lost: defaultdict[tuple[str, str], int] = defaultdict(int)
        for holding in self.holdings_before:
            has = after.get(holding.account)
            same = has is not None and (has.owner, has.mint) == (holding.owner, holding.mint)
            amount = holding.amount - (has.amount if has is not None and same else 0)
            if amount > 0:
                lost[holding.owner, holding.mint] += amount
        return lost

    def _closed(self) -> list[Holding]:
        left = {holding.account for holding in self.holdings_after}
        return [holding for holding in self.holdings_before if holding.account not in left]


def transaction(answer: Any) -> Transaction:
    """From an element of getBlock's transactions, or from getTransaction; in the encoding "json", with all details."""
    meta = pick(answer, "meta", dict)
    content = pick(answer, "transaction", dict)
    signatures = pick(content, "signatures", list)
    keys = list(pick(pick(content, "message", dict), "accountKeys", list))
    # Legacy transactions load none, and nodes before version 0 didn't say so.
    loaded = meta.get("loadedAddresses")
    if loaded is not None:
        keys += pick(loaded, "writable", list) + pick(loaded, "readonly", list)
    before, after = pick(meta, "preBalances", list), pick(meta, "postBalances", list)
    if not signatures or not all(type(text) is str for text in (signatures[0], *keys)):
        raise OddAnswerError("signatures or accountKeys are no texts")
    if not all(type(lamports) is int for lamports in (*before, *after)):
        raise OddAnswerError("balances are no numbers")
    if not keys or not len(keys) == len(before) == len(after):
        raise OddAnswerError(f"{len(keys)} accounts have {len(before)} and {len(after)} balances")
    if "err" not in meta:
        raise OddAnswerError("err is missing")
    return Transaction(
        signatures[0],
        tuple(keys),
        meta["err"],
        pick(meta, "fee", int),
        tuple(before),
        tuple(after),
        _holdings(meta, "preTokenBalances", len(keys)),
        _holdings(meta, "postTokenBalances", len(keys)),
    )


def _holdings(meta: Mapping[str, Any], name: str, accounts: int) -> tuple[Holding, ...]:
    found: dict[int, Holding] = {}
    for item in pick(meta, name, list):
        index = pick(item, "accountIndex", int)
        amount = pick(pick(item, "uiTokenAmount", dict), "amount", str)
        if not amount.isascii() or not amount.isdecimal() or not 0 <= index < accounts or index in found:
            raise OddAnswerError(f"{name} has an entry that can't be")
        found[index] = Holding(index, pick(item, "owner", str), pick(item, "mint", str), int(amount))
    return tuple(found[index] for index in sorted(found))


def _evidence(holding: Holding) -> list[Any]:
    return [holding.account, holding.mint, holding.owner, str(holding.amount)]

"""What Bitcoin's nodes write: amounts, hashes, blocks, transactions. Whatever doesn't fit raises NodeDownError."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from typing import Any

from maven_cli.chains import Block, NodeDownError, Transfer

DECIMALS = 8
_MOST = 10**13  # coins; Dogecoin, which has the most, will need centuries to get there
_NO_PARENT = bytes(32)


@dataclass(frozen=True, slots=True)
class Output:
    """One output: where it stands in its transaction, what it pays to, and how much of the smallest unit."""

    ordinal: int
    script: bytes
    amount: int


@dataclass(frozen=True, slots=True)
class Transaction:
    """inputs: the outputs that are spent, as transaction and ordinal; none in a coinbase transaction."""

    hash: bytes
    coinbase: bool
    inputs: tuple[tuple[bytes, int], ...]
    outputs: tuple[Output, ...]


class Reader:
    """Reads the answers of the node with this name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def wrong(self, what: str) -> NodeDownError:
        return NodeDownError(f"node {self.name} answered {what}")

    def hash(self, raw: Any) -> bytes:
        if not isinstance(raw, str) or re.fullmatch(r"[0-9a-f]{64}", raw) is None:
            raise self.wrong("what is no hash")
        return bytes.fromhex(raw)

    def number(self, raw: Any, what: str) -> int:
        if type(raw) is not int or not 0 <= raw < 2**33:
            raise self.wrong(f"what is not {what}")
        return raw

    def amount(self, raw: Any) -> int:
        """Coins as a JSON number, in the smallest unit: exactly, or not at all."""
        if type(raw) is int:
            raw = Decimal(raw)
        if not isinstance(raw, Decimal) or not raw.is_finite() or not 0 <= raw <= _MOST:
            raise self.wrong("what is not an amount")
        # Not by arithmetic on Decimals, which rounds. The exponent of what nodes write is 0 or -8.
        _, digits, exponent = raw.as_tuple()
        assert isinstance(exponent, int)
        places = exponent + DECIMALS
        if not 0 <= places <= 2 * DECIMALS + 5 or len(digits) > 2 * DECIMALS + 6:
            raise self.wrong(f"an amount with more than {DECIMALS} decimals")
        return int("".join(map(str, digits))) * int(10**places)

    def object(self, raw: Any, what: str) -> dict[str, Any]:
        if not isinstance(raw, dict):
            raise self.wrong(f"what is no {what}")
        return raw

    def list(self, raw: Any, what: str) -> list[Any]:
        if not isinstance(raw, list):
            raise self.wrong(f"no {what}")
        return raw

    def block(self, raw: Any) -> Block:
        """From a block or a header. The first block has no parent: zeros, as in its bytes."""
        found = self.object(raw, "block")
        height = self.number(found.get("height"), "a height")
        moment = self.number(found.get("time"), "a time")
        parent = self.hash(found.get("previousblockhash")) if height else _NO_PARENT
        return Block(height, self.hash(found.get("hash")), parent, datetime.fromtimestamp(moment, UTC))

    def transactions(self, raw: Any) -> Iterator[Transaction]:
        """All transactions of a block with verbosity 2: the root of their hashes in its header proves that none is left out.
        The proof comes after the last one."""
        found = self.object(raw, "block")
        hashes = []
        for one in self.list(found.get("tx"), "transactions of a block"):
            transaction = self.transaction(one)
            hashes.append(transaction.hash)
            yield transaction
        # A transaction that comes twice can leave the root as it is (CVE-2012-2459).
        if len(set(hashes)) != len(hashes):
            raise self.wrong(f"a block {found.get('height')} that has a transaction twice")
        if _root(hashes) != self.hash(found.get("merkleroot")):
            raise self.wrong(f"a block {found.get('height')} that lacks transactions")

    def transaction(self, raw: Any) -> Transaction:
        found = self.object(raw, "transaction")
        inputs = []
        coinbase = False
        for one in self.list(found.get("vin"), "inputs of a transaction"):
            source = self.object(one, "input")
            if "coinbase" in source:
                coinbase = True
            elif "txid" in source:
                inputs.append(
                    (self.hash(source["txid"]), self.number(source.get("vout"), "an output's index"))
                )
            elif source.get("ismweb") is not True:
                raise self.wrong("an input that spends nothing")
        return Transaction(self.hash(found.get("txid")), coinbase, tuple(inputs), tuple(self._outputs(found)))

    def _outputs(self, transaction: dict[str, Any]) -> Iterator[Output]:
        place = 0
        for one in self.list(transaction.get("vout"), "outputs of a transaction"):
            output = self.object(one, "output")
            if output.get("ismweb") is True and "scriptPubKey" not in output:
                continue  # of an extension block: without an amount or a script that anybody could read
            ordinal = self.number(output.get("n"), "an output's index")
            if ordinal != place:
                raise self.wrong("outputs of a transaction of which some are missing")
            place += 1
            yield Output(ordinal, self.script(output), self.amount(output.get("value")))

    def script(self, raw: Any) -> bytes:
        """The scriptPubKey of an output, or of what an input spends."""
        text = self.object(self.object(raw, "output").get("scriptPubKey"), "scriptPubKey").get("hex")
        if not isinstance(text, str) or re.fullmatch(r"([0-9a-f]{2})*", text) is None:
            raise self.wrong("an output without its script")
        return bytes.fromhex(text)


def transfers_to(
    transaction: Transaction, block: Block, to: Collection[bytes], senders: tuple[bytes, ...]
) -> list[Transfer]:
    """The outputs of a transaction that pay something to these scripts."""
    return [
        Transfer(
            transaction.hash,
            "native",
            one.ordinal,
            one.script,
            None,
            one.amount,
            block,
            senders,
            transaction.coinbase,
        )
        for one in transaction.outputs
        if one.amount > 0 and one.script in to
    ]


def digest(transaction: Transaction, block: Block) -> bytes:
    """SHA-256 of what a node said of a mined transaction, in canonical JSON: whatever else nodes add to it (confirmations,
    addresses in one notation or another), the same facts have the same digest."""
    document = {
        "txid": transaction.hash.hex(),
        "blockhash": block.hash.hex(),
        "height": block.height,
        "vout": [[one.ordinal, one.amount, one.script.hex()] for one in transaction.outputs],
    }
    return sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).digest()


def _root(hashes: Sequence[bytes]) -> bytes:
    """The root of the Merkle tree, both in the order in which people read hashes."""
    level = [one[::-1] for one in hashes]
    while len(level) > 1:
        if len(level) % 2:
            level.append(level[-1])
        level = [
            sha256(sha256(level[place] + level[place + 1]).digest()).digest()
            for place in range(0, len(level), 2)
        ]
    return level[0][::-1] if level else b""

"""One node of the Bitcoin family: Bitcoin Core 0.21 and later, Litecoin Core and their like.

No index of transactions is needed: what was found in a block is looked for in that block. With one (`-txindex`), a transaction
that was mined again is found in its new block at once, and so is any other that somebody asks about.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
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
from maven_cli.chains.rpc import Rpc, RpcError

BLOCKS_AT_ONCE = 4  # decoded blocks in one request: some megabytes each
CATCHING_UP = 3  # blocks that a node may know of and not have yet

# Core's error codes.
_NOT_FOUND = -5  # no such block or transaction
_OUT_OF_RANGE = -8  # a height beyond the head
_MISC = -1  # among others: pruned
_WARMING_UP = -28


class BitcoinNode:
    """One endpoint; see `maven_cli.chains.Node`."""

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc

    @property
    def name(self) -> str:
        return self._rpc.name

    @property
    def requests(self) -> int:
        return self._rpc.requests

    def close(self) -> None:
        self._rpc.close()

    def identity(self) -> str:
        (found,) = self._ask([("getblockhash", [0])], "its genesis block")
        return self._bytes(found, 32).hex()

    def head(self) -> Head:
        (info,) = self._ask([("getblockchaininfo", [])], "its state")
        if not isinstance(info, dict):
            raise NodeDownError(f"node {self.name} answered what is no state")
        height, known = self._height(info.get("blocks")), self._height(info.get("headers"))
        if known - height > CATCHING_UP and info.get("initialblockdownload") is True:
            raise NodeBehindError(f"node {self.name} is synchronising: it has {height} of {known} blocks")
        (header,) = self._ask([("getblockheader", [info.get("bestblockhash"), True])], "its newest block")
        return Head(self._block(header), None, None)

    def blocks(self, heights: Sequence[int]) -> list[Block | None]:
        hashes = self._hashes(heights)
        known = [found for found in hashes if found is not None]
        headers = iter(self._ask([("getblockheader", [found, True]) for found in known], "a block's header"))
        return [
            None if found is None else self._canonical(next(headers), height)
            for height, found in zip(heights, hashes, strict=True)
        ]

    def _canonical(self, header: Any, height: int) -> Block | None:
        """The block, unless it was reorganised away between the two questions."""
        block = self._block(header)
        return block if block.height == height and header.get("confirmations") != -1 else None

    def _hashes(self, heights: Sequence[int]) -> list[str | None]:
        """The hashes at heights; None beyond the head."""
        found: list[str | None] = []
        for answer in self._rpc.batch([("getblockhash", [height]) for height in heights]):
            if isinstance(answer, RpcError) and answer.code == _OUT_OF_RANGE:
                found.append(None)
            else:
                found.append(self._bytes(self._good(answer, "a block's hash"), 32).hex())
        return found

    # ----------------------------------------------------------------------------------------------------------- scan

    def scan(self, first: int, last: int, watch: Watch, *, final: bool) -> Scan:
        """As `Node.scan`. A block is read by its hash, final or not."""
        heights = range(first, last + 1)
        hashes = self._hashes(heights)
        if None in hashes:
            raise NodeBehindError(f"node {self.name} has no block {first + hashes.index(None)} yet")
        blocks: list[Block] = []
        transfers: list[Transfer] = []
        for start in range(0, len(hashes), BLOCKS_AT_ONCE):
            part = hashes[start : start + BLOCKS_AT_ONCE]
            for raw in self._ask(
                [("getblock", [found, 2]) for found in part], "a block", size=BLOCKS_AT_ONCE
            ):
                block = self._block(raw)
                if block.height != heights[len(blocks)] or block.hash.hex() != hashes[len(blocks)]:
                    raise NodeDownError(
                        f"node {self.name} answered another block than {heights[len(blocks)]}"
                    )
                if blocks and blocks[-1].hash != block.parent:
                    raise NodeBehindError(
                        f"node {self.name} changed its chain while block {block.height} was read"
                    )
                blocks.append(block)
                transfers += self._transfers(raw, block, watch)
        return Scan(tuple(blocks), tuple(transfers))

    def _transfers(self, raw: Any, block: Block, watch: Watch) -> list[Transfer]:
        transactions = raw.get("tx")
        if not isinstance(transactions, list) or not transactions:
            raise NodeDownError(f"node {self.name} told no transactions of block {block.height}")
        outputs = [
            (transaction, *output)
            for transaction in transactions
            for output in self._outputs(transaction, block.height)
        ]
        owned = watch.owned({script for _, _, script, _ in outputs})
        matched = [output for output in outputs if output[2] in owned]
        senders = self._senders([transaction for transaction, *_ in matched])
        return [
            Transfer(
                self._bytes(transaction.get("txid"), 32),
                "native",
                place,
                script,
                None,
                amount,
                block,
                senders.get(transaction["txid"], ()),
                immature=_is_coinbase(transaction),
            )
            for transaction, place, script, amount in matched
        ]

    def _outputs(self, transaction: Any, height: int) -> list[tuple[int, bytes, int]]:
        """Place, script and amount of each output that pays a script something."""
        outputs = transaction.get("vout") if isinstance(transaction, dict) else None
        if not isinstance(outputs, list):
            raise NodeDownError(f"node {self.name} told a transaction of block {height} without outputs")
        found = []
        for output in outputs:
            script = output.get("scriptPubKey") if isinstance(output, dict) else None
            if not isinstance(script, dict) or "hex" not in script:
                # Litecoin's MWEB has outputs without a script; an ordinary one always has its place and its value.
                if isinstance(output, dict) and output.get("ismweb") is True:
                    continue
                raise NodeDownError(f"node {self.name} told an output of block {height} without a script")
            place = output.get("n")
            if type(place) is not int or place < 0:
                raise NodeDownError(f"node {self.name} told an output of block {height} without its place")
            amount = self._amount(output.get("value"))
            if amount > 0:
                found.append((place, self._bytes(script["hex"], None), amount))
        return found

    def _senders(self, transactions: Sequence[dict[str, Any]]) -> dict[str, tuple[bytes, ...]]:
        """The scripts that each transaction spends, as far as the node knows them: from an undo file it tells them with the block
        (Core 23 and later), else they are looked up one by one, which needs an index."""
        found: dict[str, tuple[bytes, ...]] = {}
        wanted: dict[str, list[tuple[str, int]]] = {}
        for transaction in transactions:
            inputs = [one for one in transaction.get("vin", ()) if isinstance(one, dict) and "txid" in one]
            told = [one["prevout"]["scriptPubKey"]["hex"] for one in inputs if "prevout" in one]
            if told:
                found[transaction["txid"]] = tuple(
                    dict.fromkeys(self._bytes(script, None) for script in told)
                )
            elif inputs:
                wanted[transaction["txid"]] = [(one["txid"], one.get("vout", -1)) for one in inputs]
        sources = sorted({source for inputs in wanted.values() for source, _ in inputs})
        answers = dict(
            zip(
                sources,
                self._rpc.batch([("getrawtransaction", [source, True]) for source in sources]),
                strict=True,
            )
        )
        for txid, spent in wanted.items():
            scripts: dict[bytes, None] = {}
            for source, place in spent:
                answer = answers[source]
                if isinstance(answer, dict):
                    scripts |= {script: None for at, script, _ in self._outputs(answer, 0) if at == place}
                elif isinstance(answer, RpcError) and answer.code == _WARMING_UP:
                    self._good(answer, "a transaction")
            found[txid] = tuple(scripts)
        return found

    # ----------------------------------------------------------------------------------------------------------- look

    def look(self, references: Sequence[Reference]) -> list[Sighting]:
        """As `Node.look`: each in the block in which it was seen, and whether that is the chain's own still."""
        found: list[Sighting | None] = [None] * len(references)
        placed = [
            (place, one.tx_hash.hex(), one.block_hash.hex())
            for place, one in enumerate(references)
            if one.block_hash is not None
        ]
        calls: list[tuple[str, Sequence[Any]]] = []
        for _, tx, block in placed:
            calls += [("getrawtransaction", [tx, True, block]), ("getblockheader", [block, True])]
        answers = self._rpc.batch(calls, size=max(len(calls), 1))
        for at, (place, _, _) in enumerate(placed):
            raw, header = map(self._maybe, answers[2 * at : 2 * at + 2])
            found[place] = self._in_block(references[place], raw, header)
        # Not where it was seen: in the pool, or elsewhere if the node has an index.
        lost = [place for place, sighting in enumerate(found) if sighting is None]
        again = self._rpc.batch(
            [("getrawtransaction", [references[place].tx_hash.hex(), True]) for place in lost]
        )
        known = dict(zip(lost, map(self._maybe, again), strict=True))
        headers = self._headers_of(
            {raw["blockhash"] for raw in known.values() if raw and raw.get("blockhash")}
        )
        for place, raw in known.items():
            if raw is None:
                found[place] = Sighting("missing")
            elif not raw.get("blockhash"):
                found[place] = Sighting("pending")
            else:
                found[place] = self._in_block(references[place], raw, headers[raw["blockhash"]]) or Sighting(
                    "missing"
                )
        return [sighting for sighting in found if sighting is not None]

    def _headers_of(self, hashes: set[str]) -> dict[str, Any]:
        wanted = sorted(hashes)
        answers = self._rpc.batch([("getblockheader", [one, True]) for one in wanted])
        return {one: self._maybe(answer) for one, answer in zip(wanted, answers, strict=True)}

    def _in_block(self, reference: Reference, raw: Any, header: Any) -> Sighting | None:
        """The sighting, if the transaction is in the block and the block in the chain."""
        if not isinstance(raw, dict) or not isinstance(header, dict):
            return None
        confirmations = header.get("confirmations")
        if raw.get("txid") != reference.tx_hash.hex() or type(confirmations) is not int or confirmations < 1:
            return None
        block = self._block(header)
        if raw.get("blockhash", block.hash.hex()) != block.hash.hex():
            return None
        outputs = self._outputs(raw, block.height)
        transfers = tuple(
            Transfer(
                reference.tx_hash, "native", place, script, None, amount, block, immature=_is_coinbase(raw)
            )
            for place, script, amount in outputs
        )
        evidence = [
            reference.tx_hash.hex(),
            block.hash.hex(),
            block.height,
            [[p, s.hex(), a] for p, s, a in outputs],
        ]
        document = json.dumps(evidence, separators=(",", ":"))
        return Sighting("mined", block, transfers, sha256(document.encode()).digest())

    # ------------------------------------------------------------------------------------------------------- the rest

    def token(self, token: bytes) -> Token | None:
        return None

    def balances(self, keys: Sequence[bytes], token: bytes | None) -> list[int]:
        """Reads the whole set of unspent outputs, which takes a while: minutes on Bitcoin's own chain."""
        if token is not None:
            return [0] * len(keys)
        found = self._rpc.call("scantxoutset", "start", [f"raw({key.hex()})" for key in keys])
        unspents = found.get("unspents") if isinstance(found, dict) else None
        if not isinstance(unspents, list) or found.get("success") is not True:
            raise NodeDownError(f"node {self.name} could not read its unspent outputs")
        held = dict.fromkeys(keys, 0)
        for one in unspents:
            held[self._bytes(one.get("scriptPubKey"), None)] += self._amount(one.get("amount"))
        return [held[key] for key in keys]

    def _ask(self, calls: Sequence[tuple[str, Sequence[Any]]], what: str, *, size: int = 100) -> list[Any]:
        return [self._good(answer, what) for answer in self._rpc.batch(calls, size=size)]

    def _good(self, answer: Any, what: str) -> Any:
        if isinstance(answer, RpcError):
            if "pruned" in answer.message.lower():
                raise NodeBehindError(f"node {self.name} has pruned {what}: {answer.message}")
            if answer.code in (_NOT_FOUND, _OUT_OF_RANGE):
                raise NodeBehindError(f"node {self.name} doesn't have {what}: {answer.message}")
            raise NodeDownError(f"node {self.name} refuses {what}: {answer.message}")
        return answer

    def _maybe(self, answer: Any) -> Any:
        """The answer; None for what the node doesn't have."""
        if isinstance(answer, RpcError) and answer.code == _NOT_FOUND:
            return None
        return self._good(answer, "a transaction")

    def _block(self, raw: Any) -> Block:
        if not isinstance(raw, dict):
            raise NodeDownError(f"node {self.name} answered what is no block")
        height, moment = self._height(raw.get("height")), self._height(raw.get("time"))
        # The genesis block has none before it.
        parent = raw.get("previousblockhash", "00" * 32)
        return Block(
            height,
            self._bytes(raw.get("hash"), 32),
            self._bytes(parent, 32),
            datetime.fromtimestamp(min(moment, 2**33), UTC),
        )

    def _height(self, raw: Any) -> int:
        if type(raw) is not int or not 0 <= raw < 2**62:
            raise NodeDownError(f"node {self.name} answered what is no height")
        return raw

    def _bytes(self, raw: Any, length: int | None) -> bytes:
        if (
            not isinstance(raw, str)
            or re.fullmatch(r"([0-9a-f]{2})*", raw) is None
            or (length and len(raw) != 2 * length)
        ):
            raise NodeDownError(f"node {self.name} answered what are not {length or 'some'} bytes")
        return bytes.fromhex(raw)

    def _amount(self, raw: Any) -> int:
        """Base units: JSON numbers of coins, exactly."""
        if type(raw) is int:
            raw = Decimal(raw)
        if not isinstance(raw, Decimal) or not raw.is_finite() or abs(raw.adjusted()) > 20:
            raise NodeDownError(f"node {self.name} answered what is no amount")
        units = raw.scaleb(8)
        if units != units.to_integral_value() or units < 0:
            raise NodeDownError(
                f"node {self.name} answered an amount finer than a coin's smallest part, or below 0"
            )
        return int(units)


def _is_coinbase(transaction: dict[str, Any]) -> bool:
    inputs = transaction.get("vin")
    return (
        isinstance(inputs, list)
        and len(inputs) == 1
        and isinstance(inputs[0], dict)
        and "coinbase" in inputs[0]
    )

"""One endpoint of the Bitcoin family: Bitcoin Core's JSON-RPC from version 0.16 on, and Dogecoin Core's 1.14.

Blocks are asked for by hash and read a few at a time, so that a long range needs no more memory than a short one. Nothing
is believed that doesn't fit together: blocks link by parent, their transactions are those of their header, and a transaction
is mined only while its block is the one at its height.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
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
from maven_cli.chains.bitcoin.reading import Reader, Transaction, digest
from maven_cli.chains.rpc import Call, Rpc, RpcError

BLOCKS_AT_ONCE = 2  # in one request: up to some 25 MB each as JSON
SPENT_AT_ONCE = 20  # transactions in one request: most have a kilobyte, some a megabyte
BEHIND = 6  # blocks that a node may know only the headers of: it is about to load them

_STARTING, _PAST_THE_HEAD, _UNKNOWN, _OTHER = -28, -8, -5, -1  # Core's codes of errors
_PRUNED = "not available"  # "Block not available (pruned data)", and shorter in some versions


class BitcoinNode:
    """One Bitcoin endpoint; see `maven_cli.chains.Node`."""

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc
        self._read = Reader(rpc.name)

    @property
    def name(self) -> str:
        return self._rpc.name

    @property
    def requests(self) -> int:
        return self._rpc.requests

    def close(self) -> None:
        self._rpc.close()

    def identity(self) -> str:
        return self._read.hash(self._one(("getblockhash", [0]), "its first block")).hex()

    def head(self) -> Head:
        info = self._read.object(self._one(("getblockchaininfo", []), "its head"), "state of a chain")
        height = self._read.number(info.get("blocks"), "a height")
        headers = self._read.number(info.get("headers"), "a height")
        # A chain that only its tests mine (regtest) never stops loading before its first new block.
        loading = info.get("initialblockdownload") is True and info.get("chain") != "regtest"
        if loading or headers - height > BEHIND:
            raise NodeBehindError(
                f"node {self.name} is still loading its chain: it has {height} of at least {headers} blocks"
            )
        best = self._read.hash(info.get("bestblockhash"))
        return Head(
            self._header(self._one(("getblockheader", [best.hex(), True]), "its head"), best), None, None
        )

    def blocks(self, heights: Sequence[int]) -> list[Block | None]:
        hashes = [
            None if _is(answer, _PAST_THE_HEAD) else self._read.hash(self._fine(answer, f"block {height}"))
            for height, answer in zip(
                heights, self._rpc.batch([("getblockhash", [height]) for height in heights]), strict=True
            )
        ]
        known = [(height, one) for height, one in zip(heights, hashes, strict=True) if one is not None]
        answers = self._rpc.batch([("getblockheader", [one.hex(), True]) for _, one in known])
        found: dict[int, Block] = {}
        for (height, expected), answer in zip(known, answers, strict=True):
            block = self._header(self._fine(answer, f"block {height}"), expected)
            if block.height != height:
                raise NodeDownError(f"node {self.name} answered block {block.height} when asked for {height}")
            found[height] = block
        return [found.get(height) for height in heights]

    # ----------------------------------------------------------------------------------------------------------- scan

    def scan(self, first: int, last: int, watch: Watch, *, final: bool) -> Scan:
        """As `Node.scan`. Every block is read whole and by its hash, final or not: nothing is ever filtered by the node."""
        heights = range(first, last + 1)
        hashes = [
            self._read.hash(self._fine(answer, f"block {height}"))
            for height, answer in zip(
                heights, self._rpc.batch([("getblockhash", [height]) for height in heights]), strict=True
            )
        ]
        blocks: list[Block] = []
        paying: list[tuple[Block, Transaction, frozenset[bytes]]] = []
        for start in range(0, len(hashes), BLOCKS_AT_ONCE):
            self._read_part(first + start, hashes[start : start + BLOCKS_AT_ONCE], watch, blocks, paying)
        senders = self._senders([(block, transaction) for block, transaction, _ in paying])
        transfers = [
            transfer
            for block, transaction, owned in paying
            for transfer in _transfers(transaction, block, owned, senders.get(transaction.hash, ()))
        ]
        return Scan(tuple(blocks), tuple(transfers))

    def _read_part(
        self,
        height: int,
        hashes: Sequence[bytes],
        watch: Watch,
        blocks: list[Block],
        paying: list[tuple[Block, Transaction, frozenset[bytes]]],
    ) -> None:
        """Reads on from a height; of what the node answers, nothing stays but what is added to the two lists."""
        answers = self._rpc.batch([("getblock", [one.hex(), 2]) for one in hashes])
        for place, (expected, answer) in enumerate(zip(hashes, answers, strict=True), height):
            raw = self._fine(answer, f"block {place}")
            block = self._header(raw, expected)
            if block.height != place or (blocks and blocks[-1].hash != block.parent):
                raise self._changed(place)
            paying += self._paying(block, raw, watch)
            blocks.append(block)

    def _paying(
        self, block: Block, raw: Any, watch: Watch
    ) -> list[tuple[Block, Transaction, frozenset[bytes]]]:
        """The transactions of a block that pay to watched scripts, each with those scripts."""
        transactions = list(self._read.transactions(raw))
        scripts = {one.script for each in transactions for one in each.outputs if one.amount > 0}
        owned = watch.owned(scripts)
        return [
            (block, one, ours)
            for one in transactions
            if (ours := frozenset(output.script for output in one.outputs) & owned)
        ]

    def _senders(self, found: Sequence[tuple[Block, Transaction]]) -> dict[bytes, tuple[bytes, ...]]:
        """For each transaction the scripts that its inputs were locked with, as far as the node knows.

        Core from version 25 on writes them beside the inputs, as long as it has the block. Else they are in the
        transactions that are spent, which a node finds with -txindex, or in its pool; others are left out.
        """
        spending = [(block, one) for block, one in found if one.inputs]
        answers = self._rpc.batch(
            [("getrawtransaction", [one.hash.hex(), 2, block.hash.hex()]) for block, one in spending],
            size=SPENT_AT_ONCE,
        )
        scripts: dict[tuple[bytes, int], bytes] = {}
        for answer in answers:
            # Without senders the exchange's own payments would be deposits: only a node that has no such question passes.
            if not _has_no_block_parameter(answer):
                scripts |= self._spent(self._fine(answer, "a transaction of a block that it has told"))
        missing = {
            source for _, one in spending for source, place in one.inputs if (source, place) not in scripts
        }
        wanted = sorted(missing)
        answers = self._rpc.batch(
            [("getrawtransaction", [source.hex(), True]) for source in wanted], size=SPENT_AT_ONCE
        )
        for source, answer in zip(wanted, answers, strict=True):
            if _knows_none(answer):
                continue
            transaction = self._read.transaction(self._fine(answer, "a transaction that is spent"))
            if transaction.hash != source:
                raise NodeDownError(f"node {self.name} answered another transaction than it was asked for")
            scripts |= {(source, output.ordinal): output.script for output in transaction.outputs}
        return {
            one.hash: tuple(dict.fromkeys(scripts[source] for source in one.inputs if source in scripts))
            for _, one in spending
        }

    def _spent(self, raw: Any) -> dict[tuple[bytes, int], bytes]:
        """The scripts that a node wrote beside the inputs of a transaction."""
        found = {}
        for one in self._read.list(self._read.object(raw, "transaction").get("vin"), "inputs"):
            if isinstance(one, dict) and "prevout" in one and "txid" in one:
                place = self._read.number(one.get("vout"), "an output's index")
                found[self._read.hash(one["txid"]), place] = self._read.script(one["prevout"])
        return found

    # ----------------------------------------------------------------------------------------------------------- look

    def look(self, references: Sequence[Reference]) -> list[Sighting]:
        """As `Node.look`: transactions in the blocks where they were seen, and what is at those heights now, in one request.

        What isn't there any more is looked for in the pool, and with -txindex in the whole chain.
        """
        expected = {
            one.block_hash: one.height for one in references if one.block_hash and one.height is not None
        }
        calls: list[Call] = [
            ("getrawtransaction", [one.tx_hash.hex(), True, one.block_hash.hex()])
            if one.block_hash in expected and one.block_hash
            else ("getrawtransaction", [one.tx_hash.hex(), True])
            for one in references
        ]
        for block_hash, height in expected.items():
            calls += [("getblockheader", [block_hash.hex(), True]), ("getblockhash", [height])]
        answers = self._rpc.batch(calls, size=max(len(calls), 1))
        canonical = self._canonical(list(expected), answers[len(references) :])
        sightings: dict[int, Sighting] = {}
        lost: list[int] = []
        for place, (one, answer) in enumerate(zip(references, answers, strict=False)):
            block = canonical.get(one.block_hash) if one.block_hash else None
            if one.block_hash not in expected:
                sightings[place] = self._anywhere(one, answer)
            elif block is None or _knows_none(answer) or _has_no_block_parameter(answer):
                lost.append(place)
            else:
                sightings[place] = self._mined(one, self._fine(answer, "a transaction"), block)
        answers = self._rpc.batch(
            [("getrawtransaction", [references[place].tx_hash.hex(), True]) for place in lost]
        )
        for place, answer in zip(lost, answers, strict=True):
            sightings[place] = self._anywhere(references[place], answer)
        return [sightings[place] for place in range(len(references))]

    def _canonical(self, hashes: Sequence[bytes], answers: Sequence[Any]) -> dict[bytes, Block]:
        """Those of the blocks that are in the chain now. answers: a header, and the hash at its height, for each."""
        found = {}
        for place, block_hash in enumerate(hashes):
            header, at_height = answers[2 * place : 2 * place + 2]
            if _is(header, _UNKNOWN) or _is(at_height, _PAST_THE_HEAD):
                continue
            # By the hash at the height: what a header says of its confirmations may come from a proxy's cache.
            block = self._read.block(self._fine(header, "a block"))
            if block.hash == block_hash and self._read.hash(self._fine(at_height, "a block")) == block_hash:
                found[block_hash] = block
        return found

    def _anywhere(self, reference: Reference, answer: Any) -> Sighting:
        """A transaction that was asked for without a block."""
        if _knows_none(answer):
            return Sighting("missing")
        raw = self._read.object(self._fine(answer, "a transaction"), "transaction")
        if raw.get("blockhash") is None:
            return Sighting("pending")
        block_hash = self._read.hash(raw["blockhash"])
        header = self._one(("getblockheader", [block_hash.hex(), True]), "a block")
        (block,) = self.blocks([self._read.block(header).height])
        if block is None or block.hash != block_hash:
            return Sighting("missing")
        return self._mined(reference, raw, block)

    def _mined(self, reference: Reference, raw: Any, block: Block) -> Sighting:
        transaction = self._read.transaction(raw)
        if transaction.hash != reference.tx_hash or raw.get("blockhash") != block.hash.hex():
            raise NodeDownError(f"node {self.name} answered another transaction than it was asked for")
        everybody = {one.script for one in transaction.outputs}
        transfers = _transfers(transaction, block, everybody, ())
        return Sighting("mined", block, tuple(transfers), digest(transaction, block))

    # ----------------------------------------------------------------------------------------------------------- rest

    def token(self, token: bytes) -> Token | None:
        return None

    def balances(self, keys: Sequence[bytes], token: bytes | None) -> list[int]:
        """As `Node.balances`. The node searches all unspent outputs, whatever the number of keys: minutes on Bitcoin's own
        chain, and one search at a time."""
        if not keys or token is not None:
            return [0] * len(keys)
        wanted = sorted({f"raw({key.hex()})" for key in keys})
        found = self._read.object(self._one(("scantxoutset", ["start", wanted]), "balances"), "search")
        if found.get("success") is not True:
            raise NodeDownError(f"node {self.name} gave up its search of unspent outputs")
        held = dict.fromkeys(keys, 0)
        for one in self._read.list(found.get("unspents"), "unspent outputs"):
            output = self._read.object(one, "output")
            script = output.get("scriptPubKey")
            key = self._read.script({"scriptPubKey": {"hex": script}})
            if key not in held:
                raise self._read.wrong("an unspent output of somebody else")
            held[key] += self._read.amount(output.get("amount"))
        return [held[key] for key in keys]

    # --------------------------------------------------------------------------------------------------------- answers

    def _one(self, call: Call, what: str) -> Any:
        (answer,) = self._rpc.batch([call])
        return self._fine(answer, what)

    def _fine(self, answer: Any, what: str) -> Any:
        """The answer, unless it is a refusal or nothing."""
        if isinstance(answer, RpcError):
            raise self._refused(answer, what)
        if answer is None:
            raise NodeBehindError(f"node {self.name} has no {what}")
        return answer

    def _refused(self, error: RpcError, what: str) -> NodeDownError | NodeBehindError:
        if error.code == _STARTING:
            return NodeDownError(f"node {self.name} is still starting: {error.message}")
        if error.code == _OTHER and _PRUNED in error.message.lower():
            return NodeBehindError(f"node {self.name} has no {what} any more: it is pruned ({error.message})")
        if error.code in (_UNKNOWN, _PAST_THE_HEAD):
            return NodeBehindError(f"node {self.name} has no {what}: {error.message}")
        return NodeDownError(f"node {self.name} refuses {what}: {error.message}")

    def _header(self, raw: Any, expected: bytes) -> Block:
        """A block that was asked for by its hash, which the chain had a moment ago."""
        block = self._read.block(raw)
        if block.hash != expected:
            raise NodeDownError(f"node {self.name} answered another block than it was asked for")
        if raw.get("confirmations") == -1:
            raise self._changed(block.height)
        return block

    def _changed(self, height: int) -> NodeBehindError:
        return NodeBehindError(f"node {self.name} changed its chain while block {height} was read")


def _is(answer: Any, code: int) -> bool:
    return isinstance(answer, RpcError) and answer.code == code


def _knows_none(answer: Any) -> bool:
    """Whether the node knows no such transaction. While it builds its index of them (-txindex) it can't say."""
    return isinstance(answer, RpcError) and answer.code == _UNKNOWN and "indexed" not in answer.message


def _has_no_block_parameter(answer: Any) -> bool:
    """Whether the node can't look for a transaction in a block: Dogecoin's answers with its help."""
    return _is(answer, _OTHER) and answer.message.startswith("getrawtransaction ")


def _transfers(
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

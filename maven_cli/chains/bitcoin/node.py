"""One endpoint of the Bitcoin family: Bitcoin Core's JSON-RPC from version 0.16 on, and Dogecoin Core's 1.14.

Blocks are asked for by hash and read a few at a time, so that a long range needs no more memory than a short one. Nothing
is believed that doesn't fit together: blocks link by parent, their transactions are those of their header, and a transaction
is mined only while its block is the one at its height.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
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
    Watch,
)
from maven_cli.chains.bitcoin.asking import PAST_THE_HEAD, Asking, is_refusal
from maven_cli.chains.bitcoin.looking import Looking
from maven_cli.chains.bitcoin.reading import Transaction, transfers_to
from maven_cli.chains.bitcoin.senders import Senders
from maven_cli.chains.rpc import Rpc, RpcError, TooMuchError, TooSlowError

BLOCKS_AT_ONCE = 2  # in one request: up to some 25 MB each as JSON
SEARCHED_AT_ONCE = 50_000  # scripts whose outputs one search looks for: nodes take requests of up to 32 MiB
BEHIND = 6  # blocks that a node may know only the headers of: it is about to load them


class BitcoinNode:
    """One Bitcoin endpoint; see `maven_cli.chains.Node`."""

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc
        self._ask = Asking(rpc)
        self._looking = Looking(self._ask)
        self._senders = Senders(self._ask)

    @property
    def name(self) -> str:
        return self._rpc.name

    @property
    def requests(self) -> int:
        return self._rpc.requests

    def close(self) -> None:
        self._rpc.close()

    def identity(self) -> str:
        return self._ask.read.hash(self._ask.one(("getblockhash", [0]), "its first block")).hex()

    def head(self) -> Head:
        info = self._ask.read.object(self._ask.one(("getblockchaininfo", []), "its head"), "state of a chain")
        height = self._ask.read.number(info.get("blocks"), "a height")
        headers = self._ask.read.number(info.get("headers"), "a height")
        # A chain that only its tests mine (regtest) never stops loading before its first new block.
        loading = info.get("initialblockdownload") is True and info.get("chain") != "regtest"
        if loading or headers - height > BEHIND:
            raise NodeBehindError(
                f"node {self.name} is still loading its chain: it has {height} of at least {headers} blocks"
            )
        best = self._ask.read.hash(info.get("bestblockhash"))
        return Head(
            self._header(self._ask.one(("getblockheader", [best.hex(), True]), "its head"), best), None, None
        )

    def blocks(self, heights: Sequence[int]) -> list[Block | None]:
        hashes = [
            None
            if is_refusal(answer, PAST_THE_HEAD)
            else self._ask.read.hash(self._ask.fine(answer, f"block {height}"))
            for height, answer in zip(
                heights, self._rpc.batch([("getblockhash", [height]) for height in heights]), strict=True
            )
        ]
        known = [(height, one) for height, one in zip(heights, hashes, strict=True) if one is not None]
        answers = self._rpc.batch([("getblockheader", [one.hex(), True]) for _, one in known])
        found: dict[int, Block] = {}
        for (height, expected), answer in zip(known, answers, strict=True):
            block = self._header(self._ask.fine(answer, f"block {height}"), expected)
            if block.height != height:
                raise NodeDownError(f"node {self.name} answered block {block.height} when asked for {height}")
            found[height] = block
        return [found.get(height) for height in heights]

    # ----------------------------------------------------------------------------------------------------------- scan

    def scan(self, first: int, last: int, watch: Watch, *, final: bool) -> Scan:
        """As `Node.scan`. Every block is read whole and by its hash, final or not: nothing is ever filtered by the node."""
        heights = range(first, last + 1)
        hashes = [
            self._ask.read.hash(self._ask.fine(answer, f"block {height}"))
            for height, answer in zip(
                heights, self._rpc.batch([("getblockhash", [height]) for height in heights]), strict=True
            )
        ]
        blocks: list[Block] = []
        paying: list[tuple[Block, Transaction, frozenset[bytes]]] = []
        for start in range(0, len(hashes), BLOCKS_AT_ONCE):
            self._read_part(first + start, hashes[start : start + BLOCKS_AT_ONCE], watch, blocks, paying)
        senders = self._senders.of([(block, transaction) for block, transaction, _ in paying])
        transfers = [
            transfer
            for block, transaction, owned in paying
            for transfer in transfers_to(transaction, block, owned, senders.get(transaction.hash, ()))
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
            raw = self._ask.fine(answer, f"block {place}")
            block = self._header(raw, expected)
            if block.height != place or (blocks and blocks[-1].hash != block.parent):
                raise self._changed(place)
            paying += self._paying(block, raw, watch)
            blocks.append(block)

    def _paying(
        self, block: Block, raw: Any, watch: Watch
    ) -> list[tuple[Block, Transaction, frozenset[bytes]]]:
        """The transactions of a block that pay to watched scripts, each with those scripts."""
        transactions = list(self._ask.read.transactions(raw))
        scripts = {one.script for each in transactions for one in each.outputs if one.amount > 0}
        owned = watch.owned(scripts)
        return [
            (block, one, ours)
            for one in transactions
            if (ours := frozenset(output.script for output in one.outputs) & owned)
        ]

    # ----------------------------------------------------------------------------------------------------------- rest

    def look(self, references: Sequence[Reference]) -> list[Sighting]:
        """As `Node.look`. Senders are left out."""
        return self._looking.look(references)

    def token(self, token: bytes) -> Token | None:
        return None

    def balances(self, keys: Sequence[bytes], token: bytes | None) -> list[int]:
        """As `Node.balances`. The node searches all unspent outputs, whatever the number of keys: minutes on Bitcoin's own
        chain, and one search at a time."""
        if not keys or token is not None:
            return [0] * len(keys)
        held = dict.fromkeys(keys, 0)
        wanted = sorted(held)
        for start in range(0, len(wanted), SEARCHED_AT_ONCE):
            self._search(wanted[start : start + SEARCHED_AT_ONCE], held)
        return [held[key] for key in keys]

    def _search(self, keys: Sequence[bytes], held: dict[bytes, int]) -> None:
        """Adds what is unspent to what the keys hold."""
        start = ("scantxoutset", ["start", [f"raw({key.hex()})" for key in keys]])
        try:
            # Never a second time: the node still searches for the first.
            (answer,) = self._rpc.batch([start], divisible=True)
        except TooSlowError as error:
            with suppress(NodeDownError):  # the search is what there is to tell of
                self._rpc.batch([("scantxoutset", ["abort"])])
            raise NodeDownError(
                f"{error} to a search of all unspent outputs; raise MAVEN_NODE_TIMEOUT"
            ) from None
        except TooMuchError:
            if len(keys) == 1:
                raise
            half = len(keys) // 2
            self._search(keys[:half], held)
            self._search(keys[half:], held)
            return
        # Its code is also the one for blocks past the head.
        if isinstance(answer, RpcError):
            raise self._ask.refuses(answer, "a search of all unspent outputs")
        found = self._ask.read.object(answer, "search")
        if found.get("success") is not True:
            raise NodeDownError(f"node {self.name} gave up its search of all unspent outputs")
        for one in self._ask.read.list(found.get("unspents"), "unspent outputs"):
            output = self._ask.read.object(one, "output")
            key = self._ask.read.script({"scriptPubKey": {"hex": output.get("scriptPubKey")}})
            if key not in held:
                raise self._ask.read.wrong("an unspent output of somebody else")
            held[key] += self._ask.read.amount(output.get("amount"))

    def _header(self, raw: Any, expected: bytes) -> Block:
        """A block that was asked for by its hash, which the chain had a moment ago."""
        block = self._ask.read.block(raw)
        if block.hash != expected:
            raise NodeDownError(f"node {self.name} answered another block than it was asked for")
        if raw.get("confirmations") == -1:
            raise self._changed(block.height)
        return block

    def _changed(self, height: int) -> NodeBehindError:
        return NodeBehindError(f"node {self.name} changed its chain while block {height} was read")

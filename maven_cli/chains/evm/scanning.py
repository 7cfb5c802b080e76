"""All transfers to watched keys in a range of blocks, or an error: never fewer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from maven_cli.chains import Block, NodeBehindError, Scan, Transfer, Watch
from maven_cli.chains.evm import answers
from maven_cli.chains.evm.answers import MalformedError, UnsettledError
from maven_cli.chains.evm.logs import LogReader
from maven_cli.chains.rpc import Rpc

BLOCKS = 10  # whole blocks in one request; a block of Ethereum takes some hundred kilobytes
RECEIPTS = 50  # receipts in one request


@dataclass(slots=True)
class _Lead:
    """A transaction of interest. coin: what it pays to a watched key, if it succeeded. events: token, sender, recipient
    and amount of each event that pays one."""

    block: Block
    coin: Transfer | None = None
    events: set[tuple[bytes, bytes, bytes, int]] = field(default_factory=set)


class Scanner:
    """Scans one node, and remembers what it takes."""

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc
        self._logs = LogReader(rpc)

    def scan(self, first: int, last: int, watch: Watch, *, final: bool) -> Scan:
        """As Node.scan. Blocks and events say which transactions are of interest, their receipts what these really did.

        Raises NodeBehindError, NodeDownError, MalformedError; and UnsettledError when the node's answers don't belong
        together, which asking again may mend.
        """
        leads: dict[bytes, _Lead] = {}
        # With nobody to watch, headers will do.
        idle = watch.few is not None and not watch.few
        blocks = self._read_blocks(first, last, watch, leads, whole=not idle)
        if not idle:
            self._read_events(blocks, watch, leads, final=final)
        return Scan(tuple(blocks), tuple(self._prove(leads, watch)))

    def _read_blocks(
        self, first: int, last: int, watch: Watch, leads: dict[bytes, _Lead], *, whole: bool
    ) -> list[Block]:
        """The blocks' headers, linked by parent. Whole blocks are large, so only some are held at once."""
        blocks: list[Block] = []
        window = BLOCKS * self._rpc.concurrency
        for start in range(first, last + 1, window):
            heights = range(start, min(start + window, last + 1))
            results = self._rpc.batch(
                [("eth_getBlockByNumber", [hex(height), whole]) for height in heights], size=BLOCKS
            )
            paid: list[Transfer] = []
            for height, result in zip(heights, results, strict=True):
                document = answers.accepted(self._rpc.name, "eth_getBlockByNumber", result)
                if document is None:
                    raise NodeBehindError(f"node {self._rpc.name} has no block {height}")
                block = answers.block(document)
                if block.height != height:
                    raise MalformedError("number")
                if blocks and block.parent != blocks[-1].hash:
                    raise UnsettledError(f"gave a block {height} that doesn't follow the one before")
                blocks.append(block)
                if whole:
                    paid += _coins(document, block)
            watched = _watched(watch, paid)
            leads.update({coin.tx_hash: _Lead(coin.block, coin) for coin in paid if coin.to in watched})
        return blocks

    def _read_events(
        self, blocks: list[Block], watch: Watch, leads: dict[bytes, _Lead], *, final: bool
    ) -> None:
        read = self._logs.final if final else self._logs.unsettled
        by_height = {block.height: block for block in blocks}
        for logs in read(blocks, watch.few):
            events = [(log, paid) for log in logs if (paid := answers.payment(log)) is not None]
            watched = _owned(watch, {to for _, (_, to, _) in events})
            for log, (sender, to, amount) in events:
                if to in watched:
                    tx_hash = answers.octets(log, "transactionHash", 32)
                    block = by_height[answers.quantity(log, "blockNumber")]
                    lead = leads.setdefault(tx_hash, _Lead(block))
                    lead.events.add((answers.octets(log, "address", 20), sender, to, amount))

    def _prove(self, leads: dict[bytes, _Lead], watch: Watch) -> Iterator[Transfer]:
        """What the transactions paid to watched keys, by their receipts, in the order of the chain."""
        proven: list[tuple[int, int, Transfer]] = []
        for tx_hash, receipt in self._receipts(leads):
            lead = leads[tx_hash]
            index = answers.quantity(receipt, "transactionIndex")
            if not answers.succeeded(receipt):
                if lead.events:
                    raise UnsettledError(f"has events of 0x{tx_hash.hex()}, which failed")
                continue
            tokens = answers.token_transfers(receipt, lead.block)
            shown = {(paid.token, *paid.senders, paid.to, paid.amount) for paid in tokens}
            if not lead.events <= shown:
                raise UnsettledError(f"has events of 0x{tx_hash.hex()} that its receipt doesn't show")
            coins = [lead.coin] if lead.coin is not None else []
            proven += [(lead.block.height, index, paid) for paid in (*coins, *tokens)]
        # Receipts may show more than the events did, when those came from a node that lags.
        watched = _watched(watch, [paid for _, _, paid in proven])
        # Stable: coin before tokens, tokens by their ordinal.
        for _, _, paid in sorted(proven, key=lambda found: found[:2]):
            if paid.to in watched:
                yield paid

    def _receipts(self, leads: dict[bytes, _Lead]) -> Iterator[tuple[bytes, Any]]:
        """Each transaction's receipt, of the very block in which it was found."""
        hashes = list(leads)
        window = RECEIPTS * self._rpc.concurrency
        for start in range(0, len(hashes), window):
            asked = hashes[start : start + window]
            results = self._rpc.batch(
                [("eth_getTransactionReceipt", [f"0x{tx_hash.hex()}"]) for tx_hash in asked], size=RECEIPTS
            )
            for tx_hash, result in zip(asked, results, strict=True):
                receipt = answers.accepted(self._rpc.name, "eth_getTransactionReceipt", result)
                height = leads[tx_hash].block.height
                if receipt is None:
                    raise UnsettledError(f"has no receipt of 0x{tx_hash.hex()} in block {height}")
                if answers.octets(receipt, "transactionHash", 32) != tx_hash:
                    raise MalformedError("transactionHash")
                if answers.octets(receipt, "blockHash", 32) != leads[tx_hash].block.hash:
                    raise UnsettledError(
                        f"has 0x{tx_hash.hex()} in another block than {height} as it gave it"
                    )
                yield tx_hash, receipt


def _coins(document: Any, block: Block) -> list[Transfer]:
    """What the transactions of a whole block pay, if they succeed."""
    found = (answers.native_transfer(item, block) for item in answers.sequence(document, "transactions"))
    return [coin for coin in found if coin is not None]


def _watched(watch: Watch, paid: Iterable[Transfer]) -> set[bytes]:
    return _owned(watch, {transfer.to for transfer in paid})


def _owned(watch: Watch, keys: set[bytes]) -> set[bytes]:
    """Those of the keys that are watched; asks nobody when it's known."""
    few = watch.few
    if few is not None:
        return keys & few
    return watch.owned(keys) if keys else set()

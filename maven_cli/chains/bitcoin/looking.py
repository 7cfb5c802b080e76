"""What became of transactions: each one in the block where it was seen, and what is at that height now, in one request."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from maven_cli.chains import Block, NodeBehindError, NodeDownError, Reference, Sighting
from maven_cli.chains.bitcoin.asking import (
    PAST_THE_HEAD,
    UNKNOWN,
    Asking,
    has_no_block_parameter,
    is_refusal,
    knows_none,
)
from maven_cli.chains.bitcoin.reading import digest, transfers_to
from maven_cli.chains.rpc import Call


class Looking:
    """Looks for transactions at one endpoint."""

    def __init__(self, ask: Asking) -> None:
        self._ask = ask

    def look(self, references: Sequence[Reference]) -> list[Sighting]:
        """As `Node.look`: transactions in the blocks where they were seen, and what is at those heights now, in one request.

        What isn't there any more is looked for in the pool, and with -txindex in the whole chain: three requests more at
        most. Senders are left out.
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
        answers = self._ask.rpc.batch(calls, size=max(len(calls), 1))
        canonical, beyond = self._canonical(expected, answers[len(references) :])
        sightings: dict[int, Sighting] = {}
        anywhere: dict[int, Any] = {}
        lost: list[int] = []
        for place, (one, answer) in enumerate(zip(references, answers, strict=False)):
            block = canonical.get(one.block_hash) if one.block_hash else None
            if one.block_hash not in expected:
                anywhere[place] = answer
            elif block is None or knows_none(answer) or has_no_block_parameter(answer):
                lost.append(place)
            else:
                sightings[place] = self._mined(one, self._ask.fine(answer, "a transaction"), block)
        answers = self._ask.rpc.batch(
            [("getrawtransaction", [references[place].tx_hash.hex(), True]) for place in lost]
        )
        sightings |= self._anywhere(references, anywhere | dict(zip(lost, answers, strict=True)))
        for place in lost:
            one = references[place]
            if one.block_hash in beyond and sightings[place].state != "mined":
                # A node that lags knows neither the block nor the transaction: that says nothing.
                raise NodeBehindError(
                    f"node {self._ask.name} has no block {one.height}, in which {one.tx_hash.hex()} was seen"
                )
        return [sightings[place] for place in range(len(references))]

    def _canonical(
        self, expected: Mapping[bytes, int], answers: Sequence[Any]
    ) -> tuple[dict[bytes, Block], set[bytes]]:
        """Those of the blocks that are in the chain now, and those that would be beyond its head. expected: their heights.
        answers: a header, and the hash at its height, for each."""
        found: dict[bytes, Block] = {}
        beyond: set[bytes] = set()
        for place, block_hash in enumerate(expected):
            header, at_height = answers[2 * place : 2 * place + 2]
            if is_refusal(at_height, PAST_THE_HEAD):
                beyond.add(block_hash)
                continue
            if is_refusal(header, UNKNOWN):
                continue
            # By the hash at the height: what a header says of its confirmations may come from a proxy's cache.
            block = self._ask.read.block(self._ask.fine(header, "a block"))
            if (
                block.hash == block_hash
                and self._ask.read.hash(self._ask.fine(at_height, "a block")) == block_hash
            ):
                found[block_hash] = block
        return found, beyond

    def _anywhere(self, references: Sequence[Reference], answers: Mapping[int, Any]) -> dict[int, Sighting]:
        """Transactions that were asked for without a block, by their place among the references.

        A node names the block of what its index knows: two requests more, for all of them, say whether it is canonical.
        """
        sightings: dict[int, Sighting] = {}
        indexed: dict[int, dict[str, Any]] = {}
        for place, answer in answers.items():
            if knows_none(answer):
                sightings[place] = Sighting("missing")
                continue
            raw = self._ask.read.object(self._ask.fine(answer, "a transaction"), "transaction")
            if raw.get("blockhash") is None:
                sightings[place] = Sighting("pending")
            else:
                indexed[place] = raw
        canonical = self._still_canonical({self._ask.read.hash(raw["blockhash"]) for raw in indexed.values()})
        for place, raw in indexed.items():
            block = canonical.get(self._ask.read.hash(raw["blockhash"]))
            sightings[place] = (
                Sighting("missing") if block is None else self._mined(references[place], raw, block)
            )
        return sightings

    def _still_canonical(self, hashes: Collection[bytes]) -> dict[bytes, Block]:
        """Those of the blocks, which the node has, that are in the chain now."""
        wanted = sorted(hashes)
        answers = self._ask.rpc.batch([("getblockheader", [one.hex(), True]) for one in wanted])
        blocks = [self._ask.read.block(self._ask.fine(answer, "a block")) for answer in answers]
        now = self._ask.rpc.batch([("getblockhash", [block.height]) for block in blocks])
        return {
            block.hash: block
            for block, expected, answer in zip(blocks, wanted, now, strict=True)
            if block.hash == expected
            and not is_refusal(answer, PAST_THE_HEAD)
            and self._ask.read.hash(self._ask.fine(answer, "a block")) == expected
        }

    def _mined(self, reference: Reference, raw: Any, block: Block) -> Sighting:
        transaction = self._ask.read.transaction(raw)
        if transaction.hash != reference.tx_hash or raw.get("blockhash") != block.hash.hex():
            raise NodeDownError(f"node {self._ask.name} answered another transaction than it was asked for")
        everybody = {one.script for one in transaction.outputs}
        transfers = transfers_to(transaction, block, everybody, ())
        return Sighting("mined", block, tuple(transfers), digest(transaction, block))

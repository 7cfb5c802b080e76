"""What became of transactions: each one's receipt, itself, and the canonical block at its height, in one request."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from maven_cli.chains import Block, NodeBehindError, Reference, Sighting
from maven_cli.chains.evm import answers
from maven_cli.chains.evm.answers import SETTLING, MalformedError, UnsettledError
from maven_cli.chains.rpc import Call, Rpc

REFERENCES = 100  # in one request
ATTEMPTS = 3  # to get answers about a transaction that belong together


def look(rpc: Rpc, references: Sequence[Reference]) -> list[Sighting]:
    """As Node.look. Raises NodeBehindError, NodeDownError and MalformedError.

    The block at the height where a transaction was last seen travels in the same request. When the receipt names another
    height, or the answers contradict each other, that one is asked for again.
    """
    sightings: dict[int, Sighting] = {}
    heights = [reference.height for reference in references]
    reason = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            rpc.pause(SETTLING * 2 ** (attempt - 1))
        places = [place for place in range(len(references)) if place not in sightings]
        for start in range(0, len(places), REFERENCES):
            part = places[start : start + REFERENCES]
            answered = _ask(rpc, [(references[place].tx_hash, heights[place]) for place in part])
            for place, answer in zip(part, answered, strict=True):
                try:
                    sightings[place] = _judge(answer, references[place], again=attempt > 0)
                except UnsettledError as error:
                    reason = str(error)
                if answer.receipt is not None:
                    heights[place] = answers.quantity(answer.receipt, "blockNumber")
    if len(sightings) < len(references):
        raise NodeBehindError(f"node {rpc.name} {reason}")
    return [sightings[place] for place in range(len(references))]


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a node says of a transaction. canonical: its block at `height`."""

    receipt: Any
    transaction: Any
    height: int | None
    canonical: Block | None


def _ask(rpc: Rpc, asked: Sequence[tuple[bytes, int | None]]) -> list[_Answer]:
    """One request. Transactions of one block share it."""
    hashes = [f"0x{tx_hash.hex()}" for tx_hash, _ in asked]
    heights = sorted({height for _, height in asked if height is not None})
    calls: list[Call] = [
        *(("eth_getTransactionReceipt", [tx_hash]) for tx_hash in hashes),
        *(("eth_getTransactionByHash", [tx_hash]) for tx_hash in hashes),
        *(("eth_getBlockByNumber", [hex(height), False]) for height in heights),
    ]
    results = rpc.batch(calls, size=len(calls))
    found = [
        answers.accepted(rpc.name, method, result) for (method, _), result in zip(calls, results, strict=True)
    ]
    blocks: dict[int | None, Block] = {}
    for height, document in zip(heights, found[2 * len(hashes) :], strict=True):
        if document is not None:
            blocks[height] = answers.block(document)
            if blocks[height].height != height:
                raise MalformedError("number")
    return [
        _Answer(found[place], found[len(hashes) + place], height, blocks.get(height))
        for place, (_, height) in enumerate(asked)
    ]


def _judge(answer: _Answer, reference: Reference, *, again: bool) -> Sighting:
    """What the answers say together; UnsettledError when they don't fit. again: they were asked for more than once."""
    shown = f"0x{reference.tx_hash.hex()}"
    receipt, transaction, canonical = answer.receipt, answer.transaction, answer.canonical
    for document, field in ((receipt, "transactionHash"), (transaction, "hash")):
        if document is not None and answers.octets(document, field, 32) != reference.tx_hash:
            raise MalformedError(field)
    if answer.height is not None and canonical is None:
        # A node that lags knows neither the transaction nor the block: that says nothing.
        raise UnsettledError(f"has no block {answer.height}, in which {shown} was seen")
    if receipt is None:
        if transaction is not None and transaction.get("blockHash") is not None:
            raise UnsettledError(f"has transaction {shown}, but not its receipt")
        if canonical is not None and canonical.hash == reference.block_hash:
            raise UnsettledError(f"has block {canonical.height}, but not its transaction {shown}")
        return Sighting("missing" if transaction is None else "pending")
    height = answers.quantity(receipt, "blockNumber")
    block_hash = answers.octets(receipt, "blockHash", 32)
    if transaction is None or answers.octets(transaction, "blockHash", 32) != block_hash:
        raise UnsettledError(f"has a receipt of {shown}, but not its transaction")
    if canonical is None or canonical.height != height:
        raise UnsettledError(f"has {shown} in block {height}, but not that block")
    if canonical.hash != block_hash:
        if again:
            return Sighting("missing")  # this node remembers a block that isn't canonical any more
        raise UnsettledError(f"has {shown} in another block {height} than the canonical one")
    evidence = json.dumps(receipt, sort_keys=True, separators=(",", ":"), default=str)
    digest = hashlib.sha256(evidence.encode()).digest()
    if not answers.succeeded(receipt):
        return Sighting("failed", canonical, digest=digest)
    coin = answers.native_transfer(transaction, canonical)
    tokens = answers.token_transfers(receipt, canonical)
    return Sighting("mined", canonical, (*([coin] if coin else []), *tokens), digest)

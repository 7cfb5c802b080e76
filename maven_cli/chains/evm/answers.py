"""What nodes answer, taken apart. Anything that isn't shaped as the protocol says raises MalformedError."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from maven_cli.chains import Block, NodeBehindError, NodeDownError, Transfer
from maven_cli.chains.rpc import RpcError

# keccak256("Transfer(address,address,uint256)"): ERC-20's event. ERC-721's has the same name and a fourth topic.
TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"

_QUANTITY = re.compile(r"0x[0-9a-fA-F]{1,64}")
_OCTETS = re.compile(r"0x((?:[0-9a-fA-F]{2})*)")
_PADDING = "0x" + "0" * 24  # before the 20 bytes of an address in a topic

# How nodes say that they don't have (yet, or any more) what they were asked for.
_BEHIND = re.compile(
    r"unknown block|(header|block|history|state)\b.* not (found|available)|could not find block|not (yet )?synce?d"
    r"|syncing|missing trie node|pruned|out ?of ?range ?error|beyond (the )?(current )?(head|latest)",
    re.IGNORECASE,
)


class MalformedError(Exception):
    """An answer, or a part of it, isn't what the protocol says. The message names the part."""


# Seconds before a node is asked again what it answered with contradictions; twice that before the next time.
SETTLING = 0.2


class UnsettledError(Exception):
    """Two answers of a node contradict each other, as they do while its chain is reorganised. The message goes behind
    the node's name."""


def quantity(document: Any, field: str) -> int:
    """A number: 0x and at most 64 hexadecimal digits."""
    value = _field(document, field)
    if not isinstance(value, str) or _QUANTITY.fullmatch(value) is None:
        raise MalformedError(field)
    return int(value, 16)


def octets(document: Any, field: str, length: int) -> bytes:
    """So many bytes."""
    return _octets(_field(document, field), field, length)


def block(document: Any) -> Block:
    """A block's header, or a whole block."""
    try:
        at = datetime.fromtimestamp(quantity(document, "timestamp"), UTC)
    except (OverflowError, ValueError, OSError):
        raise MalformedError("timestamp") from None
    return Block(
        quantity(document, "number"), octets(document, "hash", 32), octets(document, "parentHash", 32), at
    )


def sequence(document: Any, field: str) -> list[Any]:
    """A list of objects."""
    value = _field(document, field)
    if not isinstance(value, list):
        raise MalformedError(field)
    return value


def succeeded(receipt: Any) -> bool:
    """Whether the transaction took effect."""
    status = quantity(receipt, "status")
    if status > 1:
        raise MalformedError("status")
    return status == 1


def native_transfer(transaction: Any, at: Block) -> Transfer | None:
    """What the transaction itself pays, if it succeeds; None for value 0, and for one that creates a contract."""
    amount = quantity(transaction, "value")
    # Some nodes leave the field out where others say null.
    if amount == 0 or transaction.get("to") is None:
        return None
    return Transfer(
        tx_hash=octets(transaction, "hash", 32),
        kind="native",
        ordinal=0,
        to=octets(transaction, "to", 20),
        token=None,
        amount=amount,
        block=at,
        senders=(octets(transaction, "from", 20),),
    )


def token_transfers(receipt: Any, at: Block) -> list[Transfer]:
    """What the events of a receipt pay. An event's place among its receipt's is its ordinal: what nodes call its index
    counts from the block's first event, and another transaction before it in another block changes that."""
    tx_hash = octets(receipt, "transactionHash", 32)
    transfers = []
    for ordinal, log in enumerate(sequence(receipt, "logs")):
        paid = payment(log)
        if paid is not None:
            sender, to, amount = paid
            token = octets(log, "address", 20)
            transfers.append(Transfer(tx_hash, "token", ordinal, to, token, amount, at, (sender,)))
    return transfers


def payment(log: Any) -> tuple[bytes, bytes, int] | None:
    """Sender, recipient and amount of an ERC-20 Transfer; None for any other event, for nothing, and for what the node
    itself calls removed."""
    topics = sequence(log, "topics")
    data = _field(log, "data")
    if len(topics) != 3 or str(topics[0]).lower() != TRANSFER or log.get("removed") is True:
        return None
    if not isinstance(data, str):
        raise MalformedError("data")
    if len(data) != 66 or not all(str(topic).startswith(_PADDING) for topic in topics[1:]):
        return None
    amount = int.from_bytes(_octets(data, "data", 32))
    if amount == 0:
        return None
    sender, to = (_octets(topic, "topics", 32)[12:] for topic in topics[1:])
    return sender, to, amount


def topic_of(address: bytes) -> str:
    """An address as an event's topic."""
    return _PADDING + address.hex()


def accepted(name: str, method: str, result: Any) -> Any:
    """The result of a call to the node of this name, unless the node refused it. Raises NodeBehindError and
    NodeDownError."""
    if isinstance(result, RpcError):
        if is_behind(result):
            raise NodeBehindError(f"node {name} doesn't have what {method} asks for: {result.message}")
        raise NodeDownError(f"node {name} refuses {method}: {result.message}")
    return result


def is_behind(error: RpcError) -> bool:
    # 4444 is the protocol's code for history that was pruned.
    return error.code == 4444 or _BEHIND.search(error.message) is not None


def _field(document: Any, field: str) -> Any:
    if not isinstance(document, dict) or field not in document:
        raise MalformedError(field)
    return document[field]


def _octets(value: Any, field: str, length: int) -> bytes:
    match = _OCTETS.fullmatch(value) if isinstance(value, str) else None
    if match is None or len(match[1]) != 2 * length:
        raise MalformedError(field)
    return bytes.fromhex(match[1])

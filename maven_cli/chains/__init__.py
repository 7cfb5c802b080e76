"""Chains: what a node can be asked, whatever its family. One small interface, three adapters.

A `Node` is one endpoint, pinned for a pass: all that a pass concludes from it comes from one place. Adapters know blocks
and transfers, not deposits: what a transfer is worth to a user is decided in maven_cli/deposits. Each adapter is imported
when its first node is opened, never before.

Bytes are in the order in which people read them: a hash or a contract is `bytes.fromhex` of its usual notation (without
``0x``; Bitcoin's reversed display order; Solana's base58 decoded). An address is its *key*, what the chain itself pays to:

    evm      the 20 bytes of the address
    bitcoin  the scriptPubKey
    solana   the 32 bytes of the owner's public key, for SOL and for tokens alike (not the token account)

Errors of this room (each message names the endpoint, never its URL):

    NodeDownError   69  no answer in time, 5xx, 429 to the end of all patience, or an answer that isn't one
    NodeBehindError 69  the node lacks what it was asked for: beyond its head, pruned, not synchronised
    WrongChainError 78  the node is on another chain
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from maven_cli.errors import ConfigurationError, DependencyDownError, UsageError

Family = Literal["evm", "bitcoin", "solana"]


class NodeDownError(DependencyDownError):
    """A node gives no answer."""


class NodeBehindError(DependencyDownError):
    """A node lacks the blocks it was asked for."""


class WrongChainError(ConfigurationError):
    """A node is on another chain than the one it is configured for."""


class AddressError(UsageError):
    """An address isn't one of its chain's."""


@dataclass(frozen=True, slots=True)
class Block:
    """A block's header. height: Solana's slot. parent: the hash of the block before, whatever its height."""

    height: int
    hash: bytes
    parent: bytes
    at: datetime


@dataclass(frozen=True, slots=True)
class Head:
    """Where a node stands. safe, finalized: the newest height that the chain itself calls so; None where it has no such
    notion or the node doesn't tell."""

    block: Block
    safe: int | None
    finalized: int | None


@dataclass(frozen=True, slots=True)
class Transfer:
    """A payment that took effect.

    kind, ordinal: with the transaction's hash, what identifies it. native: EVM 0, Bitcoin the output's index, Solana the
    index of the credited account among the transaction's accounts. token: EVM the log's position in its own receipt;
    Solana the index of the credited token account.
    to: the key it pays. token: contract or mint; None for the native coin. amount: in base units, above 0.
    senders: keys it was paid from, as far as the chain says.
    immature: a coinbase output, which can't be spent for a number of blocks.
    """

    tx_hash: bytes
    kind: Literal["native", "token"]
    ordinal: int
    to: bytes
    token: bytes | None
    amount: int
    block: Block
    senders: tuple[bytes, ...] = ()
    immature: bool = False


@dataclass(frozen=True, slots=True)
class Scan:
    """What a range of heights holds: every block that exists in it, linked by parent, and every transfer to a watched
    key, in the order of the chain."""

    blocks: tuple[Block, ...]
    transfers: tuple[Transfer, ...]


@dataclass(frozen=True, slots=True)
class Reference:
    """A transaction, and the block in which it was last seen, if it was."""

    tx_hash: bytes
    height: int | None = None
    block_hash: bytes | None = None


@dataclass(frozen=True, slots=True)
class Sighting:
    """What a node says of a transaction now.

    mined: in `block` of the canonical chain, and it took effect. failed: in `block`, but without effect (reverted).
    pending: known, in no block. missing: not known, or only in a block that isn't canonical any more.
    transfers: all that it pays, to anybody. digest: SHA-256 of the node's evidence in canonical JSON.
    """

    state: Literal["mined", "failed", "pending", "missing"]
    block: Block | None = None
    transfers: tuple[Transfer, ...] = ()
    digest: bytes | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """What a contract or mint says of itself; symbol is for people and never identifies."""

    decimals: int
    symbol: str | None


class Watch(Protocol):
    """Whose transfers are looked for."""

    @property
    def few(self) -> frozenset[bytes] | None:
        """All watched keys where there are so few that a node may filter by them; None where there are more."""
        ...

    def owned(self, keys: Collection[bytes]) -> set[bytes]:
        """Those of `keys` that are watched."""
        ...


class Node(Protocol):
    """One endpoint of a chain. Methods raise the errors of this room, and what `check` raises between two requests."""

    @property
    def name(self) -> str:
        """The endpoint's name, for messages and its circuit."""
        ...

    @property
    def requests(self) -> int:
        """HTTP requests sent so far."""
        ...

    def identity(self) -> str:
        """Which chain this is: the chain id in decimal (EVM), else the genesis hash in its usual notation."""
        ...

    def head(self) -> Head: ...

    def blocks(self, heights: Sequence[int]) -> list[Block | None]:
        """The canonical blocks at these heights, in that order; None for a height that has none: beyond the head, or
        skipped (Solana)."""
        ...

    def scan(self, first: int, last: int, watch: Watch, *, final: bool) -> Scan:
        """Reads all blocks from `first` to `last`, both included, or raises.

        final: the range can't be reorganised any more, so a filter by range may be trusted; else what is read of a block is
        bound to its hash. NodeBehindError when `last` is beyond the node's head or a block is missing.
        """
        ...

    def look(self, references: Sequence[Reference]) -> list[Sighting]:
        """One sighting for each reference, in that order; at most 100 references make one request."""
        ...

    def token(self, token: bytes) -> Token | None:
        """None when nothing that calls itself a token is there."""
        ...

    def balances(self, keys: Sequence[bytes], token: bytes | None) -> list[int]:
        """What each key holds now, in base units."""
        ...

    def close(self) -> None: ...


class Notation(Protocol):
    """How a chain's keys and hashes are written. Needs no node."""

    def address(self, text: str) -> bytes:
        """The key of an address. AddressError says what is wrong with it: checksum, length, another network's prefix."""
        ...

    def write_address(self, key: bytes) -> str: ...

    def token(self, text: str) -> bytes:
        """A contract or mint. Raises AddressError; the Bitcoin family has no tokens."""
        ...

    def write_token(self, token: bytes) -> str: ...

    def hash(self, text: str) -> bytes:
        """A transaction's hash (Solana: its signature). Raises UsageError."""
        ...

    def write_hash(self, tx_hash: bytes) -> str: ...

    def write_block_hash(self, block_hash: bytes) -> str: ...

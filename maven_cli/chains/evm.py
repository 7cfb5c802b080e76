"""EVM chains by JSON-RPC: Ethereum, BSC, Polygon and their like.

The chain's own coin is found in the blocks, in every transaction that carries value to a watched address, whatever else it
does; ERC-20 transfers in the logs. What a contract sends within a transaction (an internal transfer) is in neither: nodes
tell of it only by tracing. Nothing is believed that doesn't fit together: blocks link by parent, a log's block is one of those
that were read, a receipt is of the block that its transaction was found in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from eth_utils.address import is_checksum_address, to_checksum_address

from maven_cli.chains import (
    AddressError,
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
from maven_cli.chains.rpc import Rpc, RpcError, require
from maven_cli.errors import UsageError

# keccak256("Transfer(address,address,uint256)")
TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
BLOCKS_AT_ONCE = 10  # full blocks in one request: some hundred kilobytes each
LOGS_AT_ONCE = 1000  # blocks in one eth_getLogs, to begin with

# How providers say that a range of blocks, or what is in it, is too large for them.
_TOO_MUCH = re.compile(
    r"range|too (many|large|big|wide|much)|more than|exceed|limit|size|timed? ?out|timeout|capacity|narrow|smaller|heavy",
    re.IGNORECASE,
)


class EvmNode:
    """One EVM endpoint; see `maven_cli.chains.Node`."""

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc
        self._span = LOGS_AT_ONCE

    @property
    def name(self) -> str:
        return self._rpc.name

    @property
    def requests(self) -> int:
        return self._rpc.requests

    def close(self) -> None:
        self._rpc.close()

    def identity(self) -> str:
        return str(self._number(self._rpc.call("eth_chainId"), "a chain id"))

    def head(self) -> Head:
        latest, safe, finalized = self._rpc.batch(
            [("eth_getBlockByNumber", [tag, False]) for tag in ("latest", "safe", "finalized")]
        )
        if isinstance(latest, RpcError) or latest is None:
            raise NodeDownError(f"node {self.name} tells no newest block")
        block = self._block(latest)
        return Head(block, *(self._tag(found, block.height) for found in (safe, finalized)))

    def _tag(self, found: Any, head: int) -> int | None:
        """A finality tag's height; None where the node knows no such tag, or has nothing final yet."""
        if isinstance(found, RpcError) or found is None:
            return None
        # Never above the head that was told with it: behind a balancer each answer may be another node's.
        return min(self._block(found).height, head)

    def blocks(self, heights: Sequence[int]) -> list[Block | None]:
        answers = self._rpc.batch([("eth_getBlockByNumber", [hex(height), False]) for height in heights])
        found: list[Block | None] = []
        for height, answer in zip(heights, answers, strict=True):
            if isinstance(answer, RpcError):
                raise NodeDownError(f"node {self.name} refuses block {height}: {answer.message}")
            block = None if answer is None else self._block(answer)
            if block is not None and block.height != height:
                raise NodeDownError(f"node {self.name} answered block {block.height} when asked for {height}")
            found.append(block)
        return found

    # ----------------------------------------------------------------------------------------------------------- scan

    def scan(self, first: int, last: int, watch: Watch, *, final: bool) -> Scan:
        """As `Node.scan`. Logs come by range where it is final, and by the hash of each block where it isn't."""
        read = self._full_blocks(first, last)
        blocks = tuple(block for block, _ in read)
        by_hash = {block.hash: block for block in blocks}
        native = self._native(read, watch)
        logs = self._logs_by_range(first, last, watch) if final else self._logs_by_hash(blocks)
        tokens = self._tokens(logs, by_hash, watch)
        receipts = self._receipts({transfer.tx_hash: transfer.block for transfer in (*native, *tokens)})
        if final and blocks:
            # Logs by range name no block: if the chain changed meanwhile, they may be of another one.
            (again,) = self.blocks([last])
            if again is None or again.hash != blocks[-1].hash:
                raise NodeBehindError(f"node {self.name} changed its block {last} while it was read")
        found = [transfer for transfer in native if receipts[transfer.tx_hash].success]
        found += [
            _placed(transfer, receipts[transfer.tx_hash].position(transfer.ordinal, self.name))
            for transfer in tokens
        ]
        found.sort(key=lambda one: (one.block.height, one.tx_hash, one.kind, one.ordinal))
        return Scan(blocks, tuple(found))

    def _full_blocks(self, first: int, last: int) -> list[tuple[Block, list[dict[str, Any]]]]:
        heights = range(first, last + 1)
        answers = self._rpc.batch(
            [("eth_getBlockByNumber", [hex(height), True]) for height in heights], size=BLOCKS_AT_ONCE
        )
        read: list[tuple[Block, list[dict[str, Any]]]] = []
        for height, answer in zip(heights, answers, strict=True):
            if isinstance(answer, RpcError):
                raise NodeDownError(f"node {self.name} refuses block {height}: {answer.message}")
            block = self._block(require(answer, self.name, f"block {height}"))
            transactions = answer.get("transactions")
            if block.height != height or not isinstance(transactions, list):
                raise NodeDownError(f"node {self.name} answered something else when asked for block {height}")
            if read and read[-1][0].hash != block.parent:
                raise NodeBehindError(f"node {self.name} changed its chain while block {height} was read")
            read.append((block, transactions))
        return read

    def _native(self, read: Sequence[tuple[Block, list[dict[str, Any]]]], watch: Watch) -> list[Transfer]:
        """Transactions that carry value to a watched address, reverted ones too."""
        paying = []
        for block, transactions in read:
            for one in transactions:
                if not isinstance(one, dict):
                    raise NodeDownError(f"node {self.name} told no transactions of block {block.height}")
                value = self._number(one.get("value"), "a value")
                if value > 0 and one.get("to") is not None:
                    paying.append((block, one, self._bytes(one["to"], 20), value))
        owned = watch.owned({to for _, _, to, _ in paying})
        return [
            Transfer(
                self._bytes(one.get("hash"), 32),
                "native",
                0,
                to,
                None,
                value,
                block,
                (self._bytes(one.get("from"), 20),),
            )
            for block, one, to, value in paying
            if to in owned
        ]

    def _tokens(
        self, logs: Sequence[dict[str, Any]], by_hash: dict[bytes, Block], watch: Watch
    ) -> list[Transfer]:
        """ERC-20 transfers to watched addresses; each one's ordinal is its log's index in the block, for now."""
        paying = []
        for log in logs:
            topics, data = log.get("topics"), log.get("data")
            # Three topics and one word of data; ERC-721 has four topics. A removed log is a block's that is gone.
            if not isinstance(topics, list) or len(topics) != 3 or log.get("removed") is True:
                continue
            if not isinstance(data, str) or len(data) != 66:
                continue
            block = by_hash.get(self._bytes(log.get("blockHash"), 32))
            if block is None:
                raise NodeBehindError(
                    f"node {self.name} told a log of a block that is not the one it told before"
                )
            value = self._number(data, "an amount")
            if value > 0:
                paying.append((block, log, self._bytes(topics[2], 32)[12:], value))
        owned = watch.owned({to for _, _, to, _ in paying})
        return [
            Transfer(
                self._bytes(log.get("transactionHash"), 32),
                "token",
                self._number(log.get("logIndex"), "a log's index"),
                to,
                self._bytes(log.get("address"), 20),
                value,
                block,
                (self._bytes(log["topics"][1], 32)[12:],),
            )
            for block, log, to, value in paying
            if to in owned
        ]

    def _logs_by_hash(self, blocks: Sequence[Block]) -> list[dict[str, Any]]:
        answers = self._rpc.batch(
            [("eth_getLogs", [{"blockHash": _hex(block.hash), "topics": [TRANSFER]}]) for block in blocks],
            size=BLOCKS_AT_ONCE,
        )
        logs: list[dict[str, Any]] = []
        for block, answer in zip(blocks, answers, strict=True):
            if isinstance(answer, RpcError):
                # "unknown block": it was reorganised since it was read, or another node answered.
                raise NodeBehindError(
                    f"node {self.name} has no logs of block {block.height}: {answer.message}"
                )
            logs += self._list(answer)
        return logs

    def _logs_by_range(self, first: int, last: int, watch: Watch) -> list[dict[str, Any]]:
        """All Transfer logs of the range, in pieces as large as the node allows."""
        topics: list[Any] = [TRANSFER]
        if watch.few is not None:
            if not watch.few:
                return []
            topics += [None, ["0x" + key.hex().rjust(64, "0") for key in sorted(watch.few)]]
        logs: list[dict[str, Any]] = []
        start = first
        while start <= last:
            end = min(start + self._span - 1, last)
            (answer,) = self._rpc.batch(
                [("eth_getLogs", [{"fromBlock": hex(start), "toBlock": hex(end), "topics": topics}])]
            )
            if isinstance(answer, RpcError):
                if end == start or _TOO_MUCH.search(answer.message) is None:
                    raise NodeDownError(
                        f"node {self.name} refuses the logs of blocks {start} to {end}: {answer.message}"
                    )
                self._span = max(1, (end - start + 1) // 2)
                continue
            logs += self._list(answer)
            start = end + 1
            self._span = min(self._span * 2, LOGS_AT_ONCE)
        return logs

    def _receipts(self, transactions: dict[bytes, Block]) -> dict[bytes, _Receipt]:
        """The receipts of matched transactions, each of the block in which its transaction was found."""
        hashes = list(transactions)
        answers = self._rpc.batch([("eth_getTransactionReceipt", [_hex(tx)]) for tx in hashes])
        found = {}
        for tx, answer in zip(hashes, answers, strict=True):
            block = transactions[tx]
            if isinstance(answer, RpcError):
                raise NodeDownError(
                    f"node {self.name} refuses a receipt of block {block.height}: {answer.message}"
                )
            receipt = self._receipt(
                require(answer, self.name, f"receipt of a transaction of block {block.height}")
            )
            if receipt.block_hash != block.hash or receipt.tx_hash != tx:
                raise NodeBehindError(f"node {self.name} told a receipt of another block than {block.height}")
            found[tx] = receipt
        return found

    # ----------------------------------------------------------------------------------------------------------- look

    def look(self, references: Sequence[Reference]) -> list[Sighting]:
        """As `Node.look`: receipts, transactions, and the block at each expected height, in one request."""
        heights = sorted({one.height for one in references if one.height is not None})
        calls: list[tuple[str, Sequence[Any]]] = []
        for one in references:
            calls.append(("eth_getTransactionReceipt", [_hex(one.tx_hash)]))
            calls.append(("eth_getTransactionByHash", [_hex(one.tx_hash)]))
        calls += [("eth_getBlockByNumber", [hex(height), False]) for height in heights]
        answers = self._rpc.batch(calls, size=max(len(calls), 1))
        for answer in answers:
            if isinstance(answer, RpcError):
                raise NodeDownError(f"node {self.name} refuses to look at transactions: {answer.message}")
        rest = answers[2 * len(references) :]
        canonical = {
            height: None if answer is None else self._block(answer)
            for height, answer in zip(heights, rest, strict=True)
        }
        receipts = [
            None if raw is None else self._receipt(raw) for raw in answers[0 : 2 * len(references) : 2]
        ]
        others = sorted({one.height for one in receipts if one is not None and one.height not in canonical})
        if others:
            canonical |= dict(zip(others, self.blocks(others), strict=True))
        return [
            self._sighting(one, receipt, answers[2 * place + 1], canonical)
            for place, (one, receipt) in enumerate(zip(references, receipts, strict=True))
        ]

    def _sighting(
        self,
        reference: Reference,
        receipt: _Receipt | None,
        transaction: Any,
        canonical: dict[int, Block | None],
    ) -> Sighting:
        if receipt is None:
            pending = isinstance(transaction, dict) and transaction.get("blockHash") is None
            return Sighting("pending" if pending else "missing")
        block = canonical[receipt.height]
        if block is None or block.hash != receipt.block_hash or receipt.tx_hash != reference.tx_hash:
            return Sighting("missing")
        if not receipt.success:
            return Sighting("failed", block, (), receipt.digest)
        if not isinstance(transaction, dict) or transaction.get("blockHash") != _hex(block.hash):
            return Sighting("missing")
        transfers = []
        value = self._number(transaction.get("value"), "a value")
        if value > 0 and transaction.get("to") is not None:
            to, sender = self._bytes(transaction["to"], 20), self._bytes(transaction.get("from"), 20)
            transfers.append(Transfer(reference.tx_hash, "native", 0, to, None, value, block, (sender,)))
        tokens = self._tokens(receipt.logs, {block.hash: block}, _Everybody())
        transfers += [_placed(one, receipt.position(one.ordinal, self.name)) for one in tokens]
        return Sighting("mined", block, tuple(transfers), receipt.digest)

    # -------------------------------------------------------------------------------------------------------- contracts

    def token(self, token: bytes) -> Token | None:
        decimals, symbol = self._rpc.batch(
            [
                ("eth_call", [{"to": _hex(token), "data": data}, "latest"])
                for data in ("0x313ce567", "0x95d89b41")  # decimals(), symbol()
            ]
        )
        if isinstance(decimals, RpcError):
            # An answer that says that there is no such function is one; a node that can't say is not.
            if re.search("revert|execution|invalid opcode|out of gas", decimals.message, re.IGNORECASE):
                return None
            raise NodeDownError(f"node {self.name} refuses eth_call: {decimals.message}")
        if not isinstance(decimals, str) or len(decimals) != 66:
            return None
        number = self._number(decimals, "decimals")
        return (
            Token(number, None if isinstance(symbol, RpcError) else _text(symbol)) if number < 256 else None
        )

    def balances(self, keys: Sequence[bytes], token: bytes | None) -> list[int]:
        calls: list[tuple[str, Sequence[Any]]]
        if token is None:
            calls = [("eth_getBalance", [_hex(key), "latest"]) for key in keys]
        else:
            calls = [
                ("eth_call", [{"to": _hex(token), "data": "0x70a08231" + key.hex().rjust(64, "0")}, "latest"])
                for key in keys
            ]
        answers = self._rpc.batch(calls)
        for answer in answers:
            if isinstance(answer, RpcError):
                raise NodeDownError(f"node {self.name} refuses a balance: {answer.message}")
        return [self._number(answer, "a balance") for answer in answers]

    # ------------------------------------------------------------------------------------------------- what nodes write

    def _block(self, raw: Any) -> Block:
        if not isinstance(raw, dict):
            raise NodeDownError(f"node {self.name} answered what is no block")
        height, moment = (
            self._number(raw.get("number"), "a height"),
            self._number(raw.get("timestamp"), "a time"),
        )
        if moment > 2**33:
            raise NodeDownError(
                f"node {self.name} says that block {height} is of the year {moment // 31556952 + 1970}"
            )
        return Block(
            height,
            self._bytes(raw.get("hash"), 32),
            self._bytes(raw.get("parentHash"), 32),
            datetime.fromtimestamp(moment, UTC),
        )

    def _receipt(self, raw: Any) -> _Receipt:
        if not isinstance(raw, dict):
            raise NodeDownError(f"node {self.name} answered what is no receipt")
        status = raw.get("status")
        if status not in ("0x0", "0x1"):
            # Before Byzantium (2017) receipts had none; nothing of that age is a deposit here.
            raise NodeDownError(f"node {self.name} tells a receipt without a status")
        document = json.dumps(raw, sort_keys=True, separators=(",", ":"), default=str)
        return _Receipt(
            self._bytes(raw.get("transactionHash"), 32),
            self._number(raw.get("blockNumber"), "a height"),
            self._bytes(raw.get("blockHash"), 32),
            status == "0x1",
            self._list(raw.get("logs")),
            sha256(document.encode()).digest(),
        )

    def _list(self, raw: Any) -> list[dict[str, Any]]:
        if not isinstance(raw, list) or not all(isinstance(one, dict) for one in raw):
            raise NodeDownError(f"node {self.name} answered what are no logs")
        return raw

    def _number(self, raw: Any, what: str) -> int:
        if not isinstance(raw, str) or re.fullmatch(r"0x[0-9a-fA-F]{1,64}", raw) is None:
            raise NodeDownError(f"node {self.name} answered what is not {what}")
        return int(raw, 16)

    def _bytes(self, raw: Any, length: int) -> bytes:
        if not isinstance(raw, str) or re.fullmatch(rf"0x[0-9a-fA-F]{{{2 * length}}}", raw) is None:
            raise NodeDownError(f"node {self.name} answered what are not {length} bytes")
        return bytes.fromhex(raw[2:])


@dataclass(frozen=True, slots=True)
class _Receipt:
    tx_hash: bytes
    height: int
    block_hash: bytes
    success: bool
    logs: list[dict[str, Any]]
    digest: bytes

    def position(self, index: int, name: str) -> int:
        """Where the log with this index in its block stands in the receipt: the same in whichever block it is mined."""
        places = [place for place, log in enumerate(self.logs) if int(str(log.get("logIndex")), 16) == index]
        if len(places) != 1:
            raise NodeDownError(f"node {name} told a log that isn't in its transaction's receipt")
        return places[0]


class _Everybody:
    """Watches every address."""

    few = None

    def owned(self, keys: Any) -> set[bytes]:
        return set(keys)


def _placed(transfer: Transfer, position: int) -> Transfer:
    return Transfer(
        transfer.tx_hash,
        "token",
        position,
        transfer.to,
        transfer.token,
        transfer.amount,
        transfer.block,
        transfer.senders,
    )


def _hex(data: bytes) -> str:
    return "0x" + data.hex()


def _text(raw: Any) -> str | None:
    """A symbol: as ABI string, or as 32 bytes in old contracts. For people only."""
    if not isinstance(raw, str) or re.fullmatch(r"0x([0-9a-fA-F]{2})*", raw) is None:
        return None
    data = bytes.fromhex(raw[2:])
    if len(data) >= 64 and int.from_bytes(data[:32], "big") == 32:
        data = data[64 : 64 + int.from_bytes(data[32:64], "big")]
    text = data.rstrip(b"\0").decode("utf-8", "replace")
    return text if text.isprintable() and 0 < len(text) <= 32 else None


class EvmNotation:
    """Addresses as EIP-55 has them, hashes as 0x and hex."""

    def address(self, text: str) -> bytes:
        if re.fullmatch(r"0x[0-9a-fA-F]{40}", text) is None:
            raise AddressError(f"{text[:60]!r} is not an address: 0x and 40 hexadecimal digits")
        digits = text[2:]
        if digits not in (digits.lower(), digits.upper()) and not is_checksum_address(text):
            raise AddressError(f"{text} has a wrong checksum (its capitals); copy it again")
        return bytes.fromhex(digits)

    def write_address(self, key: bytes) -> str:
        return str(to_checksum_address(key))

    def token(self, text: str) -> bytes:
        return self.address(text)

    def write_token(self, token: bytes) -> str:
        return self.write_address(token)

    def hash(self, text: str) -> bytes:
        if re.fullmatch(r"0x[0-9a-fA-F]{64}", text) is None:
            raise UsageError(f"{text[:80]!r} is not a transaction's hash: 0x and 64 hexadecimal digits")
        return bytes.fromhex(text[2:])

    def write_hash(self, tx_hash: bytes) -> str:
        return _hex(tx_hash)

    def write_block_hash(self, block_hash: bytes) -> str:
        return _hex(block_hash)

"""One endpoint of an EVM chain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError

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
from maven_cli.chains.evm import answers
from maven_cli.chains.evm.answers import SETTLING, MalformedError, UnsettledError
from maven_cli.chains.evm.looking import look
from maven_cli.chains.evm.scanning import Scanner
from maven_cli.chains.rpc import Call, Rpc, RpcError

ATTEMPTS = 3  # to get answers that belong together, while the chain is reorganised

_DECIMALS, _SYMBOL, _BALANCE_OF = "0x313ce567", "0x95d89b41", "0x70a08231"
_SYMBOL_LIMIT = 32  # characters
# How nodes say that it was the contract that refused.
_REVERTED = (
    "revert",
    "invalid opcode",
    "opcode not found",
    "out of gas",
    "invalid jump",
    "bad jump",
    "stack ",
    "vm execution",
)


class EvmNode:
    """An endpoint of an EVM chain; see maven_cli.chains.Node."""

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc
        self._scanner = Scanner(rpc)

    @property
    def name(self) -> str:
        return self._rpc.name

    @property
    def requests(self) -> int:
        return self._rpc.requests

    def identity(self) -> str:
        """The chain id in decimal."""
        with self._understood("eth_chainId"):
            return str(answers.quantity({"chainId": self._rpc.call("eth_chainId")}, "chainId"))

    def head(self) -> Head:
        """safe and finalized are None where the node doesn't know these tags."""
        tags = ("latest", "safe", "finalized")
        latest, *others = self._rpc.batch([("eth_getBlockByNumber", [tag, False]) for tag in tags])
        with self._understood("eth_getBlockByNumber"):
            document = answers.accepted(self.name, "eth_getBlockByNumber", latest)
            if document is None:
                raise NodeBehindError(f"node {self.name} has no block at all")
            block = answers.block(document)
            # Never above the head: behind a balancer one answer may be older than another.
            safe, finalized = (
                None
                if other is None or isinstance(other, RpcError)
                else min(answers.quantity(other, "number"), block.height)
                for other in others
            )
        return Head(block, safe, finalized)

    def blocks(self, heights: Sequence[int]) -> list[Block | None]:
        results = self._rpc.batch([("eth_getBlockByNumber", [hex(height), False]) for height in heights])
        found: list[Block | None] = []
        with self._understood("eth_getBlockByNumber"):
            for height, result in zip(heights, results, strict=True):
                document = answers.accepted(self.name, "eth_getBlockByNumber", result)
                block = None if document is None else answers.block(document)
                if block is not None and block.height != height:
                    raise MalformedError("number")
                found.append(block)
        return found

    def scan(self, first: int, last: int, watch: Watch, *, final: bool) -> Scan:
        with self._understood("a scan"):
            for attempt in range(ATTEMPTS):
                if attempt:
                    self._rpc.pause(SETTLING * 2 ** (attempt - 1))
                try:
                    return self._scanner.scan(first, last, watch, final=final)
                except UnsettledError as error:
                    reason = str(error)
        raise NodeBehindError(f"node {self.name} {reason}")

    def look(self, references: Sequence[Reference]) -> list[Sighting]:
        with self._understood("a look"):
            return look(self._rpc, references)

    def token(self, token: bytes) -> Token | None:
        """None unless the contract tells how many decimals it has, at most 255."""
        at = f"0x{token.hex()}"
        results = self._rpc.batch(
            [("eth_call", [{"to": at, "data": data}, "latest"]) for data in (_DECIMALS, _SYMBOL)]
        )
        with self._understood("eth_call"):
            decimals, symbol = (self._returned(result) for result in results)
        if decimals is None or len(decimals) < 32 or (number := int.from_bytes(decimals[:32])) > 255:
            return None
        return Token(number, None if symbol is None else _symbol(symbol))

    def balances(self, keys: Sequence[bytes], token: bytes | None) -> list[int]:
        calls: list[Call]
        if token is None:
            calls = [("eth_getBalance", [f"0x{key.hex()}", "latest"]) for key in keys]
        else:
            calls = [
                (
                    "eth_call",
                    [{"to": f"0x{token.hex()}", "data": _BALANCE_OF + answers.topic_of(key)[2:]}, "latest"],
                )
                for key in keys
            ]
        results = self._rpc.batch(calls)
        method = "eth_getBalance" if token is None else "eth_call"
        with self._understood(method):
            # A balance from a call is 32 bytes, which are a number like any other.
            return [
                answers.quantity({"balance": answers.accepted(self.name, method, result)}, "balance")
                for result in results
            ]

    def close(self) -> None:
        self._rpc.close()

    def _returned(self, result: object) -> bytes | None:
        """What a contract returned; None when it refused, as one without that function does."""
        if isinstance(result, RpcError):
            words = result.message.lower()
            if result.code == 3 or any(word in words for word in _REVERTED):
                return None
        document = answers.accepted(self.name, "eth_call", result)
        try:
            return bytes.fromhex(document.removeprefix("0x"))
        except (AttributeError, ValueError):
            raise MalformedError("result") from None

    @contextmanager
    def _understood(self, what: str) -> Iterator[None]:
        """Turns what can't be read into an error of this room."""
        try:
            yield
        except MalformedError as error:
            raise NodeDownError(
                f"node {self.name} answers {what} with what is none: {error} is missing or malformed"
            ) from None


def _symbol(data: bytes) -> str | None:
    """A symbol that can be shown: some old tokens give 32 bytes instead of a string, any token may give anything."""
    try:
        raw = data.rstrip(b"\0") if len(data) == 32 else decode(["bytes"], data)[0]
    except (DecodingError, OverflowError):
        return None
    text = "".join(letter for letter in raw.decode(errors="replace") if letter.isprintable()).strip()
    return text[:_SYMBOL_LIMIT] or None

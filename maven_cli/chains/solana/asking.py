"""Questions to a node, and what each refusal and each odd answer means.

Errors in JSON-RPC that say more than no, as Agave's source has them:

    -32001  the block was cleaned up             -32011  the node keeps no history of transactions
    -32004  not available, yet or any more       -32014  its status isn't known yet
    -32005  the node is behind                   -32015  a transaction of a newer version
    -32007  skipped, or lost in a jump           -32016  the node is behind
    -32009  skipped, or lost in the archive      -32019  the archive can't be reached
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from maven_cli.chains import NodeBehindError, NodeDownError
from maven_cli.chains.rpc import Call, Rpc, RpcError
from maven_cli.chains.solana.notation import KEY
from maven_cli.chains.solana.reading import Header, OddAnswerError, header, slot_of

T = TypeVar("T")

# The newest version of transactions that reading.py understands: 0 loads addresses from tables, 1 (on the main chain since
# September 2026, in almost every block) loads none. A node refuses a whole block that holds a newer one.
VERSION = 1
FINALIZED = {"commitment": "finalized"}
READABLE = {"maxSupportedTransactionVersion": VERSION, **FINALIZED}

SKIPPED = (-32007, -32009)
NOT_YET = (-32004, *SKIPPED, -32014)
BEHIND = (-32001, -32005, -32016, *NOT_YET)
_NO_HISTORY, _UNSUPPORTED_VERSION = -32011, -32015
# What a node that cleaned the parent up tells instead of its hash.
_FORGOTTEN = bytes(KEY)


def header_call(slot: int) -> Call:
    return "getBlock", [slot, {"transactionDetails": "none", "rewards": False, **READABLE}]


class Asking:
    """One endpoint. What its methods raise names it."""

    def __init__(self, rpc: Rpc) -> None:
        self.rpc = rpc

    @property
    def name(self) -> str:
        return self.rpc.name

    def one(self, method: str, *params: Any) -> Any:
        """The result of one call, still unread."""
        return self.rpc.batch([(method, params)])[0]

    def read(self, method: str, answer: Any, read: Callable[[Any], T]) -> T:
        """What `read` makes of an answer to `method`."""
        if isinstance(answer, RpcError):
            raise self._refusal(method, answer)
        try:
            return read(answer)
        except OddAnswerError as odd:
            raise NodeDownError(
                f"node {self.name} answered {method} with what can't be right: {odd}"
            ) from None

    def slot(self, method: str, answer: Any) -> int:
        return self.read(method, answer, slot_of)

    def header(self, slot: int, answer: Any) -> Header:
        """Of getBlock."""
        if answer is None:
            raise NodeBehindError(f"node {self.name} has no block at slot {slot}")
        found = self.read("getBlock", answer, lambda value: header(slot, value))
        if found.block.parent == _FORGOTTEN and slot > 0:
            raise NodeBehindError(f"node {self.name} has cleaned up the block before slot {slot}")
        return found

    def _refusal(self, method: str, error: RpcError) -> NodeDownError | NodeBehindError:
        said = f"{error.message} ({error.code})"
        if error.code in BEHIND:
            return NodeBehindError(f"node {self.name} lacks what {method} asks for: {said}")
        if error.code == _NO_HISTORY:
            return NodeDownError(
                f"node {self.name} keeps no history of transactions; use another endpoint: {said}"
            )
        if error.code == _UNSUPPORTED_VERSION:
            return NodeDownError(
                f"node {self.name} has transactions of a version above {VERSION}, which this maven can't read: {said}"
            )
        return NodeDownError(f"node {self.name} refuses {method}: {said}")

"""What Bitcoin's nodes refuse, in the words of this project's errors."""

from __future__ import annotations

from typing import Any

from maven_cli.chains import NodeBehindError, NodeDownError
from maven_cli.chains.bitcoin.reading import Reader
from maven_cli.chains.rpc import Call, Rpc, RpcError

# Core's codes of errors.
PAST_THE_HEAD, UNKNOWN, OTHER = -8, -5, -1

_PRUNED = "not available"  # "Block not available (pruned data)", and shorter in some versions


class Asking:
    """Asks one endpoint, and reads what it answers."""

    def __init__(self, rpc: Rpc) -> None:
        self.rpc = rpc
        self.read = Reader(rpc.name)

    @property
    def name(self) -> str:
        return self.rpc.name

    def one(self, call: Call, what: str) -> Any:
        (answer,) = self.rpc.batch([call])
        return self.fine(answer, what)

    def fine(self, answer: Any, what: str) -> Any:
        """The answer, unless it is a refusal or nothing."""
        if isinstance(answer, RpcError):
            raise self._refused(answer, what)
        if answer is None:
            raise NodeBehindError(f"node {self.name} has no {what}")
        return answer

    def _refused(self, error: RpcError, what: str) -> NodeDownError | NodeBehindError:
        if error.code == OTHER and _PRUNED in error.message.lower():
            return NodeBehindError(f"node {self.name} has no {what} any more: it is pruned ({error.message})")
        if error.code in (UNKNOWN, PAST_THE_HEAD):
            return NodeBehindError(f"node {self.name} has no {what}: {error.message}")
        return self.refuses(error, what)

    def refuses(self, error: RpcError, what: str) -> NodeDownError:
        return NodeDownError(f"node {self.name} refuses {what}: {error.message}")


def is_refusal(answer: Any, code: int) -> bool:
    return isinstance(answer, RpcError) and answer.code == code


def knows_none(answer: Any) -> bool:
    """Whether the node knows no such transaction. While it builds its index of them (-txindex) it can't say."""
    return isinstance(answer, RpcError) and answer.code == UNKNOWN and "indexed" not in answer.message


def has_no_block_parameter(answer: Any) -> bool:
    """Whether the node can't look for a transaction in a block: Dogecoin's answers with its help."""
    return (
        isinstance(answer, RpcError)
        and answer.code == OTHER
        and answer.message.startswith("getrawtransaction ")
    )

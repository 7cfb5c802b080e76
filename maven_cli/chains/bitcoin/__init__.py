"""The Bitcoin family, by the JSON-RPC of Bitcoin Core and of what came from it: Litecoin Core, Dogecoin Core.

A key is a scriptPubKey, and a deposit is an output that pays a watched one. Outputs are matched by the script's bytes, never
by the addresses that a node writes beside it: those were a list, `addresses`, before Core 22, are one string, `address`,
since then, and are missing for scripts that have none.

What isn't seen: amounts inside MimbleWimble extension blocks (Litecoin). What leaves them does so in outputs like any other.
"""

from typing import TYPE_CHECKING, Any

from maven_cli.chains.bitcoin.notation import BitcoinNotation

if TYPE_CHECKING:
    from maven_cli.chains.bitcoin.node import BitcoinNode

__all__ = ["BitcoinNode", "BitcoinNotation"]


def __getattr__(name: str) -> Any:
    """The node when it is asked for: commands that only write addresses down needn't load an HTTP client."""
    if name == "BitcoinNode":
        from maven_cli.chains.bitcoin.node import BitcoinNode

        return BitcoinNode
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

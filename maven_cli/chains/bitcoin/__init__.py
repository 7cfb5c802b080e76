"""The Bitcoin family, by the JSON-RPC of Bitcoin Core and what descends from it.

A deposit is an output whose script is an address's. Scripts are compared, not addresses: so it doesn't matter how a node
writes an address (`address`, the older `addresses`, or not at all for a bare public key), and no two notations of one script
are two addresses.
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

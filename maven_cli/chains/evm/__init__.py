"""EVM chains: Ethereum, BSC, Polygon and their like, over the JSON-RPC that all their nodes speak.

    notation.EvmNotation   addresses and hashes as people write them; needs no node
    node.EvmNode           one endpoint: blocks, transfers of the native coin and of ERC-20 tokens

Found are transfers that a transaction makes itself (value and recipient) and those that a token's Transfer event tells of.
Coin that a contract sends on, and what a validator withdraws, appears in neither: only balances show it.

web3 itself costs more than a second to import; what it brings for checksums and the ABI, a fifth of that.
"""

from typing import TYPE_CHECKING, Any

from maven_cli.chains.evm.notation import EvmNotation

if TYPE_CHECKING:
    from maven_cli.chains.evm.node import EvmNode

__all__ = ["EvmNode", "EvmNotation"]


def __getattr__(name: str) -> Any:
    """The node when it is asked for: commands that only write addresses down needn't load an HTTP client."""
    if name == "EvmNode":
        from maven_cli.chains.evm.node import EvmNode

        return EvmNode
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Which adapter a chain's family has; each is imported when it is asked for, and web3 with no other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maven_cli.chains import Family, Node, Notation

if TYPE_CHECKING:
    from maven_cli.chains.rpc import Rpc


def open_node(family: Family, rpc: Rpc) -> Node:
    """The node behind a connection. Nothing is asked yet."""
    if family == "evm":
        from maven_cli.chains.evm import EvmNode

        return EvmNode(rpc)
    if family == "bitcoin":
        from maven_cli.chains.bitcoin import BitcoinNode

        return BitcoinNode(rpc)
    from maven_cli.chains.solana import SolanaNode

    return SolanaNode(rpc)


def notation(family: Family, network: str | None) -> Notation:
    """How the family writes addresses and hashes. network: the Bitcoin family's, as in ``chains.network``."""
    if family == "evm":
        from maven_cli.chains.evm import EvmNotation

        return EvmNotation()
    if family == "bitcoin":
        from maven_cli.chains.bitcoin import BitcoinNotation

        assert network is not None, "the schema demands it"
        return BitcoinNotation(network)
    from maven_cli.chains.solana import SolanaNotation

    return SolanaNotation()

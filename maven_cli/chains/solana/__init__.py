"""Solana, by the JSON-RPC of its validators.

A height is a slot; slots without a block are normal. Only what is *finalized* is ever read, so nothing that this adapter
tells can be reorganised, and `head` is the newest finalized block. A range is complete because its blocks link: each
names the hash and slot of the one before it, from the first slot of the range to the first block at or after the last.
Slots that `getBlocks` leaves out without a link across them are an error, never "skipped".

A deposit is what an account *gained* in a transaction that took effect:

    SOL     lamports of the watched key after the transaction, less those before it
    tokens  of SPL Token and Token-2022, wrapped SOL among them: the same of each token account that the watched key owns
            when the transaction ends. An account that came into its hands counts whole; what the key's other accounts
            of that mint lost in the same transaction is subtracted, so that moving tokens about is no deposit.

Not seen: lamports that no transaction moves (rewards of votes and stakes), and confidential amounts of Token-2022. The
balances that an audit compares show the former.

Blocks are read whole, also when few keys are watched: the signatures of a key leave out payments to its token accounts
that don't name it.

No validator was at hand for the tests: docs/explanation/solana.md says what that leaves unproven.
"""

from typing import TYPE_CHECKING, Any

from maven_cli.chains.solana.notation import SolanaNotation

if TYPE_CHECKING:
    from maven_cli.chains.solana.node import SolanaNode

__all__ = ["SolanaNode", "SolanaNotation"]


def __getattr__(name: str) -> Any:
    """The node when it is asked for: commands that only write addresses down needn't load an HTTP client."""
    if name == "SolanaNode":
        from maven_cli.chains.solana.node import SolanaNode

        return SolanaNode
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

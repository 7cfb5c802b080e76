"""What a node says of single transactions."""

from __future__ import annotations

import secrets

import pytest

from maven_cli.chains import NodeBehindError, NodeDownError, Reference, Sighting
from maven_cli.chains.solana import SolanaNode
from tests.chains.solana.conftest import NOTATION, watch
from tests.nodes_solana import SolanaChain


def reference(signature: str, height: int | None = None) -> Reference:
    return Reference(NOTATION.hash(signature), height)


def test_mined_failed_pending_missing(chain: SolanaChain, node: SolanaNode) -> None:
    alice = chain.wallet()
    mint = chain.create_token()
    paid, token, failed = chain.pay_sol(alice, 10**9), chain.pay_token(mint, alice, 5), chain.fail(alice, 1)
    chain.finalize_later(1)
    pending = chain.pay_sol(alice, 10**9)
    before = node.requests
    sightings = node.look(
        [*map(reference, (paid, token, failed, pending)), Reference(secrets.token_bytes(64))]
    )
    assert node.requests == before + 2
    assert [sighting.state for sighting in sightings] == ["mined", "mined", "failed", "pending", "missing"]
    assert sightings[3:] == [Sighting("pending"), Sighting("missing")]
    scan = node.scan(1, node.head().block.height, watch(alice), final=True)
    assert [sighting.block for sighting in sightings[:3]] == list(scan.blocks[-3:])
    for transfer, sighting in zip(scan.transfers, sightings, strict=False):
        assert transfer in sighting.transfers
    assert sightings[2].transfers == ()
    digests = [sighting.digest for sighting in sightings[:3]]
    assert len(set(digests)) == 3
    assert [sighting.digest for sighting in node.look([*map(reference, (paid, token, failed))])] == digests


def test_a_hundred_at_once(chain: SolanaChain, node: SolanaNode) -> None:
    alice = chain.wallet()
    chain.pay_sol(alice, 10**9)
    with chain.one_block():
        sent = [chain.pay_sol(alice, 10**6 + number) for number in range(105)]
    before = node.requests
    sightings = node.look(list(map(reference, sent[:100])))
    assert node.requests == before + 2
    assert [sighting.transfers[0].amount for sighting in sightings] == [
        10**6 + number for number in range(100)
    ]
    assert [sighting.state for sighting in node.look(list(map(reference, sent)))] == ["mined"] * 105
    assert node.look([]) == []


def test_a_digest_is_of_what_all_nodes_tell_alike(chain: SolanaChain, node: SolanaNode) -> None:
    """Logs, figures and members that only some versions have don't count; balances do."""
    alice = chain.wallet()
    mint = chain.create_token()
    paid = chain.pay_token(mint, alice, 5)
    (sighting,) = node.look([reference(paid)])
    answer = chain.ask("getTransaction", paid, {"maxSupportedTransactionVersion": 1})["result"]
    for name in ("logMessages", "computeUnitsConsumed", "status", "innerInstructions", "rewards"):
        del answer["meta"][name]
    del answer["meta"]["postTokenBalances"][0]["uiTokenAmount"]["uiAmount"]
    answer["meta"]["postTokenBalances"].reverse()
    chain.lie("getTransaction", paid, result=answer)
    assert node.look([reference(paid)]) == [sighting]
    answer["meta"]["postBalances"][0] -= 1
    chain.lie("getTransaction", paid, result=answer)
    assert node.look([reference(paid)])[0].digest != sighting.digest


def test_a_node_that_lacks_the_height_says_nothing_about_it(chain: SolanaChain, node: SolanaNode) -> None:
    """Pruned, or behind: then missing isn't missing."""
    paid = chain.pay_sol(chain.wallet(), 10**9)
    chain.mine(5)
    unknown = NOTATION.write_hash(secrets.token_bytes(64))
    assert node.look([reference(unknown, 3)]) == [Sighting("missing")]
    with pytest.raises(NodeBehindError, match="node sol-1 has slots 0 to 6, but slot 7 is needed"):
        node.look([reference(unknown, 7)])
    chain.prune(3)
    with pytest.raises(NodeBehindError, match="slots 3 to 6, but slot 1 is needed"):
        node.look([reference(paid, 1)])


def test_old_transactions_are_found(chain: SolanaChain, node: SolanaNode) -> None:
    """A node without its history would only know the last minute's."""
    paid = chain.pay_sol(chain.wallet(), 10**9)
    chain.mine(200)
    assert chain.ask("getSignatureStatuses", [paid])["result"]["value"] == [None]
    assert [sighting.state for sighting in node.look([reference(paid)])] == ["mined"]


def test_a_final_transaction_that_the_node_does_not_have(chain: SolanaChain, node: SolanaNode) -> None:
    paid = chain.pay_sol(chain.wallet(), 10**9)
    chain.lie("getTransaction", paid, result=None)
    for _ in range(2):
        with pytest.raises(
            NodeBehindError, match="node sol-1 calls a transaction final that it doesn't have"
        ):
            node.look([reference(paid)])
        chain.mine(200)  # older than what a node knows without looking into its history


def test_another_transaction_than_asked_for(chain: SolanaChain, node: SolanaNode) -> None:
    alice = chain.wallet()
    first, second = chain.pay_sol(alice, 10**9), chain.pay_sol(alice, 5)
    answer = chain.ask("getTransaction", second, {"maxSupportedTransactionVersion": 1})["result"]
    chain.lie("getTransaction", first, result=answer)
    with pytest.raises(NodeDownError, match="another transaction than was asked for"):
        node.look([reference(first)])


def test_no_history(chain: SolanaChain, node: SolanaNode) -> None:
    paid = chain.pay_sol(chain.wallet(), 10**9)
    message = "Transaction history is not available from this node"
    chain.lie("getTransaction", paid, error=(-32011, message))
    with pytest.raises(
        NodeDownError, match="node sol-1 keeps no history of transactions; use another endpoint"
    ):
        node.look([reference(paid)])

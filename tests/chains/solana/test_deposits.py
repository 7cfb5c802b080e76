"""What counts as a payment, in transactions that the real SVM executed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from maven_cli.chains import Head, Node, Notation, Scan, Token, Transfer
from maven_cli.chains.solana import SolanaNode, SolanaNotation
from tests.chains.solana.conftest import NOTATION, watch
from tests.nodes_solana import WRAPPED_SOL, SolanaChain

FEE = 5000  # lamports for one signature


class Reader:
    """Scans what a test has sent, from where it began."""

    def __init__(self, chain: SolanaChain, node: SolanaNode) -> None:
        self.chain, self.node = chain, node
        self.first = node.head().block.height + 1

    def scan(self, *addresses: str) -> Scan:
        return self.node.scan(self.first, self.node.head().block.height, watch(*addresses), final=True)

    def transfers(self, *addresses: str) -> tuple[Transfer, ...]:
        return self.scan(*addresses).transfers

    def one(self, *addresses: str) -> Transfer:
        (transfer,) = self.transfers(*addresses)
        return transfer


@pytest.fixture
def reader(shared: SolanaChain, open_node: Callable[[SolanaChain], SolanaNode]) -> Reader:
    return Reader(shared, open_node(shared))


def keys(*addresses: str) -> tuple[bytes, ...]:
    return tuple(map(NOTATION.address, addresses))


def test_keeps_the_interface(reader: Reader) -> None:
    node: Node = reader.node
    notation: Notation = SolanaNotation()
    assert node.name == "sol-1"
    assert notation.write_address(notation.address(WRAPPED_SOL)) == WRAPPED_SOL


def test_sol(reader: Reader) -> None:
    alice = reader.chain.wallet()
    signature = reader.chain.pay_sol(alice, 1_500_000_000)
    found = reader.one(alice)
    (block,) = reader.scan(alice).blocks
    assert NOTATION.write_hash(found.tx_hash) == signature
    assert (found.kind, found.token, found.amount, found.block) == ("native", None, 1_500_000_000, block)
    assert (found.to, *found.senders) == keys(alice, reader.chain.bank())
    assert not found.immature


def test_lamports_beyond_what_a_float_holds(reader: Reader) -> None:
    """D38"""
    alice = reader.chain.wallet()
    reader.chain.pay_sol(alice, 2**53 + 1)
    assert reader.one(alice).amount == 2**53 + 1


def test_nobody_we_know(reader: Reader) -> None:
    reader.chain.pay_sol(reader.chain.wallet(), 10**9)
    assert reader.transfers(reader.chain.wallet()) == ()


def test_two_receivers_in_one_transaction(reader: Reader) -> None:
    """D03"""
    alice, bob = reader.chain.wallet(), reader.chain.wallet()
    reader.chain.pay_many([(alice, 10**9), (bob, 2 * 10**9), (alice, 5)])
    found = reader.transfers(alice, bob)
    assert {(transfer.to, transfer.amount) for transfer in found} == {
        (NOTATION.address(alice), 10**9 + 5),
        (NOTATION.address(bob), 2 * 10**9),
    }
    assert len({(transfer.tx_hash, transfer.kind, transfer.ordinal) for transfer in found}) == 2


def test_several_transactions_in_one_block_in_order(reader: Reader) -> None:
    alice = reader.chain.wallet()
    with reader.chain.one_block():
        sent = [reader.chain.pay_sol(alice, 10**9 + number) for number in range(5)]
    found = reader.transfers(alice)
    assert [NOTATION.write_hash(transfer.tx_hash) for transfer in found] == sent
    assert [transfer.amount for transfer in found] == [10**9 + number for number in range(5)]
    assert len({transfer.block for transfer in found}) == 1


def test_version_0_with_a_lookup_table(reader: Reader) -> None:
    """D28: the receiver is among the loaded addresses, not among the transaction's own."""
    alice, bob = reader.chain.wallet(), reader.chain.wallet()
    signature = reader.chain.pay_many([(alice, 10**9), (bob, 3 * 10**9)], via_table=True)
    answer = reader.chain.ask(
        "getTransaction", signature, {"encoding": "json", "maxSupportedTransactionVersion": 1}
    )["result"]
    assert answer["version"] == 0
    assert set(answer["meta"]["loadedAddresses"]["writable"]) == {alice, bob}
    assert alice not in answer["transaction"]["message"]["accountKeys"]
    assert {(transfer.to, transfer.amount) for transfer in reader.transfers(alice, bob)} == {
        (NOTATION.address(alice), 10**9),
        (NOTATION.address(bob), 3 * 10**9),
    }


def test_version_0_loads_writable_accounts_first(reader: Reader) -> None:
    """D28: the token account is in the table after its owner, and in the balances before it."""
    alice, mint = reader.chain.wallet(), reader.chain.create_token()
    signature = reader.chain.pay_token(mint, alice, 5, via_table=True)
    answer = reader.chain.ask("getTransaction", signature, {"maxSupportedTransactionVersion": 1})["result"]
    assert alice in answer["meta"]["loadedAddresses"]["readonly"]
    assert answer["meta"]["loadedAddresses"]["writable"] == [reader.chain.account_of(mint, alice)]
    found = reader.one(alice)
    assert (found.kind, found.amount) == ("token", 5)


def test_version_1(reader: Reader) -> None:
    """A node refuses the whole block that holds one to those who can't read it."""
    alice = reader.chain.wallet()
    reader.chain.pay_sol(alice, 10**9, version_1=True)
    (block,) = reader.scan(alice).blocks
    found = reader.one(alice)
    assert (found.amount, found.senders) == (10**9, keys(reader.chain.bank()))
    answers = [
        reader.chain.ask("getBlock", block.height, {"maxSupportedTransactionVersion": version})
        for version in (0, 1)
    ]
    assert answers[0]["error"]["code"] == -32015
    assert [item["version"] for item in answers[1]["result"]["transactions"]] == [1]


def test_failed_transactions(reader: Reader) -> None:
    """D28: `meta.err` isn't null."""
    alice = reader.chain.wallet()
    mint = reader.chain.create_token()
    reader.first = reader.node.head().block.height + 1
    reader.chain.fail(alice, 10**9)
    reader.chain.pay_token(mint, alice, 5, fail=True)
    assert reader.transfers(alice, reader.chain.bank(), reader.chain.account_of(mint, alice)) == ()


def test_who_pays_gains_nothing(reader: Reader) -> None:
    """D29: a wallet that pays itself only loses the fee, and a sender is named."""
    alice, bob = reader.chain.wallet(10**9), reader.chain.wallet(10**9)
    reader.first = reader.node.head().block.height + 1
    reader.chain.pay_sol(alice, 100, sender=alice)
    reader.chain.pay_sol(bob, 100, sender=bob, payer=alice)
    assert reader.transfers(alice, bob) == ()


def test_what_a_receiver_pays_itself_is_subtracted(reader: Reader) -> None:
    alice = reader.chain.wallet(10**9)
    reader.first = reader.node.head().block.height + 1
    reader.chain.pay_sol(alice, 7_000_000, payer=alice)
    found = reader.one(alice)
    assert found.amount == 7_000_000 - 2 * FEE  # it paid for both signatures
    assert found.senders == keys(alice, reader.chain.bank())


def test_senders_of_sol(reader: Reader) -> None:
    """D29"""
    alice, relay, carol = reader.chain.wallet(), reader.chain.wallet(10**9), reader.chain.wallet(10**9)
    reader.chain.pay_sol(alice, 5 * 10**8, sender=carol, payer=relay)
    assert reader.one(alice).senders == keys(relay, carol)


# -------------------------------------------------------------------------------------------------------------- tokens


@pytest.mark.parametrize("program", ["token", "token-2022"])
def test_a_token_account_made_in_the_same_transaction(reader: Reader, program: str) -> None:
    """D28: counted from 0, and its rent isn't a deposit of SOL to the owner."""
    alice = reader.chain.wallet()
    mint = reader.chain.create_token(6, program)
    signature = reader.chain.pay_token(mint, alice, 1_500_000)
    found = reader.one(alice)
    assert NOTATION.write_hash(found.tx_hash) == signature
    assert (found.kind, found.to, found.amount) == ("token", NOTATION.address(alice), 1_500_000)
    assert found.token == NOTATION.token(mint)
    assert found.senders == keys(reader.chain.bank())
    assert reader.transfers(reader.chain.account_of(mint, alice))[0].kind == "native"


def test_tokens_to_an_account_that_has_some(reader: Reader) -> None:
    alice, mint = reader.chain.wallet(), reader.chain.create_token()
    reader.chain.pay_token(mint, alice, 100)
    reader.chain.pay_token(mint, alice, 23)
    assert [transfer.amount for transfer in reader.transfers(alice)] == [100, 23]


def test_senders_of_tokens(reader: Reader) -> None:
    alice, relay, carol = reader.chain.wallet(), reader.chain.wallet(10**9), reader.chain.wallet()
    mint = reader.chain.create_token()
    reader.chain.pay_token(mint, carol, 500)
    reader.chain.pay_token(mint, alice, 400, sender=carol, payer=relay)
    assert reader.one(alice).senders == keys(relay, carol)


def test_wrapped_sol_is_a_token(reader: Reader) -> None:
    alice = reader.chain.wallet()
    reader.chain.pay_token(WRAPPED_SOL, alice, 2 * 10**9)
    found = reader.one(alice)
    assert (found.kind, found.amount, found.token) == ("token", 2 * 10**9, NOTATION.token(WRAPPED_SOL))


def test_unwrapping_names_the_owner_as_sender(reader: Reader) -> None:
    """D29: lamports that come back from one's own token account."""
    alice, relay = reader.chain.wallet(), reader.chain.wallet(10**9)
    reader.chain.pay_token(WRAPPED_SOL, alice, 2 * 10**9)
    reader.first = reader.node.head().block.height + 1
    reader.chain.unwrap(alice, payer=relay)
    found = reader.one(alice)
    assert found.kind == "native"
    assert found.amount > 2 * 10**9  # and the account's rent
    assert found.senders == keys(relay, reader.chain.account_of(WRAPPED_SOL, alice), alice)


def test_an_account_that_changes_hands_counts_whole(reader: Reader) -> None:
    """What it held was nobody's we know, and all of it is the receiver's now."""
    alice, mint = reader.chain.wallet(), reader.chain.create_token()
    reader.chain.hand_over(mint, alice, 100, more=11)
    found = reader.one(alice)
    assert (found.kind, found.to, found.amount) == ("token", NOTATION.address(alice), 111)
    assert found.senders == keys(reader.chain.bank())


def test_moving_tokens_about_is_no_deposit(reader: Reader) -> None:
    """D29"""
    alice, mint = reader.chain.wallet(), reader.chain.create_token()
    reader.chain.pay_token(mint, alice, 100)
    reader.first = reader.node.head().block.height + 1
    reader.chain.shuffle(mint, alice, 60)
    assert reader.transfers(alice) == ()
    assert reader.node.balances(list(keys(alice)), NOTATION.token(mint)) == [100]


# ------------------------------------------------------------------------------------------------- blocks and accounts


def test_skipped_slots(chain: SolanaChain, node: SolanaNode) -> None:
    """D28: not an error."""
    alice = chain.wallet()
    chain.pay_sol(alice, 10**9)
    chain.skip(3)
    chain.pay_sol(alice, 5)
    chain.skip(2)
    chain.mine(11)
    head = node.head().block
    assert head.height == 18
    scan = node.scan(1, 18, watch(alice), final=True)
    assert [block.height for block in scan.blocks] == [1, 5, *range(8, 19)]
    assert [block.parent for block in scan.blocks[1:]] == [block.hash for block in scan.blocks[:-1]]
    assert [transfer.amount for transfer in scan.transfers] == [10**9, 5]
    # Ranges that begin and end in the gaps, or are nothing but a gap.
    assert [block.height for block in node.scan(3, 6, watch(alice), final=True).blocks] == [5]
    assert node.scan(2, 4, watch(alice), final=True) == Scan((), ())
    assert node.scan(7, 7, watch(alice), final=True) == Scan((), ())


def test_blocks(chain: SolanaChain, node: SolanaNode) -> None:
    chain.mine(2)
    chain.skip(2)
    chain.mine(2)
    whole = {block.height: block for block in node.scan(0, 6, watch(), final=True).blocks}
    assert node.blocks([6, 3, 0, 1, 6, 4, 7, 99]) == [
        whole[6],
        None,
        whole[0],
        whole[1],
        whole[6],
        None,
        None,
        None,
    ]
    assert node.blocks([]) == []


def test_only_what_is_final_exists(chain: SolanaChain, node: SolanaNode) -> None:
    """D25's like: nothing short of final is ever read."""
    alice = chain.wallet()
    chain.finalize_later(4)
    chain.pay_sol(alice, 10**9)
    chain.mine(3)
    assert node.head().block.height == 0
    assert node.blocks([1]) == [None]
    chain.mine()
    assert node.head() == Head(node.scan(1, 1, watch(), final=True).blocks[0], safe=None, finalized=1)
    assert len(node.scan(1, 1, watch(alice), final=True).transfers) == 1


def test_identity_is_the_genesis(shared: SolanaChain, chain: SolanaChain, node: SolanaNode) -> None:
    assert node.identity() == chain.ask("getGenesisHash")["result"] != shared.ask("getGenesisHash")["result"]
    (genesis,) = node.blocks([0])
    assert genesis is not None
    assert NOTATION.write_block_hash(genesis.hash) == node.identity()


def test_tokens_tell_their_decimals(reader: Reader) -> None:
    """D16"""
    chain, node = reader.chain, reader.node
    alice = chain.wallet(10**9)
    for decimals, program in ((6, "token"), (0, "token"), (9, "token-2022")):
        mint = chain.create_token(decimals, program)
        assert node.token(NOTATION.token(mint)) == Token(decimals, None)
        chain.pay_token(mint, alice, 5)
        assert node.token(NOTATION.token(chain.account_of(mint, alice))) is None  # an account isn't a mint
    assert node.token(NOTATION.address(alice)) is None
    assert node.token(NOTATION.address(chain.wallet())) is None


def test_balances(reader: Reader) -> None:
    chain, node = reader.chain, reader.node
    alice, bob, nobody = chain.wallet(10**9), chain.wallet(2 * 10**9), chain.wallet()
    mint, other = chain.create_token(), chain.create_token()
    chain.pay_token(mint, alice, 100)
    chain.shuffle(mint, alice, 40)
    chain.hand_over(mint, alice, 11)
    chain.pay_token(other, bob, 7)
    before = node.requests
    assert node.balances(keys(alice, bob, nobody), None) == [10**9, 2 * 10**9, 0]
    assert node.balances(keys(alice, bob, nobody), NOTATION.token(mint)) == [111, 0, 0]
    assert node.requests == before + 2
    assert node.balances([], None) == []

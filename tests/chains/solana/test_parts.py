"""Notation, the form of the answers that the tests' node gives, and how a scan asks."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from solders.rpc import responses

from maven_cli.chains import AddressError
from maven_cli.chains.solana import SolanaNode
from maven_cli.errors import UsageError
from tests.chains.solana.conftest import NOTATION, watch
from tests.nodes_solana import WRAPPED_SOL, SolanaChain

ADDRESS = "9xQeWvG816bUx9EPjHmaT23yvVM2ZWbrrpZb9PusVFin"


def test_addresses() -> None:
    key = NOTATION.address(ADDRESS)
    assert len(key) == 32
    assert NOTATION.write_address(key) == ADDRESS
    assert NOTATION.token(WRAPPED_SOL) == NOTATION.address(WRAPPED_SOL)
    small = bytes(31) + b"\1"
    assert NOTATION.address(NOTATION.write_address(small)) == small  # leading zeros are written as 1s


def test_notation_loads_no_http_client() -> None:
    """Commands that talk to no node use it, too; and what is the tests' is nowhere in the product."""
    program = "import sys, maven_cli.chains.solana as s; s.SolanaNotation(); assert 'httpx' not in sys.modules; s.SolanaNode; assert 'solders' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_off_the_curve(shared: SolanaChain) -> None:
    """A token account is derived by a program, so nobody can sign for it: an address like others."""
    derived = shared.account_of(WRAPPED_SOL, shared.bank())
    assert NOTATION.write_address(NOTATION.address(derived)) == derived


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it has 0 characters"),
        (ADDRESS + " ", "it has 45 characters"),
        (WRAPPED_SOL + " ", "it isn't the base58 of 32 bytes"),
        (" " + WRAPPED_SOL, "it isn't base58"),
        (ADDRESS[:-1] + "0", "it isn't base58"),
        (ADDRESS[:-1] + "é", "it isn't base58"),
        (ADDRESS[:-3], "it isn't the base58 of 32 bytes"),
        ("z" * 44, "it isn't the base58 of 32 bytes"),
        ("1" + ADDRESS[:-1], "it isn't the base58 of 32 bytes"),
        ("0x52908400098527886E0F7030069857D2E4169EE7", "it isn't base58"),
        ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "it isn't base58"),
        ("1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2", "it isn't the base58 of 32 bytes"),
        ("9" * 10**6, "it has 1000000 characters"),
    ],
)
def test_what_is_no_address(text: str, reason: str) -> None:
    for read, what in ((NOTATION.address, "an address"), (NOTATION.token, "a mint")):
        with pytest.raises(AddressError, match=f"is not {what} of Solana: {reason}") as caught:
            read(text)
        assert len(str(caught.value)) < 200


def test_the_system_program_is_nobody() -> None:
    with pytest.raises(AddressError, match="it is the system program"):
        NOTATION.address("1" * 32)


def test_signatures() -> None:
    text = NOTATION.write_hash(bytes(range(64)))
    assert NOTATION.hash(text) == bytes(range(64))
    for wrong in ("", text[:-3], text + "11", ADDRESS, "0x" + "ab" * 32):
        with pytest.raises(UsageError, match="is not a signature of Solana"):
            NOTATION.hash(wrong)


def test_the_answers_have_the_published_form(shared: SolanaChain) -> None:
    """Agave's own types, as solders publishes them, read what the tests' node says."""
    alice = shared.wallet()
    mint = shared.create_token()
    sent = [
        shared.pay_sol(alice, 10**9),
        shared.pay_token(mint, alice, 5),
        shared.pay_sol(alice, 5, via_table=True),
        shared.pay_sol(alice, 5, version_1=True),
        shared.fail(alice, 5),
    ]
    readable = {"encoding": "json", "maxSupportedTransactionVersion": 1}
    slots = []
    for signature in sent:
        answer = shared.ask("getTransaction", signature, readable)
        read = responses.GetTransactionResp.from_json(json.dumps(answer))
        assert isinstance(read, responses.GetTransactionResp)
        assert read.value is not None
        slots.append(read.value.slot)
        assert json.loads(read.to_json())["result"]["meta"]["err"] == answer["result"]["meta"]["err"]
    for slot in slots:
        block = responses.GetBlockResp.from_json(
            json.dumps(shared.ask("getBlock", slot, {**readable, "transactionDetails": "full"}))
        )
        assert isinstance(block, responses.GetBlockResp)
        assert block.value.transactions
    statuses = responses.GetSignatureStatusesResp.from_json(
        json.dumps(shared.ask("getSignatureStatuses", sent))
    )
    assert isinstance(statuses, responses.GetSignatureStatusesResp)
    assert [status is not None and status.err is None for status in statuses.value] == [True] * 4 + [False]
    for method, params, kind in (
        ("getAccountInfo", [mint, {"encoding": "base64"}], responses.GetAccountInfoResp),
        (
            "getTokenAccountsByOwner",
            [alice, {"mint": mint}, {"encoding": "base64"}],
            responses.GetTokenAccountsByOwnerResp,
        ),
        ("getBalance", [alice], responses.GetBalanceResp),
        ("getBlocks", [slots[0], slots[-1]], responses.GetBlocksResp),
        ("getLatestBlockhash", [], responses.GetLatestBlockhashResp),
    ):
        assert isinstance(kind.from_json(json.dumps(shared.ask(method, *params))), kind)


def test_how_a_scan_asks(chain: SolanaChain, node: SolanaNode) -> None:
    """One request for the range, and one for every two blocks; none for slots that were skipped."""
    chain.mine(19)
    chain.skip(100)
    chain.mine()
    head = node.head().block.height
    before = node.requests
    assert len(node.scan(1, head, watch(), final=True).blocks) == 20
    assert node.requests == before + 1 + 10

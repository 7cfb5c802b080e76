"""Addresses and hashes of EVM chains as people write them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maven_cli.chains import AddressError
from maven_cli.chains.evm.notation import EvmNotation
from maven_cli.errors import UsageError

NOTATION = EvmNotation()

# EIP-55's own examples: all capitals, all small, mixed.
EXAMPLES = [
    "0x52908400098527886E0F7030069857D2E4169EE7",
    "0x8617E340B3D01FA5F11F306F4090FD50E238070D",
    "0xde709f2102306220921060314715629080e2fb77",
    "0x27b1fdb04752bbc536007a920d24acb045561c26",
    "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
    "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
    "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
    "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
]


@pytest.mark.parametrize("text", EXAMPLES)
def test_an_address_and_back(text: str) -> None:
    for read, write in ((NOTATION.address, NOTATION.write_address), (NOTATION.token, NOTATION.write_token)):
        key = read(text)
        assert key == bytes.fromhex(text[2:])
        assert write(key) == text
        assert read(text.lower()) == key
        assert read("0x" + text[2:].upper()) == key


@given(st.binary(min_size=20, max_size=20))
def test_what_is_written_can_be_read(key: bytes) -> None:
    assert NOTATION.address(NOTATION.write_address(key)) == key


@pytest.mark.parametrize("text", EXAMPLES[4:])
def test_a_wrong_letter_or_case_is_noticed(text: str) -> None:
    place = next(place for place in range(2, 42) if text[place].isalpha())
    with pytest.raises(AddressError, match=f"the checksum of address {text[:place]}"):
        NOTATION.address(text[:place] + text[place].swapcase() + text[place + 1 :])
    with pytest.raises(AddressError, match="the checksum of contract"):
        NOTATION.token(text[:-1] + ("1" if text[-1] != "1" else "2"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0x",
        EXAMPLES[4][2:],
        "0X" + EXAMPLES[4][2:],
        EXAMPLES[4] + "0",
        EXAMPLES[4][:-1],
        EXAMPLES[4] + "\n",
        " " + EXAMPLES[4],
        EXAMPLES[4].replace("5", "g"),
        EXAMPLES[4][:-1] + "\u0665",
        "vitalik.eth",
        "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq",
        "0x" + "1" * 64,
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(AddressError, match="is not an EVM address: 0x and 40 hexadecimal digits") as caught:
        NOTATION.address(text)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_hashes() -> None:
    text = "0x" + "aB" * 32
    assert NOTATION.hash(text) == b"\xab" * 32
    assert NOTATION.write_hash(b"\xab" * 32) == NOTATION.write_block_hash(b"\xab" * 32) == text.lower()
    for wrong in ("", "0x", text[2:], text + "0", text[:-1], text + "\n", "0X" + text[2:], "0x" + "zz" * 32):
        with pytest.raises(UsageError, match="is not a transaction's hash: 0x and 64 hexadecimal digits"):
            NOTATION.hash(wrong)


def test_a_long_text_is_not_repeated_whole() -> None:
    with pytest.raises(AddressError) as caught:
        NOTATION.address("0x" + "1" * 10_000)
    assert len(str(caught.value)) < 200


def test_nothing_that_costs_a_second_is_imported() -> None:
    """web3 is never needed; its parts for checksums and the ABI only by this family."""
    code = (
        "import sys, maven_cli.chains; assert not {'eth_utils', 'httpx'} & set(sys.modules);"
        "import maven_cli.chains.evm.notation; assert not {'httpx', 'eth_abi', 'web3'} & set(sys.modules);"
        "import maven_cli.chains.evm.node; assert 'eth_abi' in sys.modules and 'web3' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

"""Addresses of the Bitcoin family: the vectors of BIP 350, known addresses, and what is said of those that aren't."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maven_cli.chains import AddressError
from maven_cli.chains.bitcoin.notation import NETWORKS, BitcoinNotation
from maven_cli.errors import ConfigurationError, UsageError

BITCOIN, TESTNET = BitcoinNotation("bitcoin"), BitcoinNotation("bitcoin-testnet")


@pytest.mark.parametrize(
    ("address", "script"),
    [
        ("BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4", "0014751e76e8199196d454941c45d1b3a323f1433bd6"),
        (
            "tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sl5k7",
            "00201863143c14c5166804bd19203356da136c985678cd4d27a1b8c6329604903262",
        ),
        (
            "bc1pw508d6qejxtdg4y5r3zarvary0c5xw7kw508d6qejxtdg4y5r3zarvary0c5xw7kt5nd6y",
            "5128751e76e8199196d454941c45d1b3a323f1433bd6751e76e8199196d454941c45d1b3a323f1433bd6",
        ),
        ("BC1SW50QGDZ25J", "6002751e"),
        ("bc1zw508d6qejxtdg4y5r3zarvaryvaxxpcs", "5210751e76e8199196d454941c45d1b3a323"),
        (
            "tb1qqqqqp399et2xygdj5xreqhjjvcmzhxw4aywxecjdzew6hylgvsesrxh6hy",
            "0020000000c4a5cad46221b2a187905e5266362b99d5e91c6ce24d165dab93e86433",
        ),
        (
            "tb1pqqqqp399et2xygdj5xreqhjjvcmzhxw4aywxecjdzew6hylgvsesf3hn0c",
            "5120000000c4a5cad46221b2a187905e5266362b99d5e91c6ce24d165dab93e86433",
        ),
        (
            "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0",
            "512079be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
        ),
    ],
)
def test_valid_segwit_addresses_of_bip_350(address: str, script: str) -> None:
    notation = BITCOIN if address.lower().startswith("bc") else TESTNET
    assert notation.address(address).hex() == script
    assert notation.write_address(bytes.fromhex(script)) == address.lower()


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("tc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vq5zuyut", "of no network that is known"),
        ("bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqh2y7hd", "version 1 has the other"),
        ("tb1z0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqglt7rf", "version 2 has the other"),
        ("BC1S0XLXVLHEMJA6C4DQV22UAPCTQUPFHLXM9H8Z3K2E72Q4K9HCZ7VQ54WELL", "version 16 has the other"),
        ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kemeawh", "version 0 has the other"),
        ("tb1q0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vq24jc47", "version 0 has the other"),
        ("bc1p38j9r5y49hruaue7wxjce0updqjuyyx0kh56v8s25huc6995vvpql3jow4", "it has 'o', which bech32"),
        ("BC130XLXVLHEMJA6C4DQV22UAPCTQUPFHLXM9H8Z3K2E72Q4K9HCZ7VQ7ZWS8R", "no witness of version 17"),
        ("bc1pw5dgrnzv", "no witness of version 1 with 1 bytes"),
        (
            "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7v8n0nx0muaewav253zgeav",
            "no witness of version 1 with 41 bytes",
        ),
        ("BC1QR508D6QEJXTDG4Y5R3ZARVARYV98GJ9P", "no witness of version 0 with 16 bytes"),
        ("tb1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vq47Zagq", "both small and capital"),
        ("bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7v07qwwzcrf", "padding that isn't"),
        ("tb1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vpggkg4j", "padding that isn't"),
        ("bc1gmk9yu", "it has 9 characters, 6 of them after the separator"),
    ],
)
def test_invalid_segwit_addresses_of_bip_350(address: str, reason: str) -> None:
    notation = TESTNET if address.startswith("tb") else BITCOIN
    with pytest.raises(AddressError) as error:
        notation.address(address)
    assert reason in str(error.value)


@pytest.mark.parametrize(
    ("network", "address", "script"),
    [
        (
            "bitcoin",
            "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa",
            "76a91462e907b15cbf27d5425399ebf6f0fb50ebb88f1888ac",
        ),
        ("bitcoin", "3P14159f73E4gFr7JterCCQh9QjiTjiZrG", "a914e9c3dd0c07aac76179ebc76a6c78d4d67c6c160a87"),
        # From the tests of Bitcoin Core.
        (
            "bitcoin-testnet",
            "mo9ncXisMeAoXwqcV5EWuyncbmCcQN4rVs",
            "76a91453c0307d6851aa0ce7825ba883c6bd9ad242b48688ac",
        ),
        (
            "bitcoin-regtest",
            "2N2JD6wb56AfK4tfmM6PwdVmoYk2dCKf4Br",
            "a9146349a418fc4578d10a372b54b45c280cc8c4382f87",
        ),
    ],
)
def test_known_base58_addresses(network: str, address: str, script: str) -> None:
    notation = BitcoinNotation(network)
    assert notation.address(address).hex() == script
    assert notation.write_address(bytes.fromhex(script)) == address


@pytest.mark.parametrize(
    ("network", "kinds"),
    [
        ("bitcoin", ("1", "3", "bc1q", "bc1p")),
        ("bitcoin-testnet", ("mn", "2", "tb1q", "tb1p")),
        ("bitcoin-signet", ("mn", "2", "tb1q", "tb1p")),
        ("bitcoin-regtest", ("mn", "2", "bcrt1q", "bcrt1p")),
        ("litecoin", ("L", "M", "ltc1q", "ltc1p")),
        ("litecoin-testnet", ("mn", "Q", "tltc1q", "tltc1p")),
        ("litecoin-regtest", ("mn", "Q", "rltc1q", "rltc1p")),
        ("dogecoin", ("D", "9A", None, None)),
    ],
)
@given(digest=st.binary(min_size=32, max_size=32))
def test_all_networks(network: str, kinds: tuple[str | None, ...], digest: bytes) -> None:
    """What each network's addresses are known to begin with, and that what is written is read."""
    notation = BitcoinNotation(network)
    scripts = (
        b"\x76\xa9\x14" + digest[:20] + b"\x88\xac",
        b"\xa9\x14" + digest[:20] + b"\x87",
        b"\0\x14" + digest[:20],
        b"\x51\x20" + digest,
    )
    for kind, script in zip(kinds, scripts, strict=True):
        written = notation.write_address(script)
        if kind is None:
            assert written == script.hex()
            continue
        assert written.startswith(kind if "1" in kind else tuple(kind))
        assert notation.address(written) == script
        for other, one in NETWORKS.items():
            if one.human != NETWORKS[network].human and "1" in kind[1:]:
                with pytest.raises(AddressError, match=f"it is one of {network.partition('-')[0]}"):
                    BitcoinNotation(other).address(written)


def test_litecoins_older_byte_for_scripts() -> None:
    script = BITCOIN.address("3P14159f73E4gFr7JterCCQh9QjiTjiZrG")
    litecoin = BitcoinNotation("litecoin")
    assert litecoin.address("3P14159f73E4gFr7JterCCQh9QjiTjiZrG") == script
    assert litecoin.address(litecoin.write_address(script)) == script


@pytest.mark.parametrize(
    "address",
    ["1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0"],
)
@given(place=st.integers(0, 100), character=st.characters(min_codepoint=33, max_codepoint=126))
def test_one_wrong_character(address: str, place: int, character: str) -> None:
    place %= len(address)
    wrong = address[:place] + character + address[place + 1 :]
    if wrong != address:
        with pytest.raises(AddressError):
            BITCOIN.address(wrong)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("", "it has 0 characters"),
        ("1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb", "wrong checksum"),
        ("1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa ", "neither base58 nor bech32"),
        ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5", "wrong checksum"),
        ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3tİ", "plain ASCII"),
        (
            "mo9ncXisMeAoXwqcV5EWuyncbmCcQN4rVs",
            "it is one of bitcoin-testnet, bitcoin-signet, bitcoin-regtest",
        ),
        ("tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sl5k7", "it is one of bitcoin-testnet"),
        ("0x52908400098527886E0F7030069857D2E4169EE7", "it has 42 characters"),
        ("EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v", "it has 44 characters"),
        ("ltcmweb1qq2", "MimbleWimble"),
        ("62e907b15cbf27d5425399ebf6f0fb50ebb88f18", "neither base58 nor bech32"),
        ("1" * 34, "wrong checksum"),
    ],
)
def test_what_is_no_address(address: str, reason: str) -> None:
    with pytest.raises(AddressError) as error:
        BITCOIN.address(address)
    assert reason in str(error.value)
    assert "is not an address of bitcoin" in str(error.value)


@pytest.mark.parametrize(
    "script",
    [
        "",
        "51",
        "6a0568656c6c6f",  # a text, paid to nobody
        "410479be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798ac",  # to a public key
        "0010751e76e8199196d454941c45d1b3a323",  # version 0 with 16 bytes
        "510175",  # a program of 1 byte
        "5129" + "00" * 41,
        "5120" + "00" * 31,
        "76a914" + "00" * 20 + "88ad",
    ],
)
def test_scripts_without_an_address(script: str) -> None:
    assert BITCOIN.write_address(bytes.fromhex(script)) == script


def test_hashes_and_tokens() -> None:
    text = "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"
    assert BITCOIN.write_hash(BITCOIN.hash(text)) == BITCOIN.write_block_hash(BITCOIN.hash(text)) == text
    for wrong in ("", text[1:], "0x" + text, text + "\n", "g" + text[1:]):
        with pytest.raises(UsageError, match="64 hexadecimal digits"):
            BITCOIN.hash(wrong)
    with pytest.raises(AddressError, match="bitcoin has no tokens"):
        BITCOIN.token("USDT")
    with pytest.raises(AddressError, match="bitcoin has no tokens"):
        BITCOIN.write_token(b"\1")
    with pytest.raises(ConfigurationError, match="no network 'bitcorn'; choose from bitcoin, "):
        BitcoinNotation("bitcorn")

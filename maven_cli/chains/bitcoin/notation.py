"""How the Bitcoin family writes scriptPubKeys: base58check and segwit addresses, with each network's own prefixes."""

from __future__ import annotations

import re
from dataclasses import dataclass

import base58

from maven_cli.chains import AddressError
from maven_cli.chains.bitcoin import bech32
from maven_cli.errors import ConfigurationError, UsageError


@dataclass(frozen=True, slots=True)
class Network:
    """The first byte of pay-to-public-key-hash and of pay-to-script-hash addresses; the first of several is written, all are
    read. human: the part of a segwit address before its 1, None where there is no segwit."""

    public_key: int
    script: tuple[int, ...]
    human: str | None


NETWORKS = {
    "bitcoin": Network(0, (5,), "bc"),
    "bitcoin-testnet": Network(111, (196,), "tb"),  # testnet3 and testnet4
    "bitcoin-signet": Network(111, (196,), "tb"),
    "bitcoin-regtest": Network(111, (196,), "bcrt"),
    # Litecoin wrote Bitcoin's byte for scripts once, and its nodes still take it.
    "litecoin": Network(48, (50, 5), "ltc"),
    "litecoin-testnet": Network(111, (58, 196), "tltc"),
    "litecoin-regtest": Network(111, (58, 196), "rltc"),
    "dogecoin": Network(30, (22,), None),
}
# Stealth addresses of MimbleWimble: two public keys, paid inside the extension block, where nobody else sees it.
_MIMBLEWIMBLE = ("ltcmweb", "tmweb")
_HASH = 20  # bytes


class BitcoinNotation:
    """Addresses as the nodes of one network read and write them; hashes as hex in the order in which people read them."""

    def __init__(self, network: str) -> None:
        """Raises ConfigurationError for a network that isn't known."""
        if network not in NETWORKS:
            raise ConfigurationError(f"there is no network {network!r}; choose from {', '.join(NETWORKS)}")
        self._name = network
        self._network = NETWORKS[network]

    def address(self, text: str) -> bytes:
        try:
            return self._segwit(text) if _is_segwit(text) else self._base58(text)
        except ValueError as error:
            raise AddressError(f"{text[:100]!r} is not an address of {self._name}: {error}") from None

    def _segwit(self, text: str) -> bytes:
        version, program = bech32.decode(text)
        human = bech32.prefix(text)
        if human != self._network.human:
            raise ValueError(_belongs([name for name, one in NETWORKS.items() if one.human == human]))
        return bytes([version + 0x50 if version else 0, len(program)]) + program

    def _base58(self, text: str) -> bytes:
        if not 25 <= len(text) <= 40:  # 21 bytes and 4 of checksum: at most 35
            raise ValueError(f"it has {len(text)} characters")
        # The library forgives blanks at the end.
        if re.fullmatch(r"[1-9A-HJ-NP-Za-km-z]+", text) is None:
            raise ValueError("it is neither base58 nor bech32")
        try:
            payload = base58.b58decode_check(text)
        except ValueError:
            raise ValueError("it has a wrong checksum; copy it again") from None
        if len(payload) != 1 + _HASH:
            raise ValueError(f"it holds {len(payload)} bytes, not {1 + _HASH}")
        kind, digest = payload[0], payload[1:]
        if kind == self._network.public_key:
            return b"\x76\xa9\x14" + digest + b"\x88\xac"
        if kind in self._network.script:
            return b"\xa9\x14" + digest + b"\x87"
        raise ValueError(
            _belongs([name for name, one in NETWORKS.items() if kind in (one.public_key, *one.script)])
        )

    def write_address(self, key: bytes) -> str:
        """The address of a standard script; any other script in hex."""
        if len(key) == 25 and key[:3] == b"\x76\xa9\x14" and key[23:] == b"\x88\xac":
            return _base58check(self._network.public_key, key[3:23])
        if len(key) == 23 and key[:2] == b"\xa9\x14" and key[22:] == b"\x87":
            return _base58check(self._network.script[0], key[2:22])
        if self._network.human is not None and _is_witness(key):
            return bech32.encode(self._network.human, key[0] and key[0] - 0x50, key[2:])
        return key.hex()

    def token(self, text: str) -> bytes:
        raise AddressError(f"{self._name} has no tokens, so {text[:100]!r} isn't one; leave contract out")

    def write_token(self, token: bytes) -> str:
        raise AddressError(f"{self._name} has no tokens, so {token.hex()[:100]} isn't one")

    def hash(self, text: str) -> bytes:
        if re.fullmatch(r"[0-9a-fA-F]{64}", text) is None:
            raise UsageError(f"{text[:80]!r} is not a transaction's hash: 64 hexadecimal digits")
        return bytes.fromhex(text)

    def write_hash(self, tx_hash: bytes) -> str:
        return tx_hash.hex()

    def write_block_hash(self, block_hash: bytes) -> str:
        return block_hash.hex()


def _is_segwit(text: str) -> bool:
    """Whether a text is to be read as a segwit address: it begins like one, or like one of a network that isn't known here
    and is too long for base58."""
    human = bech32.prefix(text)
    if human in _MIMBLEWIMBLE:
        raise ValueError("it is one of MimbleWimble, whose payments no one else can see")
    known = {one.human for one in NETWORKS.values()}
    return human in known or (human.isalpha() and len(text) > 40)


def _is_witness(key: bytes) -> bool:
    """As consensus has it (BIP 141): a version and one push of 2 to 40 bytes, for version 0 of 20 or 32."""
    if not 4 <= len(key) <= 42 or key[1] != len(key) - 2:
        return False
    return len(key) in (22, 34) if key[0] == 0 else 0x51 <= key[0] <= 0x60


def _base58check(kind: int, digest: bytes) -> str:
    return base58.b58encode_check(bytes([kind]) + digest).decode()


def _belongs(networks: list[str]) -> str:
    return f"it is one of {', '.join(networks)}" if networks else "it is of no network that is known here"

"""How the Bitcoin family writes addresses and hashes. An address's key is its scriptPubKey."""

from __future__ import annotations

import re
from dataclasses import dataclass

import base58

from maven_cli.chains import AddressError
from maven_cli.chains.bitcoin import bech32
from maven_cli.errors import UsageError


@dataclass(frozen=True)
class Network:
    """One network's prefixes. pay_to_script: the first is written, all are read (Litecoin has an older one)."""

    pay_to_key: int
    pay_to_script: tuple[int, ...]
    segwit: str | None


# From each project's chainparams.cpp.
NETWORKS = {
    "bitcoin": Network(0, (5,), "bc"),
    "bitcoin-testnet": Network(111, (196,), "tb"),
    "bitcoin-signet": Network(111, (196,), "tb"),
    "bitcoin-regtest": Network(111, (196,), "bcrt"),
    "litecoin": Network(48, (50, 5), "ltc"),
    "litecoin-testnet": Network(111, (58, 196), "tltc"),
    "litecoin-regtest": Network(111, (58, 196), "rltc"),
    "dogecoin": Network(30, (22,), None),
}


class BitcoinNotation:
    """Base58Check, Bech32 and Bech32m addresses of one network."""

    def __init__(self, network: str) -> None:
        """Raises UsageError for a network that isn't known."""
        if network not in NETWORKS:
            raise UsageError(f"there is no network {network!r}; choose from {', '.join(NETWORKS)}")
        self.name = network
        self._network = NETWORKS[network]

    def address(self, text: str) -> bytes:
        prefixes = {network.segwit for network in NETWORKS.values() if network.segwit}
        if text.lower().rpartition("1")[0] in prefixes:
            return self._segwit(text)
        if re.fullmatch(r"[1-9A-HJ-NP-Za-km-z]{25,40}", text) is None:
            raise AddressError(f"{text[:100]!r} is not an address of {self.name}")
        try:
            data = base58.b58decode_check(text)
        except ValueError:
            raise AddressError(f"{text} has a wrong checksum; copy it again") from None
        if len(data) != 21:
            raise AddressError(f"{text} is not an address of {self.name}")
        if data[0] == self._network.pay_to_key:
            return b"\x76\xa9\x14" + data[1:] + b"\x88\xac"
        if data[0] in self._network.pay_to_script:
            return b"\xa9\x14" + data[1:] + b"\x87"
        raise AddressError(f"{text} is not an address of {self.name}{_belongs(data[0])}")

    def _segwit(self, text: str) -> bytes:
        try:
            prefix, version, program = bech32.decode(text)
        except ValueError as error:
            raise AddressError(f"{text[:100]} is not an address: {error}") from None
        if prefix != self._network.segwit:
            others = [name for name, network in NETWORKS.items() if network.segwit == prefix]
            raise AddressError(f"{text} is not an address of {self.name}, but of {' or '.join(others)}")
        return bytes([0x50 + version if version else 0, len(program)]) + program

    def write_address(self, key: bytes) -> str:
        """The usual notation; a script that has none is written in hex."""
        network = self._network
        if len(key) == 25 and key[:3] == b"\x76\xa9\x14" and key[23:] == b"\x88\xac":
            return base58.b58encode_check(bytes([network.pay_to_key]) + key[3:23]).decode()
        if len(key) == 23 and key[:2] == b"\xa9\x14" and key[22:] == b"\x87":
            return base58.b58encode_check(bytes([network.pay_to_script[0]]) + key[2:22]).decode()
        if network.segwit and 4 <= len(key) <= 42 and key[1] == len(key) - 2:
            version = key[0] - 0x50 if key[0] else 0
            if 0 < version <= 16 or (version == 0 and len(key) in (22, 34)):
                return bech32.encode(network.segwit, version, key[2:])
        return key.hex()

    def token(self, text: str) -> bytes:
        raise AddressError(f"{text!r}: the Bitcoin family has no tokens; leave contract out")

    def write_token(self, token: bytes) -> str:
        return token.hex()

    def hash(self, text: str) -> bytes:
        if re.fullmatch(r"[0-9a-fA-F]{64}", text) is None:
            raise UsageError(f"{text[:100]!r} is not a transaction's id: 64 hexadecimal digits")
        return bytes.fromhex(text)

    def write_hash(self, tx_hash: bytes) -> str:
        return tx_hash.hex()

    def write_block_hash(self, block_hash: bytes) -> str:
        return block_hash.hex()


def _belongs(prefix: int) -> str:
    """Whose a prefix is, for messages."""
    found = [
        name for name, network in NETWORKS.items() if prefix in (network.pay_to_key, *network.pay_to_script)
    ]
    return f", but of {' or '.join(found)}" if found else ""

"""Addresses and hashes as they are written: 0x and hexadecimal digits, an address with the checksum of EIP-55."""

from __future__ import annotations

import re

from eth_utils.address import to_checksum_address

from maven_cli.chains import AddressError
from maven_cli.errors import UsageError

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_HASH = re.compile(r"0x[0-9a-fA-F]{64}")


class EvmNotation:
    """How EVM chains write their keys, contracts and hashes."""

    def address(self, text: str) -> bytes:
        """The 20 bytes of an address. In mixed case its letters are a checksum; in one case there is none to check."""
        return _address(text, "address")

    def write_address(self, key: bytes) -> str:
        return str(to_checksum_address(key))

    def token(self, text: str) -> bytes:
        """The 20 bytes of a token's contract."""
        return _address(text, "contract")

    def write_token(self, token: bytes) -> str:
        return str(to_checksum_address(token))

    def hash(self, text: str) -> bytes:
        """The 32 bytes of a transaction's hash."""
        if _HASH.fullmatch(text) is None:
            raise UsageError(f"{_shown(text)} is not a transaction's hash: 0x and 64 hexadecimal digits")
        return bytes.fromhex(text[2:])

    def write_hash(self, tx_hash: bytes) -> str:
        return f"0x{tx_hash.hex()}"

    def write_block_hash(self, block_hash: bytes) -> str:
        return f"0x{block_hash.hex()}"


def _address(text: str, what: str) -> bytes:
    if _ADDRESS.fullmatch(text) is None:
        raise AddressError(f"{_shown(text)} is not an EVM {what}: 0x and 40 hexadecimal digits")
    digits = text[2:]
    if digits not in (digits.lower(), digits.upper()) and text != to_checksum_address(text.lower()):
        raise AddressError(
            f"the checksum of {what} {text} is wrong: a digit or the case of a letter was changed; copy it anew"
        )
    return bytes.fromhex(digits)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:79]}…")

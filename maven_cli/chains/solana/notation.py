"""How Solana writes keys, signatures and hashes: base58, 32 or 64 bytes, no checksum."""

from __future__ import annotations

import base58

from maven_cli.chains import AddressError
from maven_cli.errors import UsageError

KEY, SIGNATURE = 32, 64  # bytes
_LONGEST = {KEY: 44, SIGNATURE: 88}  # base58 digits; a longer text isn't worth decoding
_SYSTEM_PROGRAM = bytes(KEY)


def decode(text: str, size: int) -> bytes:
    """The bytes of a base58 text. Raises ValueError with what is wrong."""
    if not 0 < len(text) <= _LONGEST[size]:
        raise ValueError(f"it has {len(text)} characters")
    try:
        value = base58.b58decode(text)
    except ValueError:
        raise ValueError("it isn't base58") from None
    # The library forgives blanks at the end. Else no two texts have the same bytes.
    if len(value) != size or text != text.rstrip():
        raise ValueError(f"it isn't the base58 of {size} bytes")
    return value


def encode(value: bytes) -> str:
    return base58.b58encode(value).decode()


class SolanaNotation:
    """Needs no node, so it can't tell a wallet from a token account: both are 32 bytes. What is registered is the owner.

    Keys off the curve, which nobody can sign for, are addresses like others: custody by a program (a multisig's vault,
    an account derived for each user) is paid to them.
    """

    def address(self, text: str) -> bytes:
        key = _key(text, "an address")
        if key == _SYSTEM_PROGRAM:
            raise AddressError(f"{text} is no address: it is the system program")
        return key

    def write_address(self, key: bytes) -> str:
        return encode(key)

    def token(self, text: str) -> bytes:
        return _key(text, "a mint")

    def write_token(self, token: bytes) -> str:
        return encode(token)

    def hash(self, text: str) -> bytes:
        try:
            return decode(text, SIGNATURE)
        except ValueError as error:
            raise UsageError(f"{text[:100]!r} is not a signature of Solana: {error}") from None

    def write_hash(self, tx_hash: bytes) -> str:
        return encode(tx_hash)

    def write_block_hash(self, block_hash: bytes) -> str:
        return encode(block_hash)


def _key(text: str, what: str) -> bytes:
    try:
        return decode(text, KEY)
    except ValueError as error:
        raise AddressError(f"{text[:100]!r} is not {what} of Solana: {error}") from None

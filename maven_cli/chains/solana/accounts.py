"""What nodes tell of accounts: lamports, mints, and token accounts. Raises OddAnswerError, like reading.py."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from maven_cli.chains import Token
from maven_cli.chains.solana.reading import OddAnswerError, pick, unwrap

TOKEN_PROGRAM = "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA"
TOKEN_2022 = "TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb"

# A mint is 82 bytes. With extensions it is padded to a token account's 165, and the next byte says which of the two it is.
_MINT, _ACCOUNT, _IS_MINT = 82, 165, 1
_DECIMALS, _INITIALISED = 44, 45
# A token account begins with its mint, its owner, and the amount.
HOLDING = {"offset": 0, "length": 72}


def lamports(answer: Any) -> int:
    """Of getBalance."""
    return pick(answer, "value", int)


def mint(answer: Any) -> Token | None:
    """Of getAccountInfo. Metadata has programs of its own: there is no symbol."""
    account = unwrap(answer)
    if account is None or pick(account, "owner", str) not in (TOKEN_PROGRAM, TOKEN_2022):
        return None
    data = _data(account)
    extended = account["owner"] == TOKEN_2022 and len(data) > _ACCOUNT and data[_ACCOUNT] == _IS_MINT
    if not (len(data) == _MINT or extended) or data[_INITIALISED] != 1:
        return None
    return Token(data[_DECIMALS], None)


def held(answer: Any, token: bytes, owner: bytes) -> int:
    """The sum of what getTokenAccountsByOwner lists, each account cut to HOLDING."""
    total = 0
    for item in pick(answer, "value", list):
        data = _data(pick(item, "account", dict))
        if len(data) != HOLDING["length"] or data[:32] != token or data[32:64] != owner:
            raise OddAnswerError("an account is another mint's or owner's")
        total += int.from_bytes(data[64:], "little")
    return total


def _data(account: Any) -> bytes:
    match pick(account, "data", list):
        case [str(text), "base64"]:
            try:
                return base64.b64decode(text, validate=True)
            except binascii.Error:
                pass
    raise OddAnswerError("data isn't base64")

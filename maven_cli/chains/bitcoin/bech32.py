"""Segregated-witness addresses: bech32 (BIP 173) for version 0, bech32m (BIP 350) for all later ones.

After the reference in those documents; the libraries that have it were left alone for years.
"""

from __future__ import annotations

from collections.abc import Iterable

CHARACTERS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
LONGEST = 90  # characters
_BECH32, _BECH32M = 1, 0x2BC830A3
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)


def prefix(text: str) -> str:
    """What stands before the separator, in small letters; "" where there is no separator."""
    return text.rpartition("1")[0].lower()


def decode(text: str) -> tuple[int, bytes]:
    """The witness version and program. Raises ValueError with what is wrong; the prefix is the caller's to compare."""
    if not text.isascii():
        raise ValueError("it isn't plain ASCII")
    if text not in (text.lower(), text.upper()):
        raise ValueError("it has both small and capital letters")
    human, _, digits = text.lower().rpartition("1")
    if not human or len(digits) < 7 or len(text) > LONGEST:
        raise ValueError(f"it has {len(text)} characters, {len(digits)} of them after the separator")
    values = [CHARACTERS.find(digit) for digit in digits]
    if -1 in values:
        raise ValueError(f"it has {digits[values.index(-1)]!r}, which bech32 doesn't use")
    checksum = _checksum([*_expand(human), *values])
    if checksum not in (_BECH32, _BECH32M):
        raise ValueError("it has a wrong checksum; copy it again")
    version = values[0]
    program = bytes(_regroup(values[1:-6], 5, 8))
    if version > 16 or not 2 <= len(program) <= 40 or (version == 0 and len(program) not in (20, 32)):
        raise ValueError(f"there is no witness of version {version} with {len(program)} bytes")
    if checksum != (_BECH32M if version else _BECH32):
        raise ValueError(
            f"it has the checksum of {'bech32' if version else 'bech32m'}, but version {version} has the other"
        )
    return version, program


def encode(human: str, version: int, program: bytes) -> str:
    """The address of a witness that is known to be one."""
    values = [version, *_regroup(program, 8, 5)]
    checksum = _checksum([*_expand(human), *values, 0, 0, 0, 0, 0, 0]) ^ (_BECH32M if version else _BECH32)
    values += [checksum >> shift & 31 for shift in (25, 20, 15, 10, 5, 0)]
    return human + "1" + "".join(CHARACTERS[value] for value in values)


def _expand(human: str) -> list[int]:
    codes = human.encode("ascii")
    return [code >> 5 for code in codes] + [0] + [code & 31 for code in codes]


def _checksum(values: Iterable[int]) -> int:
    state = 1
    for value in values:
        top = state >> 25
        state = (state & 0x1FFFFFF) << 5 ^ value
        for bit, term in enumerate(_GENERATOR):
            if top >> bit & 1:
                state ^= term
    return state


def _regroup(values: Iterable[int], width: int, new: int) -> list[int]:
    """The same bits in groups of another width. From 5 to 8, what is left over is padding: fewer than 5 bits, all zero."""
    bits = count = 0
    groups = []
    for value in values:
        bits, count = bits << width | value, count + width
        while count >= new:
            count -= new
            groups.append(bits >> count)
            bits &= (1 << count) - 1
    if width < new:
        if count >= width or bits:
            raise ValueError("its last characters are padding that isn't")
    elif count:
        groups.append(bits << (new - count))
    return groups

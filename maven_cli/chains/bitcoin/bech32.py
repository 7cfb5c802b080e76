"""Bech32 and Bech32m, as BIP 173 and BIP 350 define them. The libraries on PyPI know the first only."""

from __future__ import annotations

from collections.abc import Iterable

_DIGITS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_BECH32, _BECH32M = 1, 0x2BC830A3


def decode(text: str) -> tuple[str, int, bytes]:
    """Prefix, witness version and program of a segwit address. Raises ValueError with what is wrong."""
    if text.lower() != text and text.upper() != text:
        raise ValueError("it mixes capitals and small letters")
    prefix, separator, rest = text.lower().rpartition("1")
    if not separator or not prefix or len(rest) < 7 or len(text) > 90:
        raise ValueError("it is too short or too long")
    if any(digit not in _DIGITS for digit in rest):
        raise ValueError("it has a character that no address has")
    values = [_DIGITS.index(digit) for digit in rest]
    version = values[0]
    # Which constant it is depends on the version: an address can't be read as the other kind.
    if _polymod([*_expand(prefix), *values]) != _constant(version):
        raise ValueError("its checksum is wrong")
    program = _regroup(values[1:-6], 5, 8, pad=False)
    if (
        program is None
        or version > 16
        or not 2 <= len(program) <= 40
        or (version == 0 and len(program) not in (20, 32))
    ):
        raise ValueError("it is no witness program")
    return prefix, version, bytes(program)


def encode(prefix: str, version: int, program: bytes) -> str:
    """The segwit address of a witness program."""
    grouped = _regroup(program, 8, 5, pad=True)
    assert grouped is not None
    values = [version, *grouped]
    remainder = _polymod([*_expand(prefix), *values, 0, 0, 0, 0, 0, 0]) ^ _constant(version)
    values += [(remainder >> 5 * (5 - place)) & 31 for place in range(6)]
    return prefix + "1" + "".join(_DIGITS[value] for value in values)


def _constant(version: int) -> int:
    return _BECH32 if version == 0 else _BECH32M


def _expand(prefix: str) -> list[int]:
    return [ord(letter) >> 5 for letter in prefix] + [0] + [ord(letter) & 31 for letter in prefix]


def _polymod(values: Iterable[int]) -> int:
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for place, factor in enumerate(_GENERATOR):
            check ^= factor if top >> place & 1 else 0
    return check


def _regroup(values: Iterable[int], have: int, want: int, *, pad: bool) -> list[int] | None:
    """Bits in groups of another size; None when what is left over isn't padding."""
    held = bits = 0
    grouped = []
    for value in values:
        held = held << have | value
        bits += have
        while bits >= want:
            bits -= want
            grouped.append(held >> bits & (1 << want) - 1)
        held &= (1 << bits) - 1
    if pad:
        if bits:
            grouped.append(held << (want - bits) & (1 << want) - 1)
    elif bits >= have or held:
        return None
    return grouped

"""What an engine says, checked: whatever isn't certainly an answer to this removal isn't one."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from maven_cli.engines import Removal, Removed
from maven_cli.numbers import PLAIN_DECIMAL

# What a quantity column holds: NUMERIC(36, 18).
_WHOLE_DIGITS = 18
_DECIMALS = 18
_SEQUENCE_LENGTH = 200


def removed(removal: Removal, order_id: Any, remaining: Any, sequence: Any) -> Removed:
    """The engine's word that the order is out of its book. Text and exact JSON numbers are accepted.

    Raises ValueError with what is wrong, in words that repeat nothing the engine said.
    """
    check_order(removal, order_id)
    return Removed(_remaining(remaining), _sequence(sequence))


def check_order(removal: Removal, order_id: Any) -> None:
    """Raises ValueError unless the answer names the order that was asked about."""
    if type(order_id) not in (int, str):
        raise ValueError("the answer names no order")
    if str(order_id) != str(removal.order_id):
        raise ValueError("the answer is another order's")


def _remaining(value: Any) -> Decimal:
    if isinstance(value, str):
        if PLAIN_DECIMAL.fullmatch(value) is None:
            raise ValueError("the remaining quantity is not a plain decimal number of at least 0")
        number = Decimal(value)
    elif isinstance(value, Decimal) or type(value) is int:
        number = Decimal(value)
    else:
        raise ValueError("the answer has no remaining quantity")
    if not number.is_finite() or number < 0:
        raise ValueError("the remaining quantity is negative or no number")
    # Looked at before anything is done with it: 1E+999999999 would be a gigabyte when written out.
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int)
    digits = "".join(map(str, number.as_tuple().digits))
    decimals = -exponent - (len(digits) - len(digits.rstrip("0")))
    if number and (number.adjusted() >= _WHOLE_DIGITS or decimals > _DECIMALS):
        raise ValueError(
            f"the remaining quantity has more than {_WHOLE_DIGITS} digits before or {_DECIMALS} after the point"
        )
    return number if number else Decimal(0)


def _sequence(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if type(value) not in (int, str):
        raise ValueError("the sequence is neither text nor a whole number")
    text = str(value)
    if len(text) > _SEQUENCE_LENGTH or not text.isprintable():
        raise ValueError(f"the sequence is longer than {_SEQUENCE_LENGTH} characters or not printable")
    return text

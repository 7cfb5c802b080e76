"""Exact decimals as text. A float never touches a price, a quantity or a volume."""

from __future__ import annotations

import re
from decimal import Decimal

PLAIN_DECIMAL = re.compile(r"\d+(\.\d+)?|\.\d+", re.ASCII)


def plain(value: Decimal) -> str:
    """No exponent, no trailing zeros, no negative zero: ``0.1``, ``1000``, ``0.000000000000000001``."""
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def check_fits(text: str, *, precision: int = 36, scale: int = 18) -> Decimal:
    """A plain positive decimal that a NUMERIC(precision, scale) column holds without rounding.

    PostgreSQL rounds a surplus of decimals silently; money must not. Raises ValueError with what is wrong.
    """
    if PLAIN_DECIMAL.fullmatch(text) is None:
        raise ValueError(f"{text[:40]!r} is not a plain decimal number like 1234.5678")
    whole, _, fraction = text.partition(".")
    if len(fraction.rstrip("0")) > scale:
        raise ValueError(f"{text[:60]} has more than {scale} decimals")
    if len(whole.lstrip("0")) > precision - scale:
        raise ValueError(f"{text[:60]} has more than {precision - scale} digits before the point")
    value = Decimal(text)
    if not value:
        raise ValueError("it is zero; it must be greater than 0")
    return value

"""Decimals as text: never an exponent, never a rounded digit."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maven_cli.numbers import check_fits, plain


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("1E+3", "1000"),
        ("1E-18", "0.000000000000000001"),
        ("100", "100"),
        ("100.000", "100"),
        ("0.10", "0.1"),
        ("-0.10", "-0.1"),
        ("0", "0"),
        ("0E-18", "0"),
        ("0E+5", "0"),
        ("-0", "0"),
        ("-0.00", "0"),
        ("999999999999999999.999999999999999999", "999999999999999999.999999999999999999"),
        ("9E+40", "9" + "0" * 40),
    ],
)
def test_plain_has_no_exponent_and_no_trailing_zero(value: str, text: str) -> None:
    assert plain(Decimal(value)) == text


@given(
    st.decimals(allow_nan=False, allow_infinity=False, min_value=Decimal("-1e60"), max_value=Decimal("1e60"))
)
def test_plain_is_canonical_and_loses_nothing(value: Decimal) -> None:
    text = plain(value)
    assert re.fullmatch(r"-?(0|[1-9]\d*)(\.\d*[1-9])?", text)
    assert Decimal(text) == value
    assert text != "-0"


@pytest.mark.parametrize(
    "text", ["1", "0.000000000000000001", "999999999999999999.999999999999999999", ".5", "007"]
)
def test_what_fits_is_taken_exactly(text: str) -> None:
    assert check_fits(text) == Decimal(text)


def test_zeros_that_change_nothing_fit() -> None:
    assert check_fits("000000000000000000000001.50000000000000000000000") == Decimal("1.5")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0.0000000000000000001", "more than 18 decimals"),
        ("1.0000000000000000005", "more than 18 decimals"),
        ("1000000000000000000", "more than 18 digits before the point"),
        ("0", "greater than 0"),
        ("0.0000000000000000000000", "greater than 0"),
        ("-1", "not a plain decimal"),
        ("+1", "not a plain decimal"),
        ("1e3", "not a plain decimal"),
        ("NaN", "not a plain decimal"),
        ("Infinity", "not a plain decimal"),
        ("", "not a plain decimal"),
        ("1.", "not a plain decimal"),
        ("1,5", "not a plain decimal"),
        ("1_000", "not a plain decimal"),
        (" 1", "not a plain decimal"),
        ("1\n", "not a plain decimal"),
        ("١", "not a plain decimal"),
    ],
)
def test_t12_what_does_not_fit_is_refused_never_rounded(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_fits(text)


def test_precision_and_scale_can_be_another_column() -> None:
    assert check_fits("99.9", precision=3, scale=1) == Decimal("99.9")
    with pytest.raises(ValueError, match="more than 1 decimals"):
        check_fits("9.99", precision=3, scale=1)
    with pytest.raises(ValueError, match="more than 2 digits"):
        check_fits("100", precision=3, scale=1)


@given(st.integers(1, 10**36 - 1))
def test_every_value_of_the_column_fits_exactly(units: int) -> None:
    text = f"{units // 10**18}.{units % 10**18:018d}"
    assert plain(check_fits(text)) == (text.rstrip("0").rstrip("."))

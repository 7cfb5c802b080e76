"""What the real programs make hard to reach: accounts that leave, or change what they hold, within one transaction."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import pytest

from maven_cli.chains import Token
from maven_cli.chains.solana.accounts import TOKEN_2022, TOKEN_PROGRAM, held, mint
from maven_cli.chains.solana.notation import encode
from maven_cli.chains.solana.reading import Gain, Holding, OddAnswerError, Transaction

ALICE, BOB, CAROL = (encode(bytes(31) + bytes([number])) for number in (1, 2, 3))
USD, EUR = (encode(bytes(31) + bytes([number])) for number in (8, 9))
KEYS = (CAROL, ALICE, BOB, USD)


def moved(before: Sequence[Holding], after: Sequence[Holding]) -> Transaction:
    return Transaction(
        encode(bytes(64)), KEYS, None, 5000, (9, 9, 9, 9), (9, 9, 9, 9), tuple(before), tuple(after)
    )


def gains(item: Transaction) -> list[tuple[str, str | None, int, int]]:
    return [(gain.to, gain.token, gain.ordinal, gain.amount) for gain in item.gains()]


def test_an_account_given_away_is_lost() -> None:
    """Alice's account of 100 becomes Bob's, and 30 come into another one of hers."""
    item = moved(
        [Holding(1, ALICE, USD, 100), Holding(2, ALICE, USD, 0)],
        [Holding(1, BOB, USD, 100), Holding(2, ALICE, USD, 30)],
    )
    assert gains(item) == [(BOB, USD, 1, 100)]
    (gain,) = item.gains()
    assert item.senders(gain) == (bytes(31) + b"\3", bytes(31) + b"\1")


def test_more_came_than_moved() -> None:
    item = moved(
        [Holding(1, ALICE, USD, 100), Holding(2, ALICE, USD, 7)],
        [Holding(1, ALICE, USD, 60), Holding(2, ALICE, USD, 147)],
    )
    assert gains(item) == [(ALICE, USD, 2, 100)]


def test_two_accounts_of_one_owner_gain() -> None:
    item = moved(
        [Holding(1, ALICE, USD, 1)],
        [Holding(1, ALICE, USD, 5), Holding(2, ALICE, USD, 6), Holding(3, ALICE, EUR, 7)],
    )
    assert gains(item) == [(ALICE, USD, 1, 4), (ALICE, USD, 2, 6), (ALICE, EUR, 3, 7)]


def test_an_account_closed_and_made_anew_for_another_mint() -> None:
    """100 of one token aren't 100 of the other."""
    item = moved([Holding(1, ALICE, USD, 100)], [Holding(1, ALICE, EUR, 120)])
    assert gains(item) == [(ALICE, EUR, 1, 120)]


def test_senders_lost_the_same_token() -> None:
    item = moved(
        [Holding(1, ALICE, USD, 0), Holding(2, BOB, EUR, 100)],
        [Holding(1, ALICE, USD, 5), Holding(2, BOB, EUR, 90)],
    )
    (gain,) = item.gains()
    assert gain == Gain("token", 1, ALICE, USD, 5)
    assert item.senders(gain) == (bytes(31) + b"\3",)  # who paid the fee


def account(data: bytes, owner: str = TOKEN_PROGRAM) -> dict[str, Any]:
    return {"owner": owner, "data": [b64encode(data).decode(), "base64"]}


def mint_of(decimals: int, initialised: int = 1) -> bytes:
    return bytes(44) + bytes([decimals, initialised]) + bytes(36)


@pytest.mark.parametrize(
    ("content", "token"),
    [
        (None, None),
        (account(mint_of(6)), Token(6, None)),
        (account(mint_of(6, initialised=0)), None),
        (account(mint_of(6) + bytes(83)), None),  # as long as a token account
        (account(mint_of(6) + bytes(83) + b"\1" + bytes(9)), None),  # extended, but not of Token-2022
        (account(mint_of(6) + bytes(83) + b"\1" + bytes(9), TOKEN_2022), Token(6, None)),
        (account(mint_of(6) + bytes(83) + b"\2" + bytes(9), TOKEN_2022), None),  # a token account
        (account(mint_of(6), ALICE), None),
        (account(b""), None),
    ],
)
def test_mints(content: Any, token: Token | None) -> None:
    assert mint({"value": content}) == token


def test_accounts_of_others_are_not_counted() -> None:
    alice, usd = bytes([1]) * 32, bytes([8]) * 32
    good = {"account": account(usd + alice + (2**64 - 1).to_bytes(8, "little"))}
    assert held({"value": []}, usd, alice) == 0
    assert held({"value": [good, good]}, usd, alice) == 2 * (2**64 - 1)
    for wrong in (alice + alice + bytes(8), usd + usd + bytes(8), usd + alice, b""):
        with pytest.raises(OddAnswerError, match="an account is another mint's or owner's"):
            held({"value": [good, {"account": account(wrong)}]}, usd, alice)
    for odd in ({"value": None}, None, {"value": [{"account": {"data": "text"}}]}):
        with pytest.raises(OddAnswerError):
            held(odd, usd, alice)

"""What Bitcoin's nodes write: amounts to the last digit, and blocks of which nothing is left out."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maven_cli.chains import NodeDownError
from maven_cli.chains.bitcoin.reading import Reader


@given(st.integers(0, 21_000_000 * 10**8))
def test_d39_every_amount_is_exact(units: int) -> None:
    assert Reader("x").amount(Decimal(f"{units // 10**8}.{units % 10**8:08d}")) == units
    assert Reader("x").amount(Decimal(units).scaleb(-8).normalize()) == units


@pytest.mark.parametrize("amount", [0, 7, Decimal("1e-8"), Decimal("21e6"), Decimal("0E-8"), Decimal("2.5")])
def test_d39_other_ways_to_write_an_amount(amount: Decimal | int) -> None:
    assert Reader("x").amount(amount) == int(amount * 10**8)


@pytest.mark.parametrize(
    "amount",
    [
        *(Decimal(text) for text in ("0.123456789", "1e-9", "-0.1", "NaN", "Infinity", "1e14", "1e-999999", "1e999999")),
        -1, True, None, "1.0", 0.1, 10**14,
    ],
)  # fmt: skip
def test_d39_what_is_no_amount(amount: object) -> None:
    with pytest.raises(NodeDownError, match="node x answered"):
        Reader("x").amount(amount)


def block_with_an_extension() -> dict[str, Any]:
    """Block 3247853 of Litecoin's testnet, as a provider wrote it: its last transaction carries the extension block."""

    def paying(value: Any, place: int, script: str) -> dict[str, Any]:
        return {"ismweb": False, "value": value, "n": place, "scriptPubKey": {"hex": script}}

    def spending(txid: str, place: int) -> dict[str, Any]:
        return {"ismweb": False, "txid": txid, "vout": place}

    return {
        "height": 3247853,
        "hash": "b76c047e07af580555082792b2007dc969a6036391cd5aba915ec3c73755b80b",
        "previousblockhash": "c6f01ca05384915909b49a16cfd4a5ea6ec986b1b376c0d31a2fbdc0967d5cb8",
        "time": 1714833888,
        "merkleroot": "983577cb9a5f6d9e0cf17c04a5c330e2a9cd5e54e365b4ecb567e33dee075604",
        "tx": [
            {
                "txid": "7604930759225ab74868969da6b19b399d8b189bd9506f39e15019f8e08a1d44",
                "vin": [{"ismweb": False, "coinbase": "03ed8e310101"}],
                "vout": [
                    paying(Decimal("6.25002728"), 0, "00147bd19b7434e4d9c93c534621c23c5eba8a35c187"),
                    paying(
                        0, 1, "6a24aa21a9ed30da500691dea788d56838d1733f3dcaeb7cfe3c28e7bb7aac6d41d0ad66886d"
                    ),
                ],
            },
            {
                "txid": "51d57f58f3ede964f0105e6a01795cc0df6f275ba4e5d408bc3ba7b57448f74b",
                "vin": [
                    spending("6b0f1847a67c6d4d40bd557324db7f0258a1d555d3176e666d2420730078c635", place)
                    for place in (0, 1)
                ],
                "vout": [
                    paying(Decimal("6.69379664"), 0, "00143efcd669a05d842fb1b05ec45b3b946b8f55774d"),
                    paying(Decimal("0.00407272"), 1, "0014abd50c308b9563c615aeb0eb00752925ab2ff279"),
                ],
            },
            {
                "txid": "155b9bd93528a805975d549b8891c1de468cdcbf3c41b7cb22042cb6c58417fe",
                "vin": [spending("acee20a3c85c660599447e1f6c298f5009b47622303db4bc6cd3b79e4fea96d3", 0)],
                "vout": [
                    paying(
                        Decimal("1791337.37993343"),
                        0,
                        "5820a479f8d5e155979028166fc94cdbe0636ba721c75466713b5233f0bf08660d57",
                    )
                ],
            },
        ],
    }


def test_a_real_block_is_whole() -> None:
    found = list(Reader("x").transactions(block_with_an_extension()))
    assert [one.coinbase for one in found] == [True, False, False]
    assert [[output.amount for output in one.outputs] for one in found] == [
        [625_002_728, 0],
        [669_379_664, 407_272],
        [179_133_737_993_343],
    ]
    assert [len(one.inputs) for one in found] == [0, 2, 1]
    assert Reader("x").block(block_with_an_extension()).at.isoformat() == "2024-05-04T14:44:48+00:00"


@pytest.mark.parametrize("missing", [(0,), (1,), (2,), (1, 2), (0, 1, 2)])
def test_a_block_that_lacks_transactions(missing: tuple[int, ...]) -> None:
    block = block_with_an_extension()
    block["tx"] = [one for place, one in enumerate(block["tx"]) if place not in missing]
    with pytest.raises(NodeDownError, match="node x answered a block 3247853 that lacks transactions"):
        list(Reader("x").transactions(block))


def test_a_block_with_a_transaction_twice() -> None:
    """The last of three counts twice in the tree anyway: the root stays as it is (CVE-2012-2459)."""
    block = block_with_an_extension()
    block["tx"].append(block["tx"][-1])
    with pytest.raises(NodeDownError, match="node x answered a block 3247853 that has a transaction twice"):
        list(Reader("x").transactions(block))


@pytest.mark.parametrize(
    "output",
    [
        {"value": 1, "n": 0, "scriptPubKey": {}},
        {"value": 1, "n": 0, "scriptPubKey": {"hex": "0g"}},
        {"value": 1, "n": 0, "scriptPubKey": "51"},
        {"value": 1, "n": 1, "scriptPubKey": {"hex": "51"}},
        {"n": 0, "scriptPubKey": {"hex": "51"}},
        {"ismweb": False, "output_id": "07" * 32},
        None,
    ],
)
def test_what_is_no_output(output: Any) -> None:
    with pytest.raises(NodeDownError, match="node x answered"):
        Reader("x").transaction({"txid": "07" * 32, "vin": [], "vout": [output]})

"""Tickers as Redis has them, for readers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast

import redis

from maven_cli.market.pairs import TradingPair
from maven_cli.market.tickers import Ticker, key


def read(client: redis.Redis, pairs: Sequence[TradingPair]) -> list[Ticker | None]:
    """The newest ticker of each pair, in their order, all read at one instant; None where there is none (any more)."""
    if not pairs:
        return []
    values = cast("list[bytes | None]", client.mget([key(pair.id) for pair in pairs]))
    return [None if value is None else parse(pair, value) for pair, value in zip(pairs, values, strict=True)]


def parse(pair: TradingPair, payload: bytes | str) -> Ticker:
    """The ticker that `maven_cli.market.tickers.payload` made this text of."""
    value: dict[str, Any] = json.loads(payload)

    def number(name: str) -> Decimal | None:
        return None if value[name] is None else Decimal(value[name])

    def time(name: str) -> datetime | None:
        return None if value[name] is None else datetime.fromisoformat(value[name]).astimezone(UTC)

    return Ticker(
        pair=pair,
        as_of=datetime.fromisoformat(value["asOf"]).astimezone(UTC),
        last=number("lastPrice"),
        open=number("openPrice"),
        high=number("highPrice"),
        low=number("lowPrice"),
        prev_close=number("prevClosePrice"),
        change=number("priceChange"),
        change_percent=number("priceChangePercent"),
        volume=Decimal(value["volume"]),
        quote_volume=Decimal(value["quoteVolume"]),
        trade_count=value["tradeCount"],
        first_trade_id=value["firstTradeId"],
        last_trade_id=value["lastTradeId"],
        last_trade_at=time("lastTradeAt"),
        stale=value["stale"],
    )

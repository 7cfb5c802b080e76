"""The event types that maven itself writes. docs/reference/events.md tells each field; tests hold both to the schemas.

Each type is written by one SQL function, in the transaction of what it tells: OrderExpiredEvent and
BalanceUnlockedEvent by maven_expire_orders, TradeRejectedEvent by maven_reject_trade, those of deposits by
maven_deposit_events, BalanceCreditedEvent by maven_credit_deposits.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maven_cli.errors import UsageError

TYPES = (
    "OrderExpiredEvent",
    "BalanceUnlockedEvent",
    "TradeRejectedEvent",
    "DepositDetectedEvent",
    "DepositConfirmedEvent",
    "DepositCreditedEvent",
    "DepositOrphanedEvent",
    "DepositFailedEvent",
    "BalanceCreditedEvent",
)
_SCHEMAS = Path(__file__).parent / "schemas"


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a type's whole CloudEvent."""
    found = json.loads((_SCHEMAS / f"{name}.json").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def check_types(names: Sequence[str] | None) -> list[str] | None:
    """The names as given, None for all. Raises UsageError for one that doesn't exist, naming those that do."""
    for name in names or ():
        if name not in TYPES:
            raise UsageError(f"no event type {name!r}; choose from {', '.join(TYPES)}")
    return list(names) if names else None

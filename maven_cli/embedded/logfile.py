"""Logs that don't grow for ever: a command in a timer starts and stops the servers every minute, for years."""

from __future__ import annotations

from pathlib import Path

_LIMIT = 1 << 20


def roll(log: Path) -> None:
    """Before a log is opened: puts one of more than a megabyte aside as ``….1``, in the place of the last such."""
    if log.exists() and log.stat().st_size > _LIMIT:
        log.replace(log.with_name(f"{log.name}.1"))

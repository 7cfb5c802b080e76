"""The servers' URLs. There is nothing to escape: Home's socket directories and passwords are plain by construction."""

from __future__ import annotations

from pathlib import Path


def database_url(sockets: Path, password: str) -> str:
    return f"postgresql://maven:{password}@/maven?host={sockets}"


def redis_url(socket: Path, password: str) -> str:
    return f"unix://{socket}?password={password}"

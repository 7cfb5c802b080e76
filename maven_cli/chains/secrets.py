"""Where an endpoint's address comes from. The database holds the name of a secret, never the secret."""

from __future__ import annotations

import os
from pathlib import Path

from maven_cli.errors import ConfigurationError

KINDS = ("env", "file", "credential")


def check_reference(reference: str) -> None:
    """Raises ConfigurationError for what isn't the name of a secret, without repeating it: it may be one."""
    kind, colon, name = reference.partition(":")
    if not colon or kind not in KINDS or not name or name.startswith("//"):
        raise ConfigurationError(
            "an endpoint's secret is named, never written down: env:VARIABLE, file:/path, or credential:NAME for systemd's "
            "LoadCredential="
        )


def resolve(endpoint: str, reference: str) -> str:
    """The address behind a reference. Raises ConfigurationError that names the endpoint and the reference."""
    check_reference(reference)
    kind, _, name = reference.partition(":")
    if kind == "env":
        value = os.environ.get(name, "")
        missing = f"the variable {name} is not set"
    else:
        directory = os.environ.get("CREDENTIALS_DIRECTORY")
        path = Path(name) if kind == "file" else Path(directory or "/nonexistent") / name
        missing = (
            f"{path} can't be read" if kind == "file" or directory else "CREDENTIALS_DIRECTORY is not set"
        )
        try:
            value = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            value = ""
    if not value.strip():
        raise ConfigurationError(
            f"endpoint {endpoint} has its address in {reference}, but {missing} or is empty"
        )
    return value.strip()

"""Who decides by hand: the name that goes on record with a decision."""

from __future__ import annotations

import getpass
import os

from maven_cli.settings import Settings


def operator_name(settings: Settings) -> str:
    """MAVEN_OPERATOR, else the login name; behind sudo that of the person, not root."""
    if name := (settings.operator or "").strip() or os.environ.get("SUDO_USER", "").strip():
        return name
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return f"uid {os.getuid()}"  # an account without a name, as in a container

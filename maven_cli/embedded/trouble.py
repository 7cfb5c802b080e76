"""The operating system's refusals in one line each, naming the directory and what to do about it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from maven_cli.errors import ConfigurationError, DiskFullError

# What a full disk says through a server's log: the words for ENOSPC and EDQUOT, and PostgreSQL's hint at a short write.
_FULL = ("no space left on device", "disk quota exceeded", "check free disk space")
# Less than PostgreSQL needs to write its next file (a WAL segment is 16 MiB, a relation page 8 KiB).
_NOTHING_LEFT = 64 * 1024


def disk_full(root: Path) -> DiskFullError:
    return DiskFullError(f"the disk is full: maven's data in {root} can't be written; free some space")


@contextmanager
def explained(root: Path) -> Iterator[None]:
    """Turns an OSError on anything below the home into an error that a user can act on."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full(root) from error
        reason = (error.strerror or str(error)).lower()
        place = "" if error.filename is None else f" ({os.fsdecode(error.filename)})"
        raise ConfigurationError(
            f"maven's home {root} can't be used: {reason}{place}; "
            "set MAVEN_HOME to a directory that you own and can write to"
        ) from error


def is_full(root: Path, output: str) -> bool:
    """Whether a server ended for want of space: it says so, or there was not even space for its words."""
    space = os.statvfs(root)
    return space.f_bavail * space.f_frsize < _NOTHING_LEFT or any(words in output.lower() for words in _FULL)

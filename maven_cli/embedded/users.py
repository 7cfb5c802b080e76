"""The shared lock that says "somebody uses the servers"; the kernel releases it however its holder ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from maven_cli.embedded.home import Home

# This process's holds, by home. The descriptors stay open until the process ends; they are closed on exec.
_held: dict[Path, int] = {}


def hold(home: Home) -> bool:
    """Takes part in the use of the servers; waits while a supervisor is on its way out. False when we held it already.

    The touch tells the supervisor of users that come and go between two of its looks.
    """
    if (held := _held.get(home.root)) is not None:
        if is_still(home.users_lock, held):
            os.utime(held)
            return False
        let_go(home)
    descriptor = os.open(home.users_lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        os.utime(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    _held[home.root] = descriptor
    return True


def let_go(home: Home) -> bool:
    """Ends this process's use; the others' stays. False when there was none."""
    if (descriptor := _held.pop(home.root, None)) is None:
        return False
    os.close(descriptor)
    return True


def is_still(path: Path, descriptor: int) -> bool:
    """Whether the path names the file that was opened; a home may have been removed and made anew since."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def holders(lock: Path) -> list[int]:
    """The processes that hold a lock on this file, as far as the kernel tells: not on macOS, not across containers."""
    try:
        status = lock.stat()
        table = Path("/proc/locks").read_text()
    except OSError:
        return []
    file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    # 1: FLOCK  ADVISORY  READ 4711 fe:00:2195477 0 EOF    (a waiting one has "->" after the number)
    rows = (line.split() for line in table.splitlines())
    pids = {int(row[4]) for row in rows if len(row) > 5 and row[1] == "FLOCK" and row[5] == file}
    return sorted(pid for pid in pids if pid > 0)

"""Making the home and the directories of the sockets, so that the servers can reach them and nobody else can."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from maven_cli.embedded.accounts import Account, require_ours
from maven_cli.embedded.home import Home
from maven_cli.errors import ConfigurationError


def make_home(home: Home, account: Account) -> None:
    """The home, which the account can enter but not list. An existing directory keeps its mode if that is enough.

    Fails before it makes anything when a directory above is closed to the account: opening that up is not our call.
    """
    if account.dropped:
        _require_way(home.root, account)
    for missing in reversed([p for p in home.root.parents if not p.exists()]):
        _make(missing, 0o755 if account.dropped else 0o700)
    _make(home.root, 0o700)
    require_ours(home.root)
    if account.dropped and not account.may_enter(home.root):
        _open_up(home, account)


def make_run(home: Home, account: Account) -> None:
    """The directory of the sockets: ours, entered by the account, closed to everybody else."""
    _make(home.run, 0o700)
    require_ours(home.run)
    if account.dropped:
        os.chown(home.run, -1, account.gid, follow_symlinks=False)
        home.run.chmod(0o710)


def fresh_directory(path: Path, account: Account) -> None:
    """An empty directory of the account's. What lay there belonged to a server that is gone, or never got ready."""
    if path.exists():
        shutil.rmtree(path)
    path.mkdir(0o700)
    account.adopt(path)


def _make(directory: Path, mode: int) -> None:
    """A directory with this mode, whatever the umask says. One that somebody else made meanwhile keeps its own."""
    former = os.umask(0)
    try:
        directory.mkdir(mode, exist_ok=True)
    finally:
        os.umask(former)


def _require_way(root: Path, account: Account) -> None:
    closed = next((p for p in reversed(root.parents) if p.is_dir() and not account.may_enter(p)), None)
    if closed is not None:
        raise ConfigurationError(
            f"{account.name}, whom root's embedded servers run as, can't enter {closed}; "
            "set MAVEN_HOME to a directory elsewhere, like /var/lib/maven"
        )


def _open_up(home: Home, account: Account) -> None:
    """Lets the account enter a home that is ours alone. A directory with other things in it is left as it is."""
    if any(home.root.iterdir()) and not home.users_lock.exists():
        raise ConfigurationError(
            f"{account.name}, whom root's embedded servers run as, can't enter {home.root}, which holds other files; "
            "set MAVEN_HOME to an empty or a new directory"
        )
    os.chown(home.root, -1, account.gid, follow_symlinks=False)
    home.root.chmod(0o710)

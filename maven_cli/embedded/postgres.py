"""The embedded PostgreSQL: one unix socket, passwords, and a database that its user owns."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from secrets import token_urlsafe
from signal import SIGINT, SIGQUIT, SIGTERM

from maven_cli.embedded.accounts import Account
from maven_cli.embedded.directories import fresh_directory
from maven_cli.embedded.processes import Server, start
from maven_cli.embedded.urls import database_url
from maven_cli.errors import ConfigurationError, DatabaseDownError

# Given on the command line, so that a home follows the maven that opens it and may be moved.
SETTINGS = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
    "fsync": "on",
    "synchronous_commit": "on",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}

# initdb --no-sync: what it made is written back by the kernel within a minute, and the WAL that follows is synced. A
# power cut before that costs a database that held nothing older than the minute.
_INITDB = (
    "--no-sync",
    "--no-instructions",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--encoding=UTF8",
    "--auth=scram-sha-256",
    "--username=postgres",
)

# One iteration: stretching protects weak passwords, and this one has 256 random bits. It saves milliseconds in every
# connection. CREATEDB is for throw-away databases, pg_monitor for reading who blocks whom, pg_signal_backend for
# dropping a database that autovacuum is just looking at.
_ROLE = """\
SET scram_iterations = 1
CREATE ROLE maven LOGIN CREATEDB PASSWORD '{password}'
GRANT pg_monitor, pg_signal_backend TO maven
CREATE DATABASE maven OWNER maven
"""


class PostgreSQL(Server):
    """``sockets`` must be short and plain, as Home makes it; the data directory may have any name."""

    title = "PostgreSQL"
    failure = DatabaseDownError
    stop_signal = SIGINT  # "fast": ends sessions, writes a checkpoint; SIGTERM would wait for the clients
    quit_signal = SIGQUIT  # "immediate": recovers at the next start

    def __init__(
        self,
        initdb: Path,
        binary: Path,
        data: Path,
        sockets: Path,
        password: str,
        log: Path,
        account: Account,
        kept: Sequence[int] = (),
        settings: Mapping[str, str] = SETTINGS,
    ) -> None:
        super().__init__(data.parent, log, account, kept)
        self.initdb = initdb
        self.binary = binary
        self.data = data
        self.sockets = sockets
        self.password = password
        self.settings = settings

    @property
    def url(self) -> str:
        return database_url(self.sockets, self.password)

    def launch(self) -> None:
        if self.data.exists():
            self._require_same_major()
            self._clear_stale_pid()
        else:
            self._initialise()
        fresh_directory(self.sockets, self.account)
        settings = {**self.settings, "unix_socket_directories": str(self.sockets)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self._spawn([self.binary, "-D", self.data, *options], self.data)

    def is_ready(self) -> bool:
        """The last line of postmaster.pid is its state. The first is its writer: an old file may say ready, too."""
        lines = self._pid_file_lines()
        return (
            self.process is not None
            and len(lines) > 1
            and lines[0].strip() == str(self.process.pid)
            and lines[-1].strip() == "ready"
        )

    def _initialise(self) -> None:
        """Makes the data directory under another name and renames it when it is whole: a kill leaves no half of one."""
        fresh = self.data.with_name(f"{self.data.name}.new")
        fresh_directory(fresh, self.account)
        password_file = self.data.with_name(f"{self.data.name}.pw")
        try:
            # initdb wants a password for its superuser. Nobody needs it later, so nobody gets to know it.
            _write_private(password_file, token_urlsafe(32), self.account)
            self._run([self.initdb, *_INITDB, f"--pwfile={password_file}", "-D", fresh], fresh, b"")
            role = _ROLE.format(password=self.password).encode()
            single = ("--single", "-c", "fsync=off", "-c", "exit_on_error=on")
            self._run([self.binary, *single, "-D", fresh, "postgres"], fresh, role)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        finally:
            password_file.unlink(missing_ok=True)
        fresh.rename(self.data)

    def _run(self, command: Sequence[str | Path], cwd: Path, stdin: bytes) -> None:
        child = start(
            command,
            self.account,
            death_signal=SIGTERM,
            kept=self.kept,
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        with child:
            output, _ = child.communicate(stdin)
        if child.returncode != 0:
            with self.log.open("ab") as log:
                log.write(output)
            raise self.failed(output.decode(errors="replace"))

    def _require_same_major(self) -> None:
        theirs = (self.data / "PG_VERSION").read_text().strip()
        output = subprocess.run([self.binary, "--version"], capture_output=True, text=True, check=True).stdout
        ours = re.search(r"\d+", output)
        if ours is not None and theirs != ours[0]:
            raise ConfigurationError(
                f"{self.data} was made by PostgreSQL {theirs}, and this maven brings PostgreSQL {ours[0]}: "
                f"move the data with PostgreSQL {theirs}'s pg_dump, or move the directory away to begin anew"
            )

    def _clear_stale_pid(self) -> None:
        """Removes a pid file whose process number was given to somebody else since (after a reboot, mostly).

        PostgreSQL forgives a dead number, but not a living process of the same user. A real server, started here
        by hand, works in its data directory.
        """
        lines = self._pid_file_lines()
        if sys.platform != "linux" or not lines or not lines[0].strip().isdigit():
            return
        pid = lines[0].strip()
        try:
            works_in = Path(f"/proc/{pid}/cwd").stat()
        except OSError:
            works_in = None
        if works_in is not None and os.path.samestat(works_in, self.data.stat()):
            raise ConfigurationError(f"another PostgreSQL (process {pid}) runs on {self.data}; stop it first")
        (self.data / "postmaster.pid").unlink()

    def _pid_file_lines(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return []


def _write_private(path: Path, text: str, owner: Account) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    owner.adopt(path)

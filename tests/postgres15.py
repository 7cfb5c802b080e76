"""A throw-away PostgreSQL 15 from Debian's package: the oldest version that maven supports."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import chown, rmtree
from urllib.parse import quote

import psycopg
from psycopg import sql

BINARIES = Path("/usr/lib/postgresql/15/bin")


@contextmanager
def postgres15() -> Iterator[str]:
    """The URL of a role with CREATEDB on a server that lives as long as the block. It listens on a socket only."""
    base = Path(tempfile.mkdtemp(prefix="maven-15-", dir="/tmp"))
    # PostgreSQL refuses root, and nobody else's directory may be in its way.
    user = "nobody" if os.geteuid() == 0 else None
    try:
        password = base / "password"
        password.write_text("a secret of the tests")
        for path in (base, password):
            if user:
                chown(path, user)
        initdb = [
            str(BINARIES / "initdb"),
            "-D",
            str(base / "data"),
            "-U",
            "postgres",
            f"--pwfile={password}",
        ]
        subprocess.run(
            [*initdb, "--auth=scram-sha-256", "--no-sync", "--locale=C.UTF-8", "--encoding=UTF8"],
            user=user,
            cwd="/",
            check=True,
            stdout=subprocess.DEVNULL,
        )
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(base),
            "fsync": "off",
            "max_connections": "100",
        }
        server = subprocess.Popen(
            [
                BINARIES / "postgres",
                "-D",
                base / "data",
                *(part for name, value in options.items() for part in ("-c", f"{name}={value}")),
            ],
            user=user,
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            at = f"{quote(password.read_text())}@/postgres?host={quote(str(base), safe='')}"
            _await(f"postgresql://postgres:{at}", server)
            with psycopg.connect(f"postgresql://postgres:{at}", autocommit=True) as admin:
                # No superuser, as in the embedded default: what needs more rights must fail here, too.
                admin.execute(
                    sql.SQL("CREATE ROLE maven LOGIN CREATEDB PASSWORD {}").format(password.read_text())
                )
                admin.execute("GRANT pg_monitor, pg_signal_backend TO maven")
            yield f"postgresql://maven:{at}"
        finally:
            server.terminate()
            server.wait(timeout=30)
    finally:
        rmtree(base)


def _await(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            assert server.poll() is None, "PostgreSQL 15 didn't start"
            assert time.monotonic() < deadline, "PostgreSQL 15 didn't get ready"
            time.sleep(0.05)
        else:
            return

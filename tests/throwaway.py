"""Throw-away PostgreSQL servers: the wheel's, and Debian's 15, the oldest version that maven supports.

Not durable, so that a database for each test costs milliseconds: no test pulls the plug, and whoever is killed here leaves
what the kernel has to be written.
"""

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

from maven_cli.embedded import binaries
from maven_cli.embedded.accounts import service_account

POSTGRES_15 = Path("/usr/lib/postgresql/15/bin")
_DURABILITY = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@contextmanager
def postgres_of_the_wheel() -> Iterator[str]:
    """As `postgres`, with the binaries of the embedded default."""
    base = Path(tempfile.mkdtemp(prefix="maven-b-", dir="/tmp"))
    base.chmod(0o755)
    try:
        initdb, _ = binaries.usable([binaries.initdb_bin(), binaries.postgres_bin()], service_account(), base)
        with postgres(
            initdb.parent, "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"
        ) as url:
            yield url
    finally:
        rmtree(base)


@contextmanager
def postgres(programs: Path, *locale: str) -> Iterator[str]:
    """The URL of a role with CREATEDB on a server that lives as long as the block. It listens on a socket only."""
    base = Path(tempfile.mkdtemp(prefix="maven-p-", dir="/tmp"))
    # PostgreSQL refuses root, and nobody else's directory may be in its way.
    user = "nobody" if os.geteuid() == 0 else None
    try:
        password = base / "password"
        password.write_text("a secret of the tests")
        for path in (base, password):
            if user:
                chown(path, user)
        initdb = [
            str(programs / "initdb"),
            "-D",
            str(base / "data"),
            "-U",
            "postgres",
            f"--pwfile={password}",
        ]
        subprocess.run(
            [
                *initdb,
                "--auth=scram-sha-256",
                "--no-sync",
                "--encoding=UTF8",
                *(locale or ("--locale=C.UTF-8",)),
            ],
            user=user,
            cwd="/",
            check=True,
            stdout=subprocess.DEVNULL,
        )
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(base),
            "max_connections": "100",
            "jit": "off",
            "max_wal_size": "1GB",
            **_DURABILITY,
        }
        server = subprocess.Popen(
            [
                programs / "postgres",
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
            assert server.poll() is None, "PostgreSQL didn't start"
            assert time.monotonic() < deadline, "PostgreSQL didn't get ready"
            time.sleep(0.05)
        else:
            return

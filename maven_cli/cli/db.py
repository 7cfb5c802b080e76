"""`maven db`: the schema."""

from __future__ import annotations

import typer

from maven_cli.cli.command import command, current
from maven_cli.cli.output import Result
from maven_cli.cli.parsing import Group

app = typer.Typer(cls=Group, no_args_is_help=True, help="Create and check maven's tables.")


@command(app, "upgrade")
def upgrade() -> Result:
    """Bring the database's schema to what this maven needs. Safe to run twice, and twice at once."""
    from maven_cli.db import migrate

    before, after = migrate.upgrade(current().services.database_url)
    message = (
        f"already at revision {after}"
        if before == after
        else f"upgraded from {before or 'nothing'} to {after}"
    )
    return Result({"before": before, "after": after}, lambda out: out.print(message))


@command(app, "current")
def revision() -> Result:
    """Show the database's revision, and the one that this maven needs."""
    from maven_cli.db.connection import connect
    from maven_cli.db.revision import REVISION, read_revision

    with connect(current().services.database_url, "db current") as conn:
        found = read_revision(conn)
    return Result(
        {"database": found, "maven": REVISION},
        lambda out: out.print(f"database {found or '(no schema)'}, maven {REVISION}"),
    )


@command(app, "check")
def check() -> Result:
    """Compare the database with the reference schema; exit 78 when something is missing or different."""
    from maven_cli.db.check import differences
    from maven_cli.db.connection import connect
    from maven_cli.db.revision import REVISION, check_revision
    from maven_cli.errors import SchemaError

    with connect(current().services.database_url, "db check") as conn:
        check_revision(conn)
    found = differences(current().services.database_url)
    if found:
        raise SchemaError(
            f"the database is at revision {REVISION} but differs from it: {'; '.join(found)}. "
            "Put back what was changed by hand"
        )
    return Result(
        {"revision": REVISION, "differences": []}, lambda out: out.print(f"the schema is right ({REVISION})")
    )

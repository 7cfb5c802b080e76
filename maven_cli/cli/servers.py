"""`maven up` and `maven down`: the embedded PostgreSQL and Valkey."""

from __future__ import annotations

from typing import Annotated

import typer

from maven_cli.cli.command import command, current, show
from maven_cli.cli.output import Result
from maven_cli.errors import UsageError

app = typer.Typer(help="The embedded PostgreSQL and Valkey.")


@command(app, "up")
def up() -> Result:
    """Keep the embedded PostgreSQL and Valkey running until Ctrl-C, and print their URLs."""
    from maven_cli import embedded

    settings = current().settings
    if not settings.embedded:
        raise UsageError(
            "MAVEN_DATABASE_URL and MAVEN_REDIS_URL are set, so there is nothing embedded to keep running"
        )
    home = settings.home or embedded.default_home()
    services = current().services
    _ = services.database_url  # migrates a new database before anybody is told where it is

    def ready(servers: embedded.Servers) -> None:
        import shlex
        import sys

        urls = {"MAVEN_DATABASE_URL": services.database_url, "MAVEN_REDIS_URL": services.redis_url}
        show(
            current().path,
            Result(
                urls,
                lambda out: out.print(
                    "\n".join(f"{name}={shlex.quote(url)}" for name, url in urls.items()), markup=False
                ),
            ),
            as_json=current().json,
        )
        print(
            f"maven: PostgreSQL and Valkey run under {home}; Ctrl-C stops them", file=sys.stderr, flush=True
        )

    embedded.run_foreground(home, ready)
    raise typer.Exit  # everything was said when the servers were ready


@command(app, "down")
def down(
    force: Annotated[
        bool, typer.Option("--force", help="Also under maven processes that still use them.")
    ] = False,
) -> Result:
    """Stop the embedded PostgreSQL and Valkey."""
    from maven_cli import embedded

    home = current().settings.home or embedded.default_home()
    stopped = embedded.stop(home, force=force)
    message = f"stopped what ran under {home}" if stopped else f"nothing runs under {home}"
    return Result({"home": str(home), "stopped": stopped}, lambda out: out.print(message))

"""Where this process finds its databases: the URLs it was given, or the embedded default."""

from __future__ import annotations

import sys
from functools import cached_property

from maven_cli.settings import Settings, variable


class LazyServices:
    """Resolves each URL on first use. With both set, nothing embedded is started or even imported."""

    def __init__(self, settings: Settings, *, announce: bool = True) -> None:
        self.settings = settings
        self._announce = announce

    @cached_property
    def database_url(self) -> str:
        if self.settings.database_url is not None:
            return self.settings.database_url.get_secret_value()
        return self._embedded[0]

    @cached_property
    def lock_url(self) -> str:
        separate = self.settings.lock_database_url
        return self.database_url if separate is None else separate.get_secret_value()

    @cached_property
    def redis_url(self) -> str:
        if self.settings.redis_url is not None:
            return self.settings.redis_url.get_secret_value()
        return self._embedded[1]

    @cached_property
    def _embedded(self) -> tuple[str, str]:
        from maven_cli import embedded

        home = self.settings.home or embedded.default_home()
        postgres = self.settings.database_url is None
        servers = embedded.attach(home, postgres=postgres, redis=self.settings.redis_url is None)
        if servers.started and self._announce:
            what = " and ".join(
                name
                for name, used in (("PostgreSQL", postgres), ("Valkey", self.settings.redis_url is None))
                if used
            )
            unset = " and ".join(
                variable(name)
                for name in ("database_url", "redis_url")
                if getattr(self.settings, name) is None
            )
            print(f"maven: started its own {what} under {home} (no {unset} set)", file=sys.stderr)
        if postgres:
            from maven_cli.db.connection import connect
            from maven_cli.db.revision import REVISION, read_revision

            with connect(servers.database_url, "setup") as conn:
                found = read_revision(conn)
            # A private database has no other owner who would want to decide when.
            if found is None or found < REVISION:
                from maven_cli.db.migrate import upgrade

                upgrade(servers.database_url)
        return servers.database_url, servers.redis_url

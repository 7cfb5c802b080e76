"""Real PostgreSQL and Redis for every test: the embedded wheels, or the servers that two variables name.

MAVEN_TEST_DATABASE_URL  a role that may create databases; each test gets a clone of a migrated template
MAVEN_TEST_REDIS_URL     tests flush the database numbers 1 to 15 of this server
MAVEN_TEST_FULL=1        the long version

All xdist workers share one embedded Valkey; each has a PostgreSQL of its own. They end with the run.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import psycopg
import pytest
import redis
from psycopg import sql
from psycopg.conninfo import make_conninfo

from maven_cli import embedded
from maven_cli.db.migrate import upgrade
from maven_cli.settings import Settings, load_settings
from tests.support import Cli, Market
from tests.throwaway import POSTGRES_15, postgres, postgres_of_the_wheel

TEST_VARIABLES = (
    "MAVEN_TEST_DATABASE_URL",
    "MAVEN_TEST_REDIS_URL",
    "MAVEN_TEST_FULL",
    "MAVEN_TEST_HOME",
    "MAVEN_TEST_ANVIL",
)
FULL = os.environ.get("MAVEN_TEST_FULL") == "1"
SHARED = Path(__file__).parent.parent.parent / "shared"


def pytest_configure(config: pytest.Config) -> None:
    for name in list(os.environ):
        if (name.startswith("MAVEN_") or name == "LOG_LEVEL") and name not in TEST_VARIABLES:
            del os.environ[name]
    os.environ.pop("NO_COLOR", None)
    os.environ.pop("FORCE_COLOR", None)
    if not hasattr(config, "workerinput"):
        os.environ["MAVEN_TEST_HOME"] = tempfile.mkdtemp(prefix="maven-t-", dir="/tmp")
        Path(os.environ["MAVEN_TEST_HOME"]).chmod(0o755)


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        home = Path(os.environ["MAVEN_TEST_HOME"])
        if (home / "e").exists():
            embedded.stop(home / "e", force=True)
        shutil.rmtree(home, ignore_errors=True)


def pytest_report_header(config: pytest.Config) -> str:
    if hasattr(config, "workerinput"):
        return ""
    named = [name for name in TEST_VARIABLES[:3] if os.environ.get(name)]
    return f"maven: PostgreSQL and Redis {'as named by ' + ', '.join(named) if named else 'from the embedded wheels'}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not FULL:
        for item in items:
            if item.get_closest_marker("full"):
                item.add_marker(pytest.mark.skip(reason="the long version: set MAVEN_TEST_FULL=1"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """In CI a part that is missing is a failure, not a skip: .ci/run installs them all."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if "long version" not in reason:
            report.outcome = "failed"
            report.longrepr = f"skipped in CI: {reason}"
    return report


@dataclass(frozen=True)
class Servers:
    database_url: str
    redis_url: str


@pytest.fixture(scope="session", params=["default", "postgresql-15"] if FULL else ["default"])
def servers(request: pytest.FixtureRequest) -> Iterator[Servers]:
    """The servers of this run: an administrative database, and Redis. The long version repeats all on PostgreSQL 15."""
    redis_url = os.environ.get("MAVEN_TEST_REDIS_URL") or _embedded_redis()
    if request.param == "postgresql-15":
        if not POSTGRES_15.is_dir():
            pytest.skip("no PostgreSQL 15 here: apt install postgresql-15")
        with postgres(POSTGRES_15) as url:
            yield Servers(url, redis_url)
    elif named := os.environ.get("MAVEN_TEST_DATABASE_URL"):
        yield Servers(named, redis_url)
    else:
        with postgres_of_the_wheel() as url:
            yield Servers(url, redis_url)


def _embedded_redis() -> str:
    """The embedded default's, one for all xdist workers."""
    os.environ["MAVEN_EMBEDDED_LINGER"] = "1"
    own = embedded.attach(Path(os.environ["MAVEN_TEST_HOME"]) / "e", postgres=False, redis=True)
    del os.environ["MAVEN_EMBEDDED_LINGER"]
    return own.redis_url


def named_database(url: str, name: str) -> str:
    """The URL with another database name, still a URL."""
    head, _, query = url.partition("?")
    scheme, _, rest = head.partition("://")
    authority = rest.partition("/")[0]
    return f"{scheme}://{authority}/{quote(name)}" + (f"?{query}" if query else "")


@pytest.fixture(scope="session")
def template(servers: Servers, worker_id: str) -> Iterator[str]:
    """A migrated database to clone; its name."""
    name = f"maven_template_{worker_id}_{uuid4().hex[:8]}"
    with psycopg.connect(servers.database_url, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        upgrade(named_database(servers.database_url, name))
        yield name
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def empty_database_url(servers: Servers) -> Iterator[str]:
    """A database with nothing in it."""
    yield from _database(servers, "template1")


@pytest.fixture
def database_url(servers: Servers, template: str) -> Iterator[str]:
    """A migrated database of this test's own."""
    yield from _database(servers, template)


def _database(servers: Servers, template: str) -> Iterator[str]:
    name = f"maven_{uuid4().hex[:12]}"
    with psycopg.connect(servers.database_url, autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        )
        yield named_database(servers.database_url, name)
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def conn(database_url: str) -> Iterator[psycopg.Connection]:
    """An autocommit connection to this test's database."""
    with psycopg.connect(make_conninfo(database_url), autocommit=True) as connection:
        yield connection


@pytest.fixture
def redis_url(servers: Servers, worker_id: str) -> Iterator[str]:
    """An empty Redis database: a number of this xdist worker's own."""
    number = 1 + int(worker_id.removeprefix("gw")) % 15 if worker_id != "master" else 1
    head, _, query = servers.redis_url.partition("?")
    options = [item for item in query.split("&") if item and not item.startswith("db=")]
    if head.startswith("unix://"):
        url = f"{head}?{'&'.join([*options, f'db={number}'])}"
    else:
        scheme, _, rest = head.partition("://")
        url = f"{scheme}://{rest.partition('/')[0]}/{number}" + (f"?{'&'.join(options)}" if options else "")
    with redis.Redis.from_url(url) as client:
        client.flushdb()
        yield url
        client.flushdb()


@pytest.fixture
def cache(redis_url: str) -> Iterator[redis.Redis]:
    """A client of this test's Redis database that decodes text."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@dataclass
class TestServices:
    """What a pass needs, pointing at this test's databases."""

    __test__ = False
    database_url: str
    redis_url: str
    settings: Settings = field(default_factory=load_settings)
    lock_url: str = ""

    def __post_init__(self) -> None:
        self.lock_url = self.lock_url or self.database_url


@pytest.fixture
def services(database_url: str, redis_url: str) -> TestServices:
    """Services of this test's databases with default settings; replace `.settings` to change some."""
    return TestServices(database_url, redis_url)


@pytest.fixture
def market(conn: psycopg.Connection) -> Market:
    """Adds pairs and trades."""
    return Market(conn)


@pytest.fixture
def cli(database_url: str, redis_url: str, tmp_path: Path) -> Cli:
    """Runs the real `maven` in its own process against this test's databases."""
    return Cli(
        {
            "MAVEN_DATABASE_URL": database_url,
            "MAVEN_REDIS_URL": redis_url,
            "MAVEN_HOME": str(tmp_path / "home"),
        }
    )


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real trades and a peer's candles; skips where they aren't."""
    found = SHARED / "data"
    if not found.is_dir():
        pytest.skip("no ../shared/data beside the project")
    return found

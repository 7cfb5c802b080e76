"""The words that commands and the supervisor exchange: one line there, one line back, over the socket ``control``.

start postgres valkey  →  started | running | error KIND MESSAGE
stop                   →  stopping | busy         (busy: another process holds the users' lock)
stop force             →  stopping
"""

from __future__ import annotations

import socket

from maven_cli import errors
from maven_cli.embedded.accounts import require_ours
from maven_cli.embedded.home import Home
from maven_cli.errors import MavenError, TryLaterError

# Above the supervisor's own limits for a start, so that its better words come first.
_PATIENCE = 700.0
# The other side writes its line right after connecting; a stopped process must not hold the supervisor up.
_REQUEST_PATIENCE = 2.0


def ask(home: Home, request: str) -> str | None:
    """The supervisor's answer; None when there is no supervisor, or it left without one."""
    try:
        require_ours(home.run)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_PATIENCE)
            connection.connect(str(home.control))
            connection.sendall(f"{request}\n".encode())
            reply = _line(connection)
    except TimeoutError:
        raise TryLaterError(
            f"maven's embedded servers in {home.root} don't answer; see {home.logs}"
        ) from None
    # BlockingIOError: the queue is full for the moment.
    except (FileNotFoundError, ConnectionError, BlockingIOError):
        return None
    if reply.startswith("error "):
        raise _error(reply)
    return reply or None


def listens(home: Home) -> bool:
    try:
        require_ours(home.run)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(home.control))
    except (FileNotFoundError, ConnectionError):
        return False
    return True


def listen(home: Home) -> socket.socket:
    """The socket of a supervisor to come. Only the holder of the servers' lock may replace an old one."""
    fresh = home.control.with_name("new")
    fresh.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(fresh))
        fresh.chmod(0o600)
        listener.listen(socket.SOMAXCONN)
        fresh.replace(home.control)
    except BaseException:
        listener.close()
        raise
    return listener


def receive(connection: socket.socket) -> str:
    """A request; empty when the other side only looked whether somebody is there."""
    connection.settimeout(_REQUEST_PATIENCE)
    try:
        return _line(connection)
    except OSError:
        return ""


def answer(connection: socket.socket, reply: str | MavenError) -> None:
    """Nobody may be left to read it: then it needs no answer."""
    if isinstance(reply, MavenError):
        reply = f"error {type(reply).__name__} {reply}"
    try:
        connection.sendall(reply.replace("\n", " ").encode(errors="surrogateescape") + b"\n")
    except OSError:
        return


def _line(connection: socket.socket) -> str:
    received = b""
    while not received.endswith(b"\n") and (more := connection.recv(4096)):
        received += more
    return received.decode(errors="surrogateescape").strip()


def _error(reply: str) -> MavenError:
    _, kind, message = reply.split(" ", 2)
    error: type[MavenError] = getattr(errors, kind)
    return error(message)

"""The embedded Valkey: one unix socket behind a password, and a log of every write."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path

from maven_cli.embedded.accounts import Account
from maven_cli.embedded.directories import fresh_directory
from maven_cli.embedded.processes import Server
from maven_cli.embedded.urls import redis_url
from maven_cli.errors import RedisDownError

# At most a second of writes is lost to a power cut, and none to a crash of Valkey itself.
_CONFIG = """\
port 0
unixsocket {socket}
unixsocketperm 700
requirepass {password}
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
"""


class Valkey(Server):
    """``socket_path`` must be short and plain, as Home makes it; the data directory may have any name."""

    title = "Valkey"
    failure = RedisDownError

    def __init__(
        self,
        binary: Path,
        data: Path,
        socket_path: Path,
        password: str,
        log: Path,
        account: Account,
        kept: Sequence[int] = (),
    ) -> None:
        super().__init__(data.parent, log, account, kept)
        self.binary = binary
        self.data = data
        self.socket = socket_path
        self.password = password

    @property
    def url(self) -> str:
        return redis_url(self.socket, self.password)

    def launch(self) -> None:
        if not self.data.exists():
            self.data.mkdir(0o700)
            self.account.adopt(self.data)
        fresh_directory(self.socket.parent, self.account)
        # The configuration holds the password: a pipe shows it to nobody, a command line to everybody.
        reader, writer = os.pipe()
        try:
            os.write(writer, _CONFIG.format(socket=self.socket, password=self.password).encode())
            os.close(writer)
            self._spawn([self.binary, "-"], self.data, stdin=reader)
        finally:
            os.close(reader)

    def is_ready(self) -> bool:
        """Asked, not guessed: Valkey listens while it still loads its log."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1.0)
            try:
                connection.connect(str(self.socket))
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                reply = b""
                while reply.count(b"\r\n") < 2 and (more := connection.recv(256)):
                    reply += more
            except OSError:
                return False
        return reply == b"+OK\r\n+PONG\r\n"

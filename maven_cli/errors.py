"""The errors a user can meet, and the exit code each one ends with.

    MavenError                 70  a bug, when nothing more precise is known
    ├── UsageError              2  wrong arguments, or input that can't be taken
    ├── DependencyDownError    69  PostgreSQL, Redis or a node can't be reached, or the disk is full
    │   ├── DatabaseDownError
    │   ├── RedisDownError
    │   └── DiskFullError
    ├── TryLaterError          75  nothing is wrong; the same command works later
    │   ├── LockHeldError
    │   └── CircuitOpenError
    ├── ConfigurationError     78  settings, credentials or the schema need a hand
    │   └── SchemaError
    └── StoppedError          143  SIGTERM asked the pass to stop
        └── InterruptedByUserError  130  Ctrl-C did

The message is one line: what is wrong, where, what to do. It never holds a secret. An error raised without a
message says what its class's docstring says.
"""

from __future__ import annotations

from typing import ClassVar


class MavenError(Exception):
    """Something went wrong that maven can't name."""

    exit_code: ClassVar[int] = 70

    def __str__(self) -> str:
        return super().__str__() or (type(self).__doc__ or "").strip()


class UsageError(MavenError):
    """The arguments don't fit."""

    exit_code = 2


class DependencyDownError(MavenError):
    """A service that maven needs can't be reached."""

    exit_code = 69


class DatabaseDownError(DependencyDownError):
    """PostgreSQL can't be reached."""


class RedisDownError(DependencyDownError):
    """Redis can't be reached."""


class DiskFullError(DependencyDownError):
    """The disk is full."""


class TryLaterError(MavenError):
    """Not now; try again later."""

    exit_code = 75


class LockHeldError(TryLaterError):
    """Previous run still running, skipping..."""


class CircuitOpenError(TryLaterError):
    """What failed again and again is left alone for a while."""


class ConfigurationError(MavenError):
    """A setting is wrong."""

    exit_code = 78


class SchemaError(ConfigurationError):
    """The database's schema doesn't match this version of maven."""


class StoppedError(MavenError):
    """Stopped by a signal."""

    exit_code = 143


class InterruptedByUserError(StoppedError):
    """Stopped by Ctrl-C."""

    exit_code = 130

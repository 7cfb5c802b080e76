"""Messages for operators, on stderr: the platform's wording, in one of three formats.

text      2026-01-31T13:45:00.123Z info  [TickerUpdateWorker] Updated 2 tickers in 87ms
json      {"time": …, "level": "info", "action": "pass.done", "worker": "tickers", "message": "[TickerUpdateWorker] …"}
journal   <6>[TickerUpdateWorker] Updated 2 tickers in 87ms      (systemd reads the priority and adds the time)

Every line carries a stable ``action``, so that a log pipeline never parses the wording.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from maven_cli.settings import LogFormat, LogLevel

LEVELS: dict[LogLevel, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}
_NAMES = {number: name for name, number in LEVELS.items()}
_SYSLOG = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}

logger = logging.getLogger("maven")


class Formatter(logging.Formatter):
    """One line per record, in the configured format."""

    def __init__(self, style: LogFormat) -> None:
        super().__init__()
        self.style = style

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage().replace("\n", " ")
        if record.exc_info:
            message = f"{message}\n{self.formatException(record.exc_info)}"
        if self.style == "journal":
            return f"<{_SYSLOG.get(record.levelno, 6)}>{message}"
        level = _NAMES.get(record.levelno, record.levelname.lower())
        time = (
            datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z")
        )
        if self.style == "text":
            return f"{time} {level:<5} {message}"
        fields: dict[str, Any] = getattr(record, "fields", {})
        action = getattr(record, "action", "message")
        return json.dumps(
            {"time": time, "level": level, "action": action, **fields, "message": message}, default=str
        )


class _CurrentStderr(logging.StreamHandler[Any]):
    """Looks stderr up at each record: a progress bar or a test may have replaced it since."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def configure(level: LogLevel, style: LogFormat) -> None:
    """Points maven's messages at stderr. Called once per process; calling it again replaces the first."""
    handler = _CurrentStderr()
    handler.setFormatter(Formatter(style))
    logger.handlers[:] = [handler]
    logger.setLevel(LEVELS[level])
    logger.propagate = False


def mute(*libraries: str) -> None:
    """For libraries that log what may be secret, like the address of every request: no handler gets it, whoever adds one."""
    for library in libraries:
        logging.getLogger(library).setLevel(logging.CRITICAL)


class WorkerLog:
    """The messages of one worker, each behind its platform name: ``[TickerUpdateWorker] …``."""

    def __init__(self, label: str, worker: str) -> None:
        self.label = label
        self.worker = worker

    def debug(self, action: str, message: str, **fields: Any) -> None:
        self._log(logging.DEBUG, action, message, fields)

    def info(self, action: str, message: str, **fields: Any) -> None:
        self._log(logging.INFO, action, message, fields)

    def warning(self, action: str, message: str, **fields: Any) -> None:
        self._log(logging.WARNING, action, message, fields)

    def error(self, action: str, message: str, **fields: Any) -> None:
        self._log(logging.ERROR, action, message, fields)

    def _log(self, level: int, action: str, message: str, fields: dict[str, Any]) -> None:
        if logger.isEnabledFor(level):
            logger.log(
                level,
                "[%s] %s",
                self.label,
                message,
                extra={"action": action, "fields": {"worker": self.worker, **fields}},
            )

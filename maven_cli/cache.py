"""The one place that talks to Redis (or Valkey): connect, and publish values that carry their own time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, cast
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from maven_cli.errors import ConfigurationError, RedisDownError
from maven_cli.times import iso_micros

TIMEOUT = 5.0  # seconds, for connecting and for each answer

_NO_URL = (
    "MAVEN_REDIS_URL is not a valid Redis URL; write redis://user:password@host:port/0, and a password's @ as %40, "
    "/ as %2F"
)

# Every value starts with {"asOf":"<27 characters>", so that a value's age is a fixed slice and text order is time
# order. An older value never replaces a newer one: a pass that was frozen and wakes up does no harm.
AS_OF = '{"asOf":"%s"'
_WRITE_NEWER = """
local ttl, channel, as_of, count, changed = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), {}
local written, removed = 0, 0
-- The value and its time; what isn't ours (another shape, another type) is older than anything.
local function stored(key)
    local value = redis.pcall('GET', key)
    if type(value) ~= 'string' or string.sub(value, 1, 9) ~= '{"asOf":"' then return '', '' end
    return value, string.sub(value, 10, 36)
end
for i = 1, count do
    local new = ARGV[i + 4]
    local old, time = stored(KEYS[i])
    if time <= string.sub(new, 10, 36) then
        redis.call('SET', KEYS[i], new, 'PX', ttl)
        written = written + 1
        if string.sub(old, 37) ~= string.sub(new, 37) then changed[#changed + 1] = new end
    end
end
for i = count + 1, #KEYS do
    local _, time = stored(KEYS[i])
    if time <= as_of then removed = removed + redis.call('UNLINK', KEYS[i]) end
end
if channel ~= '' and #changed > 0 then redis.call('PUBLISH', channel, '[' .. table.concat(changed, ',') .. ']') end
return {written, #changed, removed}
"""


@contextmanager
def open_cache(url: str, *, timeout: float = TIMEOUT) -> Iterator[redis.Redis]:
    """A connected client. Raises RedisDownError or ConfigurationError, never with the password in it."""
    try:
        _check_path(url)
        client = redis.Redis.from_url(
            url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=Retry(NoBackoff(), 0)
        )
        # Options of the URL are arguments of a connection, so it takes one to see whether they are known.
        pool = client.connection_pool
        pool.connection_class(**pool.connection_kwargs)
    except (ValueError, TypeError, AttributeError, redis.RedisError):
        raise ConfigurationError(_NO_URL) from None
    try:
        try:
            client.ping()
        except (ValueError, TypeError, AttributeError, LookupError):  # an option of a wrong kind
            raise ConfigurationError(_NO_URL) from None
        except OSError as error:
            raise redis.exceptions.ConnectionError(str(error)) from None
        yield client  # an OSError from there is the caller's own: a full disk, a reader that has gone
    except redis.exceptions.AuthenticationError:
        raise ConfigurationError(
            f"Redis at {target(url)} refuses the credentials; check MAVEN_REDIS_URL"
        ) from None
    except redis.exceptions.NoPermissionError as error:
        raise ConfigurationError(
            f"Redis at {target(url)} refuses: {error}; grant it to maven's user"
        ) from None
    except redis.exceptions.ReadOnlyError:
        raise RedisDownError(
            f"Redis at {target(url)} is a read-only replica; point MAVEN_REDIS_URL at the master"
        ) from None
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
        raise RedisDownError(f"Redis at {target(url)} can't be reached: {_reason(error)}") from None
    except redis.exceptions.OutOfMemoryError:
        raise RedisDownError(
            f"Redis at {target(url)} is out of memory (maxmemory); nothing else was changed"
        ) from None
    except redis.exceptions.ResponseError as error:
        raise _response(error, url) from None
    finally:
        client.close()


def _check_path(url: str) -> None:
    """Raises ValueError unless the path is a database number; the client would take any other for number 0."""
    parts = urlsplit(url)
    if parts.scheme != "unix" and re.fullmatch(r"/?[0-9]*", parts.path) is None:
        raise ValueError("not a database number")


def _response(error: redis.exceptions.ResponseError, url: str) -> ConfigurationError | RedisDownError:
    text = str(error)
    if text.startswith(("NOAUTH", "WRONGPASS", "Authentication", "DB index", "invalid DB")):
        return ConfigurationError(f"Redis at {target(url)} refuses: {text}; check MAVEN_REDIS_URL")
    return RedisDownError(f"Redis at {target(url)} answered: {text.splitlines()[0]}")


def _reason(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__


def target(url: str) -> str:
    """Host and port, or the socket's path, for messages."""
    parts = urlsplit(url)
    return parts.path if parts.scheme == "unix" else f"{parts.hostname or 'localhost'}:{parts.port or 6379}"


def write_newer(
    client: redis.Redis,
    values: Sequence[tuple[str, str]],
    *,
    ttl: timedelta,
    channel: str = "",
    remove: Sequence[str] = (),
    as_of: datetime | None = None,
) -> tuple[int, int, int]:
    """Sets each (key, value) unless a newer value is there, in one atomic call.

    A value is JSON text that starts with `AS_OF`. What changed apart from its time is published to the channel as one
    JSON array. The keys of `remove` are deleted unless their value is newer than `as_of`. Returns how many were written,
    how many of them changed, and how many keys were removed.
    """
    keys = [key for key, _ in values]
    moment = iso_micros(as_of) if as_of else ""
    args: list[Any] = [
        ttl // timedelta(milliseconds=1),
        channel,
        moment,
        len(keys),
        *(value for _, value in values),
    ]
    answer = cast("list[int]", client.eval(_WRITE_NEWER, len(keys) + len(remove), *keys, *remove, *args))
    return answer[0], answer[1], answer[2]

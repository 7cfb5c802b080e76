"""The one place that talks to Redis (or Valkey): connect, and publish values that carry their own time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, cast
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from maven_cli.errors import ConfigurationError, RedisDownError

TIMEOUT = 5.0  # seconds, for connecting and for each answer

# Every value starts with {"asOf":"<27 characters>", so that a value's age is a fixed slice and text order is time
# order. An older value never replaces a newer one: a pass that was frozen and wakes up does no harm.
AS_OF = '{"asOf":"%s"'
_WRITE_NEWER = """
local ttl, channel, count, changed = ARGV[1], ARGV[2], tonumber(ARGV[3]), {}
local written = 0
for i = 1, count do
    local new = ARGV[i + 3]
    local old = redis.call('GET', KEYS[i])
    if not old or string.sub(old, 10, 36) <= string.sub(new, 10, 36) then
        redis.call('SET', KEYS[i], new, 'PX', ttl)
        written = written + 1
        if not old or string.sub(old, 37) ~= string.sub(new, 37) then changed[#changed + 1] = new end
    end
end
for i = count + 1, #KEYS do redis.call('UNLINK', KEYS[i]) end
if channel ~= '' and #changed > 0 then redis.call('PUBLISH', channel, '[' .. table.concat(changed, ',') .. ']') end
return {written, #changed}
"""


@contextmanager
def open_cache(url: str) -> Iterator[redis.Redis]:
    """A connected client. Raises RedisDownError or ConfigurationError, never with the password in it."""
    try:
        client = redis.Redis.from_url(
            url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT, retry=Retry(NoBackoff(), 0)
        )
    except (ValueError, TypeError):
        raise ConfigurationError("MAVEN_REDIS_URL is not a valid Redis URL") from None
    try:
        client.ping()
        yield client
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
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError) as error:
        raise RedisDownError(f"Redis at {target(url)} can't be reached: {_reason(error)}") from None
    except redis.exceptions.OutOfMemoryError:
        raise RedisDownError(
            f"Redis at {target(url)} is out of memory (maxmemory); nothing else was changed"
        ) from None
    except redis.exceptions.ResponseError as error:
        raise _response(error, url) from None
    finally:
        client.close()


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
) -> tuple[int, int]:
    """Sets each (key, value) unless a newer value is there, and deletes `remove`, in one atomic call.

    A value is JSON text that starts with `AS_OF`. What changed apart from its time is published to the channel as one
    JSON array. Returns how many were written, and how many of them changed.
    """
    keys = [key for key, _ in values]
    args: list[Any] = [ttl // timedelta(milliseconds=1), channel, len(keys), *(value for _, value in values)]
    answer = cast("list[int]", client.eval(_WRITE_NEWER, len(keys) + len(remove), *keys, *remove, *args))
    return answer[0], answer[1]

"""Chains side by side: each on a thread and a connection of its own, and what goes wrong on one stays its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import psycopg

from maven_cli.db.failures import explain
from maven_cli.deposits.chains import Chain
from maven_cli.errors import (
    ConfigurationError,
    DatabaseDownError,
    DependencyDownError,
    MavenError,
    StoppedError,
    TryLaterError,
)
from maven_cli.runner import Pass

T = TypeVar("T")
# A node, a moment, the configuration: what can be wrong with a pass as a whole.
WHOLE = (DependencyDownError.exit_code, TryLaterError.exit_code, ConfigurationError.exit_code)


def side_by_side(
    current: Pass, chains: Sequence[Chain], work: Callable[[Pass, psycopg.Connection, Chain], T]
) -> list[T]:
    """Runs `work` for each chain on a thread and a connection of its own, and returns what came of those that succeeded.

    A chain that fails is an error of the pass. What concerns all of them ends it: a signal, or PostgreSQL. When every chain
    failed for the same kind of reason, that is the pass's own: 69 where all nodes are down, 78 where all are wrong.
    """

    def one(chain: Chain) -> T | MavenError:
        conn = current.connect()
        try:
            return work(current, conn, chain)
        except psycopg.Error as error:
            current.stop.check()
            known = explain(error)
            if known is None:
                raise
            return known
        except (StoppedError, DatabaseDownError):
            raise
        except MavenError as error:
            return error
        finally:
            current.stop.connections.remove(conn)
            conn.close()

    if not chains:
        return []
    with ThreadPoolExecutor(min(len(chains), 8), thread_name_prefix="chain") as pool:
        results = list(pool.map(one, chains))
    failures = [result for result in results if isinstance(result, MavenError)]
    for chain, result in zip(chains, results, strict=True):
        if isinstance(result, DatabaseDownError):
            raise result
        if isinstance(result, MavenError):
            reason = current.fail(f"chain:{chain.name}", result)
            current.log.error("chain.failed", f"Chain {chain.name} failed: {reason}", chain=chain.name)
    if len(failures) == len(chains):
        if all(isinstance(failure, DependencyDownError) for failure in failures):
            current.log.error("chain.monitoring", "Blockchain monitoring is not active!")
        if len({failure.exit_code for failure in failures}) == 1 and failures[0].exit_code in WHOLE:
            raise failures[0]
    return [result for result in results if not isinstance(result, MavenError)]

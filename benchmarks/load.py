"""`python -m benchmarks.load URL USERS`: transfers between random wallets at a steady pace, like a pgbench script.

Each is one transaction of the ledger: an amount leaves one user's wallet and arrives in another's. A line on stdin is
answered by a JSON list: how many milliseconds each transfer since the line before took, its commit included.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time

import psycopg

CLIENTS = 2
RATE = 100  # transfers per second and client

_TRANSFER = """
SELECT maven_ledger_post(array_agg((w.id, 'transfer', %s || ':' || w.user_id, CASE WHEN w.user_id = %s THEN -0.01 ELSE 0.01 END, 0, NULL)
                                   ::maven_posting))
  FROM wallets w WHERE w.user_id IN (%s, %s) AND w.asset_id = %s
"""


class Load:
    """Clients that never stop, and what their transfers took since it was last asked."""

    def __init__(self, url: str, users: int) -> None:
        self._url = url
        self._users = users
        self._taken: list[float] = []
        self._mutex = threading.Lock()
        for number in range(CLIENTS):
            threading.Thread(target=self._client, args=[number], daemon=True).start()

    def take(self) -> list[float]:
        """The milliseconds of every transfer that ended since the last call."""
        with self._mutex:
            taken, self._taken = self._taken, []
        return taken

    def _client(self, number: int) -> None:
        rng = random.Random(number)
        with psycopg.connect(self._url, autocommit=True) as conn:
            row = conn.execute("SELECT array_agg(id ORDER BY id) FROM assets").fetchone()
            assert row is not None
            due, count = time.perf_counter(), 0
            while True:
                due += 1 / RATE
                time.sleep(max(0.0, due - time.perf_counter()))
                payer, payee = rng.sample(range(1, self._users + 1), 2)
                count += 1
                began = time.perf_counter()
                conn.execute(
                    _TRANSFER,
                    [f"load:{number}:{count}", payer, payer, payee, rng.choice(row[0])],
                    prepare=True,
                )
                with self._mutex:
                    self._taken.append((time.perf_counter() - began) * 1000)


def main() -> None:
    load = Load(sys.argv[1], int(sys.argv[2]))
    for _ in sys.stdin:
        print(json.dumps(load.take()), flush=True)


if __name__ == "__main__":
    main()

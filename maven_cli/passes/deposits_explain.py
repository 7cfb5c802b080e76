"""Where a deposit or a transaction is, and why: from the books, and from the chain where the books don't know it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import psycopg

from maven_cli.chains import Reference
from maven_cli.deposits import read
from maven_cli.deposits.chains import Chain, all_chains, progress, resolve_chains
from maven_cli.deposits.diagnosis import chain_health, diagnose
from maven_cli.deposits.verdict import Verdict, verdict
from maven_cli.errors import UsageError
from maven_cli.runner import Outcome, Pass, Services, Worker, run

WORKER = Worker("deposits-explain", "DepositMonitoringWorker", "deposits-explain")


def explain(services: Services, what: str, *, chains: Sequence[str] = (), on_chain: bool = False) -> Outcome:
    """Tells the story of a deposit by its id, or of a transaction by its hash. `data`: deposits (rows of deposit_rows.sql with
    `diagnosis` and `story`), unmatched (rows of unmatched_rows.sql), looked (list of Verdict).

    chains: where to look for a hash; by default on every chain whose notation it has. on_chain: ask a node also about what
    the books know.
    """
    return run(WORKER, lambda current: _body(current, what, chains, on_chain), services, record=False)


def _body(current: Pass, what: str, names: Sequence[str], on_chain: bool) -> dict[str, Any]:
    conn = current.conn
    chains = resolve_chains(conn, names) if names else all_chains(conn)
    hashes: dict[int, bytes] = {}
    unmatched: list[dict[str, Any]] = []
    if re.fullmatch(r"[0-9]{1,19}", what):
        deposits = read.named(conn, [int(what)])
        named = [chain for chain in all_chains(conn) if chain.id == deposits[0]["chain_id"]]
        if on_chain:
            hashes = {chain.id: chain.notation.hash(deposits[0]["tx_hash"]) for chain in named}
        chains = named
    else:
        hashes = _hashes(chains, what)
        deposits = [row for number, tx in hashes.items() for row in read.of_transaction(conn, number, tx)]
        unmatched = [
            row
            for number, tx in hashes.items()
            for row in read.unmatched(conn, chains=[number], tx_hash=tx, limit=None)
        ]
    looked: list[Verdict] = []
    if on_chain or not (deposits or unmatched):
        # A hash that the books know on one chain is looked for there alone.
        home = {row["chain"] for row in (*deposits, *unmatched)}
        asked = [chain for chain in chains if chain.id in hashes and (not home or chain.name in home)]
        looked = _look(current, asked, hashes, home)
    health = chain_health(conn)
    return {
        "deposits": [
            {
                **row,
                "diagnosis": diagnose(row, health[row["chain"]], current.as_of),
                "story": read.story(conn, row["id"]),
            }
            for row in deposits
        ],
        "unmatched": unmatched,
        "looked": looked,
    }


def _hashes(chains: Sequence[Chain], what: str) -> dict[int, bytes]:
    """The hash as each chain reads it, for those whose notation it has. Raises UsageError when there is none."""
    found: dict[int, bytes] = {}
    problem = "there are no chains yet: maven chains add FILE"
    for chain in chains:
        try:
            found[chain.id] = chain.notation.hash(what)
        except UsageError as error:
            problem = str(error)
    if not found:
        if len(chains) == 1 or not chains:
            raise UsageError(problem)
        raise UsageError(
            f"{what[:100]!r} is neither a deposit's id nor a transaction's hash in the notation of {', '.join(chain.name for chain in chains)}"
        )
    return found


def _look(current: Pass, chains: Sequence[Chain], hashes: dict[int, bytes], home: set[str]) -> list[Verdict]:
    """What each chain says of its hash. One whose nodes don't answer is an error of its own."""
    # Only here: the books alone need neither.
    from maven_cli.deposits.endpoints import pinned
    from maven_cli.deposits.side_by_side import side_by_side

    def one(current: Pass, conn: psycopg.Connection, chain: Chain) -> Verdict:
        with pinned(conn, chain, current.settings, current.log, current.stop.check) as endpoint:
            [sighting] = endpoint.node.look([Reference(hashes[chain.id])])
            name = endpoint.node.name
        return verdict(conn, chain, progress(conn, chain), name, sighting, known=chain.name in home)

    found = side_by_side(current, chains, one)
    # Where it is somewhere, it is nowhere else.
    known = [one for one in found if one.state != "unknown"]
    return known or found

"""One chain is read again from an earlier block, by an operator's decision; or, for a look ahead, what that would change."""

from __future__ import annotations

from typing import Any

from maven_cli.chains import Scan
from maven_cli.deposits import rescan as again
from maven_cli.deposits.chains import Chain, Progress, progress, resolve_chains
from maven_cli.deposits.endpoints import Pinned, pinned
from maven_cli.deposits.scanning import CHUNK, Watched, final_height
from maven_cli.errors import UsageError
from maven_cli.runner import Outcome, Pass, Services, Worker, run

WORKER = Worker("chains-rescan", "DepositMonitoringWorker", "chains-rescan")
# Milliseconds for which a scan's transaction may keep it waiting.
WAIT_MS = 5000


def rescan(services: Services, name: str, first: int, *, operator: str, dry_run: bool = False) -> Outcome:
    """Sets a chain back, so that the next scan reads on from block `first`. `data`: chain, from, cursor (where it was),
    dry_run; of a dry run also read_to, complete, changes (Changes).

    A dry run reads at most as much as one scan pass does, and writes nothing.
    """

    def body(current: Pass) -> dict[str, Any]:
        [chain] = resolve_chains(current.conn, [name])
        where = progress(current.conn, chain)
        again.check_range(chain, where, first)
        assert where.cursor is not None
        data: dict[str, Any] = {
            "chain": chain.name,
            "from": first,
            "cursor": where.cursor,
            "dry_run": dry_run,
        }
        with pinned(current.conn, chain, current.settings, current.log, current.stop.check) as endpoint:
            head = endpoint.head.block.height
            if first > head:
                raise UsageError(
                    f"--from {first} is beyond block {head}, the newest that {endpoint.node.name} has of {chain.name}"
                )
            if dry_run:
                return data | _rehearse(current, chain, where, endpoint, first)
            below = again.block_below(endpoint.node, first)
        with current.transaction(f"deposits:{chain.name}", money=True, wait_ms=WAIT_MS) as conn:
            again.go_back(conn, chain, first, below, operator)
        current.log.info(
            "chain.rescan",
            f"{chain.name} will be read again from block {first} on, by {operator}; it was at {where.cursor}",
            chain=chain.name,
        )
        return data

    return run(WORKER, body, services, record=False)


def _rehearse(current: Pass, chain: Chain, where: Progress, endpoint: Pinned, first: int) -> dict[str, Any]:
    # All is read before the transaction begins: it locks what it touches, and nodes may be slow.
    assert where.cursor is not None
    end = min(where.cursor, endpoint.head.block.height)
    final = final_height(chain, progress(current.conn, chain)) or -1
    watch = Watched(current.conn, chain)
    scans: list[tuple[int, int, Scan]] = []
    read_to = first - 1
    while read_to < end and _room(current, read_to + 1 - first):
        current.stop.check()
        last = min(read_to + CHUNK, end, first + current.settings.scan_blocks - 1)
        found = endpoint.node.scan(read_to + 1, last, watch, final=last <= final)
        scans.append((read_to + 1, last, found))
        read_to = last
    with current.rehearsal() as conn:
        changes = again.changes(conn, chain, scans)
    return {"read_to": read_to, "complete": read_to == end, "changes": changes}


def _room(current: Pass, blocks: int) -> bool:
    return blocks < current.settings.scan_blocks and current.elapsed() < current.settings.scan_budget

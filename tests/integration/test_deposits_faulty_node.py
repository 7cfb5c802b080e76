"""Deposits behind a node that says less, or something else, than it knows: the cursor stays, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from maven_cli.deposits.config import read_file, write
from maven_cli.errors import DependencyDownError
from maven_cli.passes.deposits_scan import scan
from tests.evm_pool import Pool
from tests.integration.test_deposits_evm import ALICE, NODE, Exchange, data_of, exchange, file_of, node
from tests.node_proxy import Fault, NodeProxy, changed, html, null_results, short, stale_head, status

__all__ = ["exchange", "node"]
FAST = "maven_cli.chains.rpc._FIRST_PAUSE"


@pytest.fixture
def proxy(node: Pool, exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> Iterator[NodeProxy]:
    """Between the exchange and its node, from the first scan on."""
    monkeypatch.setattr(FAST, 0.001)
    with NodeProxy(node.url) as opened:
        monkeypatch.setenv(NODE, opened.url)
        data_of(scan(exchange.services))
        yield opened


FAULTS: dict[str, Callable[[], Fault]] = {
    "html": lambda: html,
    "HTTP 503": lambda: status(503),
    "a short batch (D21)": lambda: short(),
    "null blocks (D21)": lambda: null_results("eth_getBlockByNumber"),
    "logs of another block": lambda: changed(_other_block),
}


def _other_block(call: Any, result: Any) -> Any:
    if call["method"] != "eth_getLogs":
        return result
    return [{**log, "blockHash": "0x" + "ab" * 32} for log in result]


@pytest.mark.parametrize("fault", FAULTS)
def test_the_cursor_stays(fault: str, exchange: Exchange, proxy: NodeProxy) -> None:
    exchange.node.call(exchange.token, "transfer(address,uint256)", ALICE, 5_000_000)
    exchange.node.mine(2)
    before = exchange.progress.cursor
    proxy.fault(FAULTS[fault]())
    with pytest.raises(DependencyDownError):
        scan(exchange.services)
    assert exchange.progress.cursor == before
    proxy.clear()
    assert exchange.scan()["detected"] == 1


def test_d20_a_node_that_stands_still(exchange: Exchange, proxy: NodeProxy) -> None:
    exchange.node.pay(ALICE, 10**18)
    height = exchange.node.head
    exchange.node.mine(3)
    proxy.fault(stale_head(height))
    assert exchange.scan()["detected"] == 0
    assert exchange.progress.cursor == height
    proxy.clear()
    assert exchange.scan()["detected"] == 1


def test_d42_logs_that_a_lagging_node_leaves_out(
    exchange: Exchange, proxy: NodeProxy, tmp_path: Path
) -> None:
    """Found when the range is read again at finality, from the other endpoint."""
    both = "".join(
        f'[[chains.endpoints]]\nname = "{name}"\nsecret = "env:{variable}"\npriority = {priority}\n'
        for name, variable, priority in (("one", NODE, 0), ("two", "MAVEN_TEST_NODE_TRUE", 5))
    )
    path = tmp_path / "two.toml"
    path.write_text(file_of(exchange.token, both))
    write(exchange.conn, read_file(path))
    exchange.node.call(exchange.token, "transfer(address,uint256)", ALICE, 5_000_000)
    exchange.node.mine(2)
    proxy.fault(changed(lambda call, result: [] if call["method"] == "eth_getLogs" else result))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAVEN_TEST_NODE_TRUE", exchange.node.url)
        first = exchange.scan()
        assert (first["detected"], exchange.progress.cursor) == (0, exchange.node.head)
        exchange.node.mine(4)
        assert exchange.scan()["detected"] == 1
    assert exchange.rows("units", "status") == [(5_000_000, "PENDING")]

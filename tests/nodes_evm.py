"""A real EVM node in a process of its own: anvil, with accounts that sign, blocks on demand, and reorganisations.

with Anvil() as node:
    node.pay(alice, 10**18); node.mine()          # nothing is mined by itself
    token = node.deploy("USDT", 6, 10**12)        # mines a block
    node.call(token, "transfer(address,uint256)", alice, 5_000_000); node.mine()
    node.reorganise(3)                            # the newest three blocks become three empty ones
    node.url
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import pytest
from eth_abi.abi import encode
from eth_utils.crypto import keccak

from maven_cli.embedded.processes import die_with_parent

CONTRACT = Path(__file__).parent / "contracts" / "token.vy"
PLACES = (
    Path("/opt/anvil/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil"),
    Path(
        "/usr/local/lib/node_modules/@foundry-rs/anvil/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil"
    ),
)


def find_anvil() -> Path:
    """The binary; skips the test where there is none."""
    if named := os.environ.get("MAVEN_TEST_ANVIL") or shutil.which("anvil"):
        return Path(named)
    for place in PLACES:
        if place.exists():
            return place
    pytest.skip("no anvil here: npm install --prefix /opt/anvil @foundry-rs/anvil@1.7.1")


@cache
def bytecode() -> bytes:
    """The token, compiled."""
    from vyper import compile_code

    compiled = compile_code(CONTRACT.read_text(encoding="utf-8"), output_formats=["bytecode"])
    return bytes.fromhex(compiled["bytecode"].removeprefix("0x"))


class Anvil:
    """One node; chain id 31337 unless told otherwise. Hashes and addresses are 0x and hex, small letters."""

    def __init__(self, *options: str, chain_id: int = 31337) -> None:
        self.chain_id = chain_id
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self._client = httpx.Client(timeout=30, trust_env=False)

    def __enter__(self) -> Anvil:
        self.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stop()
        self._client.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """On the port it had before, if it ran before; with a new chain."""
        binary = find_anvil()
        if not self._port:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self._port = free.getsockname()[1]
        self._process = subprocess.Popen(
            [
                str(binary), "--port", str(self._port), "--chain-id", str(self.chain_id), "--no-mining", "--silent",
                "--accounts", "10", "--balance", "1000000000", *self._options,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent(signal.SIGKILL),
        )  # fmt: skip
        until = time.monotonic() + 20
        while True:
            try:
                self.rpc("eth_blockNumber")
                return
            except httpx.HTTPError:
                if time.monotonic() > until or self._process.poll() is not None:
                    raise
                time.sleep(0.02)

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def rpc(self, method: str, *params: Any) -> Any:
        answer = self._client.post(
            self.url, json={"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
        ).json()
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    @property
    def head(self) -> int:
        return int(self.rpc("eth_blockNumber"), 16)

    @property
    def bank(self) -> str:
        """An account with more than enough, whose key the node has."""
        return str(self.rpc("eth_accounts")[0])

    def block_hash(self, height: int) -> str:
        return str(self.rpc("eth_getBlockByNumber", hex(height), False)["hash"])

    def mine(self, blocks: int = 1) -> None:
        self.rpc("anvil_mine", hex(blocks))

    def reorganise(self, depth: int) -> None:
        """Replaces the newest blocks by as many empty ones; what they held is gone, from the pool too."""
        self.rpc("anvil_reorg", depth, [])

    def send(self, **fields: Any) -> str:
        """Sends a transaction into the pool; its hash."""
        fields.setdefault("from", self.bank)
        fields.setdefault("gas", hex(3_000_000))
        return str(self.rpc("eth_sendTransaction", fields))

    def pay(self, to: str, wei: int, **fields: Any) -> str:
        return self.send(to=to, value=hex(wei), **fields)

    def deploy(self, symbol: str = "USDT", decimals: int = 6, supply: int = 10**30) -> str:
        """A token whose supply the bank has; mined at once. Its address."""
        data = bytecode() + encode(["string", "uint8", "uint256"], [symbol, decimals, supply])
        tx = self.send(data="0x" + data.hex())
        self.mine()
        receipt = self.rpc("eth_getTransactionReceipt", tx)
        assert receipt["status"] == "0x1"
        return str(receipt["contractAddress"])

    def call(self, contract: str, function: str, *values: Any, wei: int = 0, **fields: Any) -> str:
        """A call as a transaction into the pool; its hash."""
        kinds = function[function.index("(") + 1 : -1].split(",")
        data = keccak(text=function)[:4] + encode(kinds, values)
        return self.send(to=contract, data="0x" + data.hex(), value=hex(wei), **fields)

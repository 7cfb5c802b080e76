"""A real node of the Bitcoin family in a process of its own: Litecoin Core in regtest, with a wallet that pays.

    with Litecoind() as node:                           # has 101 blocks, and coins to spend
        address = node.new_address("bech32")
        node.pay(address, "1.5"); node.mine()
        node.reorganise(3)                              # the newest three blocks become four others
        node.url                                        # with its password

Mining fails past height 430 in this chain (its MWEB): tests keep it short. After a reorganisation the node puts what it held
back into its pool.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import pytest

from maven_cli.embedded.processes import die_with_parent

PASSWORD = "a-secret-of-the-node"


def find_litecoind() -> str:
    """The binary; skips the test where there is none."""
    found = shutil.which("litecoind")
    if found is None:
        pytest.skip("no litecoind here: apt install litecoind")
    return found


class Litecoind:
    """One node, with an index of transactions only if asked for one."""

    def __init__(self, *options: str) -> None:
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._home = Path(tempfile.mkdtemp(prefix="maven-ltc-", dir="/tmp"))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._client = httpx.Client(timeout=60, trust_env=False, auth=("maven", PASSWORD))

    def __enter__(self) -> Litecoind:
        try:
            self.start()
            self.rpc("createwallet", "bank")
            self.mine(101)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        return f"http://maven:{PASSWORD}@127.0.0.1:{self._port}"

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                find_litecoind(), "-regtest", f"-datadir={self._home}", f"-rpcport={self._port}", "-rpcuser=maven",
                f"-rpcpassword={PASSWORD}", "-listen=0", "-server=1", "-fallbackfee=0.0001", "-printtoconsole=0",
                "-dbcache=4", "-walletrbf=1", "-mempoolreplacement=1", *self._options,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent(signal.SIGKILL),
        )  # fmt: skip
        until = time.monotonic() + 30
        while True:
            try:
                self.rpc("getblockcount")
                return
            except (httpx.HTTPError, RuntimeError):
                if time.monotonic() > until or self._process.poll() is not None:
                    raise
                time.sleep(0.05)

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def close(self) -> None:
        self.stop()
        self._client.close()
        shutil.rmtree(self._home, ignore_errors=True)

    def rpc(self, method: str, *params: Any) -> Any:
        answer = self._client.post(
            f"http://127.0.0.1:{self._port}", json={"id": 1, "method": method, "params": list(params)}
        ).json()
        if answer["error"] is not None:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    @property
    def head(self) -> int:
        return int(self.rpc("getblockcount"))

    @property
    def genesis(self) -> str:
        return str(self.rpc("getblockhash", 0))

    def new_address(self, kind: str = "bech32") -> str:
        """legacy, p2sh-segwit or bech32; the wallet's own, so that it can spend what comes."""
        return str(self.rpc("getnewaddress", "", kind))

    def mine(self, blocks: int = 1, to: str | None = None) -> list[str]:
        """Blocks with everything in the pool; their coinbase goes to the bank."""
        return list(self.rpc("generatetoaddress", blocks, to or self.new_address()))

    def mine_empty(self) -> str:
        """A block with nothing but its coinbase."""
        return str(self.rpc("generateblock", self.new_address(), [])["hash"])

    def pay(self, address: str, amount: str) -> str:
        """A transaction into the pool; its id."""
        return str(self.rpc("sendtoaddress", address, amount))

    def pay_many(self, amounts: Mapping[str, str]) -> str:
        """One transaction with an output for each address."""
        return str(
            self.rpc("sendmany", "", {address: float(Decimal(amount)) for address, amount in amounts.items()})
        )

    def reorganise(self, depth: int) -> None:
        """Replaces the newest blocks by one more empty ones; what they held is in the pool again."""
        first = self.rpc("getblockhash", self.head - depth + 1)
        self.rpc("invalidateblock", first)
        for _ in range(depth + 1):
            self.mine_empty()

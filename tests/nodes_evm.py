"""A real EVM chain in a process of its own: anvil.

    with Anvil() as chain:                              # ends with the block, or with this process
        chain.url                                       # for an Endpoint
        paid = chain.pay(address, 10**18)               # mined at once, in a block of its own
        token = chain.deploy("erc20", "TUSD", 6, 10**12)
        sent = chain.send(token, "transfer(address,uint256)", address, 5)
        with chain.one_block():                         # mined together when the block of code ends
            chain.pay(...); chain.pay(...)
        chain.mine(20)
        chain.reorg(3, {paid: 1})                       # three new blocks; the second holds `paid` again

Addresses, hashes and contracts are bytes, as in maven_cli.chains. Contracts are those of tests/contracts.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from signal import SIGKILL
from types import TracebackType
from typing import Any

import httpx
import pytest
from eth_abi.abi import encode

from maven_cli.chains.evm.notation import EvmNotation
from maven_cli.embedded.processes import die_with_parent

CONTRACTS = Path(__file__).parent / "contracts"
# Where .ci/run installs it.
INSTALLED = Path("/opt/anvil/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil")
GAS = 3_000_000  # of each transaction: without an estimate even one that fails is mined

_LISTENS = re.compile(rb"Listening on (127\.0\.0\.1:\d+)")
_START_LIMIT = 30.0  # seconds
_MINE_LIMIT = 30.0


def anvil_binary() -> Path:
    """Skips the test where there is none; in CI that's a failure."""
    named = os.environ.get("MAVEN_TEST_ANVIL")
    # npm's own `anvil` on a PATH is a script that starts the binary, which would outlive it: that one comes last.
    path = Path(named) if named else INSTALLED if INSTALLED.exists() else Path(shutil.which("anvil") or "")
    if not path.is_file():
        pytest.skip("no anvil here: npm i @foundry-rs/anvil@1.7.1, and name its binary in MAVEN_TEST_ANVIL")
    return path


class Anvil:
    """A chain that mines a block for each transaction, at once."""

    def __init__(self, *options: str) -> None:
        """options: of anvil, like "--chain-id", "56"."""
        self._options = options
        self._home = Path()
        self._process: subprocess.Popen[bytes] | None = None
        self._client = httpx.Client(trust_env=False, timeout=60)
        self.waits = True
        self.url = ""
        self.accounts: list[bytes] = []

    def __enter__(self) -> Anvil:
        binary = anvil_binary()
        # It keeps states of old blocks below its home.
        self._home = Path(tempfile.mkdtemp(prefix="maven-evm-", dir="/tmp"))
        output = self._home / "output"
        fixed = ["--host", "127.0.0.1", "--port", "0", "--order", "fifo", "--gas-limit", str(10**10)]
        with output.open("wb") as file:
            self._process = subprocess.Popen(
                [binary, *fixed, *self._options],
                env={"HOME": str(self._home)},
                cwd=self._home,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent(SIGKILL),
            )
        try:
            self.url = f"http://{self._listening(output)}"
            self.accounts = [bytes.fromhex(account[2:]) for account in self.call("eth_accounts")]
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._client.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        shutil.rmtree(self._home, ignore_errors=True)

    def _listening(self, output: Path) -> str:
        assert self._process is not None
        deadline = time.monotonic() + _START_LIMIT
        while (match := _LISTENS.search(output.read_bytes())) is None:
            assert self._process.poll() is None, f"anvil ended: {output.read_text()}"
            assert time.monotonic() < deadline, "anvil didn't get ready"
            time.sleep(0.02)
        return match[1].decode()

    def call(self, method: str, *params: Any) -> Any:
        """Any method of the node; AssertionError with its words when it refuses."""
        question = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        answer = self._client.post(self.url, json=question).json()
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    # ------------------------------------------------------------------------------------------------------- blocks

    @property
    def height(self) -> int:
        return int(self.call("eth_blockNumber"), 16)

    def block_hash(self, height: int) -> bytes:
        return bytes.fromhex(self.call("eth_getBlockByNumber", hex(height), False)["hash"][2:])

    def height_of(self, tx_hash: bytes) -> int | None:
        """Where a transaction is mined; None when it isn't."""
        receipt = self.call("eth_getTransactionReceipt", f"0x{tx_hash.hex()}")
        return None if receipt is None else int(receipt["blockNumber"], 16)

    def mine(self, blocks: int = 1) -> None:
        self.call("anvil_mine", hex(blocks))

    @contextmanager
    def one_block(self) -> Iterator[None]:
        """What is sent within is mined together, in the order in which it was sent."""
        self.call("evm_setAutomine", False)
        self.waits = False
        try:
            yield
            self.mine()
        finally:
            self.waits = True
            self.call("evm_setAutomine", True)

    def reorg(self, depth: int, transactions: Mapping[bytes, int] | None = None) -> None:
        """Replaces the last `depth` blocks by as many others. Their transactions are gone but for those named, each with
        the new block (from 0) that holds it."""
        again = [[self._raw(tx_hash), block] for tx_hash, block in (transactions or {}).items()]
        self.call("anvil_reorg", depth, again)

    def _raw(self, tx_hash: bytes) -> str:
        return str(self.call("eth_getRawTransactionByHash", f"0x{tx_hash.hex()}"))

    # ------------------------------------------------------------------------------------------------- transactions

    def pay(
        self, to: bytes | None, amount: int, data: bytes = b"", *, sender: int = 0, gas: int = GAS
    ) -> bytes:
        """Sends native coin from one of the accounts; the transaction's hash. to=None creates a contract."""
        transaction = {
            "from": f"0x{self.accounts[sender].hex()}",
            "value": hex(amount),
            "data": f"0x{data.hex()}",
            "gas": hex(gas),
            **({"to": f"0x{to.hex()}"} if to is not None else {}),
        }
        tx_hash = bytes.fromhex(self.call("eth_sendTransaction", transaction)[2:])
        deadline = time.monotonic() + _MINE_LIMIT
        while self.waits and self.height_of(tx_hash) is None:
            assert time.monotonic() < deadline, "a transaction wasn't mined"
            time.sleep(0.005)
        return tx_hash

    def deploy(self, contract: str, *arguments: Any, amount: int = 0) -> bytes:
        """The address of a new contract of tests/contracts, owned by the first account."""
        tx_hash = self.pay(None, amount, self.creation(contract, *arguments))
        receipt = self.call("eth_getTransactionReceipt", f"0x{tx_hash.hex()}")
        return bytes.fromhex(receipt["contractAddress"][2:])

    def creation(self, contract: str, *arguments: Any) -> bytes:
        """What a transaction carries that makes a contract of tests/contracts."""
        compiled = _compiled(contract)
        constructor = next((entry for entry in compiled["abi"] if entry["type"] == "constructor"), None)
        types = [parameter["type"] for parameter in constructor["inputs"]] if constructor else []
        return bytes.fromhex(compiled["bytecode"][2:]) + encode(types, arguments)

    def send(
        self,
        contract: bytes,
        function: str,
        *arguments: Any,
        amount: int = 0,
        sender: int = 0,
        gas: int = GAS,
    ) -> bytes:
        """Calls a function like "transfer(address,uint256)" in a transaction; its hash."""
        return self.pay(contract, amount, call_data(function, *arguments), sender=sender, gas=gas)


def call_data(function: str, *arguments: Any) -> bytes:
    """Selector and arguments. Addresses are bytes."""
    from eth_utils.crypto import keccak

    inner = function[function.index("(") + 1 : -1]
    types = inner.split(",") if inner else []
    written = [
        EvmNotation().write_address(value) if kind == "address" else value
        for kind, value in zip(types, arguments, strict=True)
    ]
    return bytes(keccak(text=function)[:4]) + encode(types, written)


@cache
def _compiled(contract: str) -> dict[str, Any]:
    import vyper

    source = (CONTRACTS / f"{contract}.vy").read_text()
    return dict(vyper.compile_code(source, output_formats=["bytecode", "abi"]))

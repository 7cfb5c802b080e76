"""An EVM chain as the tests of deposits use it: nothing is mined by itself, and addresses and hashes are text.

with Pool() as node:
    node.pay(alice, 10**18); node.mine()
    token = node.deploy("USDT", 6)                # mines a block
    node.call(token, "transfer(address,uint256)", alice, 5_000_000); node.mine()
    node.reorganise(3)                            # the newest three blocks become three empty ones
    node.url
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

from tests.nodes_evm import GAS, Anvil, call_data


class Pool:
    """One node; chain id 31337 unless told otherwise."""

    def __init__(self, chain_id: int = 31337) -> None:
        self._chain = Anvil("--no-mining", "--chain-id", str(chain_id), "--balance", "1000000000")

    def __enter__(self) -> Pool:
        self._chain.__enter__()
        self._chain.waits = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """It is gone, and its address answers nobody."""
        self._chain.__exit__(None, None, None)

    @property
    def url(self) -> str:
        return self._chain.url

    def rpc(self, method: str, *params: Any) -> Any:
        return self._chain.call(method, *params)

    @property
    def head(self) -> int:
        return self._chain.height

    @property
    def bank(self) -> str:
        """An account with more than enough, whose key the node has."""
        return "0x" + self._chain.accounts[0].hex()

    def block_hash(self, height: int) -> str:
        return "0x" + self._chain.block_hash(height).hex()

    def mine(self, blocks: int = 1) -> None:
        self._chain.mine(blocks)

    def reorganise(self, depth: int) -> None:
        """Replaces the newest blocks by as many empty ones; what they held is gone, from the pool too."""
        self._chain.reorg(depth)

    def send(self, **fields: Any) -> str:
        """Sends a transaction into the pool; its hash."""
        return str(self.rpc("eth_sendTransaction", {"from": self.bank, "gas": hex(GAS), **fields}))

    def pay(self, to: str, wei: int, **fields: Any) -> str:
        return self.send(to=to, value=hex(wei), **fields)

    def deploy(self, symbol: str = "USDT", decimals: int = 6, supply: int = 10**30) -> str:
        """A token (tests/contracts/token.vy) whose supply the bank has; mined at once. Its address."""
        tx = self.send(data="0x" + self._chain.creation("token", symbol, decimals, supply).hex())
        self.mine()
        receipt = self.rpc("eth_getTransactionReceipt", tx)
        assert receipt["status"] == "0x1"
        return str(receipt["contractAddress"])

    def call(self, contract: str, function: str, *values: Any, wei: int = 0, **fields: Any) -> str:
        """A call as a transaction into the pool; its hash."""
        kinds = function[function.index("(") + 1 : -1].split(",")
        given = [
            bytes.fromhex(value[2:]) if kind == "address" else value
            for kind, value in zip(kinds, values, strict=True)
        ]
        return self.send(to=contract, data="0x" + call_data(function, *given).hex(), value=hex(wei), **fields)

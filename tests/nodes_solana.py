"""A Solana node in a process of its own: the real SVM behind the JSON-RPC of a validator.

    with SolanaChain() as chain:                        # starts; ends with the block, or with this process
        alice = chain.wallet()                          # an address whose secret the process keeps
        chain.pay_sol(alice, 10**9)                     # a signature; one block per transaction
        mint = chain.create_token(decimals=6)           # by the real token program
        chain.pay_token(mint, alice, 1_500_000)         # makes the token account, too
        with chain.one_block():                         # several transactions in one block
            chain.pay_sol(alice, 1)
            chain.pay_sol(alice, 2)
        chain.skip(3)                                   # three slots without a block
        chain.mine(10)
        chain.url                                       # for an endpoint

Everything is final at once, until `finalize_later`. There are no forks: what a validator would drop never was final, and
only what is final is read. docs/explanation/solana.md says what that leaves unproven.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import Any

WRAPPED_SOL = "So11111111111111111111111111111111111111112"


class SolanaChain:
    """Starts the process and talks to it on a control channel of its own. Addresses, mints and signatures are base58."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._control = self._port = 0

    def __enter__(self) -> SolanaChain:
        self.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """A new chain, with a genesis of its own, on the same port as before."""
        assert self._process is None, "it runs already"
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.solana_rpc"],
            cwd=Path(__file__).resolve().parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        # The pipe stays open, and ends the process when it closes.
        process.stdin.write(json.dumps({"port": self._port}) + "\n")
        process.stdin.flush()
        try:
            ports = json.loads(process.stdout.readline())
        except ValueError:
            self.stop()
            raise RuntimeError("the Solana chain did not start; its error is on stderr") from None
        self._port, self._control = ports["rpc"], ports["control"]

    def stop(self) -> None:
        """Ends it, if it runs. The chain is gone."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    # ---------------------------------------------------------------------------------------------------- payments

    def bank(self) -> str:
        """Who pays where nobody else is named; has plenty."""
        return str(self._call("bank"))

    def wallet(self, lamports: int = 0) -> str:
        """A new address that can send, with some SOL of the bank's."""
        return str(self._call("wallet", lamports=lamports))

    def airdrop(self, address: str, lamports: int) -> str:
        return self.pay_sol(address, lamports)

    def pay_sol(
        self,
        to: str,
        lamports: int,
        *,
        sender: str | None = None,
        payer: str | None = None,
        via_table: bool = False,
        version_1: bool = False,
    ) -> str:
        """payer: of the fee, the sender by default. via_table: a transaction of version 0, which names the receiver by an
        address lookup table. version_1: one of version 1. Else it is a legacy transaction."""
        return self.pay_many(
            [(to, lamports)], sender=sender, payer=payer, via_table=via_table, version_1=version_1
        )

    def pay_many(
        self,
        payments: Sequence[tuple[str, int]],
        *,
        sender: str | None = None,
        payer: str | None = None,
        via_table: bool = False,
        version_1: bool = False,
    ) -> str:
        """Several payments of one transaction."""
        return str(
            self._call(
                "pay_many",
                payments=payments,
                sender=sender,
                payer=payer,
                via_table=via_table,
                version_1=version_1,
            )
        )

    def fail(self, to: str, lamports: int) -> str:
        """A payment in a transaction that fails, and is in its block all the same."""
        return str(self._call("fail", to=to, lamports=lamports))

    def create_token(self, decimals: int = 6, program: str = "token") -> str:
        """A new mint of the program `token` or `token-2022`; the bank holds 10^15 units of it."""
        return str(self._call("create_token", decimals=decimals, program=program))

    def account_of(self, mint: str, owner: str) -> str:
        """The owner's associated token account, there or not."""
        return str(self._call("account_of", mint=mint, owner=owner))

    def pay_token(
        self,
        mint: str,
        to: str,
        amount: int,
        *,
        sender: str | None = None,
        payer: str | None = None,
        via_table: bool = False,
        fail: bool = False,
    ) -> str:
        """To the receiver's associated token account, made in the same transaction where it isn't there."""
        return str(
            self._call(
                "pay_token",
                mint=mint,
                to=to,
                amount=amount,
                sender=sender,
                payer=payer,
                via_table=via_table,
                fail=fail,
            )
        )

    def hand_over(self, mint: str, to: str, amount: int, *, more: int = 0) -> str:
        """A token account that holds `amount` becomes the receiver's, and gets `more` in the same transaction."""
        return str(self._call("hand_over", mint=mint, to=to, amount=amount, more=more))

    def shuffle(self, mint: str, owner: str, amount: int) -> str:
        """A wallet moves tokens to a second account of its own."""
        return str(self._call("shuffle", mint=mint, owner=owner, amount=amount))

    def unwrap(self, owner: str, *, payer: str | None = None) -> str:
        """A wallet closes its account of wrapped SOL."""
        return str(self._call("unwrap", owner=owner, payer=payer))

    # ------------------------------------------------------------------------------------------------------ blocks

    def mine(self, blocks: int = 1) -> int:
        """The slot of the last of them."""
        return int(self._call("mine", blocks=blocks))

    def skip(self, slots: int = 1) -> None:
        """The next slots stay without a block; the next block comes after them."""
        self._call("skip", slots=slots)

    @contextmanager
    def one_block(self) -> Iterator[None]:
        """What is sent within shares a block, made at the end."""
        self._call("hold", held=True)
        try:
            yield
        finally:
            self._call("hold", held=False)

    def finalize_later(self, slots: int) -> None:
        """From now on a block is final when the newest one is that many slots ahead."""
        self._call("set_lag", slots=slots)

    def prune(self, below: int) -> None:
        """Forgets all blocks and transactions below a slot."""
        self._call("prune", below=below)

    # ------------------------------------------------------------------------------------------------------- faults

    def ask(self, method: str, *params: Any) -> Any:
        """What the node answers, as it is."""
        return self._post(
            self._port, "", {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
        )

    def lie(
        self, about: str, first: Any = None, *, result: Any = None, error: tuple[int, str] | None = None
    ) -> None:
        """From now on the node answers the method `about` whose first parameter is `first` with this, until `truth`."""
        self._call("lie", about=about, first=first, result=result, error=error)

    def truth(self) -> None:
        self._call("truth")

    def _call(self, method: str, **arguments: Any) -> Any:
        answer = self._post(self._control, method, arguments)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["result"]

    @staticmethod
    def _post(port: int, path: str, document: Any) -> Any:
        connection = HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request("POST", f"/{path}", json.dumps(document))
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

"""A real node of the Bitcoin family in a process of its own: Litecoin Core 0.21 on its regression-test network, with a wallet
that has coins, blocks on demand, and reorganisations.

with Litecoin() as node:                          # 101 blocks, so that the wallet can spend
    tx = node.pay(address, Decimal("0.5")); node.mine()   # nothing is mined by itself
    node.reorganise(3)                            # the newest three blocks become three empty ones
    node.url                                      # with user and password
    with Between(node, change) as proxy: ...      # the same node, but change(question, answer) edits what it says

This node mines no block above height 431, where its MimbleWimble would begin.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import pytest

from maven_cli.embedded.processes import die_with_parent

GENESIS = "530827f38f93b43ed12af0b3ad25a288dc02ed74d6d7857862df51fc56c416f9"
# The wallet that pays, and one for those who are paid: what they hold is never spent by the first.
BANK, CUSTOMERS = "bank", "customers"


def find_litecoind() -> Path:
    """The binary; skips the test where there is none."""
    if named := os.environ.get("MAVEN_TEST_LITECOIND"):
        return Path(named)
    # Debian's command is a script around it, which leaves a file with a password in the home directory.
    if (binary := Path("/usr/lib/litecoin/litecoind")).exists():
        return binary
    if found := shutil.which("litecoind"):
        return Path(found)
    pytest.skip("no litecoind here: apt install litecoind")


# What a call is, and what its answer becomes.
Change = Callable[[dict[str, Any], dict[str, Any]], None]


class RefusedError(Exception):
    """A call that the node refused."""

    def __init__(self, method: str, code: int, message: str) -> None:
        super().__init__(f"{method}: {message}")
        self.code = code


class Litecoin:
    """One node in a directory of its own. blocks: mined at the start, to the wallet. options: of litecoind."""

    def __init__(self, *options: str, blocks: int = 101) -> None:
        self._options = options
        self._blocks = blocks
        self._process: subprocess.Popen[bytes] | None = None
        self._directory: Path | None = None
        self._port = 0
        self._number = 0
        # A connection that is kept keeps the node from ending for half a minute.
        self._client = httpx.Client(
            timeout=30,
            trust_env=False,
            auth=("maven", "secret-of-the-node"),
            limits=httpx.Limits(max_keepalive_connections=0),
        )
        self.mining = ""  # the wallet's address that blocks pay to

    def __enter__(self) -> Litecoin:
        try:
            self.start()
            for wallet in (BANK, CUSTOMERS):
                self.rpc("createwallet", wallet)
            self.mining = self.new_address()
            self.mine(self._blocks)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._client.close()
        if self._directory is not None:
            shutil.rmtree(self._directory)

    @property
    def address(self) -> str:
        """Without the credentials."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def url(self) -> str:
        return f"http://maven:secret-of-the-node@127.0.0.1:{self._port}"

    def start(self) -> None:
        """On the port and with the chain it had before, if it ran before."""
        binary = find_litecoind()
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="maven-litecoin-"))
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self._port = free.getsockname()[1]
        self._process = subprocess.Popen(
            [
                str(binary), "-regtest", f"-datadir={self._directory}", f"-rpcport={self._port}",
                "-rpcuser=maven", "-rpcpassword=secret-of-the-node", "-server", "-listen=0", "-connect=0", "-dnsseed=0",
                "-fallbackfee=0.0001", "-acceptnonstdtxn=1", "-dustrelayfee=0",
                "-walletrbf=1", "-mempoolreplacement=1", "-txindex=1", "-keypool=5",
                *self._options,
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
            except (httpx.HTTPError, RefusedError):
                if time.monotonic() > until or self._process.poll() is not None:
                    raise
                time.sleep(0.05)

    def stop(self) -> None:
        """Ends the node, which writes its chain down."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(30)
            finally:
                process.kill()
                process.wait()

    def rpc(self, method: str, *params: Any, wallet: str = "") -> Any:
        """The result, numbers with a point as Decimal. Raises RefusedError."""
        self._number += 1
        question = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": list(params)}
        answer = json.loads(
            self._client.post(
                self.address + (f"/wallet/{wallet}" if wallet else ""),
                content=json.dumps(question, default=str),
            ).content,
            parse_float=Decimal,
        )
        if answer.get("error") is not None:
            raise RefusedError(method, answer["error"]["code"], answer["error"]["message"])
        return answer["result"]

    # ----------------------------------------------------------------------------------------------------------- blocks

    @property
    def head(self) -> int:
        return int(self.rpc("getblockcount"))

    def block_hash(self, height: int) -> str:
        return str(self.rpc("getblockhash", height))

    def mine(self, blocks: int = 1, address: str | None = None) -> None:
        """Mines what is in the pool. address: who gets the reward, else the wallet."""
        self.rpc("generatetoaddress", blocks, address or self.mining)

    def mine_empty(self, blocks: int = 1) -> None:
        """Mines nothing of what is in the pool."""
        for _ in range(blocks):
            # Another address each time: the same block again would be the one that was taken back.
            self.rpc("generateblock", self.new_address(), [])

    def reorganise(self, depth: int) -> None:
        """Replaces the newest blocks by as many empty ones; what they held is in the pool again, coinbases excepted."""
        head = self.head
        gone = [
            self.rpc("getblock", self.block_hash(height), 2) for height in range(head - depth + 1, head + 1)
        ]
        self.rpc("invalidateblock", gone[0]["hash"])
        self.mine_empty(depth)
        pool = self.rpc("getrawmempool")
        for block in gone:
            for transaction in block["tx"][1:]:
                # The wallet's transactions bear the height at which they were made, and leave the pool below it.
                if transaction["txid"] not in pool:
                    self.rpc("sendrawtransaction", transaction["hex"])

    # --------------------------------------------------------------------------------------------------------- payments

    def new_address(self, kind: str = "bech32", wallet: str = BANK) -> str:
        """kind: bech32, legacy or p2sh-segwit."""
        return str(self.rpc("getnewaddress", "", kind, wallet=wallet))

    def pay(self, address: str, coins: Decimal | int) -> str:
        """A payment of the wallet's into the pool; its hash."""
        return str(self.rpc("sendtoaddress", address, coins, wallet=BANK))

    def replace(self, tx: str) -> str:
        """Replaces a payment in the pool by one with a higher fee; the new one's hash."""
        return str(self.rpc("bumpfee", tx, {"fee_rate": 100}, wallet=BANK)["txid"])

    def pay_many(self, outputs: Sequence[tuple[str, int]], source: tuple[str, int] | None = None) -> str:
        """One transaction with these outputs in this order, each a scriptPubKey in hex and an amount in the smallest unit; its
        change comes last. source: an output of the wallet's that it spends, else the wallet's choice. Its hash."""
        raw = b"\x02\0\0\0"
        raw += b"\0" if source is None else b"\1" + bytes.fromhex(source[0])[::-1]
        raw += b"" if source is None else source[1].to_bytes(4, "little") + b"\0" + b"\xfd\xff\xff\xff"
        raw += bytes([len(outputs)])
        for script, amount in outputs:
            script_bytes = bytes.fromhex(script)
            raw += amount.to_bytes(8, "little") + bytes([len(script_bytes)]) + script_bytes
        funded = self.rpc(
            "fundrawtransaction", (raw + bytes(4)).hex(), {"changePosition": len(outputs)}, False, wallet=BANK
        )
        signed = self.rpc("signrawtransactionwithwallet", funded["hex"], wallet=BANK)
        assert signed["complete"]
        return str(self.rpc("sendrawtransaction", signed["hex"]))

    def script(self, address: str) -> str:
        """The scriptPubKey of an address, in hex, as the node has it."""
        return str(self.rpc("validateaddress", address)["scriptPubKey"])


class Between:
    """An endpoint in front of a node that edits its answers, for what this version doesn't do or does only when it fails.

    change(question, answer) gets one call, ``{"method": …, "params": …}``, and its whole answer, ``{"result": …, "error": …}``,
    which it may alter in place. Numbers with a point are texts in it, ``number:0.10000000``, and arrive as they are written.
    """

    def __init__(self, node: Litecoin, change: Change) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                asked = json.loads(body)
                reply = httpx.post(node.url, content=body, timeout=30, trust_env=False)
                answers = json.loads(reply.content, parse_float="number:{}".format)
                for question, answer in (
                    zip(asked, answers, strict=True) if isinstance(asked, list) else [(asked, answers)]
                ):
                    change(question, answer)
                content = re.sub(r'"number:([^"]*)"', r"\1", json.dumps(answers)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                with suppress(BrokenPipeError):  # who asked may have gone
                    self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self.url = f"http://maven:secret-of-the-node@127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Between:
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

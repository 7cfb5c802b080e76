"""The JSON-RPC of a validator over the chain of tests/solana_chain.py, in Agave's form and with Agave's codes of errors.

The process that tests/nodes_solana.py starts: ``python -m tests.solana_rpc``, with its settings on standard input.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from base64 import b64decode, b64encode
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from tests.solana_chain import RECENT, TOKEN, TOKEN_2022, Block, Chain, RefusedError, is_token_account
from tests.solana_wallets import Wallets


class Answers:
    """The methods of a validator's JSON-RPC, by their names there."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._lies: dict[tuple[str, Any], dict[str, Any]] = {}

    def lie(self, about: str, first: Any, result: Any = None, error: list[Any] | None = None) -> None:
        """From now on, this is the answer to a method whose first parameter is `first`."""
        self._lies[about, json.dumps(first)] = {"result": result, "error": error}

    def truth(self) -> None:
        """No more lies."""
        self._lies.clear()

    def answer(self, request: Any) -> dict[str, Any]:
        method, params = request["method"], request.get("params") or []
        head = {"jsonrpc": "2.0", "id": request["id"]}
        with self._chain.lock:
            try:
                lie = self._lies.get((method, json.dumps(params[0] if params else None)))
                if lie is not None:
                    if lie["error"] is not None:
                        raise RefusedError(*lie["error"])
                    return {**head, "result": lie["result"]}
                found: Callable[..., Any] | None = getattr(self, method, None)
                if found is None or not method.startswith(("get", "send", "request")):
                    raise RefusedError(-32601, "Method not found")
                return {**head, "result": found(*params)}
            except RefusedError as refused:
                return {**head, "error": {"code": refused.code, "message": str(refused)}}
            except (ValueError, TypeError) as error:
                return {**head, "error": {"code": -32602, "message": f"Invalid params: {error}"}}

    def getGenesisHash(self) -> str:
        return self._chain.genesis

    def getHealth(self) -> str:
        return "ok"

    def getSlot(self, config: dict[str, Any] | None = None) -> int:
        return self._newest(config).slot

    def getFirstAvailableBlock(self) -> int:
        return self._chain.oldest

    def getLatestBlockhash(self, config: dict[str, Any] | None = None) -> Any:
        block = self._newest(config)
        return self._in_context({"blockhash": block.hash, "lastValidBlockHeight": block.slot + RECENT})

    def getBlocks(self, first: int, last: Any = None, config: dict[str, Any] | None = None) -> list[int]:
        """Like Agave, silently without what it has cleaned up and what isn't final yet."""
        newest = self._newest(config).slot
        if last is None:
            last = newest
        if last - first > 500_000:
            raise RefusedError(-32602, "Slot range too large; max 500000")
        return [slot for slot in sorted(self._chain.blocks) if first <= slot <= min(last, newest)]

    def getBlocksWithLimit(self, first: int, limit: int, config: dict[str, Any] | None = None) -> list[int]:
        newest = self._newest(config).slot
        return [slot for slot in sorted(self._chain.blocks) if first <= slot <= newest][:limit]

    def getBlockTime(self, slot: int) -> int:
        return self._block(slot, None).at

    def getBlock(self, slot: int, config: dict[str, Any] | None = None) -> Any:
        config = config or {}
        block = self._block(slot, config)
        parent = block.parent
        if block.parent_slot < self._chain.oldest and slot:
            parent = str(Pubkey.default())  # what Agave says of a parent that it has cleaned up
        document: dict[str, Any] = {
            "blockHeight": block.height,
            "blockTime": block.at,
            "blockhash": block.hash,
            "parentSlot": block.parent_slot,
            "previousBlockhash": parent,
        }
        details = config.get("transactionDetails", "full")
        if details == "full":
            document["transactions"] = [self._readable(item, config) for item in block.transactions]
        elif details == "signatures":
            document["signatures"] = [item["transaction"]["signatures"][0] for item in block.transactions]
        if config.get("rewards", True):
            document["rewards"] = []
        return document

    def getTransaction(self, signature: str, config: Any = None) -> Any:
        if isinstance(config, str) or config is None:
            config = {"encoding": config or "json"}
        Signature.from_string(signature)
        slot, _ = self._chain.statuses.get(signature, (None, None))
        if slot is None or slot > self._newest(config).slot:
            return None
        block = self._chain.blocks[slot]
        (item,) = (item for item in block.transactions if item["transaction"]["signatures"][0] == signature)
        return {"slot": slot, "blockTime": block.at, **self._readable(item, config)}

    def getSignatureStatuses(self, signatures: list[str], config: dict[str, Any] | None = None) -> Any:
        if len(signatures) > 256:
            raise RefusedError(-32602, "Too many inputs provided; max 256")
        history = (config or {}).get("searchTransactionHistory", False)
        return self._in_context([self._status(signature, history) for signature in signatures])

    def _status(self, signature: str, history: bool) -> Any:
        Signature.from_string(signature)
        slot, error = self._chain.statuses.get(signature, (None, None))
        tip, finalized = self._chain.tip.slot, self._chain.finalized.slot
        if slot is None or (not history and slot < tip - RECENT):
            return None
        final = slot <= finalized
        return {
            "slot": slot,
            "confirmations": None if final else tip - slot,
            "err": error,
            "status": {"Ok": None} if error is None else {"Err": error},
            "confirmationStatus": "finalized" if final else "confirmed",
        }

    def getBalance(self, address: str, config: dict[str, Any] | None = None) -> Any:
        return self._in_context(self._chain.svm.get_balance(Pubkey.from_string(address)) or 0)

    def getAccountInfo(self, address: str, config: dict[str, Any] | None = None) -> Any:
        account = self._chain.svm.get_account(Pubkey.from_string(address))
        return self._in_context(None if account is None else _account(account, config))

    def getTokenAccountsByOwner(
        self, owner: str, filter_: dict[str, str], config: dict[str, Any] | None = None
    ) -> Any:
        mint, key = Pubkey.from_string(filter_["mint"]), Pubkey.from_string(owner)
        accounts = [
            (address, account)
            for program in (TOKEN, TOKEN_2022)
            for address, account in self._chain.svm.get_program_accounts(program)
            if is_token_account(account.data) and account.data[:64] == bytes(mint) + bytes(key)
        ]
        return self._in_context(
            [{"pubkey": str(address), "account": _account(account, config)} for address, account in accounts]
        )

    def sendTransaction(self, raw: str, config: dict[str, Any] | None = None) -> str:
        if (config or {}).get("encoding") != "base64":
            raise RefusedError(-32602, "only base64 is spoken here")
        return self._chain.execute(VersionedTransaction.from_bytes(b64decode(raw)))[0]

    def requestAirdrop(self, address: str, lamports: int) -> str:
        return Wallets(self._chain).pay_many([(address, lamports)])

    def _newest(self, config: Any) -> Block:
        """Finalized is the default of the protocol, too."""
        commitment = (config or {}).get("commitment", "finalized")
        return self._chain.finalized if commitment == "finalized" else self._chain.tip

    def _in_context(self, value: Any) -> dict[str, Any]:
        return {"context": {"apiVersion": "3.0.0", "slot": self._chain.finalized.slot}, "value": value}

    def _block(self, slot: int, config: dict[str, Any] | None) -> Block:
        chain = self._chain
        if slot < chain.oldest:
            message = (
                f"Block {slot} cleaned up, does not exist on node. First available block: {chain.oldest}"
            )
            raise RefusedError(-32001, message)
        if slot > self._newest(config).slot:
            raise RefusedError(-32004, f"Block not available for slot {slot}")
        if slot not in chain.blocks:
            message = f"Slot {slot} was skipped, or missing due to ledger jump to recent snapshot"
            raise RefusedError(-32007, message)
        return chain.blocks[slot]

    def _readable(self, item: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
        """Version 0 only for those who say that they can read it; and without the version for those who don't."""
        newest = config.get("maxSupportedTransactionVersion")
        if item["version"] != "legacy" and (newest is None or item["version"] > newest):
            raise RefusedError(
                -32015,
                f"Transaction version ({item['version']}) is not supported by the requesting client. Please try the request"
                f' again with the following configuration parameter: "maxSupportedTransactionVersion": {item["version"]}',
            )
        return item if newest is not None else {key: value for key, value in item.items() if key != "version"}


def _account(account: Any, config: dict[str, Any] | None) -> dict[str, Any]:
    data = bytes(account.data)
    if part := (config or {}).get("dataSlice"):
        data = data[part["offset"] : part["offset"] + part["length"]]
    return {
        "data": [b64encode(data).decode(), "base64"],
        "executable": account.executable,
        "lamports": account.lamports,
        "owner": str(account.owner),
        "rentEpoch": account.rent_epoch,
        "space": len(account.data),
    }


# ------------------------------------------------------------------------------------------------------------- servers


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def read(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def write(self, document: Any) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up."""


def rpc_side(answers: Answers, port: int) -> ThreadingHTTPServer:
    class Handler(_Handler):
        def do_POST(self) -> None:
            asked = self.read()
            self.write(
                [answers.answer(item) for item in asked] if isinstance(asked, list) else answers.answer(asked)
            )

    return _Server(("127.0.0.1", port), Handler)


def control_side(chain: Chain, answers: Answers) -> ThreadingHTTPServer:
    """The tests' own way in: POST /method with its arguments as JSON."""
    wallets = Wallets(chain)
    owners = {
        **dict.fromkeys(("mine", "skip", "hold", "set_lag", "prune"), chain),
        **dict.fromkeys(("lie", "truth"), answers),
    }

    class Handler(_Handler):
        def do_POST(self) -> None:
            name, arguments = self.path.strip("/"), self.read()
            try:
                with chain.lock:
                    answer = {"result": getattr(owners.get(name, wallets), name)(**arguments)}
            except Exception as error:  # noqa: BLE001 — whatever it was, the test is told
                answer = {"error": f"{type(error).__name__}: {error}"}
            self.write(answer)

    return _Server(("127.0.0.1", 0), Handler)


def main() -> None:
    settings = json.loads(sys.stdin.readline())
    chain = Chain()
    answers = Answers(chain)
    rpc, control = rpc_side(answers, settings["port"]), control_side(chain, answers)
    for server in (rpc, control):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps({"rpc": rpc.server_address[1], "control": control.server_address[1]}), flush=True)
    sys.stdin.read()  # until whoever started this closes the pipe, or dies
    os._exit(0)


if __name__ == "__main__":
    main()

"""An HTTP proxy in front of any JSON-RPC node, in a thread, which spoils what passes through it as it is told.

    with NodeProxy(chain.url) as proxy:                     # gone with the block
        proxy.url                                           # for an Endpoint
        proxy.fault(status(429, retry_after=1), times=2)    # the next two requests
        proxy.fault(null_result, method="eth_getLogs")      # every request with such a call, until clear()
        proxy.clear()
        proxy.seen                                          # the requests that arrived, each a list of calls

A fault is a function of the question and of a way to the real node; what it returns is sent. Of several faults the first
that fits counts. Whatever isn't told otherwise passes through unchanged.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import httpx

Call = dict[str, Any]  # as it came: jsonrpc, id, method, params
Answer = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """A request: its calls, and whether they came as a batch."""

    calls: list[Call]
    batch: bool
    path: str


@dataclass(frozen=True)
class Reply:
    """What is sent. wait: seconds before it; drip: seconds between two bytes of it, headers and body, or the body alone;
    missing: bytes of the body that are announced, but never come."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    wait: float = 0.0
    drip: float = 0.0
    drip_headers: bool = False
    missing: int = 0


# Asks the real node, one answer for each call, in their order and with their ids.
Forward = Callable[[Sequence[Call]], list[Answer]]
Fault = Callable[[Question, Forward], Reply]


@dataclass
class _Rule:
    fault: Fault
    left: int | None
    method: str | None

    def fits(self, question: Question) -> bool:
        return self.left != 0 and (
            self.method is None or any(call["method"] == self.method for call in question.calls)
        )


class NodeProxy:
    def __init__(self, target: str) -> None:
        """target: the node's URL."""
        self.seen: list[Question] = []
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._node = httpx.Client(base_url=target, trust_env=False, timeout=60)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> NodeProxy:
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._node.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def fault(self, fault: Fault, *, times: int | None = None, method: str | None = None) -> None:
        """Spoils the next `times` requests (all, when None) that hold a call of `method` (or any)."""
        with self._lock:
            self._rules.append(_Rule(fault, times, method))

    def clear(self) -> None:
        """No more faults; forgets what was seen."""
        with self._lock:
            self._rules.clear()
            self.seen.clear()

    def calls(self, method: str) -> list[list[Any]]:
        """The parameters of every call of this method so far."""
        return [
            call["params"] for question in self.seen for call in question.calls if call["method"] == method
        ]

    def forward(self, calls: Sequence[Call]) -> list[Answer]:
        if not calls:
            return []
        numbered = [{**call, "id": place} for place, call in enumerate(calls)]
        found = {answer["id"]: answer for answer in self._node.post("", json=numbered).json()}
        return [{**found[place], "id": call["id"]} for place, call in enumerate(calls)]

    def reply(self, question: Question) -> Reply:
        with self._lock:
            self.seen.append(question)
            rule = next((rule for rule in self._rules if rule.fits(question)), None)
            if rule is not None and rule.left is not None:
                rule.left -= 1
        return (rule.fault if rule is not None else untouched)(question, self.forward)

    def sleep(self, seconds: float) -> bool:
        """Whether to go on: False when the proxy is closed meanwhile."""
        return not self._closing.wait(seconds)


def _handler(proxy: NodeProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60

        def do_POST(self) -> None:
            document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            batch = isinstance(document, list)
            reply = proxy.reply(Question(document if batch else [document], batch, self.path))
            try:
                self._send(reply)
            except OSError:  # the client has given up, or the proxy is closed
                self.close_connection = True

        def _send(self, reply: Reply) -> None:
            if reply.wait and not proxy.sleep(reply.wait):
                raise ConnectionAbortedError
            if reply.drip_headers:
                for letter in b"HTTP/1.1 200 OK\r\nX-Patience: " + b"x" * 10_000:
                    self._drip(bytes([letter]), reply.drip)
            self.send_response(reply.status)
            headers = {"Content-Type": "application/json", **reply.headers}
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body) + reply.missing))
            self.end_headers()
            if reply.missing:
                self.close_connection = True
            if not reply.drip:
                self.wfile.write(reply.body)
                return
            for place in range(len(reply.body)):
                self._drip(reply.body[place : place + 1], reply.drip)

        def _drip(self, part: bytes, pause: float) -> None:
            self.wfile.write(part)
            self.wfile.flush()
            if not proxy.sleep(pause):
                raise ConnectionAbortedError

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


def document(question: Question, answers: list[Answer]) -> Reply:
    """The answers as the protocol wants them: a list for a batch."""
    return Reply(json.dumps(answers if question.batch else answers[0]).encode())


def refusal(call: Call, code: int, message: str) -> Answer:
    return {"jsonrpc": "2.0", "id": call["id"], "error": {"code": code, "message": message}}


# ------------------------------------------------------------------------------------------------- faults of the way


def untouched(question: Question, forward: Forward) -> Reply:
    return document(question, forward(question.calls))


def status(code: int, *, retry_after: int | None = None, body: bytes = b"") -> Fault:
    """An HTTP status without an answer."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return lambda _question, _forward: Reply(body, code, headers)


def html(_question: Question, _forward: Forward) -> Reply:
    """The page of a balancer, with status 200."""
    page = b"<!DOCTYPE html><html><body>Under maintenance</body></html>"
    return Reply(page, headers={"Content-Type": "text/html"})


def silence(seconds: float = 3600) -> Fault:
    """The answer, but only after so long."""

    def fault(question: Question, forward: Forward) -> Reply:
        answer = untouched(question, forward)
        return Reply(answer.body, wait=seconds)

    return fault


def dripping(pause: float, *, headers: bool = False) -> Fault:
    """The answer, byte by byte: never silent for long, never done."""
    return lambda question, forward: Reply(
        untouched(question, forward).body, drip=pause, drip_headers=headers
    )


def truncated(question: Question, forward: Forward) -> Reply:
    """Half of the answer, called whole."""
    body = untouched(question, forward).body
    return Reply(body[: len(body) // 2])


def broken_off(question: Question, forward: Forward) -> Reply:
    """Half of the answer, then the connection ends."""
    body = untouched(question, forward).body
    return Reply(body[: len(body) // 2], missing=len(body) - len(body) // 2)


# ------------------------------------------------------------------------------------------------ faults of a batch


def shuffled(question: Question, forward: Forward) -> Reply:
    """Everything, in another order."""
    return document(question, forward(question.calls)[::-1])


def short(by: int = 1) -> Fault:
    """The last answers are missing."""
    return lambda question, forward: document(question, forward(question.calls)[:-by])


def one_id(question: Question, forward: Forward) -> Reply:
    """As many answers as questions, but two for the same."""
    answers = forward(question.calls)
    return document(question, [*answers[:-1], {**answers[-1], "id": answers[0]["id"]}])


def twice(question: Question, forward: Forward) -> Reply:
    """Everything, and the first answer once more: which of the two is it?"""
    answers = forward(question.calls)
    return document(question, [*answers, answers[0]])


def foreign_ids(question: Question, forward: Forward) -> Reply:
    """The answers of somebody else's questions."""
    return document(question, [{**answer, "id": answer["id"] + 10**6} for answer in forward(question.calls)])


def text_ids(question: Question, forward: Forward) -> Reply:
    """Ids as text, as some nodes write them."""
    return document(question, [{**answer, "id": str(answer["id"])} for answer in forward(question.calls)])


def no_batches(code: int = -32600, message: str = "Invalid Request", http: int = 200) -> Fault:
    """One refusal for the whole batch; single calls pass."""

    def fault(question: Question, forward: Forward) -> Reply:
        if question.batch:
            answer = {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": message}}
            return Reply(json.dumps(answer).encode(), http)
        return untouched(question, forward)

    return fault


def small_batches(limit: int, code: int = -32600, message: str = "batch too large") -> Fault:
    """One refusal for a batch of more calls than that."""

    def fault(question: Question, forward: Forward) -> Reply:
        spoil = no_batches(code, message) if len(question.calls) > limit else untouched
        return spoil(question, forward)

    return fault


def small_answers(limit: int) -> Fault:
    """As geth: answers to the first calls of a batch, up to a number of bytes, refusals to all others."""

    def fault(question: Question, forward: Forward) -> Reply:
        answers: list[Answer] = []
        size = 0
        for call, answer in zip(question.calls, forward(question.calls), strict=True):
            size += len(json.dumps(answer))
            answers.append(answer if size <= limit else refusal(call, -32003, "response too large"))
        return document(question, answers)

    return fault


# ---------------------------------------------------------------------------------------------- faults of the answers


def changed(change: Callable[[Call, Any], Any]) -> Fault:
    """Every result replaced by what `change` makes of the call and its result. An Answer with an error is a refusal."""

    def fault(question: Question, forward: Forward) -> Reply:
        answers = []
        for call, answer in zip(question.calls, forward(question.calls), strict=True):
            result = change(call, answer["result"]) if "result" in answer else answer
            is_refusal = isinstance(result, dict) and "error" in result
            answers.append(result if is_refusal else {**answer, "result": result})
        return document(question, answers)

    return fault


def refused(method: str, code: int, message: str) -> Fault:
    """The node refuses this method, and answers everything else."""
    return changed(lambda call, result: refusal(call, code, message) if call["method"] == method else result)


def null_results(method: str) -> Fault:
    """The node has nothing of what this method asks for."""
    return changed(lambda call, result: None if call["method"] == method else result)


no_logs = changed(lambda call, result: [] if call["method"] == "eth_getLogs" else result)
"""A node that lags behind its balancer: no events, no error."""


def another_node(url: str) -> Fault:
    """Another node's answers, maybe those of another chain."""

    def fault(question: Question, _forward: Forward) -> Reply:
        with httpx.Client(trust_env=False, timeout=60) as client:
            body = client.post(url, json=question.calls if question.batch else question.calls[0])
        return Reply(body.content, body.status_code)

    return fault


def stale_head(height: int) -> Fault:
    """An EVM node that stands at this height: it knows nothing above it, and finds no events there without an error."""

    def fault(question: Question, forward: Forward) -> Reply:
        asked = [
            {**call, "params": [_below(value, height) for value in call["params"]]} for call in question.calls
        ]
        answers = []
        for call, answer in zip(asked, forward(asked), strict=True):
            result = answer.get("result")
            if (
                isinstance(result, dict)
                and int(result.get("blockNumber") or result.get("number") or "0x0", 16) > height
            ):
                answer = {**answer, "result": None}
            elif isinstance(result, list):
                kept = [log for log in result if int(log["blockNumber"], 16) <= height]
                answer = {**answer, "result": kept}
            elif call["method"] == "eth_blockNumber":
                answer = {**answer, "result": hex(min(int(str(result), 16), height))}
            elif "error" in answer and call["method"] == "eth_getLogs":
                answer = {"jsonrpc": "2.0", "id": call["id"], "result": []}
            answers.append(answer)
        return document(question, answers)

    return fault


def _below(value: Any, height: int) -> Any:
    return hex(height) if value in ("latest", "pending") else value


def limited_logs(blocks: int, spoil: Callable[[Call, int, int], Answer | Reply]) -> Fault:
    """eth_getLogs by range takes so many blocks; for more the whole request is spoilt by a Reply, or that call by a
    refusal. spoil: of the call, the first block and how many fit."""

    def fault(question: Question, forward: Forward) -> Reply:
        refusals: dict[int, Answer] = {}
        for place, call in enumerate(question.calls):
            if call["method"] == "eth_getLogs" and "fromBlock" in call["params"][0]:
                first, last = (int(call["params"][0][bound], 16) for bound in ("fromBlock", "toBlock"))
                if last - first + 1 > blocks:
                    spoilt = spoil(call, first, blocks)
                    if isinstance(spoilt, Reply):
                        return spoilt
                    refusals[place] = spoilt
        answers = forward([call for place, call in enumerate(question.calls) if place not in refusals])
        for place in sorted(refusals):
            answers.insert(place, refusals[place])
        return document(question, answers)

    return fault

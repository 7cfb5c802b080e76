"""JSON-RPC to one endpoint, with everything that goes wrong on the way. D21, D23."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from maven_cli.chains import NodeDownError
from maven_cli.chains.rpc import Endpoint, Rpc, RpcError, TooMuchError
from maven_cli.errors import ConfigurationError, StoppedError
from tests import node_proxy
from tests.node_proxy import Fault, NodeProxy
from tests.nodes_evm import Anvil

# Longer than a busy machine takes; faults that have to run into it use their own.
PATIENT = timedelta(seconds=20)
KEY = "k3y-0f-the-endpoint"
USER, PASSWORD = "operator", "hunter2-very-secret"

Open = Callable[..., Rpc]


@pytest.fixture(scope="session")
def quiet() -> Iterator[Anvil]:
    """A chain of ten blocks that nobody changes."""
    with Anvil() as anvil:
        anvil.mine(10)
        yield anvil


@pytest.fixture
def proxy(quiet: Anvil) -> Iterator[NodeProxy]:
    with NodeProxy(quiet.url) as opened:
        yield opened


@pytest.fixture
def talk(proxy: NodeProxy) -> Iterator[Open]:
    """Clients of the proxy; a path may be given, and what else an Endpoint and an Rpc take."""
    opened: list[Rpc] = []

    def start(
        path: str = "",
        *,
        timeout: timedelta = PATIENT,
        check: Callable[[], None] = lambda: None,
        **fields: Any,
    ) -> Rpc:
        rpc = Rpc(Endpoint("primary", proxy.url + path, **fields), timeout, check)
        opened.append(rpc)
        return rpc

    yield start
    for rpc in opened:
        rpc.close()


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maven_cli.chains.rpc._FIRST_PAUSE", 0.01)


def heights(*numbers: int) -> list[tuple[str, list[Any]]]:
    return [("eth_getBlockByNumber", [hex(number), False]) for number in numbers]


def numbers(results: list[Any]) -> list[int]:
    return [int(result["number"], 16) for result in results]


def test_one_call_and_a_batch_in_the_order_of_the_calls(talk: Open) -> None:
    rpc = talk()
    assert rpc.call("eth_chainId") == hex(31337)
    assert numbers(rpc.batch(heights(3, 1, 2))) == [3, 1, 2]
    assert rpc.batch([]) == []
    assert rpc.requests == 2


def test_many_calls_go_out_in_parts_and_at_once_as_far_as_allowed(talk: Open, proxy: NodeProxy) -> None:
    together = threading.Barrier(3, timeout=20)

    def meet(question: node_proxy.Question, forward: node_proxy.Forward) -> node_proxy.Reply:
        together.wait()
        return node_proxy.untouched(question, forward)

    proxy.fault(meet)
    rpc = talk(concurrency=3)
    assert numbers(rpc.batch(heights(*range(9)), size=3)) == list(range(9))
    assert rpc.requests == 3
    assert {len(question.calls) for question in proxy.seen} == {3}


def test_a_call_that_the_node_refuses_spoils_no_other(talk: Open) -> None:
    rpc = talk()
    first, refused, last = rpc.batch([*heights(1), ("eth_nope", []), *heights(2)])
    assert refused == RpcError(-32601, "Method not found")
    assert numbers([first, last]) == [1, 2]
    with pytest.raises(NodeDownError, match="node primary refuses eth_nope: Method not found"):
        rpc.call("eth_nope")


# ---------------------------------------------------------------------------------------------------- what passes


PASSING: dict[str, Fault] = {
    "429": node_proxy.status(429),
    "429 with Retry-After": node_proxy.status(429, retry_after=1),
    "503": node_proxy.status(503),
    "502 with a page": node_proxy.status(502, body=b"<html>Bad gateway</html>"),
    "a page": node_proxy.html,
    "truncated": node_proxy.truncated,
    "broken off": node_proxy.broken_off,
    "short": node_proxy.short(),
    "one id twice": node_proxy.one_id,
    "one answer twice": node_proxy.twice,
    "foreign ids": node_proxy.foreign_ids,
    "a limit in JSON": node_proxy.refused("eth_getBlockByNumber", -32005, "project rate limit exceeded"),
    "another limit": node_proxy.refused("eth_getBlockByNumber", 429, "exceeded its capacity"),
    "a third": node_proxy.refused("eth_getBlockByNumber", -32007, "50/second request limit reached"),
    "one for all": node_proxy.no_batches(-32090, "Too many requests, retry in 10s"),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
def test_d21_d23_what_is_over_soon_is_tried_again(talk: Open, proxy: NodeProxy, fault: Fault) -> None:
    proxy.fault(fault, times=2)
    rpc = talk()
    assert numbers(rpc.batch(heights(3, 1, 2))) == [3, 1, 2]
    assert rpc.requests == 3


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
def test_d21_d23_and_in_the_end_it_is_an_error_never_a_shorter_answer(
    talk: Open, proxy: NodeProxy, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maven_cli.chains.rpc._LONGEST_PAUSE", 0.02)
    proxy.fault(fault)
    rpc = talk()
    with pytest.raises(NodeDownError, match=r"^node primary "):
        rpc.batch(heights(3, 1, 2))
    assert rpc.requests == 4


def test_retry_after_is_heard(talk: Open, proxy: NodeProxy) -> None:
    proxy.fault(node_proxy.status(429, retry_after=1), times=1)
    started = time.monotonic()
    talk().call("eth_chainId")
    assert time.monotonic() - started >= 1


def test_but_not_for_longer_than_a_pass_can_wait(
    talk: Open, proxy: NodeProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maven_cli.chains.rpc._LONGEST_PAUSE", 0.1)
    proxy.fault(node_proxy.status(429, retry_after=86400), times=1)
    assert talk().call("eth_chainId") == hex(31337)


@pytest.mark.parametrize(
    "fault",
    [node_proxy.silence(), node_proxy.dripping(0.02), node_proxy.dripping(0.02, headers=True)],
    ids=["silent", "dripping", "dripping headers"],
)
def test_a_request_ends_in_time_whatever_the_node_does(talk: Open, proxy: NodeProxy, fault: Fault) -> None:
    proxy.fault(fault)
    rpc = talk(timeout=timedelta(milliseconds=200))
    started = time.monotonic()
    with pytest.raises(NodeDownError, match=r"node primary gave no answer within 200\s?ms"):
        rpc.batch(heights(*range(10)))
    assert time.monotonic() - started < 10
    assert rpc.requests == 4


def test_a_port_where_nobody_listens(talk: Open) -> None:
    rpc = Rpc(Endpoint("primary", "http://127.0.0.1:9"), PATIENT)
    with pytest.raises(NodeDownError, match=r"node primary can't be reached: .*refused"):
        rpc.call("eth_chainId")
    rpc.close()


def test_a_pass_that_should_stop_does_so_between_attempts(talk: Open, proxy: NodeProxy) -> None:
    proxy.fault(node_proxy.status(503))

    def check() -> None:
        if len(proxy.seen) == 2:
            raise StoppedError

    rpc = talk(check=check)
    with pytest.raises(StoppedError):
        rpc.call("eth_chainId")
    assert rpc.requests == 2


def test_no_more_requests_a_second_than_allowed(talk: Open) -> None:
    rpc = talk(rate=20.0, concurrency=4)
    started = time.monotonic()
    rpc.batch(heights(*range(10)), size=1)
    assert time.monotonic() - started >= 9 / 20


# ------------------------------------------------------------------------------------------------------- batches


@pytest.mark.parametrize("fault", [node_proxy.shuffled, node_proxy.text_ids], ids=["shuffled", "text"])
def test_answers_belong_to_their_calls_by_id_alone(talk: Open, proxy: NodeProxy, fault: Fault) -> None:
    proxy.fault(fault)
    rpc = talk()
    assert numbers(rpc.batch(heights(5, 9, 1, 2))) == [5, 9, 1, 2]
    assert rpc.requests == 1


@pytest.mark.parametrize(
    "fault",
    [
        node_proxy.no_batches(),
        node_proxy.no_batches(-32601, "Method not found"),
        node_proxy.no_batches(http=400),
        lambda question, forward: (
            node_proxy.Reply(b"nope", 405) if question.batch else node_proxy.untouched(question, forward)
        ),
    ],
    ids=["invalid", "unknown", "400", "405"],
)
def test_a_node_without_batches_is_asked_call_by_call_and_not_tempted_again(
    talk: Open, proxy: NodeProxy, fault: Fault
) -> None:
    proxy.fault(fault)
    rpc = talk()
    assert numbers(rpc.batch(heights(3, 1, 2))) == [3, 1, 2]
    assert numbers(rpc.batch(heights(4, 5))) == [4, 5]
    assert rpc.requests == 1 + 3 + 2


def test_a_node_that_takes_small_batches_gets_them(talk: Open, proxy: NodeProxy) -> None:
    proxy.fault(node_proxy.small_batches(10, message="batch size limit of 10 exceeded"))
    rpc = talk()
    assert numbers(rpc.batch(heights(*[number % 10 for number in range(40)]))) == [n % 10 for n in range(40)]
    assert [len(question.calls) for question in proxy.seen] == [40, 20, 10, 10, 10, 10]
    proxy.clear()
    rpc.batch(heights(*[1] * 20))
    assert [len(question.calls) for question in proxy.seen] == [10, 10]


def test_one_bad_call_that_spoils_a_small_batch_ends_no_batches(talk: Open, proxy: NodeProxy) -> None:
    """Some providers answer a batch as a whole with the refusal of one of its calls."""
    proxy.fault(node_proxy.no_batches(-32602, "exceeds max block range 100"), times=1)
    rpc = talk()
    assert numbers(rpc.batch(heights(3, 1))) == [3, 1]
    assert numbers(rpc.batch(heights(3, 1))) == [3, 1]
    assert [len(question.calls) for question in proxy.seen] == [2, 1, 1, 2]


def test_what_a_node_cuts_off_a_batch_is_asked_for_again(talk: Open, proxy: NodeProxy) -> None:
    proxy.fault(node_proxy.small_answers(5000))
    rpc = talk()
    assert numbers(rpc.batch(heights(*range(10)))) == list(range(10))
    assert 2 < rpc.requests < 10


def test_too_much_for_one_answer_is_split(talk: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maven_cli.chains.rpc.BODY_LIMIT", 6000)
    rpc = talk()
    assert numbers(rpc.batch(heights(*range(10)))) == list(range(10))
    monkeypatch.setattr("maven_cli.chains.rpc.BODY_LIMIT", 60)
    with pytest.raises(TooMuchError, match="node primary sent more than 0 MiB"):
        rpc.batch(heights(1, 2))


def test_a_request_that_is_too_large_is_split(talk: Open, proxy: NodeProxy) -> None:
    def too_large(question: node_proxy.Question, forward: node_proxy.Forward) -> node_proxy.Reply:
        spoil = node_proxy.status(413) if len(question.calls) > 4 else node_proxy.untouched
        return spoil(question, forward)

    proxy.fault(too_large)
    assert numbers(talk().batch(heights(*range(10)))) == list(range(10))


@pytest.mark.parametrize(
    "fault",
    [node_proxy.status(504), node_proxy.silence(), node_proxy.status(413)],
    ids=["504", "silent", "413"],
)
def test_who_can_ask_for_less_is_told_at_once(talk: Open, proxy: NodeProxy, fault: Fault) -> None:
    proxy.fault(fault)
    rpc = talk(timeout=timedelta(milliseconds=300))
    with pytest.raises(TooMuchError, match="node primary "):
        rpc.batch(heights(1, 2), divisible=True)
    assert rpc.requests == 1


# -------------------------------------------------------------------------------------------------------- secrets

# Everything that is said when something fails, and a fault that brings it about.
SAYING: dict[str, Fault] = {
    **{name: fault for name, fault in PASSING.items() if "Retry-After" not in name},
    "401": node_proxy.status(401),
    "403": node_proxy.status(403),
    "413": node_proxy.status(413),
    "redirect": node_proxy.status(307),
    "refusal": node_proxy.refused(
        "eth_chainId", -32000, f"invalid project id {KEY} at /v3/{KEY}?u={USER}:{PASSWORD}"
    ),
    "dripping": node_proxy.dripping(0.05),
}


@pytest.mark.parametrize("fault", SAYING.values(), ids=SAYING.keys())
def test_no_secret_of_the_address_in_any_message_or_log(
    quiet: Anvil,
    proxy: NodeProxy,
    fault: Fault,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    proxy.fault(fault)
    address = proxy.url.replace("http://", f"http://{USER}:{PASSWORD}@") + f"/v3/{KEY}?apikey={KEY}-2"
    endpoint = Endpoint("primary", address)
    rpc = Rpc(endpoint, timedelta(milliseconds=300))
    said = [repr(endpoint), str(endpoint)]
    errors: list[NodeDownError] = []
    for call in (lambda: rpc.call("eth_chainId"), lambda: rpc.batch([("eth_chainId", []), *heights(1)])):
        try:
            said.append(repr(call()))
        except NodeDownError as error:
            errors.append(error)
    rpc.close()
    assert errors
    assert all("primary" in str(error) and "\n" not in str(error) for error in errors)
    # What a traceback would show.
    assert all(error.__suppress_context__ or error.__context__ is None for error in errors)
    said += [text for error in errors for text in (str(error), repr(error))]
    assert proxy.seen
    said += [record.getMessage() for record in caplog.records]
    for secret in (KEY, USER, PASSWORD, proxy.url.removeprefix("http://")):
        assert not [text for text in said if secret in text]


def test_the_address_is_used_as_it_is_written(proxy: NodeProxy, talk: Open) -> None:
    """Not with a slash at its end, which some providers take for another path, and some for a part of the key."""
    talk(f"/v3/{KEY}?apikey={KEY}").call("eth_chainId")
    talk(f"/v3/{KEY}").call("eth_chainId")
    talk().call("eth_chainId")
    assert [question.path for question in proxy.seen] == [f"/v3/{KEY}?apikey={KEY}", f"/v3/{KEY}", "/"]


@pytest.mark.parametrize("address", ["", "ftp://x/y", "http://", "127.0.0.1:8545", f"htps://{KEY}"])
def test_what_is_no_address_is_refused_without_being_repeated(address: str) -> None:
    with pytest.raises(
        ConfigurationError, match="the secret of endpoint primary is not an address"
    ) as caught:
        Rpc(Endpoint("primary", address), PATIENT)
    assert KEY not in str(caught.value)


def test_environment_proxies_are_not_used(talk: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert talk().call("eth_chainId") == hex(31337)

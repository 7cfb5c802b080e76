"""Who sent a transaction: the scripts that its inputs were locked with, as far as a node knows them.

Core from version 25 on writes them beside the inputs, as long as it has the block. Else they are in the transactions that
are spent, which a node finds with -txindex; others are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from maven_cli.chains import Block, NodeDownError
from maven_cli.chains.bitcoin.asking import Asking, has_no_block_parameter, knows_none
from maven_cli.chains.bitcoin.reading import Transaction
from maven_cli.chains.rpc import Call, TooMuchError

IN_A_REQUEST = 20  # transactions: most have a kilobyte, those that pay many people some hundred
AT_ONCE = 100  # transactions that are in memory together

Outpoint = tuple[bytes, int]

_TOO_LARGE = object()


class Senders:
    """Asks one endpoint for senders."""

    def __init__(self, ask: Asking) -> None:
        self._ask = ask

    def of(self, found: Sequence[tuple[Block, Transaction]]) -> dict[bytes, tuple[bytes, ...]]:
        """The senders of each transaction, by its hash; those of a coinbase transaction are left out."""
        spending = [(block, one) for block, one in found if one.inputs]
        wanted = {source for _, one in spending for source in one.inputs}
        scripts = self._beside_inputs(spending)
        scripts |= self._in_sources(wanted - scripts.keys())
        return {
            one.hash: tuple(dict.fromkeys(scripts[source] for source in one.inputs if source in scripts))
            for _, one in spending
        }

    def _beside_inputs(self, spending: Sequence[tuple[Block, Transaction]]) -> dict[Outpoint, bytes]:
        scripts: dict[Outpoint, bytes] = {}
        for start in range(0, len(spending), AT_ONCE):
            calls: list[Call] = [
                ("getrawtransaction", [one.hash.hex(), 2, block.hash.hex()])
                for block, one in spending[start : start + AT_ONCE]
            ]
            for answer in self._answers(calls):
                # Without senders the exchange's own payments would be deposits: no other refusal is let pass.
                if answer is _TOO_LARGE or has_no_block_parameter(answer):
                    continue
                raw = self._ask.fine(answer, "a transaction of a block that it has told")
                scripts |= self._spent(raw)
        return scripts

    def _spent(self, raw: Any) -> dict[Outpoint, bytes]:
        read = self._ask.read
        found = {}
        for one in read.list(read.object(raw, "transaction").get("vin"), "inputs"):
            if isinstance(one, dict) and "prevout" in one and "txid" in one:
                place = read.number(one.get("vout"), "an output's index")
                found[read.hash(one["txid"]), place] = read.script(one["prevout"])
        return found

    def _in_sources(self, wanted: Iterable[Outpoint]) -> dict[Outpoint, bytes]:
        """From the transactions that are spent."""
        places: dict[bytes, set[int]] = {}
        for source, place in wanted:
            places.setdefault(source, set()).add(place)
        sources = sorted(places)
        scripts: dict[Outpoint, bytes] = {}
        for start in range(0, len(sources), AT_ONCE):
            part = sources[start : start + AT_ONCE]
            answers = self._answers([("getrawtransaction", [source.hex(), True]) for source in part])
            for source, answer in zip(part, answers, strict=True):
                if answer is _TOO_LARGE or knows_none(answer):
                    continue
                transaction = self._ask.read.transaction(
                    self._ask.fine(answer, "a transaction that is spent")
                )
                if transaction.hash != source:
                    raise NodeDownError(
                        f"node {self._ask.name} answered another transaction than it was asked for"
                    )
                scripts |= {
                    (source, output.ordinal): output.script
                    for output in transaction.outputs
                    if output.ordinal in places[source]
                }
        return scripts

    def _answers(self, calls: Sequence[Call]) -> list[Any]:
        """As the node gives them; _TOO_LARGE for one that is larger than any answer may be.

        A node writes a script in ten times and more of its bytes, and an input of 41 bytes may spend one of 10,000. Whoever
        pays for that has no sender here, but stops no chain.
        """
        try:
            return self._ask.rpc.batch(calls, size=IN_A_REQUEST)
        except TooMuchError:
            if len(calls) == 1:
                return [_TOO_LARGE]
        half = len(calls) // 2
        return self._answers(calls[:half]) + self._answers(calls[half:])

"""Chains, tokens and addresses from a TOML file: read, checked against every rule that needs no node, then written at once.

docs/reference/chains-file.md describes the format. What is wrong is told with the line it stands in, all of it at once.
Writing is idempotent: what is there already is brought in line, and nothing that the file doesn't name is touched.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import psycopg

from maven_cli.chains import Notation
from maven_cli.chains.families import notation
from maven_cli.chains.secrets import check_reference
from maven_cli.deposits.chains import all_chains
from maven_cli.errors import MavenError, UsageError
from maven_cli.market.pairs import ASSET

# What the platform asks for, and on which chains; any other chain 12.
CONFIRMATIONS = {"bitcoin": 6, "ethereum": 12, "bsc": 15, "polygon": 128, "solana": 32}
IDENTITIES = {
    "ethereum": "1",
    "bsc": "56",
    "polygon": "137",
    "bitcoin": "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f",
    "solana": "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d",
}

_CHAIN = {
    "name": str, "family": str, "identity": str, "network": str, "confirmations": int, "finality": str, "tail": int,
    "backscan": int, "start": int, "checkpoint_height": int, "checkpoint_hash": str,
    "endpoints": list, "tokens": list, "addresses": list, "internal": list,
}  # fmt: skip
_ENDPOINT = {"name": str, "secret": str, "priority": int, "rate": Decimal, "concurrency": int}
_TOKEN = {"asset": str, "contract": str, "decimals": int, "minimum": Decimal, "confirmations": int}
_ADDRESS = {"address": str, "user": int, "from": int}
_INTERNAL = {"address": str, "label": str}
# Strings and comments: longer quotes first.
_TOKENS = re.compile(
    r"""\"{3}(?:\\.|(?!"{3}).)*"{3}|'{3}.*?'{3}|\#[^\n]*|"(?:\\.|[^"\\\n])*"|'[^'\n]*'""", re.DOTALL
)
_TYPES = {str: "a string", int: "a whole number", Decimal: "a number", list: "a list of tables"}


@dataclass(frozen=True)
class Written:
    """What a file brought: how many of each are new or changed, by table."""

    chains: int
    endpoints: int
    tokens: int
    addresses: int
    internal: int


@dataclass
class _Table:
    """One table of the file, and what was found wrong with it. line: of its header."""

    values: dict[str, Any]
    line: int
    lines: dict[str, int]
    problems: list[tuple[int, str]]

    def wrong(self, key: str, what: str) -> None:
        self.problems.append((self.lines.get(key, self.line), what))

    def checked(self, types: Mapping[str, type], required: Sequence[str], what: str) -> None:
        """Notes unknown keys, missing ones, and values of another type; wrong values are taken out."""
        from difflib import get_close_matches

        for key, value in list(self.values.items()):
            kind = types.get(key)
            if kind is None:
                close = get_close_matches(key, types, 1)
                self.wrong(key, f"{what} has no {key!r}" + (f"; did you mean {close[0]}?" if close else ""))
            elif kind is Decimal:
                number = _number(value)
                if number is None:
                    self.wrong(key, f'{key} must be a number, like "0.001"')
                    del self.values[key]
                else:
                    self.values[key] = number
            elif type(value) is not kind:
                self.wrong(key, f"{key} must be {_TYPES[kind]}")
                del self.values[key]
            elif isinstance(value, str) and not value.isprintable():
                self.wrong(key, f"{key} has a character that can't be printed")
                del self.values[key]
        for key in required:
            if key not in self.values and key not in self.lines:
                self.wrong(key, f"{what} needs {key}")

    def within(self, key: str, least: int | Decimal, most: int | Decimal) -> None:
        value = self.values.get(key)
        if value is not None and not least <= value <= most:
            self.wrong(key, f"{key} must be between {least} and {most}")

    def tables(self, key: str, headers: Sequence[tuple[int, dict[str, int]]]) -> list[_Table]:
        """The tables of a list. headers: of each; none where they are written within it."""
        found = self.values.get(key, [])
        if not all(isinstance(values, dict) for values in found):
            self.wrong(key, f"{key} must be {_TYPES[list]}")
            return []
        if len(headers) != len(found):
            headers = [(self.lines.get(key, self.line), {})] * len(found)
        return [_Table(values, *header, self.problems) for values, header in zip(found, headers, strict=True)]


def read_file(path: Path) -> list[dict[str, Any]]:
    """The chains of a file, checked, with keys decoded. Raises UsageError that names every wrong line."""
    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text, parse_float=Decimal)
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not TOML: {error}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not TOML: it has a number or a nesting without measure") from error
    problems: list[tuple[int, str]] = []
    lines = _without_text(text).splitlines()
    top = _Table(document, 1, _keys(lines, 0), problems)
    for key in document:
        if key != "chains":
            top.wrong(key, f"there is no {key!r} here; a file has [[chains]]")
    if not isinstance(document.get("chains"), list) or not document["chains"]:
        top.wrong("chains", "a file needs at least one [[chains]]")
        document["chains"] = []
    headers = _headers(lines)
    chains = []
    tables = top.tables("chains", headers.get((0, "chains"), []))
    for number, table in enumerate(tables):
        chain = _chain(table)
        parts = {
            part: table.tables(part, headers.get((number + 1, f"chains.{part}"), []))
            for part in ("endpoints", "tokens", "addresses", "internal")
        }
        written = chain.pop("notation")
        chain["endpoints"] = [_endpoint(one) for one in parts["endpoints"]]
        chain["tokens"] = [_token(one, written) for one in parts["tokens"]]
        chain["addresses"] = [
            _address(one, written, _ADDRESS, ("address", "user")) for one in parts["addresses"]
        ]
        chain["internal"] = [
            _address(one, written, _INTERNAL, ("address", "label")) for one in parts["internal"]
        ]
        chains.append(chain)
        _once(parts["endpoints"], "name", "name")
        _once(parts["tokens"], "contract", "contract")
        _once(parts["addresses"], "key", "address")
        _once(parts["internal"], "key", "address")
    _once(tables, "name", "name")
    if problems:
        problems = sorted(set(problems))
        shown = "; ".join(f"line {line}: {what}" for line, what in problems[:10])
        more = f"; and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise UsageError(f"{path}: {shown}{more}; nothing was changed")
    return chains


def _chain(table: _Table) -> dict[str, Any]:
    table.checked(_CHAIN, ("name", "family"), "a chain")
    values = table.values
    name, family = values.get("name", ""), values.get("family", "evm")
    if name and re.fullmatch(r"[a-z0-9][a-z0-9-]*", name) is None:
        table.wrong("name", f"{name!r} is not a chain's name: small letters, digits and -")
    if family not in ("evm", "bitcoin", "solana"):
        table.wrong("family", f"there is no chain family {family!r}; choose from evm, bitcoin, solana")
        family = "evm"
    values.setdefault("identity", IDENTITIES.get(name))
    if values["identity"] is None:
        what = "its chain id" if family == "evm" else "the hash of its genesis block"
        if name:
            table.wrong("identity", f"chain {name!r} needs identity, {what}")
    elif family == "evm" and not values["identity"].isdecimal():
        table.wrong("identity", 'identity of an EVM chain is its chain id in decimal, as a string: "1"')
    if family == "bitcoin":
        values.setdefault("network", "bitcoin" if name == "bitcoin" else None)
        if values["network"] is None and name:
            table.wrong("network", f"chain {name!r} needs network, which says how its addresses are written")
    elif "network" in values:
        table.wrong("network", "only the Bitcoin family has a network")
    values.setdefault("confirmations", CONFIRMATIONS.get(name, 12))
    table.within("confirmations", 1, 100_000)
    # Solana's blocks count only when they are finalized.
    values.setdefault("finality", "finalized" if family == "solana" else "confirmations")
    if values["finality"] not in ("confirmations", "safe", "finalized"):
        table.wrong("finality", "finality must be confirmations, safe or finalized")
    elif family == "solana" and values["finality"] != "finalized":
        table.wrong("finality", "Solana's finality is finalized, nothing less")
    elif family == "bitcoin" and values["finality"] != "confirmations":
        table.wrong("finality", "the Bitcoin family knows no finality but confirmations")
    values.setdefault("tail", max(256, 2 * values["confirmations"]))
    table.within("tail", values["confirmations"], 100_000)
    values.setdefault("backscan", 32)
    table.within("backscan", 0, 1_000_000)
    table.within("start", 0, 2**62)
    table.within("checkpoint_height", 0, 2**62)
    if ("checkpoint_height" in values) != ("checkpoint_hash" in values):
        table.wrong("checkpoint_height", "a checkpoint has both checkpoint_height and checkpoint_hash")
    written: Notation | None = None
    try:
        if family != "bitcoin" or values.get("network"):
            written = notation(family, values.get("network"))
        if written and "checkpoint_hash" in values:
            values["checkpoint_hash"] = written.hash(values["checkpoint_hash"])
    except MavenError as error:
        table.wrong("checkpoint_hash" if written else "network", str(error))
    values["notation"] = written
    return values


def _endpoint(table: _Table) -> dict[str, Any]:
    table.checked(_ENDPOINT, ("name", "secret"), "an endpoint")
    try:
        check_reference(table.values.get("secret", "env:X"))
    except MavenError as error:
        table.wrong("secret", str(error))
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", table.values.get("name", "x")) is None:
        table.wrong("name", "an endpoint's name is letters, digits, and . _ -")
    table.values.setdefault("concurrency", 4)
    table.within("concurrency", 1, 64)
    table.within("priority", -1_000_000, 1_000_000)
    table.within("rate", Decimal("0.001"), 1_000_000)
    return table.values


def _token(table: _Table, written: Notation | None) -> dict[str, Any]:
    table.checked(_TOKEN, ("asset", "decimals"), "a token")
    values = table.values
    if ASSET.fullmatch(values.get("asset", "X")) is None:
        table.wrong("asset", f"{values['asset']!r} is not an asset's symbol")
    table.within("decimals", 0, 77)
    table.within("confirmations", 1, 100_000)
    values.setdefault("minimum", Decimal(0))
    if values["minimum"] != 0:
        # What an amount of 78 digits can be, with as many decimals as a token can have.
        table.within("minimum", Decimal("1e-77"), Decimal("1e77"))
    if "contract" in values and written is not None:
        try:
            values["contract"] = written.token(values["contract"])
        except MavenError as error:
            table.wrong("contract", str(error))
    return values


def _address(
    table: _Table, written: Notation | None, types: Mapping[str, type], required: Sequence[str]
) -> dict[str, Any]:
    table.checked(types, required, "an address")
    table.within("user", -(2**63), 2**63 - 1)
    table.within("from", 0, 2**62)
    if "address" in table.values and written is not None:
        try:
            table.values["key"] = written.address(table.values["address"])
        except MavenError as error:
            table.wrong("address", str(error))
    return table.values


def _once(tables: Sequence[_Table], key: str, told: str) -> None:
    """Notes tables that say the same of `key` as one before; told: the key that is named for it."""
    seen: dict[Any, _Table] = {}
    for table in tables:
        value = table.values.get(key)
        # A token without a contract is the chain's own coin.
        if value is None and key != "contract":
            continue
        first = seen.setdefault(value, table)
        if first is not table:
            what = "the chain's own coin" if value is None else table.values[told]
            if isinstance(what, bytes):
                what = "this contract"
            line = first.lines.get(told, first.line)
            table.wrong(told, f"{what} stands in line {line} already")


def _number(value: Any) -> Decimal | None:
    if type(value) in (int, str, Decimal):
        try:
            number = Decimal(value)
        except InvalidOperation:
            return None
        return number if number.is_finite() else None
    return None


def _without_text(text: str) -> str:
    """The file, line by line, without comments and strings of several lines, which may look like anything."""

    def kept(token: re.Match[str]) -> str:
        if token[0].startswith("#"):
            return ""
        return '""' + "\n" * token[0].count("\n") if token[0][:3] in ('"""', "'''") else token[0]

    return _TOKENS.sub(kept, text)


def _headers(lines: Sequence[str]) -> dict[tuple[int, str], list[tuple[int, dict[str, int]]]]:
    """The lines of the headers of tables, each with the lines of its keys, by the number of their chain in the file and
    their kind; those of the chains themselves under 0. TOML's own parser tells no lines of what it has understood."""
    found: dict[tuple[int, str], list[tuple[int, dict[str, int]]]] = {}
    chain = 0
    for number, line in enumerate(lines, 1):
        if match := re.fullmatch(r"""\s*\[\[([\w.\s"'-]+)\]\]\s*""", line):
            name = re.sub(r"""[\s"']""", "", match[1])
            chain += name == "chains"
            key = (0 if name == "chains" else chain, name)
            found.setdefault(key, []).append((number, _keys(lines, number)))
    return found


def _keys(lines: Sequence[str], start: int) -> dict[str, int]:
    """The lines of the keys from a line on, up to the next header."""
    keys: dict[str, int] = {}
    for number, line in enumerate(lines[start:], start + 1):
        if line.lstrip().startswith("["):
            break
        if match := re.match(r"""\s*["']?([\w-]+)["']?\s*=""", line):
            keys.setdefault(match[1], number)
    return keys


def write(conn: psycopg.Connection, chains: Sequence[dict[str, Any]], *, dry_run: bool = False) -> Written:
    """Writes what `read_file` returned, in one transaction of its own; dry_run rolls it back.

    Raises UsageError for what the database already says otherwise and can't be changed under deposits that are on their way:
    a chain's family or identity, a token's decimals or asset.
    """
    counts = dict.fromkeys(("chains", "endpoints", "tokens", "addresses", "internal"), 0)
    with conn.transaction(force_rollback=dry_run):
        known = {chain.name: chain for chain in all_chains(conn)}
        for chain in chains:
            if old := known.get(chain["name"]):
                for key, value in (
                    ("family", old.family),
                    ("identity", old.identity),
                    ("network", old.network),
                ):
                    if chain.get(key) != value:
                        raise UsageError(
                            f"chain {old.name} has the {key} {value} already, and that can't change; give another chain another name"
                        )
            number = _write_chain(conn, chain, counts)
            for endpoint in chain["endpoints"]:
                counts["endpoints"] += conn.execute(
                    _UPSERT_ENDPOINT, {"chain": number, "priority": 0, "rate": None} | endpoint
                ).rowcount
            for token in chain["tokens"]:
                _write_token(conn, chain["name"], number, token, counts)
            _write_addresses(conn, chain["name"], number, chain["addresses"], counts)
            for one in chain["internal"]:
                counts["internal"] += conn.execute(_UPSERT_INTERNAL, {"chain": number} | one).rowcount
    return Written(**counts)


def _write_chain(conn: psycopg.Connection, chain: dict[str, Any], counts: dict[str, int]) -> int:
    values = {"network": None, "start": None, "checkpoint_height": None, "checkpoint_hash": None} | {
        key: value for key, value in chain.items() if not isinstance(value, list)
    }
    counts["chains"] += conn.execute(_UPSERT_CHAIN, values).rowcount
    row = conn.execute("SELECT id FROM chains WHERE name = %s", [chain["name"]]).fetchone()
    assert row is not None
    conn.execute("INSERT INTO chain_progress (chain_id) VALUES (%s) ON CONFLICT DO NOTHING", [row[0]])
    return int(row[0])


def _write_token(
    conn: psycopg.Connection, name: str, chain: int, token: dict[str, Any], counts: dict[str, int]
) -> None:
    conn.execute("INSERT INTO assets (symbol) VALUES (%s) ON CONFLICT DO NOTHING", [token["asset"]])
    values = {"chain": chain, "contract": None, "confirmations": None} | token
    old = conn.execute(
        "SELECT t.id, t.decimals, a.symbol, EXISTS (SELECT FROM deposits d WHERE d.token_id = t.id AND d.status = 'CREDITED')"
        " FROM tokens t JOIN assets a ON a.id = t.asset_id"
        " WHERE t.chain_id = %(chain)s AND t.contract IS NOT DISTINCT FROM %(contract)s",
        values,
    ).fetchone()
    if old is not None and old[1:3] != (token["decimals"], token["asset"]):
        if old[3]:
            raise UsageError(
                f"deposits of {old[2]} on {name} were credited with {old[1]} decimals already; what was wrong with them is mended "
                "by hand (maven ledger adjust), and then the token in the database"
            )
        # What is on its way is worth what the token says now.
        conn.execute(
            "UPDATE deposits SET decimals = %s, updated_at = now() WHERE token_id = %s AND status <> 'CREDITED'",
            [token["decimals"], old[0]],
        )
    counts["tokens"] += conn.execute(_UPSERT_TOKEN, values).rowcount


def _write_addresses(
    conn: psycopg.Connection,
    name: str,
    chain: int,
    addresses: Sequence[dict[str, Any]],
    counts: dict[str, int],
) -> None:
    """By thousands: a file may bring a million."""
    for start in range(0, len(addresses), 5000):
        part = addresses[start : start + 5000]
        values = {
            "chain": chain,
            "keys": [one["key"] for one in part],
            "addresses": [one["address"] for one in part],
            "users": [one["user"] for one in part],
            "froms": [one.get("from") for one in part],
        }
        taken = conn.execute(_OTHER_OWNER, values).fetchone()
        if taken is not None:
            raise UsageError(
                f"{taken[0]} on {name} is user {taken[1]}'s already, and can't become another's; nothing was changed"
            )
        counts["addresses"] += conn.execute(_UPSERT_ADDRESSES, values).rowcount


_UPSERT_CHAIN = """
INSERT INTO chains AS c (name, family, identity, network, confirmations, finality, tail, backscan, start_height, checkpoint_height, checkpoint_hash)
VALUES (%(name)s, %(family)s, %(identity)s, %(network)s, %(confirmations)s, %(finality)s, %(tail)s, %(backscan)s, %(start)s,
        %(checkpoint_height)s, %(checkpoint_hash)s)
ON CONFLICT (name) DO UPDATE
   SET confirmations = excluded.confirmations, finality = excluded.finality, tail = excluded.tail, backscan = excluded.backscan,
       start_height = excluded.start_height, checkpoint_height = excluded.checkpoint_height, checkpoint_hash = excluded.checkpoint_hash
 WHERE (c.confirmations, c.finality, c.tail, c.backscan, c.start_height, c.checkpoint_height, c.checkpoint_hash)
       IS DISTINCT FROM (excluded.confirmations, excluded.finality, excluded.tail, excluded.backscan, excluded.start_height,
       excluded.checkpoint_height, excluded.checkpoint_hash)
"""
_UPSERT_ENDPOINT = """
INSERT INTO chain_endpoints AS e (chain_id, name, secret, priority, rate, concurrency)
VALUES (%(chain)s, %(name)s, %(secret)s, %(priority)s, %(rate)s, %(concurrency)s)
ON CONFLICT (chain_id, name) DO UPDATE
   SET secret = excluded.secret, priority = excluded.priority, rate = excluded.rate, concurrency = excluded.concurrency
 WHERE (e.secret, e.priority, e.rate, e.concurrency) IS DISTINCT FROM (excluded.secret, excluded.priority, excluded.rate, excluded.concurrency)
"""
# A token whose decimals are mended is looked at again, and works again if the chain agrees.
_UPSERT_TOKEN = """
INSERT INTO tokens AS t (chain_id, contract, asset_id, decimals, minimum, confirmations)
SELECT %(chain)s, %(contract)s, a.id, %(decimals)s, %(minimum)s, %(confirmations)s FROM assets a WHERE a.symbol = %(asset)s
ON CONFLICT (chain_id, contract) DO UPDATE
   SET asset_id = excluded.asset_id, decimals = excluded.decimals, minimum = excluded.minimum, confirmations = excluded.confirmations,
       checked_at = CASE WHEN t.decimals = excluded.decimals THEN t.checked_at END,
       state = CASE WHEN t.state = 'HALTED' AND t.decimals <> excluded.decimals THEN 'ACTIVE' ELSE t.state END,
       state_reason = CASE WHEN t.state = 'HALTED' AND t.decimals <> excluded.decimals THEN NULL ELSE t.state_reason END
 WHERE (t.asset_id, t.decimals, t.minimum, t.confirmations)
       IS DISTINCT FROM (excluded.asset_id, excluded.decimals, excluded.minimum, excluded.confirmations)
"""
_UPSERT_INTERNAL = """
INSERT INTO internal_addresses AS i (chain_id, key, address, label) VALUES (%(chain)s, %(key)s, %(address)s, %(label)s)
ON CONFLICT (chain_id, key) DO UPDATE SET label = excluded.label WHERE i.label <> excluded.label
"""
_OTHER_OWNER = """
SELECT d.address, d.user_id FROM unnest(%(keys)s::bytea[], %(users)s::bigint[]) AS g (key, user_id)
  JOIN deposit_addresses d ON d.chain_id = %(chain)s AND d.key = g.key WHERE d.user_id <> g.user_id LIMIT 1
"""
# An address that is to be looked for further back is scanned again.
_UPSERT_ADDRESSES = """
INSERT INTO deposit_addresses AS d (chain_id, key, address, user_id, from_height)
SELECT DISTINCT ON (g.key) %(chain)s, g.key, g.address, g.user_id, g.from_height
  FROM unnest(%(keys)s::bytea[], %(addresses)s::text[], %(users)s::bigint[], %(froms)s::bigint[]) AS g (key, address, user_id, from_height)
ON CONFLICT (chain_id, key) DO UPDATE
   SET from_height = excluded.from_height,
       scanned_from = CASE WHEN excluded.from_height < d.scanned_from THEN NULL ELSE d.scanned_from END
 WHERE excluded.from_height IS NOT NULL AND excluded.from_height IS DISTINCT FROM d.from_height
"""

"""Writes the reference pages that the program itself can tell: commands, settings, schema.

    .venv/bin/python docs/generate.py    writes docs/reference/{commands,settings,schema}.md

What the program can't tell (who writes a table, what a volume is counted in) stands in the notes below. A note about
something that no longer exists, or a table without one, stops the generator.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from sqlalchemy import CheckConstraint, Column, ForeignKeyConstraint, Table, UniqueConstraint
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import ColumnCollectionConstraint, DefaultClause
from typer.core import TyperArgument, TyperGroup, TyperOption

from maven_cli.cli.app import ALIASES, root_command
from maven_cli.db.revision import REVISION
from maven_cli.db.schema import metadata
from maven_cli.settings import Settings, variable
from maven_cli.times import format_duration

REFERENCE = Path(__file__).resolve().parent / "reference"
COMMAND = ".venv/bin/python docs/generate.py"
MADE = f"<!-- Made by `{COMMAND}`. Change the program or the generator, then run it again. -->"

Command = Any  # Typer's base class of commands and groups is private

# ---------------------------------------------------------------------------------------------------------- commands

FORMS = """\
| written | is |
|---|---|
| TIME | an instant in UTC: `2026-01-31`, `2026-01-31T13:45`, `2026-01-31T13:45:00.5Z`; another offset is converted |
| DURATION | a number with `us`, `ms`, `s`, `min`, `h` or `d`: `250ms`, `5s`, `1.5h`; a bare number is seconds |
| INTERVAL | `1m` `5m` `15m` `30m` `1h` `4h` `1d` `1w` `1M`; weeks start on Monday, months on the 1st, all in UTC |
| SYMBOL | a pair, like `BTC/USDT`; small letters are accepted |
"""


def commands_page() -> str:
    """Every command with its help, arguments and options."""
    root = parser()
    found = list(walk(root, ()))
    leaves = [command for _, command in found if not isinstance(command, TyperGroup)]
    shared = [
        option
        for option in _options(leaves[0])
        if all(_row(option) in map(_row, _options(other)) for other in leaves)
    ]
    lines = [
        MADE,
        "",
        "# Commands",
        "",
        str(root.help),
        "",
        "| command | |",
        "|---|---|",
        *(
            f"| [`{' '.join(path)}`](#{anchor(' '.join(path))}) | {_first_line(command)} |"
            for path, command in found
            if not isinstance(command, TyperGroup)
        ),
        "",
        "## Options of every command",
        "",
        "They may stand before the command's name as well: `maven --json tickers show`.",
        "",
        *_option_table(shared),
        "",
        "`maven --version` prints the version and exits.",
        "",
        "## How values are written",
        "",
        FORMS,
        "The platform's own spellings work too: "
        + ", ".join(f"`{alias}` is `{name}`" for alias, name in ALIASES.items())
        + ".",
        "",
    ]
    for path, command in found:
        lines += [f"{'#' * (min(len(path), 2) + 1)} {'maven ' + ' '.join(path)}", ""]
        if isinstance(command, TyperGroup):
            lines += [_first_line(command), ""]
            continue
        lines += _command_section(path, command, shared)
    return "\n".join(lines).rstrip() + "\n"


def parser() -> Command:
    """`maven`, as it parses its command line."""
    return root_command()


def walk(group: Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Command]]:
    """Every group and command below `group`, in the order of --help, with its names."""
    context = typer.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command.hidden:
            continue
        yield (*path, name), command
        if isinstance(command, TyperGroup):
            yield from walk(command, (*path, name))


def anchor(heading: str) -> str:
    """GitHub's #anchor of a command's heading."""
    return "maven-" + heading.replace(" ", "-")


def _command_section(path: Sequence[str], command: Command, shared: Sequence[TyperOption]) -> Iterator[str]:
    usage = " ".join(_usage(command))
    yield f"    maven {' '.join(path)} {usage}"
    yield ""
    yield from _paragraphs(command.help)
    arguments = [item for item in command.params if isinstance(item, TyperArgument) and not item.hidden]
    if arguments:
        yield "| argument | |"
        yield "|---|---|"
        for item in arguments:
            yield f"| `{_argument(item)}` | {cell(item.help or '')} |"
        yield ""
    known = [_row(item) for item in shared]
    own = [item for item in _options(command) if _row(item) not in known]
    if own:
        yield from _option_table(own)
        yield ""


def _usage(command: Command) -> list[str]:
    """The pieces after the command's name. A command that words its own usage (`every`) is taken at its word."""
    if "collect_usage_pieces" in vars(type(command)):
        pieces: list[str] = command.collect_usage_pieces(typer.Context(command))
        return pieces
    required = [
        f"{max(item.opts, key=len)} {item.metavar}"
        for item in _options(command)
        if item.required and item.metavar
    ]
    arguments = [item for item in command.params if isinstance(item, TyperArgument) and not item.hidden]
    return ["[OPTIONS]", *required, *map(_argument, arguments)]


def _argument(item: TyperArgument) -> str:
    name = (item.metavar or item.name or "").strip("[].").upper()
    name = f"{name}..." if item.nargs == -1 else name
    return name if item.required else f"[{name}]"


def _options(command: Command) -> list[TyperOption]:
    context = typer.Context(command, **parser().context_settings)  # a child inherits how --help is spelt
    return [item for item in command.get_params(context) if isinstance(item, TyperOption) and not item.hidden]


def _option_table(options: Sequence[TyperOption]) -> Iterator[str]:
    yield "| option | default | |"
    yield "|---|---|---|"
    for option in options:
        names, default, text = _row(option)
        yield f"| {names} | {default} | {text} |"


def _row(option: TyperOption) -> tuple[str, str, str]:
    """The option's names with what it takes, its default, its help."""
    names = ", ".join(sorted(option.opts, key=len, reverse=True))
    name = f"`{names} {_value(option)}".rstrip() + "`"
    if option.secondary_opts:
        name += f" / `{', '.join(option.secondary_opts)}`"
    return name.replace("|", "\\|"), _default(option), cell(f"{option.help or ''}{_bounds(option)}")


def _value(option: TyperOption) -> str:
    if option.is_flag:
        return ""
    if option.metavar:
        return str(option.metavar)
    if option.type_descriptor.is_choice:
        return "|".join(map(str, option.type_descriptor.choices or ()))
    return "N" if option.type_descriptor.is_ranged else option.bare_type().upper()


def _bounds(option: TyperOption) -> str:
    match option.min, option.max:
        case None, None:
            return ""
        case least, None:
            return f" At least {least}."
        case None, most:
            return f" At most {most}."
        case least, most:
            return f" From {least} to {most}."


def _default(option: TyperOption) -> str:
    if option.required:
        return "required"
    value = option.default
    if option.is_flag and option.secondary_opts:
        return f"`{(option.opts if value else option.secondary_opts)[0]}`"
    if value is None or value is False or value == () or value == []:
        return ""
    return f"`{format_duration(value) if isinstance(value, timedelta) else value}`"


def _first_line(command: Command) -> str:
    return str(command.short_help or (command.help or "").partition("\n")[0])


def _paragraphs(text: str | None) -> Iterator[str]:
    yield from (text or "").strip().splitlines()
    yield ""


def cell(text: str) -> str:
    """Text that may stand in a table."""
    return " ".join(text.split()).replace("|", "\\|")


# ---------------------------------------------------------------------------------------------------------- settings

# Variables that are read elsewhere than in maven_cli.settings.
OTHER_VARIABLES = {
    "MAVEN_EMBEDDED_LINGER": "How many seconds the embedded servers go on when nobody uses them. Default 30. Read when they "
    "are started.",
    "XDG_DATA_HOME": "Where the embedded default lives when MAVEN_HOME is not set: `$XDG_DATA_HOME/maven`.",
    "NO_COLOR": "Any value: no colours.",
    "TERM": "`dumb`: plain text, as in a pipe.",
    "COLUMNS": "The width of a chart that goes into a pipe, 20 to 1000. Default 80.",
}


def settings_page() -> str:
    """Every setting with its variable, default and what it accepts."""
    lines = [
        MADE,
        "",
        "# Settings",
        "",
        "Environment variables, read once when a command starts. An empty variable is an unset one. A wrong value ends the",
        "command with exit code 78 and a line that names the variable, never its value; so does a variable that looks like a",
        "misspelt one of these.",
        "",
        "| variable | default | accepts | |",
        "|---|---|---|---|",
    ]
    for name, info in Settings.model_fields.items():
        default = _setting_default(info)
        lines.append(
            f"| `{variable(name)}` | {default} | {accepts(name, info)} | {cell(info.description or '')} |"
        )
    lines += [
        "",
        "A duration is a number with `us`, `ms`, `s`, `min`, `h` or `d` (`250ms`, `5s`, `2min`); a bare number is seconds.",
        "",
        "## Other variables",
        "",
        "| variable | |",
        "|---|---|",
        *(f"| `{name}` | {cell(text)} |" for name, text in OTHER_VARIABLES.items()),
    ]
    return "\n".join(lines) + "\n"


def _setting_default(info: FieldInfo) -> str:
    value = info.default
    if value is None:
        return ""
    return f"`{format_duration(value) if isinstance(value, timedelta) else value}`"


def accepts(name: str, info: FieldInfo) -> str:
    """What a setting accepts, in words: its type and its bounds."""
    kind = _plain_type(info.annotation)
    least = next((item.ge for item in info.metadata if getattr(item, "ge", None) is not None), None)
    most = next((item.le for item in info.metadata if getattr(item, "le", None) is not None), None)
    if get_origin(kind) is Literal:
        return " ".join(f"`{value}`" for value in get_args(kind))
    if kind is timedelta:
        assert least is not None
        assert most is not None
        return f"a duration, {format_duration(least)} to {format_duration(most)}"
    if kind is bool:
        return "`true` `false`"
    if kind is int:
        return f"a whole number, {least} to {most}" if most is not None else f"a whole number from {least}"
    if kind is SecretStr:
        return f"{'a URL' if name.endswith('_url') else 'text'}; kept secret"
    if kind is str:
        return "text"
    if kind is Path:
        return "a directory"
    raise TypeError(f"docs/generate.py has no words for a setting of type {kind}")


def _plain_type(annotation: Any) -> Any:
    """The type without ``| None``."""
    if get_origin(annotation) in (Union, UnionType):
        (kind,) = (item for item in get_args(annotation) if item is not type(None))
        return kind
    return annotation


# ------------------------------------------------------------------------------------------------------------ schema

TABLES = {
    "assets": "Currencies. Written by `maven pairs add` and `maven trades import --create-pair`, or by the platform.",
    "trading_pairs": "Markets. Written by the `maven pairs` commands and `maven trades import --create-pair`, or by the platform.",
    "trades": "One row per match. Written by the matching engine or `maven trades import`; no pass ever changes it. A pair's "
    "trades are ordered by (`executed_at`, `id`) everywhere, so `id` must follow match order within a pair. Triggers "
    "on UPDATE, DELETE and TRUNCATE leave rows in `candle_marks`.",
    "candles": "Closed candles of all nine intervals; a window in which nobody traded has no row. Written by "
    "`maven candles gen`, `backfill` and `verify --repair` alone. The running candle is in [Redis](redis.md) only.",
    "candle_progress": "How far each pair's candles are closed, in all intervals at once. Written with `candles`.",
    "candle_marks": "Closed ranges to recompute. Written by the triggers on `trades` and by the candle pass, which deletes "
    "them once it has recomputed the range.",
    "ingest_state": "One row: what the last ingest of new trades could see. Written by the candle pass.",
    "wallets": "One row per user and asset. Balances move only through the functions of [the ledger](ledger.md).",
    "locks": "What a balance is locked for: an order, a withdrawal. Orders point to theirs; legs of one OCO share one. Written "
    "by `maven_ledger_lock` and ended by `maven_ledger_release` or by the expiry pass.",
    "ledger_entries": "Append-only: one row per change of a balance. Triggers refuse UPDATE, DELETE and TRUNCATE. Written by "
    "`maven_ledger_post` and the functions that call it.",
    "ledger_state": "One row: whether the ledger is *enforced* or *observed*. Written by `maven ledger mode`.",
    "ledger_adjustments": "Corrections that one operator proposes and another approves. Written by `maven ledger adjust`.",
    "ledger_checkpoints": "Up to where a wallet's entries have been proved. Written by `maven audit --checkpoint`.",
    "orders": "The platform's orders. Written by the platform; the expiry pass changes `status` to `EXPIRED`.",
    "engine_removals": "What the matching engine was asked and what it answered. Written by the expiry pass: the intent before the "
    "call, the answer after it, and never another answer over one that is there.",
    "rejected_trades": "Trades that the settlement fence refused. Written by `maven_reject_trade`.",
    "outbox": "Events on their way out, in order per aggregate. Written in the transaction that causes them; marked as delivered and "
    "later pruned by whoever publishes them.",
    "outbox_state": "One row: how far `maven events relay` has pruned.",
    "dead_letters": "Items that failed, one row each. Written by the passes and by `maven dlq`.",
    "circuits": "Dependencies and workers that failed again and again. Written by whoever met the failure, and by `maven circuits reset`.",
    "incidents": "What only a person can decide. Opened by passes, closed by `maven incidents resolve`.",
    "chains": "Which chains are watched, and by which rules. Written by `maven chains add`, `pause`, `resume` and `rescan`, and by the "
    "scan, which halts a chain that it can't follow and counts reorganisations. Crediting shares its lock.",
    "chain_endpoints": "Where a chain's nodes are, by the name of a secret. Written by `maven chains add`.",
    "chain_progress": "How far each chain was read, and where its nodes stand. Written by the scan; the head by every pass that asks a node.",
    "chain_blocks": "Hashes of the newest blocks that were read, to find where a reorganisation began. Written by the scan.",
    "tokens": "What is credited as which asset; without a contract, the chain's own coin. Written by `maven chains add`, `suspend` and "
    "`unsuspend`, and by the scan, which halts a token whose decimals are others on the chain.",
    "deposit_addresses": "The users' addresses. Written by `maven chains add`, or by the platform.",
    "internal_addresses": "The exchange's own addresses: what they send is no deposit. Written by `maven chains add`.",
    "deposits": "What arrived, and what became of it. Written by the scan, confirm and credit passes and by `maven deposits retry`, `release` "
    "and `reject`. A trigger keeps what was credited from changing.",
    "unmatched_transfers": "What arrived at the users' addresses and is no deposit. Written by the scan.",
    "deposit_history": "Every status and block that a deposit had, and who decided what. Written by triggers on `deposits`, and by the "
    "commands that decide.",
    "worker_runs": "One row per run of a pass, kept for `MAVEN_RUN_RETENTION`. Written by every pass that isn't a dry run.",
}

COLUMNS = {
    "assets.symbol": "`BTC`",
    "trading_pairs.symbol": "`BTC/USDT`: base, then quote",
    "trading_pairs.status": "only ACTIVE pairs get tickers and candles by themselves",
    "trading_pairs.trades_retained_from": "trades before this instant may be gone; nothing recomputes or verifies below it",
    "trades.id": "unique within a pair; other pairs may use the same ids",
    "trades.executed_at": "the engine's match time; every window is cut on it",
    "trades.price": "in quote per base",
    "trades.quantity": "in whole coins of base",
    "trades.side": "the taker's: `buy` or `sell`",
    "trades.created_at": "when the row was inserted",
    "trades.buy_order_id": "the order that bought; looked at by the settlement fence",
    "trades.sell_order_id": "the order that sold; looked at by the settlement fence",
    "wallets.seq": "number of the wallet's newest ledger entry; 0 for none",
    "locks.kind": "`order`, `withdrawal`, `opening`, … as the platform names them",
    "locks.reference": "what it is locked for; unique within a kind",
    "locks.amount": "what was locked at first",
    "locks.remaining": "what is still locked",
    "locks.ended_at": "the time of its last entry, once it has ended; null while it is open",
    "ledger_entries.seq": "1, 2, 3 … within a wallet, without gaps",
    "ledger_entries.kind": "`deposit`, `withdrawal`, `trade`, `lock`, `unlock`, `adjustment`, `opening`, …",
    "ledger_entries.reference": "the business's own name of the cause; once per kind",
    "ledger_entries.lock_id": "the lock that the entry made or took from",
    "ledger_entries.digest": "SHA-256 of all other fields and of the wallet's user and asset",
    "ledger_adjustments.amount": "added to the available balance; negative takes away",
    "ledger_adjustments.rejection": "why it was turned down",
    "ledger_adjustments.digest": "SHA-256 of all other fields",
    "orders.status": "live: `OPEN`, `PARTIALLY_FILLED`",
    "orders.triggered_at": "when a stop order went into the book; null before",
    "orders.quantity": "in whole coins of base; null for a market order by amount of quote",
    "orders.quote_quantity": "in whole coins of quote",
    "orders.remaining_quantity": "what isn't filled, in base, or in quote where there is no `quantity`",
    "orders.fee_reserve": "what was locked for fees, part of the lock",
    "orders.fee_paid": "of the reserve",
    "orders.updated_at": "kept by a trigger",
    "engine_removals.request_key": "the same at every repetition, so that the engine can answer the same",
    "engine_removals.requested_at": "when the intent was committed",
    "engine_removals.engine_remaining": "what was left of the order when the engine took it out of the book",
    "engine_removals.not_found_at": "when the engine first said that it has no such order",
    "engine_removals.failed_at": "when a call first failed; once the order has ended, when the last one did",
    "engine_removals.attempts": "calls; once the order has ended, those since",
    "engine_removals.settled_at": "when both were done: the order ended, and the engine answered",
    "outbox.event_id": "deterministic: the type and what it is about",
    "outbox.aggregate": "events of one aggregate are delivered in the order of `id`",
    "outbox.event": "the CloudEvent as it is published",
    "outbox.delivered_at": "when Redis had it; null while it waits",
    "outbox_state.pruned_until": "events created before this instant may be gone; later ones are all there",
    "outbox.digest": "SHA-256 of the other fields but `delivered_at`",
    "dead_letters.item": "`order:123`",
    "dead_letters.next_attempt_at": "no pass tries it before this instant",
    "circuits.name": "`engine:http`, `worker:orders-expire`, …",
    "circuits.retry_at": "one probe is let through from this instant on",
    "incidents.item": "`order:123`, `wallet:5`",
    "trades.xid": "the inserting transaction; leave it to its default",
    "candles.interval": "`1m` … `1M`",
    "candles.start_at": "first instant of the window, inclusive",
    "candles.open": "of the first trade",
    "candles.close": "of the last trade",
    "candles.base_volume": "sum of quantity, in whole coins of base",
    "candles.quote_volume": "sum of price × quantity, in whole coins of quote",
    "candles.revision": "0 when first closed; one more each time a closed candle really changed",
    "candle_progress.closed_until": "a window is closed when it ends at or before this minute",
    "candle_marks.from_at": "inclusive",
    "candle_marks.to_at": "exclusive",
    "ingest_state.snapshot": "which transactions the last ingest could see",
    "ingest_state.system_identifier": "the cluster's identity; another one means that this database was restored elsewhere",
    "chains.identity": "chain id in decimal, or the genesis block's hash; a node on another chain is refused",
    "chains.network": "how the Bitcoin family's addresses are written",
    "chains.checkpoint_hash": "a block that every node must have, as chains that split share their genesis",
    "chains.finality": "beyond the confirmations, what the chain itself must call a deposit's block",
    "chains.tail": "how many of the newest blocks' hashes are kept, and so how deep a reorganisation may be",
    "chains.backscan": "how many blocks are read again for an address that is new",
    "chains.start_height": "the first block to read; null for the head of the first scan",
    "chains.state": "no pass touches a chain that isn't ACTIVE",
    "chains.reorg_epoch": "one more at each reorganisation; evidence of an earlier one is void",
    "chain_endpoints.secret": "`env:NAME`, `file:/path` or `credential:NAME`: where the URL is, never the URL",
    "chain_endpoints.priority": "the lowest that is up and not behind is used",
    "chain_endpoints.rate": "requests a second; null for no bound",
    "chain_progress.cursor": "all blocks up to it were read once",
    "chain_progress.cursor_hash": "of the newest block at or below the cursor",
    "chain_progress.final_cursor": "all blocks up to it were read twice, the second time when they were final",
    "chain_progress.head_at": "the newest block's own time",
    "chain_progress.head_seen_at": "when a node last told a block as new as that",
    "chain_progress.endpoint": "which one it was",
    "tokens.contract": "contract or mint; null for the chain's own coin",
    "tokens.minimum": "in whole coins; less is held",
    "tokens.confirmations": "null for the chain's",
    "tokens.checked_at": "when the chain was last asked about its decimals",
    "deposit_addresses.key": "what the chain itself pays to: the address's bytes, or the scriptPubKey",
    "deposit_addresses.from_height": "from which block on it is to be looked for; null for the chain's backscan",
    "deposit_addresses.scanned_from": "blocks from it on were read, or will be, with the address known; null until a scan has seen it",
    "deposits.tx_hash": "bytes in the order in which people read them",
    "deposits.ordinal": "which of the transaction's payments: the output, the transfer's place in its receipt, the credited account",
    "deposits.key": "as in `deposit_addresses`",
    "deposits.units": "in base units",
    "deposits.decimals": "the token's when it was recorded",
    "deposits.amount": "in whole coins, exactly: `units` × 10^−`decimals`",
    "deposits.reason": "why it is held, failed or rejected",
    "deposits.immature": "coin that was newly made and can't be spent for a number of blocks",
    "deposits.released_by": "who let it go when it was held; it isn't held again",
    "deposits.confirmations": "its own block is the first; never falls while it stays in its block",
    "deposits.required": "how many it needs",
    "deposits.verified_epoch": "the chain's `reorg_epoch` when it was verified",
    "deposits.evidence": "endpoint, block, digest, confirmations and rule by which it was verified",
    "deposits.missing_since": "since when it isn't where it was seen",
    "deposits.failures": "how often it failed",
    "deposits.wallet_id": "with `entry_seq`, the ledger entry that credited it",
    "unmatched_transfers.contract": "null for the chain's own coin",
    "unmatched_transfers.units": "in base units; nobody knows an unlisted token's decimals",
    "deposit_history.detail": "the reason, or who decided what",
    "worker_runs.worker": "`tickers`, `candles`",
    "worker_runs.scope": "the lock's scope: `tickers`, `candles:1h`",
    "worker_runs.as_of": "the instant for which the pass computed",
    "worker_runs.duration_ms": "in milliseconds",
    "worker_runs.counts": "the pass's counts by name, as in its `--json` data",
    "worker_runs.error": "one line, without secrets",
}

DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]


def schema_page() -> str:
    """Every table with its columns, constraints and indexes."""
    check_notes(TABLES, COLUMNS)
    lines = [
        MADE,
        "",
        "# Schema",
        "",
        f"Revision {REVISION}. `maven db upgrade` creates it, `maven db check` compares a database with it.",
        "",
        "Units: prices and quantities are `NUMERIC(36, 18)` in whole coins; volumes are `NUMERIC` without a limit, because price ×",
        "quantity has up to 36 decimals. Times are UTC.",
        "",
    ]
    for table in metadata.tables.values():
        lines += _table_section(table)
    return "\n".join(lines).rstrip() + "\n"


def check_notes(tables: Mapping[str, str], columns: Mapping[str, str]) -> None:
    """Raises ValueError for a note about nothing, and for a table without a note."""
    known = {f"{table.name}.{column.name}" for table in metadata.tables.values() for column in table.columns}
    wrong = sorted((set(tables) ^ set(metadata.tables)) | (set(columns) - known))
    if wrong:
        raise ValueError(f"docs/generate.py: TABLES and COLUMNS don't fit the schema: {', '.join(wrong)}")


def _table_section(table: Table) -> Iterator[str]:
    yield f"## {table.name}"
    yield ""
    yield TABLES[table.name]
    yield ""
    yield "| column | type | null | default | |"
    yield "|---|---|---|---|---|"
    for column in table.columns:
        null = "yes" if column.nullable else ""
        note = COLUMNS.get(f"{table.name}.{column.name}", "")
        kind = column.type.compile(DIALECT).replace("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ")
        yield f"| `{column.name}` | {kind} | {null} | {_column_default(column)} | {cell(note)} |"
    yield ""
    rules = sorted(map(_constraint, table.constraints))
    indexes = sorted(
        f"{'unique ' if index.unique else ''}index `{index.name}` ({', '.join(f'`{item.name}`' for item in index.columns)})"
        for index in table.indexes
    )
    for text in [*rules, *indexes]:
        yield f"* {text}"
    yield ""


def _column_default(column: Column[Any]) -> str:
    if column.identity is not None:
        return "identity"
    if isinstance(column.server_default, DefaultClause):
        value = column.server_default.arg
        return f"`{value!r}`" if isinstance(value, str) else f"`{value}`"
    return ""


def _constraint(constraint: Any) -> str:
    if isinstance(constraint, CheckConstraint):
        return f"check `{constraint.name}`: `{' '.join(str(constraint.sqltext).split())}`"
    assert isinstance(constraint, ColumnCollectionConstraint)
    columns = ", ".join(f"`{column.name}`" for column in constraint.columns)
    if isinstance(constraint, ForeignKeyConstraint):
        return f"foreign key {columns} → `{constraint.elements[0].target_fullname}`"
    return f"{'unique' if isinstance(constraint, UniqueConstraint) else 'primary key'} ({columns})"


# -------------------------------------------------------------------------------------------------------------- main


def pages() -> dict[Path, str]:
    """What each generated page should hold now."""
    return {
        REFERENCE / "commands.md": commands_page(),
        REFERENCE / "settings.md": settings_page(),
        REFERENCE / "schema.md": schema_page(),
    }


def stale() -> list[Path]:
    """The pages that differ from what the program would write."""
    return [path for path, text in pages().items() if not path.exists() or path.read_text() != text]


def write() -> None:
    """Brings every page up to date."""
    for path, text in pages().items():
        path.write_text(text)


if __name__ == "__main__":
    write()

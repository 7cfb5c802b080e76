"""`maven candles show`: candles as a document, a table or a chart, printed while they are read."""

from __future__ import annotations

import json
import os
import re
import sys
from collections import deque
from datetime import timedelta
from itertools import chain, islice
from typing import TYPE_CHECKING

from maven_cli.cli.chart import candle_chart
from maven_cli.cli.output import jsonable
from maven_cli.cli.render import candle_fields, is_unicode
from maven_cli.cli.render import print_table as print_rows
from maven_cli.times import iso

if TYPE_CHECKING:
    from datetime import datetime

    from rich.console import Console

    from maven_cli.intervals import Interval
    from maven_cli.market.candle_read import Reading
    from maven_cli.market.candle_view import Candle

PIPE_WIDTH, PIPE_HEIGHT = 80, 24
NARROWEST, WIDEST = 20, 1000
# Readers of a younger lag would be told about every pass that is a second late.
_LAG = timedelta(minutes=3)


def print_document(path: str, found: Reading) -> None:
    """The document that every command prints with --json, candle by candle."""
    print(
        f'{{"schema": 1, "command": {json.dumps(path)}, "status": "success", "exit_code": 0, "data": [',
        end="",
    )
    separator = ""
    for candle in found.candles:
        print(separator + json.dumps(jsonable(candle)), end="")
        separator = ", "
    print('], "errors": []}', flush=True)


def print_table(out: Console, symbol: str, interval: Interval, found: Reading) -> None:
    """A line per candle."""
    sample = list(islice(found.candles, 1000))
    if not sample:
        out.print(f"no candles: {symbol} has no trades there")
        return
    print_rows(out, candle_fields(sample, found.as_of, interval.after), chain(sample, found.candles))


def print_chart(
    out: Console, symbol: str, interval: Interval, found: Reading, *, as_many_as_fit: bool = False
) -> None:
    """A chart of the newest candles that fit, on a terminal as large as that, in a pipe 80 by 24.

    as_many_as_fit: no more were asked for, so nothing is said about what is left out.
    """
    width, height = chart_size(out)
    shown: deque[Candle] = deque(maxlen=width)
    total = 0
    for candle in found.candles:
        shown.append(candle)
        total += 1
    color = out.is_terminal and not out.no_color
    title = f"{symbol} {interval.name}"
    drawn = candle_chart(
        list(shown),
        total=0 if as_many_as_fit else total,
        title=title,
        width=width,
        height=height,
        color=color,
        unicode=is_unicode(out),
    )
    if out.is_terminal:
        out.print(drawn, no_wrap=True, overflow="crop")
    else:
        print(drawn.plain, file=out.file)


def chart_size(out: Console) -> tuple[int, int]:
    """Columns and lines for a chart; the prompt keeps a line."""
    if out.is_terminal:
        return min(out.width, WIDEST), max(6, min(out.height - 2, 40))
    columns = os.environ.get("COLUMNS", "")
    if re.fullmatch("0*[1-9][0-9]*", columns) is None:
        return PIPE_WIDTH, PIPE_HEIGHT
    # Only so many digits: int() refuses very long ones.
    return max(NARROWEST, min(int(columns.lstrip("0")[:5]), WIDEST)), PIPE_HEIGHT


def chart_windows(out: Console) -> int:
    """How many candles fill a chart of this width; the prices beside them take about 14 columns."""
    return max(8, chart_size(out)[0] - 14)


def warn_of_lag(symbol: str, interval: Interval, end: datetime | None, found: Reading) -> None:
    """Says on stderr that the pair's candles are late, and so unfinished, when what was shown up to `end` isn't closed."""
    if found.lag <= _LAG or found.closed_until is None:
        return
    if end is not None and interval.ceil(end) <= found.closed_until:
        return
    sys.stdout.flush()
    print(
        f"maven: {symbol} is closed up to {iso(found.closed_until)} only; later windows come from its trades "
        "(is the candles pass running?)",
        file=sys.stderr,
    )

"""Sums as rows, for downloads and the command line: by point of time, and within it by model, account, key or status."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from dwctl.db import Connections
from dwctl.usage import spans
from dwctl.usage.accounts import Accounts
from dwctl.usage.reading import QUERIES, kept, moment

PAGE = 2000

BY = {
    "model": "model",
    "user": "user_id",
    "key": "api_key_id",
    "status": "status_code",
}
"""What rows can be told apart by, and the column that has it."""
MEASURES = (
    "requests", "errors", "input_tokens", "output_tokens", "reasoning_tokens", "cached_tokens", "total_tokens", "cost", "avg_latency_ms",
)  # fmt: skip
_OF_MODELS = frozenset({"model", "status"})
_SUMMED = (
    "calls", "prompt_tokens", "completion_tokens", "reasoning_tokens", "cached_tokens", "total_tokens", "cost", "duration_ms",
)  # fmt: skip
_MOST_POINTS = 64

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which calls, and by what they are told apart. accounts None: everybody's. succeeded: only those with a model and a status of 2xx.

    minutes: how long a point of time is, where that is wanted; one_point: the whole time is one.
    """

    since: datetime
    until: datetime
    by: tuple[str, ...]
    model: str | None = None
    accounts: Accounts | None = None
    succeeded: bool = False
    minutes: int | None = None
    one_point: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns that tell rows apart."""
        return ("timestamp", *(BY[one] for one in self.by))

    @property
    def is_of_models(self) -> bool:
        """Whether nothing of it needs to know accounts."""
        return self.accounts is None and _OF_MODELS.issuperset(self.by)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of a row's members."""
        return (*self.keys, *MEASURES, "duration_minutes")


def pages(connections: Connections, wanted: Wanted) -> Iterator[list[Row]]:
    """Rows in the order of time, then of what they are told apart by. A page is of one moment; between pages nothing is held."""
    with moment(connections) as connection:
        points = _points(connection, wanted)
    since, last, window = points.since, None, 1
    while since < points.until:
        until = min(points.after(since, window), points.until)
        with moment(connections) as connection:
            rows = _page(connection, wanted, points, since, until, last)
        if rows:
            yield [{**row, "duration_minutes": points.minutes} for row in rows]
        if len(rows) == PAGE:
            since, window = max(since, rows[-1]["timestamp"]), 1
            last = [rows[-1][key] for key in wanted.keys]
            continue
        # As much as a page can hold is read at once, and not much more.
        since, window, last = until, min(2 * window, _MOST_POINTS), None
        if not rows:
            # Days on which nobody called say nothing of how much there is behind them.
            called = points.after(_next_day(connections, until) or points.until, 0)
            if called > until:
                since, window = called, 1


@dataclass(frozen=True, slots=True)
class _Points:
    """A time in points of so many minutes, counted from `origin`."""

    since: datetime
    until: datetime
    minutes: int
    origin: datetime

    def after(self, at: datetime, points: int) -> datetime:
        """The end of so many points from the one that a moment is in."""
        step = timedelta(minutes=self.minutes)
        return self.origin + ((at - self.origin) // step + points) * step


def _next_day(connections: Connections, since: datetime) -> datetime | None:
    """The first day on which anybody called, from a moment's day on."""
    with moment(connections) as connection:
        kept(connection)
        row = connection.execute(QUERIES["next_day"], {"since": spans.floor(since, spans.DAY)}).fetchone()  # fmt: skip
    return row and row[0]


def _points(connection: psycopg.Connection[Any], wanted: Wanted) -> _Points:
    sums = kept(connection)
    whole = spans.cover(wanted.since, wanted.until, sums)
    if wanted.one_point:
        minutes = (whole.until - whole.since) // timedelta(minutes=1)
        return _Points(whole.since, whole.until, max(minutes, 1), whole.since)
    minutes = spans.width(wanted.since, wanted.until, sums, wanted=wanted.minutes)
    return _Points(whole.since, whole.until, minutes, spans.MONDAY)


def _page(
    connection: psycopg.Connection[Any],
    wanted: Wanted,
    points: _Points,
    since: datetime,
    until: datetime,
    last: Sequence[Any] | None,
) -> list[Row]:
    coarsest = max(grain for grain in spans.GRAINS if grain <= points.minutes * 60)
    if wanted.one_point:
        coarsest = spans.DAY
    found = spans.cover(since, until, kept(connection), coarsest=coarsest)
    keys = ", ".join(wanted.keys)
    marks = ", ".join(f"%(last_{place})s" for place in range(len(wanted.keys)))
    statement = QUERIES["export"].format(
        keys=keys,
        columns=", ".join(
            f"r.{column}" for column in {*wanted.keys[1:], "status_code"} | {*_SUMMED}
        ),
        sums="model_rollups" if wanted.is_of_models else "account_rollups",
        of_sums="NOT r.of_all" if wanted.is_of_models else "true",
        only=" AND ".join(_conditions(wanted)) or "true",
        behind="true" if last is None else f"({keys}) > ({marks})",
    )
    values = {
        **found.parameters,
        "minutes": points.minutes,
        "origin": points.origin,
        "most": PAGE,
        "model": wanted.model,
        **_whose(wanted.accounts),
        **{f"last_{place}": value for place, value in enumerate(last or ())},
    }
    return connection.cursor(row_factory=dict_row).execute(statement, values).fetchall()


def _conditions(wanted: Wanted) -> Iterator[str]:
    if wanted.model is not None:
        yield "r.model = %(model)s"
    if wanted.succeeded:
        yield "r.model <> '' AND r.status_code BETWEEN 200 AND 299"
    if wanted.accounts is not None:
        yield "r.user_id = ANY (%(accounts)s)"
        if wanted.accounts.keys is not None:
            yield "r.api_key_id = ANY (%(keys)s)"


def _whose(accounts: Accounts | None) -> dict[str, list[UUID]]:
    if accounts is None:
        return {}
    return {"accounts": list(accounts.ids), "keys": list(accounts.keys or ())}

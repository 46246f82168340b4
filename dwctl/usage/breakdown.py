"""Calls told apart by model, account, key, group or status: the first of them with their sums, and as a series over time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import psycopg

from dwctl.errors import Invalid
from dwctl.usage import latencies, points, spans
from dwctl.usage.accounts import Accounts
from dwctl.usage.reading import Row, ask, kept

Shown = dict[str, Any]

MOST_LINES = 6
_SHARES = (0.5, 0.95, 0.99)
_PERCENTILES = ("p50", "p95", "p99")
_SUMMED = ["prompt_tokens", "completion_tokens", "reasoning_tokens", "cached_tokens", "total_tokens", "cost", "duration_ms"]  # fmt: skip
_COUNTS = ("errors", "input_tokens", "output_tokens", "reasoning_tokens", "cached_tokens", "total_tokens")  # fmt: skip
_UTC = ZoneInfo("UTC")


@dataclass(frozen=True, slots=True)
class _Way:
    """How rows are told apart by something. of: the column. named: where its name (`title`) comes from. joined: what the column needs.

    shared: whether a call may count in several rows.
    """

    of: str
    title: str = "NULL"
    named: str = ""
    joined: str = ""
    shared: bool = False


BY: Mapping[str, _Way] = {
    "model": _Way("r.model", title="nullif(g.first, '')"),
    "user": _Way("r.user_id", "n.email", "LEFT JOIN users n ON n.id = g.first::uuid AND g.place <= %(most)s AND n.id <> '00000000-0000-0000-0000-000000000000'"),
    "key": _Way("r.api_key_id", "n.name", "LEFT JOIN api_keys n ON n.id = g.first::uuid AND g.place <= %(most)s"),
    "group": _Way(
        "m.group_id",
        "n.name",
        "LEFT JOIN groups n ON n.id = g.first::uuid AND g.place <= %(most)s",
        joined="JOIN user_groups m ON m.user_id = r.user_id",
        shared=True,
    ),
    "status": _Way("r.status_code", title="g.first"),
    # (Of statuses there may be more than lines.)
    "outcome": _Way("r.status_code / 100 * 100", title="g.first"),
}  # fmt: skip
"""What rows can be told apart by."""
ORDERS = {"cost": "cost", "requests": "calls", "tokens": "total_tokens"}
"""What rows are ordered by and series are of, and the column that has it."""
_OF_ALL = frozenset({"status", "outcome"})
_OF_MODELS = _OF_ALL | {"model"}
_BY_COLUMN = "r.grain = s.grain AND r.bucket >= s.since AND r.bucket < s.until"
_BY_TIME = "(r.grain, r.bucket) >= (s.grain, s.since) AND (r.grain, r.bucket) < (s.grain, s.until)"
"""The same, for sums of all models and accounts: so the index by time is taken, where PostgreSQL 18 would rather skip from model to model."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Which calls, told apart by what. accounts None: everybody's.

    most: how many rows. lines: how many of them have a series. minutes: how long a point of one is, where that is wanted. compared: whether the same
    length of time before is added up, too.
    """

    since: datetime
    until: datetime
    by: str = "model"
    order: str = "cost"
    accounts: Accounts | None = None
    model: str | None = None
    zone: ZoneInfo = _UTC
    minutes: int | None = None
    most: int = 50
    lines: int = MOST_LINES
    compared: bool = False


def read(connection: psycopg.Connection[Any], asked: Asked) -> Shown:
    """The sums, as they are shown. The connection is at one `moment`. Raises Invalid for a time too long for a series."""
    sums = kept(connection)
    whole = spans.cover(asked.since, asked.until, sums)
    if whole.until - whole.since > points.LONGEST:
        raise Invalid(f"More than {points.LONGEST.days} days cannot be shown at once", param="start_date")  # fmt: skip
    minutes = points.width(whole.since, whole.until, sums, wanted=asked.minutes)
    edges = points.edges(whole.since, whole.until, minutes, asked.zone, sums)
    found = _Sums.of(_ask(connection, asked, BY[asked.by], spans.between(edges), edges))
    total = found.total
    if BY[asked.by].shared:
        total = _total(connection, asked, whole)
    of_models = [row.id for row in found.rows if row.id]
    times = _times(connection, asked, whole, of_models)
    return {
        "start_date": whole.since,
        "end_date": whole.until,
        "duration_minutes": minutes,
        "time_zone": asked.zone.key,
        "total": {**_measures(total), **_percentiles(times, asked.model)},
        "before": _before(connection, asked, whole, sums) if asked.compared else None,
        "rows": [
            {"id": row.id, "name": row.name, **_measures(row), **_percentiles(times, row.id)}
            for row in found.rows
            if row.place <= asked.most
        ],
        "rest": next((_measures(row) for row in found.rows if row.place > asked.most), None),
        "timestamps": edges[:-1],
        "series": list(found.series(asked, len(edges) - 1)),
        "errors": found.errors(len(edges) - 1),
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Sums:
    """The rows of the statement `breakdown`, by what each is the sum of. lines: at each point, by the place among all."""

    total: Row | None
    rows: Sequence[Row]
    lines: Mapping[int, Sequence[Row]]

    @classmethod
    def of(cls, found: Iterable[Row]) -> _Sums:
        total, rows, lines = None, [], defaultdict(list)
        for row in found:
            if row.place is not None:
                rows.append(row)
            elif row.line is not None:
                lines[row.line].append(row)
            else:
                total = row
        return cls(total, rows, lines)

    def series(self, asked: Asked, length: int) -> Iterator[Shown]:
        """A line for each of the first rows, and one for all others."""
        names = {row.place: row for row in self.rows}
        column = ORDERS[asked.order]
        for line, rows in self.lines.items():
            values: list[Any] = [Decimal(0) if column == "cost" else 0] * length
            for row in rows:
                values[row.point] = getattr(row, column)
            row = names[line] if line <= asked.lines else None
            yield {"id": row and row.id, "name": row and row.name, "is_rest": row is None, "values": values}  # fmt: skip

    def errors(self, length: int) -> list[int]:
        """Calls that failed, at each point."""
        found = [0] * length
        for rows in self.lines.values():
            for row in rows:
                found[row.point] += row.errors
        return found


def _ask(
    connection: psycopg.Connection[Any],
    asked: Asked,
    way: _Way,
    covered: spans.Range,
    edges: Sequence[datetime],
) -> list[Row]:
    return ask(
        connection,
        "breakdown",
        {
            **covered.parameters,
            "edges": list(edges[:-1]),
            "most": asked.most,
            "lines": min(asked.lines, asked.most),
            "model": asked.model,
            "accounts": list(asked.accounts.ids) if asked.accounts else None,
            "keys": list(asked.accounts.keys or ()) if asked.accounts else None,
        },
        of=way.of,
        title=way.title,
        named=way.named,
        joined=way.joined,
        order=ORDERS[asked.order],
        columns=", ".join(f"r.{column}" for column in ("status_code", "calls", *_SUMMED)),
        **_sums_of(asked),
        only=" AND ".join(_conditions(asked)) or "true",
    )


def _sums_of(asked: Asked) -> dict[str, str]:
    """The fewest sums from which it can be told: parts of the statement."""
    everybodys = asked.accounts is None and asked.model is None
    if everybodys and asked.by in _OF_ALL:
        return {
            "sums": "model_rollups",
            "of_sums": "r.of_all AND r.model = ''",
            "within": _BY_COLUMN,
        }
    within = _BY_TIME if everybodys else _BY_COLUMN
    if asked.accounts is None and asked.by in _OF_MODELS:
        return {"sums": "model_rollups", "of_sums": "NOT r.of_all", "within": within}
    return {"sums": "account_rollups", "of_sums": "true", "within": within}


def _conditions(asked: Asked) -> Iterator[str]:
    if asked.model is not None:
        yield "r.model = %(model)s"
    if asked.accounts is not None:
        yield "r.user_id = ANY (%(accounts)s)"
        if asked.accounts.keys is not None:
            yield "r.api_key_id = ANY (%(keys)s)"


def _total(connection: psycopg.Connection[Any], asked: Asked, covered: spans.Range) -> Row | None:
    """All of it, each call once, from the coarsest sums."""
    one = replace(asked, by="status", most=0, lines=0)
    rows = _ask(connection, one, BY["status"], covered, [covered.since, covered.until])
    return _Sums.of(rows).total


def _before(connection: psycopg.Connection[Any], asked: Asked, covered: spans.Range, sums: spans.Kept) -> Shown:  # fmt: skip
    """The same length of time just before, as far as it is kept."""
    since = max(covered.since - (covered.until - covered.since), spans.EPOCH)
    earlier = spans.cover(since, covered.since, sums)
    return {
        "start_date": earlier.since,
        "end_date": earlier.until,
        **_measures(_total(connection, asked, earlier)),
    }


_Times = Mapping[str | None, Row]


def _times(connection: psycopg.Connection[Any], asked: Asked, covered: spans.Range, models: Sequence[str]) -> _Times:  # fmt: skip
    """Histograms by model; at None those of all. Of accounts the times are not kept, nor of keys."""
    if asked.accounts is not None or asked.by != "model":
        return {}
    wanted = {*models, *([] if asked.model is None else [asked.model])}
    rows = ask(connection, "times_by_model", {**covered.parameters, "models": sorted(wanted)})
    return {None if row.of_all else row.model: row for row in rows}


def _percentiles(times: _Times, of: str | None) -> Shown:
    row = times.get(of)
    return {
        f"{name}_{shown}_ms": time
        for shown, histogram in (("latency", row and row.durations), ("ttfb", row and row.ttfbs))
        for name, time in zip(_PERCENTILES, latencies.percentiles(histogram or "0", _SHARES), strict=True)
    }  # fmt: skip


def _measures(row: Row | None) -> Shown:
    calls = row.calls if row else 0
    return {
        "requests": calls,
        **{name: getattr(row, name) if row else 0 for name in _COUNTS},
        "cost": row.cost if row else Decimal(0),
        "avg_latency_ms": row.duration_ms / calls if row and calls else None,
    }

"""Calls told apart by model, account, key, group or status: the first of them with their sums, and as a series over time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import psycopg

from dwctl.errors import Invalid
from dwctl.usage import latencies, points, spans
from dwctl.usage.accounts import Accounts
from dwctl.usage.reading import QUERIES, Row, ask, kept

Shown = dict[str, Any]

MOST_LINES = 6
_SHARED_POINTS = 40
"""At most, unless more are wanted: everybody's sums are read for each."""
_BUCKETS, _SHARED_BUCKETS = 5000, 240
"""That points are made of, at most, also where finer ones are wanted. (Days of a zone may take more.)"""
_SHARES = (0.5, 0.95, 0.99)
_PERCENTILES = ("p50", "p95", "p99")
_SUMMED = ["prompt_tokens", "completion_tokens", "reasoning_tokens", "cached_tokens", "total_tokens", "cost", "duration_ms"]  # fmt: skip
_COUNTS = ("errors", "input_tokens", "output_tokens", "reasoning_tokens", "cached_tokens", "total_tokens")  # fmt: skip
_UTC = ZoneInfo("UTC")


@dataclass(frozen=True, slots=True)
class _Way:
    """How calls are told apart by something. told: the column of the sums, of `type`, or of what is joined `in_sums`, for which something is asked `before`. of: what it is the row of, where that needs to be `joined`.

    named: where a row's name (`title`) comes from; `full_title` is what it is called where everybody's stand side by side. shared: whether a call may count in several rows. few: whether the first rows are nearly all.
    """

    told: str
    type: str
    title: str = "NULL"
    named: str = ""
    full_title: str = ""
    before: str = ""
    in_sums: str = ""
    of: str = "r.told"
    joined: str = ""
    shared: bool = False
    few: bool = False

    @property
    def line(self) -> str:
        """The place of a row among the first, from 1 on; all others have the one behind them."""
        return f"coalesce(array_position((SELECT ones FROM first), {self.of}), %(lines)s + 1)"

    @property
    def has_rest(self) -> bool:
        """Whether lines are read with what is behind the first."""
        return self.shared or self.few

    @property
    def of_lines(self) -> str:
        """Which sums lines need."""
        return (
            "true"
            if self.has_rest
            else f"{self.told} = ANY ((SELECT ones FROM first)::{self.type}[])"
        )


BY: Mapping[str, _Way] = {
    "model": _Way("r.model", "text", title="nullif(g.first, '')"),
    "user": _Way("r.user_id", "uuid", "n.email", "LEFT JOIN users n ON n.id = g.first::uuid AND g.place <= %(most)s AND n.id <> '00000000-0000-0000-0000-000000000000'"),
    "key": _Way(
        "r.api_key_id",
        "uuid",
        "n.name",
        "LEFT JOIN api_keys n ON n.id = g.first::uuid AND g.place <= %(most)s LEFT JOIN users o ON o.id = n.user_id",
        # Many people call a key "laptop".
        full_title="n.name || ' · ' || o.email",
    ),
    "group": _Way(
        "m.kind",
        "integer",
        "n.name",
        "LEFT JOIN groups n ON n.id = g.first::uuid AND g.place <= %(most)s",
        before=QUERIES["memberships"],
        in_sums="JOIN memberships m ON m.user_id = r.user_id",
        of="k.group_id",
        joined="JOIN kinds k ON k.kind = r.told",
        shared=True,
    ),
    "status": _Way("r.status_code", "integer", title="g.first", few=True),
    # (Of statuses there may be more than lines.)
    "outcome": _Way("r.status_code / 100 * 100", "integer", title="g.first", few=True),
}  # fmt: skip
"""What rows can be told apart by."""
ORDERS = {"cost": "cost", "requests": "calls", "tokens": "total_tokens"}
"""What rows are ordered by and series are of, and the column that has it."""
_STATUSES = frozenset({"status", "outcome"})
_ACCOUNTS = frozenset({"user", "key", "group"})
_BY_COLUMN = "r.grain = s.grain AND r.bucket >= s.since AND r.bucket < s.until"
_BY_TIME = "(r.grain, r.bucket) >= (s.grain, s.since) AND (r.grain, r.bucket) < (s.grain, s.until)"
"""The same, for sums of all models or accounts: so the index by time is taken, where PostgreSQL 18 would rather skip from model to model."""


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
        raise Invalid(f"start_date: more than {points.LONGEST.days} days cannot be shown at once", param="start_date")  # fmt: skip
    minutes, edges, pieces = _points(asked, whole, sums)
    earlier = _before(whole, sums) if asked.compared else None
    with _joining_by_hash(connection, asked):
        found = _Sums.of(_ask(connection, asked, whole, edges, pieces, earlier))
    of_models = [row.id for row in found.rows if row.id]
    times = _times(connection, asked, whole, of_models)
    return {
        "start_date": whole.since,
        "end_date": whole.until,
        "duration_minutes": minutes,
        "time_zone": asked.zone.key,
        "total": {**_measures(found.total), **_percentiles(times, asked.model)},
        "before": {"start_date": earlier.since, "end_date": earlier.until, **_measures(found.before)} if earlier else None,
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


def _points(asked: Asked, whole: spans.Range, sums: spans.Kept) -> tuple[int, list[datetime], spans.Pieces]:  # fmt: skip
    """How many minutes a point has; where each begins, with the end of the last; and what they are made of."""
    shared = BY[asked.by].shared
    usually, most = (_SHARED_POINTS, _SHARED_BUCKETS) if shared else (points.USUALLY, _BUCKETS)
    least = points.width(whole.since, whole.until, sums, wanted=asked.minutes, usually=usually)
    for minutes in points.STEPS[points.STEPS.index(least) :]:
        edges = points.edges(whole.since, whole.until, minutes, asked.zone, sums)
        pieces = spans.between(edges)
        if pieces.buckets <= most:
            break
    return minutes, edges, pieces


_NOW, _BEFORE = 0, 1
"""Times of which all calls are added up, each once: that which is asked for (where rows share calls), and the one before it."""


@dataclass(frozen=True, slots=True)
class _Sums:
    """The rows of the statement `breakdown`, by what each is the sum of. points: of all calls, over time. lines: by the place among all."""

    total: Row | None
    before: Row | None
    rows: Sequence[Row]
    points: Row | None
    lines: Mapping[int, Row]

    @classmethod
    def of(cls, found: Iterable[Row]) -> _Sums:
        total, rows, lines, wholes = None, [], {}, {}
        for row in found:
            if row.place is not None:
                rows.append(row)
            elif row.line is not None:
                lines[row.line] = row
            elif row.whole is not None:
                wholes[row.whole] = row
            else:
                total = row
        return cls(wholes.get(_NOW, total), wholes.get(_BEFORE), rows, lines.pop(0, None), lines)

    def series(self, asked: Asked, length: int) -> Iterator[Shown]:
        """A line for each of the first rows, and one for all others."""
        first = _lines(asked)
        zero: Any = Decimal(0) if asked.order == "cost" else 0
        shown = [row for row in self.rows if row.place <= first]
        values = {line: _values(row, length, zero) for line, row in self.lines.items()}
        for row in shown:
            yield {"id": row.id, "name": row.name, "is_rest": False, "values": values.get(row.place, [zero] * length)}  # fmt: skip
        if len(self.rows) > len(shown):
            if not BY[asked.by].has_rest:
                others = zip(_values(self.points, length, zero), *values.values(), strict=True)
                values[first + 1] = [all - sum(these) for all, *these in others]
            yield {"id": None, "name": None, "is_rest": True, "values": values.get(first + 1, [zero] * length)}  # fmt: skip

    def errors(self, length: int) -> list[int]:
        """Calls that failed, at each point."""
        found = [0] * length
        if self.points is not None:
            for at, failed in zip(self.points.at, self.points.failed, strict=True):
                found[at] = failed
        return found


def _values(row: Row | None, length: int, zero: Any) -> list[Any]:
    found, written = [zero] * length, type(zero)
    if row is not None:
        for at, value in zip(row.at, row.values, strict=True):
            found[at] = written(value)
    return found


def _lines(asked: Asked) -> int:
    return min(asked.lines, asked.most)


def _ask(
    connection: psycopg.Connection[Any],
    asked: Asked,
    covered: spans.Range,
    edges: Sequence[datetime],
    pieces: spans.Pieces,
    earlier: spans.Range | None,
) -> list[Row]:
    way = BY[asked.by]
    wholes = ([(_NOW, covered)] if way.shared else []) + ([(_BEFORE, earlier)] if earlier else [])
    parts = [(whole, *span) for whole, time in wholes for span in time.spans]
    sums, of_all = _Table.of(asked, asked.by), _Table.of(asked, None)
    conditions = list(_conditions(asked))
    return ask(
        connection,
        "breakdown",
        {
            **covered.parameters,
            **pieces.parameters,
            "wholes": [part[0] for part in parts],
            "whole_grains": [part[1] for part in parts],
            "whole_starts": [part[2] for part in parts],
            "whole_ends": [part[3] for part in parts],
            # (As one text: psycopg would write each by itself.)
            "edges": f"{{{','.join(map(datetime.isoformat, edges[:-1]))}}}",
            "most": asked.most,
            "lines": _lines(asked),
            "model": asked.model,
            "accounts": list(asked.accounts.ids) if asked.accounts else None,
            "keys": list(asked.accounts.keys or ()) if asked.accounts else None,
        },
        told=way.told,
        of=way.of,
        title=way.title if asked.accounts else way.full_title or way.title,
        named=way.named,
        before=way.before,
        in_sums=way.in_sums,
        joined=way.joined,
        line=way.line,
        point_spans=QUERIES["point_spans"],
        of_lines=way.of_lines,
        order=ORDERS[asked.order],
        columns=", ".join(f"r.{column}" for column in _SUMMED),
        summed=", ".join(f"sum({column}) AS {column}" for column in _SUMMED),
        sums=sums.name,
        errors=sums.errors,
        within=_BY_COLUMN if conditions or sums.of_all else _BY_TIME,
        within_lines=_BY_TIME if way.shared and not conditions else _BY_COLUMN,
        only=" AND ".join([*conditions, *sums.conditions]) or "true",
        sums_of_all=of_all.name,
        errors_of_all=of_all.errors,
        within_all=_BY_COLUMN,
        only_all=" AND ".join([*conditions, *of_all.conditions]) or "true",
        errors_of_deltas=_FAILED,
        only_deltas=" AND ".join(conditions) or "true",
    )


@contextmanager
def _joining_by_hash(connection: psycopg.Connection[Any], asked: Asked) -> Iterator[None]:
    """Where memberships are joined to each sum. Otherwise sums would be, too."""
    if not BY[asked.by].in_sums:
        yield
        return
    connection.execute(QUERIES["join_by_hash"], {"on": "on"})
    yield
    connection.execute(QUERIES["join_by_hash"], {"on": "off"})


_FAILED = "CASE WHEN r.status_code BETWEEN 200 AND 299 THEN 0 ELSE r.calls END"


@dataclass(frozen=True, slots=True)
class _Table:
    """Sums: how failures are read from them. of_all: those of everybody's calls on all models together, or not; None where there are none."""

    name: str
    errors: str = _FAILED
    of_all: bool | None = None

    @classmethod
    def of(cls, asked: Asked, by: str | None) -> _Table:
        """The fewest sums from which it can be told."""
        models = asked.model is not None or by == "model"
        if asked.accounts is None and by not in _ACCOUNTS:
            return cls("model_rollups", of_all=not models)
        if models or by in _STATUSES:
            return cls("account_rollups")
        return cls("caller_rollups", "r.errors")

    @property
    def conditions(self) -> list[str]:
        """What picks them."""
        if self.of_all is None:
            return []
        return ["r.of_all AND r.model = ''" if self.of_all else "NOT r.of_all"]


def _conditions(asked: Asked) -> Iterator[str]:
    if asked.model is not None:
        yield "r.model = %(model)s"
    if asked.accounts is not None:
        yield "r.user_id = ANY (%(accounts)s)"
        if asked.accounts.keys is not None:
            yield "r.api_key_id = ANY (%(keys)s)"


def _before(covered: spans.Range, sums: spans.Kept) -> spans.Range:
    """The same length of time just before, as far as it is kept."""
    since = max(covered.since - (covered.until - covered.since), spans.EPOCH)
    return spans.cover(since, covered.since, sums)


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

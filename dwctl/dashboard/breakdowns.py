"""Calls told apart, as pages show them: everybody's for whoever may read those, else those of the account for which a person acts."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any
from uuid import UUID

from dwctl.dashboard import charts, formatting, operations, zones
from dwctl.dashboard.charts import Chart, Series
from dwctl.dashboard.ranges import Range
from dwctl.db import db
from dwctl.usage import reading
from dwctl.usage.points import DAY
from dwctl.usage.routes import break_down_requests, break_down_usage
from dwctl.web import current

Found = Mapping[str, Any]
"""What the operation answers."""

UNITS = {"cost": "money", "requests": "calls", "tokens": "tokens"}
"""By what series are of, the unit in which a chart writes them."""
NO_SERIES: dict[str, Any] = {"limit": 0, "lines": 0, "duration_minutes": DAY}
"""What is asked for sums alone: points are as few as can be."""
_MOST_VALUES = 1500
_ID_ALONE = {"model": "No known model", "user": "Nobody", "key": "Without a key", "group": "A group that is gone", "status": "Without a status"}  # fmt: skip
_NOBODY = "00000000-0000-0000-0000-000000000000"


def is_everybodys() -> bool:
    """Whether it is everybody's calls that the reader sees."""
    return operations.may(break_down_requests)


def view(of: UUID | None = None) -> operations.View:
    """The operation that answers the reader. of: an account that alone is asked for."""
    return break_down_requests if of is None and is_everybodys() else break_down_usage


def query(range: Range, *, of: UUID | None = None, **more: Any) -> dict[str, Any]:
    """What it is asked: the range, in the reader's zone."""
    return {
        **({} if of is None else {"user_id": str(of)}),
        "start_date": range.since.isoformat(),
        "end_date": range.until.isoformat(),
        "time_zone": zones.zone().key,
        **more,
    }


def read(range: Range, *, of: UUID | None = None, **more: Any) -> Found:
    """The sums, of one account where `of` names it. Raises what the operation raises."""
    found: Found = operations.run(view(of), query=query(range, of=of, **more))
    return found


def one_moment() -> AbstractContextManager[None]:
    """Several readings that show the same moment, so that their sums agree."""
    db.session.rollback()
    return reading.one_moment(current.parts().connections)


def covered(found: Found) -> str:
    """The time that the sums are of, as an address has it: whole minutes, so that the rows behind them are those that were added up."""
    return f"{found['start_date']}..{found['end_date']}"


def named(by: str, row: Found) -> str:
    """A row's name in words; what has none any more keeps its id."""
    nameless = row["id"] in (None, "", _NOBODY, "0")
    name = formatting.key_name(row["name"]) if by == "key" else row["name"]
    return name or (_ID_ALONE[by] if nameless else row["id"])


def chart(found: Found, *, by: str, order: str) -> Chart:
    """The series, each in the colour of its name."""
    own = _own_lines(found)
    chosen = colors(found)
    series = [Series(named(by, line), _values(line), chosen[line["id"]]) for line in own]
    others = [_values(line) for line in found["series"][len(own) :]]
    if others:
        series.append(Series("Other", [sum(column) for column in zip(*others, strict=True)]))
    return Chart(
        times=[datetime.fromisoformat(one) for one in found["timestamps"]],
        series=series,
        step_minutes=found["duration_minutes"],
        unit=UNITS[order],
        errors=found["errors"] if order == "requests" else (),
    )


def colors(found: Found) -> dict[str, str]:
    """The colours of those rows that have a line of their own in the chart, by id."""
    return charts.colors(line["id"] for line in _own_lines(found))


def _own_lines(found: Found) -> list[Found]:
    """The first series: as many as a chart may have for its points, beside that of all others and the errors."""
    most = min(charts.MOST_SERIES, max(1, _MOST_VALUES // max(len(found["timestamps"]), 1) - 2))
    return [line for line in found["series"] if not line["is_rest"]][:most]


def _values(line: Found) -> list[float]:
    return [float(one) if isinstance(one, str) else one for one in line["values"]]

"""What `<time-chart>` draws, and the table that says the same without script."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson
from flask import Response
from markupsafe import Markup

from dwctl.dashboard import formatting
from dwctl.dashboard.zones import zone

COLORS = tuple(f"series-{number}" for number in range(1, 7))
OTHER = "series-other"
MOST_SERIES = len(COLORS)

Value = float | int | None
"""Of one series at one point; None where there is nothing to say (a percentile of no calls)."""

_ESCAPED = (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("'", "&#39;"))
_WRITTEN: Mapping[str, Callable[[Any], str]] = {
    "calls": formatting.number,
    "tokens": formatting.number,
    "money": formatting.money,
    "ms": formatting.duration,
}


@dataclass(frozen=True, slots=True)
class Series:
    """One line, or one layer of a stack. values: one for each of the chart's times."""

    name: str
    values: Sequence[Value]
    color: str = OTHER


@dataclass(frozen=True, slots=True)
class Chart:
    """times: where each bucket begins. step_minutes: how long one is, as a rule (a day of the reader's may be longer or shorter).

    unit: calls, money, ms or tokens. errors: calls that failed in each bucket, for the strip below.
    """

    times: Sequence[datetime]
    series: Sequence[Series]
    step_minutes: int
    unit: str = "calls"
    errors: Sequence[int] = field(default=())

    @property
    def points(self) -> str:
        """As the element reads it."""
        return orjson.dumps(self._shown()).decode()

    @property
    def attribute(self) -> Markup:
        """The same within single quotes of HTML: it is full of double ones, which would be six characters each."""
        text = self.points
        for character, escaped in _ESCAPED:
            text = text.replace(character, escaped)
        return Markup(text)

    @property
    def heads(self) -> list[str]:
        """The columns of the table beside the time."""
        return [one.name for one in self.series] + (["Errors"] if self.errors else [])

    @property
    def body(self) -> Markup:
        """The table's rows as HTML: there are hundreds, of texts that need no escaping, as times and numbers are."""
        return Markup("".join(f"<tr><td>{time}<td>{'<td>'.join(values)}" for time, values in self.rows()))  # fmt: skip

    def rows(self) -> Iterator[tuple[str, list[str]]]:
        """The table's rows in the order of time; times at which nothing was are left out."""
        in_words = formatting.short_times()
        write = _WRITTEN[self.unit]
        columns = [one.values for one in self.series] + ([self.errors] if self.errors else [])
        writers = [write for _ in self.series] + [formatting.number]
        for time, *values in zip(self.times, *columns, strict=True):
            if any(values):
                yield in_words(time), [written(one) for written, one in zip(writers, values, strict=False)]  # fmt: skip

    def _shown(self) -> dict[str, Any]:
        return {
            "step_minutes": self.step_minutes,
            "zone": zone().key,
            "times": [int(time.timestamp()) for time in self.times],
            "series": [
                {"name": one.name, "color": one.color, "values": list(one.values)}
                for one in self.series
            ],
            "errors": list(self.errors),
        }


def answer(chart: Chart) -> Response:
    """The chart for an element that asks for it by its `src`."""
    response = Response(chart.points, mimetype="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response


def color(name: str) -> str:
    """The colour of a model or a key wherever it stands alone: always the same for the same name."""
    return COLORS[_wish(name)]


def colors(names: Iterable[str]) -> dict[str, str]:
    """The colours of names that stand in one chart, at most as many as there are: each has its own, or the next that is free."""
    taken: dict[str, str] = {}
    for name in sorted(names):
        wishes = (COLORS[(_wish(name) + further) % MOST_SERIES] for further in range(MOST_SERIES))
        taken[name] = next((one for one in wishes if one not in taken.values()), OTHER)
    return taken


def _wish(name: str) -> int:
    return hashlib.sha256(name.encode()).digest()[0] % MOST_SERIES

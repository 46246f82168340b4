"""Calls over time by outcome, and how long they took, for the screen of requests: read from sums, so only under filters that sums know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from dwctl.dashboard import calls, charts, operations
from dwctl.dashboard.zones import zone
from dwctl.errors import Invalid
from dwctl.usage.breakdown import MOST_LINES
from dwctl.usage.routes import aggregate_requests, break_down_requests, break_down_usage
from dwctl.usage.spans import WIDTHS
from dwctl.web.schemas import rfc3339

_UNKNOWN_TO_SUMS: Final = {"tier": "tier", "batch": "batch", "q": "words", "min_ms": "duration"}
_COLORS = {"2xx": "series-1", "3xx": "series-5", "4xx": "series-3", "5xx": "chart-bad"}
_OTHER = "Other"
_TIMES: Final = (
    ("Whole answer, p95", "p95_latency_ms", "series-1"),
    ("Whole answer, median", "p50_latency_ms", "series-2"),
    ("First token, p95", "p95_ttfb_ms", "series-3"),
)


def of(asked: calls.Asked) -> charts.Chart:
    """The chart of what the address asks. Raises Invalid where sums would show other calls than the list does."""
    unknown = [word for name, word in _UNKNOWN_TO_SUMS.items() if name in asked.values]
    if unknown:
        raise Invalid(f"No chart: sums do not tell calls apart by {' and '.join(unknown)}.")
    found = _broken_down(asked)
    series = _by_class(found["series"], asked)
    errors = found["errors"]
    if asked.status:
        # Those of the outcome that is asked for are the chart; a strip of them again says nothing.
        errors = []
    return charts.Chart(
        found["timestamps"],
        series,
        found["duration_minutes"],
        errors=errors,
    )


def has_times(asked: calls.Asked) -> bool:
    """Whether `times` can be told: percentiles are kept of everybody's calls, by model alone."""
    return not (asked.values.keys() - {"model"}) and operations.may(aggregate_requests)


def times(asked: calls.Asked) -> charts.Chart:
    """How long calls took. Raises Invalid where percentiles would be of other calls than the list shows."""
    if not has_times(asked):
        raise Invalid("No chart: percentiles are of everybody's calls, by time and model alone.")
    query = {
        "model": asked.model,
        "timestamp_after": rfc3339(asked.range.since),
        "timestamp_before": rfc3339(asked.range.until),
        "duration_minutes": min(width for width in WIDTHS if width >= asked.range.step_minutes),
    }
    points = operations.values(aggregate_requests, query=query)["time_series"]
    return charts.Chart(
        [point["timestamp"] for point in points],
        [charts.Series(name, [point[of] for point in points], color) for name, of, color in _TIMES],
        points[0]["duration_minutes"],
        unit="ms",
    )


def _broken_down(asked: calls.Asked) -> Any:
    query = {
        "by": "status" if asked.code else "outcome",
        "order": "requests",
        "lines": MOST_LINES,
        "limit": MOST_LINES,
        "model": asked.model,
        "api_key_id": asked.key,
        "start_date": rfc3339(asked.range.since),
        "end_date": rfc3339(asked.range.until),
        "duration_minutes": asked.range.step_minutes,
        "time_zone": zone().key,
    }
    if calls.reads_all() and asked.user is None:
        return operations.values(break_down_requests, query=query)
    account = asked.user or str(calls.usual_account())
    return operations.values(break_down_usage, query=query | {"user_id": account})


def _by_class(lines: list[Mapping[str, Any]], asked: calls.Asked) -> list[charts.Series]:
    """Statuses by their first digit, each with what it adds up to. Raises Invalid where one that is asked for is among the rest."""
    low, high = asked.statuses
    sums: dict[str, list[int]] = {}
    for line in lines:
        if line["is_rest"]:
            if asked.status:
                raise Invalid("No chart: there were too many different statuses to tell this one apart.")  # fmt: skip
            name = _OTHER
        else:
            code = int(line["id"])
            if not (low or 0) <= code <= (high or 999):
                continue
            name = f"{code // 100}xx" if code >= 100 else _OTHER
        values = line["values"]
        sums[name] = [a + b for a, b in zip(sums[name], values, strict=True)] if name in sums else values  # fmt: skip
    return [charts.Series(name, sums[name], _COLORS.get(name, charts.OTHER)) for name in sorted(sums)]  # fmt: skip

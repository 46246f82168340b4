"""What waits, by model: for operators who ask, and for the metrics page, which asks often."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from dwctl import sql
from dwctl.db import Connections
from dwctl.figures.families import Family, Merge, gauge
from dwctl.polled import Polled
from dwctl.printable import printable

_QUERIES = sql.load("dwctl.monitoring")

_EVER = "100000d"
_KEPT_S = 5.0
_OTHERS = "(other)"
"""The label of models that nobody has configured: their names are anybody's invention."""


@dataclass(frozen=True, slots=True)
class Depth:
    """Of one model: requests that are not over, how many of them run, and the seconds for which the one that is due first has waited."""

    pending: int = 0
    running: int = 0
    oldest_s: float = 0.0

    def __add__(self, other: Depth) -> Depth:
        return Depth(
            self.pending + other.pending,
            self.running + other.running,
            max(self.oldest_s, other.oldest_s),
        )


@dataclass(frozen=True, slots=True)
class Tier:
    """Of one model, what is in `batch` or `flex`. oldest_s: since when the first of it is there; due: requests that are not over, by window."""

    model: str
    tier: str
    oldest_s: float
    due: dict[str, int]


def by_window(
    connection: psycopg.Connection[Any], windows: Sequence[str]
) -> dict[str, dict[str, int]]:
    """{model: {window: requests that are not over and due within it}}; what is overdue is in every window. Models without any are left out."""
    found: dict[str, dict[str, int]] = {}
    for one in by_tier(connection, windows):
        due = found.setdefault(one.model, {})
        for window, requests in one.due.items():
            due[window] = due.get(window, 0) + requests
    return found


def by_tier(connection: psycopg.Connection[Any], windows: Sequence[str]) -> list[Tier]:
    """What is not over, by model and tier."""
    return tiers(connection.execute(_QUERIES["pending"], {"windows": list(windows)}).fetchall())


def tiers(rows: Iterable[tuple[Any, ...]]) -> list[Tier]:
    """The rows of the statement `pending`, by model and tier."""
    found: dict[tuple[str, str], Tier] = {}
    for model, tier, window, requests, oldest_s in rows:
        one = found.setdefault((model, tier), Tier(model, tier, oldest_s, {}))
        one.due[window] = requests
    return list(found.values())


def by_model(connection: psycopg.Connection[Any]) -> dict[str, Depth]:
    """What waits and runs of each model."""
    found: dict[str, Depth] = {}

    def add(model: str, depth: Depth) -> None:
        found[model] = found.get(model, Depth()) + depth

    for model, windows in by_window(connection, [_EVER]).items():
        add(model, Depth(pending=windows[_EVER]))
    for model, requests in connection.execute(_QUERIES["flying"]).fetchall():
        add(model, Depth(running=requests))
    for model, age_s in connection.execute(_QUERIES["oldest"]).fetchall():
        add(model, Depth(oldest_s=age_s))
    return found


class DepthMetrics:
    """Three gauges by model, asked of the database at most every few seconds; without them where it does not answer in time."""

    def __init__(self, connections: Connections) -> None:
        self._depths: Polled[dict[str, Depth]] = Polled(connections, by_model, {}, kept_s=_KEPT_S)

    def collect(self, models: Collection[str]) -> Iterator[Family]:
        """The gauges; what is not one of `models` is added up under one label."""
        depths: dict[str, Depth] = {}
        for name, depth in self._depths().items():
            label = printable(name) if name in models else _OTHERS
            depths[label] = depths.get(label, Depth()) + depth
        for name, text, member in (
            ("pending", "Requests of batches and of single calls that are not over.", "pending"),
            ("running", "Of these, requests that workers run.", "running"),
            (
                "oldest_seconds",
                "Seconds for which the request whose deadline comes first has waited.",
                "oldest_s",
            ),
        ):
            values = {(model,): getattr(depth, member) for model, depth in depths.items()}
            yield gauge(f"dwctl_queue_{name}", text, ("model",), values, Merge.SAME)

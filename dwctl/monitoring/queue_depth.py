"""What waits, by model: for operators who ask, and for the metrics page, which asks often."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from prometheus_client.core import GaugeMetricFamily, Metric

from dwctl import sql
from dwctl.db import Connections, DatabaseAway
from dwctl.patience import Patience
from dwctl.printable import printable

_QUERIES = sql.load("dwctl.monitoring")

_EVER = "100000d"
_KEPT_S = 5.0
_PATIENCE_S = 2.0
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


def by_window(
    connection: psycopg.Connection[Any], windows: Sequence[str]
) -> dict[str, dict[str, int]]:
    """{model: {window: requests that are not over and due within it}}; what is overdue is in every window. Models without any are left out."""
    found: dict[str, dict[str, int]] = {}
    values = {"windows": list(windows)}
    for model, window, requests in connection.execute(_QUERIES["pending"], values).fetchall():
        found.setdefault(model, {})[window] = requests
    return found


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
        self._connections = connections
        self._found: Mapping[str, Depth] = {}
        self._until = 0.0

    def collect(self, models: Collection[str]) -> Iterator[Metric]:
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
            gauge = GaugeMetricFamily(f"dwctl_queue_{name}", text, labels=["model"])
            for model, depth in depths.items():
                gauge.add_metric([model], getattr(depth, member))
            yield gauge

    def _depths(self) -> Mapping[str, Depth]:
        if time.monotonic() >= self._until:
            # Before the answer: several scrapers at once ask once.
            self._until = time.monotonic() + _KEPT_S
            try:
                with Patience(_PATIENCE_S), self._connections.transaction() as connection:
                    connection.execute(f"SET LOCAL statement_timeout = {_PATIENCE_S * 1000:.0f}")
                    self._found = by_model(connection)
            except (DatabaseAway, psycopg.Error, Patience):
                self._found = {}
        return self._found

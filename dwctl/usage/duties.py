"""Chores of the sums: what is new comes in, what is past its time goes."""

from __future__ import annotations

from typing import Any

import psycopg

from dwctl.config import Settings
from dwctl.queue.duties import Duty
from dwctl.usage import folding
from dwctl.usage.spans import DAY, HOUR, MINUTE

_FOLD_AT_ONCE = 2000
_ADOPT_AT_ONCE = 1000
_CARRY_AT_ONCE = 10_000
_PURGE_AT_ONCE = 1000
_HOUR_S = 3600.0


def fold_usage(connection: psycopg.Connection[Any], _settings: Settings) -> float:
    """Add what the recorders have written to the sums."""
    folding.adopt(connection, _ADOPT_AT_ONCE)
    return 0.05 if folding.fold(connection, _FOLD_AT_ONCE) == _FOLD_AT_ONCE else 2.0


def carry_latencies(connection: psycopg.Connection[Any], _settings: Settings) -> float:
    """Make histograms of what was kept as a row for each slot before; processes of the release before go on writing such rows."""
    carried = folding.adopt_latencies(connection, _CARRY_AT_ONCE)
    return 0.1 if carried == _CARRY_AT_ONCE else 60.0


def purge_rollups(connection: psycopg.Connection[Any], settings: Settings) -> float:
    """Delete sums past `retention.minutes_days`, `hours_days`, `rollups_days`, some at a time. Those of all time stay."""
    retention = settings.retention
    days = {MINUTE: retention.minutes_days, HOUR: retention.hours_days, DAY: retention.rollups_days}
    purged = [
        folding.purge(connection, grain, kept, _PURGE_AT_ONCE)
        for grain, kept in days.items()
        if kept
    ]
    return 0.5 if _PURGE_AT_ONCE in purged else _HOUR_S


DUTIES = (
    Duty("fold_usage", fold_usage),
    Duty("carry_latencies", carry_latencies),
    Duty("purge_rollups", purge_rollups),
)

"""Sums that are not what they should be are found, each kind by its check."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from dwctl.analytics import writing
from dwctl.billing import verification
from dwctl.usage import folding
from dwctl.usage.verification import CHECKS
from tests.analytics.made import ALICE, Made, final


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """Two calls are recorded, and the first is folded."""
    with psycopg.connect(database_url, autocommit=True) as made:
        now = time.time()
        made.execute("TRUNCATE http_analytics, usage_deltas, account_rollups, caller_rollups, model_rollups, latency_histograms")  # fmt: skip
        for _ in range(2):
            writing.record(made, [final(Made(uuid4(), created_at=now, track=False))])
            folding.fold(made, 1)
        writing.record(made, [final(Made(uuid4(), created_at=now, track=False, model="other"))])
        yield made


def found(connection: psycopg.Connection[Any]) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for one in verification.findings(connection, CHECKS):
        names.setdefault(one.check.name, []).append(one.subject)
    return names


def test_nothing_is_found_where_everything_holds(connection: psycopg.Connection[Any]) -> None:
    assert found(connection) == {}
    folding.fold(connection, 10)
    assert found(connection) == {}


@pytest.mark.parametrize(
    ("damage", "by", "rows"),
    [
        ("DELETE FROM usage_deltas", "usage", 4),
        ("UPDATE usage_deltas SET duration_ms = 1", "usage", 1),
        ("UPDATE account_rollups SET cost = cost + 1 WHERE grain = 86400", "usage", 1),
        ("DELETE FROM http_analytics WHERE model = 'm'", "usage", 4),
        ("UPDATE model_rollups SET calls = calls + 1 WHERE grain = 60 AND NOT of_all", "usage_models", 1),
        ("UPDATE model_rollups SET cost = 1 WHERE grain = 60 AND of_all", "usage_of_all", 1),
        ("DELETE FROM model_rollups WHERE grain = 0", "usage_models", 1),
        ("DELETE FROM account_rollups WHERE grain = 3600", "usage_models", 1),
        ("UPDATE caller_rollups SET calls = calls + 1 WHERE grain = 86400", "usage_callers", 1),
        ("UPDATE caller_rollups SET cost = cost + 1 WHERE grain = 3600", "usage_callers", 1),
        ("DELETE FROM caller_rollups WHERE grain = 60", "usage_callers", 1),
        ("UPDATE model_rollups SET calls = calls + 1 WHERE grain = 86400", "usage_grains", 2),
        ("DELETE FROM model_rollups WHERE grain = 60", "usage_grains", 1),
        ("DELETE FROM latency_histograms WHERE of_all AND grain = 60", "usage_latencies", 1),
    ],
)  # fmt: skip
def test_damage_is_found(connection: psycopg.Connection[Any], damage: str, by: str, rows: int) -> None:  # fmt: skip
    connection.execute(damage)  # type: ignore[call-overload]
    subjects = found(connection)
    assert len(subjects[by]) == rows
    if by == "usage":
        assert all(s.startswith(f"{ALICE} {datetime.now(UTC).date()} ") for s in subjects[by])

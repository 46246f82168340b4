"""A batch from its row to its end: populated, run by a worker, counted, in the order of its files."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import psycopg
import pytest

from dwctl.queue import identifiers
from tests.batches import made
from tests.gateway import BATCH, Gateway, cost
from tests.processes import QUICK, eventually


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | QUICK


def over(stage: Gateway, id: UUID, timeout_s: float = 30) -> Any:
    """The batch, once it says how it ended and was counted."""
    eventually(lambda: stage.one("SELECT counts_frozen_at FROM fusillade.batches WHERE id = %s", id)[0], timeout_s)  # fmt: skip
    return stage.one("SELECT * FROM fusillade.batches WHERE id = %s", id)


def ends(batch: Any) -> set[str]:
    names = ("completed_at", "failed_at", "cancelled_at", "expired_at", "finalizing_at")
    return {name for name in names if getattr(batch, name)}


def bodies(model: str, count: int) -> list[dict[str, Any]]:
    return [{"model": model, "messages": [{"role": "user", "content": f"n{n}"}]} for n in range(count)]  # fmt: skip


def test_a_batch_runs_to_its_end(stage: Gateway, sql: psycopg.Connection) -> None:
    good = stage.flexible("chat", batch_capacity=50)
    lines = bodies(good, 40) + bodies("nobody-has-this", 5)
    id = made.batch(sql, stage.alice.id, made.file(sql, stage.alice.id, lines))
    before = stage.balance(stage.alice.id)
    stage.service.worker()
    batch = over(stage, id)
    assert (batch.completed_requests, batch.failed_requests, batch.total_requests) == (40, 5, 45)
    assert ends(batch) == {"completed_at", "finalizing_at"}
    assert batch.requests_started_at <= batch.completed_at
    assert made.wrong(sql, id) == []
    assert before - stage.balance(stage.alice.id) == 40 * cost(BATCH)
    rows = stage.all("SELECT id, custom_id FROM fusillade.requests WHERE batch_id = %s ORDER BY id", id)  # fmt: skip
    assert [row.id for row in rows] == [identifiers.line_id(id, n) for n in range(45)]
    assert [row.custom_id for row in rows] == [f"c{n}" for n in range(40)] + [f"c{n}" for n in range(40, 45)]  # fmt: skip
    assert not stage.all("SELECT id FROM fusillade.ready UNION ALL SELECT id FROM fusillade.delayed")  # fmt: skip
    assert not stage.leases()

"""Batches without processes: duties that a test calls itself, and a worker that is an id."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import namedtuple_row

from dwctl import clock
from dwctl.analytics import writing
from dwctl.analytics.records import Record
from dwctl.batches import duties
from dwctl.config import Settings
from dwctl.queue import leases
from dwctl.queue.leases import Job, Policy
from tests.batches import made

OWNER = UUID(int=7, version=4)


@dataclass(frozen=True)
class Lines:
    """`ours` is one of the product's connections, each statement committed at once; `by_hand` an operator's."""

    ours: psycopg.Connection[Any]
    by_hand: psycopg.Connection[Any]
    settings: Settings
    me: UUID

    def batch(self, count: int, *, model: str = "m", populated: bool = True, **more: Any) -> UUID:
        """A batch of so many lines for one model."""
        id = made.batch(self.ours, OWNER, made.same_file(self.ours, OWNER, count, model), **more)
        if populated:
            self.work()
        return id

    def work(self) -> None:
        """All duties, until none has anything to do. (Those of one kind at a time, as in life.)"""
        while sum(self._works(duty.run) for duty in duties.DUTIES):
            pass

    def _works(self, run: Any) -> bool:
        with self.ours.transaction():
            return bool(run(self.ours, self.settings) == 0.0)

    def claim(self, most: int = 1000) -> list[Job]:
        """Taken and begun by this worker."""
        with self.ours.transaction():
            return leases.claim(self.ours, me=self.me, most=most, policy=Policy({}, 10_000))

    def end(self, jobs: Sequence[Job], *, status: int = 200, cost: str | None = "0.5") -> None:
        """Recorded as completed, or (a status above 399) as failed."""
        records = [_record(job, self.me, status, cost) for job in jobs]
        writing.record(self.ours, records)

    def run(self, most: int = 1000, **more: Any) -> list[Job]:
        jobs = self.claim(most)
        self.end(jobs, **more)
        return jobs

    def put_off(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            leases.retry_later(self.ours, self.me, job.id, 0.0)

    def time_passes(self, id: UUID, hours: int = 25) -> None:
        """Its deadline, and where it stands in line, are that much earlier."""
        values = {"id": id, "by": f"{hours} hours"}
        self.ours.execute("UPDATE fusillade.ready SET deadline = deadline - %(by)s::interval WHERE batch_id = %(id)s", values)  # fmt: skip
        self.ours.execute("UPDATE fusillade.batches SET expires_at = expires_at - %(by)s::interval WHERE id = %(id)s", values)  # fmt: skip

    def row(self, id: UUID) -> Any:
        cursor = self.ours.cursor(row_factory=namedtuple_row)
        return cursor.execute("SELECT * FROM fusillade.batches WHERE id = %s", (id,)).fetchone()

    def counts(self, id: UUID) -> tuple[int, int, int]:
        """Completed, failed, canceled."""
        row = self.row(id)
        return row.completed_requests, row.failed_requests, row.canceled_requests

    def ends(self, id: UUID) -> set[str]:
        """How it says that it ended."""
        row = self.row(id)
        return {name for name in ("completed", "failed", "cancelled", "expired") if getattr(row, f"{name}_at")}  # fmt: skip

    def states(self, id: UUID) -> dict[str, int]:
        rows = self.ours.execute("SELECT state, count(*) FROM fusillade.requests WHERE batch_id = %s GROUP BY 1", (id,))  # fmt: skip
        return dict(rows.fetchall())

    def wrong(self, id: UUID) -> list[str]:
        return made.wrong(self.ours, id)

    def waiting(self) -> int:
        """Entries in the tables of what waits and what runs."""
        row = self.ours.execute(
            "SELECT (SELECT count(*) FROM fusillade.ready) + (SELECT count(*) FROM fusillade.delayed) + (SELECT count(*) FROM fusillade.inflight)"
        ).fetchone()
        assert row is not None
        return int(row[0])

    def graceful(self, grace_s: float) -> Lines:
        batches = replace(self.settings.batches, expiry_grace=grace_s)
        return replace(self, settings=replace(self.settings, batches=batches))


def _record(job: Job, me: UUID, status: int, cost: str | None) -> Record:
    fine = status < 400
    return Record(
        id=job.id,
        at=job.batch_created_at or job.created_at,
        ended_at=clock.now(),
        track=True,
        opened=True,
        queued=True,
        notify=True,
        method="POST",
        uri="/chat/completions",
        status_code=status,
        duration_ms=5,
        ttfb_ms=2,
        prompt_tokens=3,
        completion_tokens=4,
        reasoning_tokens=0,
        cached_tokens=0,
        total_tokens=7,
        usage_source="upstream",
        response_type="chat_completion",
        access_source="api_key",
        origin="api",
        sla="24h",
        batch_id=job.batch_id,
        owner=str(OWNER),
        user_id=UUID(int=0),
        path=job.path,
        model=job.model,
        tier="flex",
        expires_at=job.deadline,
        daemon_id=me,
        state="completed" if fine else "failed",
        response_status=status,
        response_body='{"ok":true}' if fine else '{"error":{}}',
        response_size=11,
        error=None if fine else '{"type":"NonRetriableHttpStatus","details":{"status":400}}',
        cost=None if cost is None else Decimal(cost),
        custom_id=job.custom_id,
    )


def connect(database_url: str, settings: Settings, sql: psycopg.Connection[Any]) -> Lines:
    ours = psycopg.connect(database_url, autocommit=True, options="-c dwctl.queue=own")
    tables = "requests, batches, request_templates, files, ready, delayed, inflight, queues, model_slots, unrecorded, batch_models, finished_lines, sweeps, recounts"
    ours.execute("TRUNCATE " + ", ".join(f"fusillade.{name}" for name in tables.split(", ")))  # type: ignore[arg-type]
    ours.execute("TRUNCATE http_analytics, credits_transactions, batch_usage")
    return Lines(ours, sql, settings, uuid.uuid4())

"""Rows of the queue for tests: requests inserted by hand with few columns, claimed by workers that are only ids."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg

from dwctl.queue import leases
from dwctl.queue.leases import Job

ALICE, BOB, CAROL = (UUID(int=n, version=4) for n in (1, 2, 3))


@dataclass(frozen=True)
class Rows:
    """`by_hand` is an operator's connection, `ours` one of the product's."""

    by_hand: psycopg.Connection
    ours: psycopg.Connection
    url: str

    def batch(
        self, owner: object = ALICE, *, due_s: float = 86400, **more: Any
    ) -> tuple[UUID, UUID]:
        """A batch with one template; the ids of both."""
        template, batch = uuid.uuid4(), uuid.uuid4()
        self.by_hand.execute(
            "INSERT INTO fusillade.request_templates (id, endpoint, method, path, body, model) "
            "VALUES (%s, 'http://localhost/ai', 'POST', '/v1/chat/completions', '{}', 'm')",
            (template,),
        )
        columns = {
            "id": batch,
            "created_by": str(owner),
            "expires_at": datetime.now(UTC) + timedelta(seconds=due_s),
            **more,
        }
        names = ", ".join(columns)
        places = ", ".join(["%s"] * len(columns))
        self.by_hand.execute(
            f"INSERT INTO fusillade.batches ({names}) VALUES ({places})",  # type: ignore[arg-type]
            list(columns.values()),
        )
        return batch, template

    def request(
        self,
        owner: object = ALICE,
        *,
        model: str = "m",
        due_s: float = 86400,
        of: tuple[UUID, UUID] | None = None,
        **more: Any,
    ) -> UUID:
        """One pending request, with ids, model and state only."""
        batch, template = of or self.batch(owner, due_s=due_s)
        columns = {
            "id": uuid.uuid4(),
            "batch_id": batch,
            "template_id": template,
            "model": model,
            "state": "pending",
            **more,
        }
        names = ", ".join(columns)
        places = ", ".join(["%s"] * len(columns))
        self.by_hand.execute(
            f"INSERT INTO fusillade.requests ({names}) VALUES ({places})",  # type: ignore[arg-type]
            list(columns.values()),
        )
        return UUID(str(columns["id"]))

    def requests(self, count: int, owner: object = ALICE, **more: Any) -> list[UUID]:
        """Many of one batch."""
        of = self.batch(owner, due_s=more.pop("due_s", 86400))
        return [self.request(owner, of=of, **more) for _ in range(count)]

    def singles(self, count: int, owner: object = ALICE) -> list[UUID]:
        """Single requests, each with a batch of its own id, in the order in which they will be claimed."""
        made = sorted(uuid.uuid4() for _ in range(count))
        for statement in (
            "INSERT INTO fusillade.request_templates (id, endpoint, method, path, body, model) "
            "SELECT id, '', 'POST', '/v1/responses', '{}', 'm' FROM unnest(%(ids)s::uuid[]) id",
            "INSERT INTO fusillade.batches (id, created_by, expires_at) "
            "SELECT id, %(owner)s, now() + interval '1 hour' FROM unnest(%(ids)s::uuid[]) id",
            "INSERT INTO fusillade.requests (id, batch_id, template_id, model, state) "
            "SELECT id, id, id, 'm', 'pending' FROM unnest(%(ids)s::uuid[]) id",
        ):
            self.by_hand.execute(statement, {"ids": made, "owner": str(owner)})
        return made

    def claim(
        self,
        me: UUID,
        *,
        caps: Mapping[str, int] | None = None,
        default_cap: int = 1000,
        most: int = 100,
        connection: psycopg.Connection | None = None,
        following: Mapping[UUID, UUID] | None = None,
        **policy: Any,
    ) -> list[Job]:
        chosen = leases.Policy(caps or {}, default_cap, **policy)
        return leases.claim(
            connection or self.ours, me=me, most=most, policy=chosen, following=following or {}
        )

    begin = claim

    def time_passes(self) -> None:
        """What was put off is due."""
        self.ours.execute("UPDATE fusillade.delayed SET not_before = now()")
        leases.wake_delayed(self.ours)

    def complete(self, me: UUID, id: UUID) -> None:
        """What the recorder does to these tables, in short."""
        self.ours.execute(
            "UPDATE fusillade.requests SET state = 'completed', response_status = 200, response_body = '{}', completed_at = now() "
            "WHERE id = %s AND daemon_id = %s",
            (id, me),
        )
        self.ours.execute("DELETE FROM fusillade.inflight WHERE id = %s", (id,))

    def daemon(self, *, beat_s_ago: float = 0.0, status: str = "running") -> UUID:
        """A process's row."""
        id = uuid.uuid4()
        self.by_hand.execute(
            "INSERT INTO fusillade.daemons (id, status, hostname, pid, version, config_snapshot, started_at, last_heartbeat, stopped_at) "
            "VALUES (%s, %s, 'h', 1, '1', '{}', now(), now() - %s * interval '1 second', CASE WHEN %s = 'dead' THEN now() END)",
            (id, status, beat_s_ago, status),
        )
        return id

    def one(self, statement: str, *values: Any) -> Any:
        row = self.by_hand.execute(statement, values).fetchone()  # type: ignore[arg-type]
        assert row is not None
        return row[0] if len(row) == 1 else row

    def count(self, table: str) -> int:
        return int(self.one(f"SELECT count(*) FROM fusillade.{table}"))

    def state(self, id: UUID) -> str:
        return str(self.one("SELECT state FROM fusillade.requests WHERE id = %s", id))


def ids(jobs: list[Job]) -> list[UUID]:
    return [job.id for job in jobs]

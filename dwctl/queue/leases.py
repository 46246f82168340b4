"""Claims as leases: taken, put off, given back. Each function is one statement; every change names its owner."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from itertools import count
from types import MappingProxyType
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import namedtuple_row

from dwctl import sql

_QUERIES = sql.load("dwctl.queue")

READY_CHANNEL = "fusillade_ready"
DONE_CHANNEL = "fusillade_done"
CANCEL_CHANNEL = "fusillade_cancel"
EVENTS_CHANNEL = "fusillade_events"

# How long a request waits after its first and second loss. The third ends it: what kills its worker each time must not do so for ever.
WAITS_AFTER_LOSS_S = (1.0, 10.0)


class GivenBack(Enum):
    """Why a lease is returned."""

    DRAINED = "drained"
    """Its owner ends in good order, or has not begun: it counts nothing and is due at once."""
    LOST = "lost"
    """Its owner died with it: counted; it waits, and ends `failed` (WorkerLost) the third time, a realtime request the second."""
    UNSETTLED = "unsettled"
    """Its owner could not settle it: as if it had been lost."""


@dataclass(frozen=True, slots=True)
class Job:
    """One claimed request.

    `created_by` is whose line it stands in, as text. `owner_id` is None when nobody can be found in whose name it runs. `path` and `body` are
    None when its template is gone; a large body is not there either, but its size is, and `large_body` reads it when its turn comes.
    `attempt` counts the tries that failed, `times_lost` those whose worker died or could not settle them. `escalation` is the model
    that serves it in place of its own, because its deadline is near.
    `trace` is the `traceparent` of the call that queued it, where somebody wanted to know (`with_traces`).
    `claim` is another number for each claim of this process: one that was thought dead may claim a request again that it still runs.
    """

    id: UUID
    model: str
    batch_id: UUID | None
    api_key_id: UUID | None
    owner_id: UUID | None
    owner_deleted: bool
    tier: str | None
    window: str
    attempt: int
    path: str | None
    body: str | None
    custom_id: str | None
    deadline: datetime
    created_at: datetime
    batch_created_at: datetime | None
    times_lost: int
    escalation: str | None = None
    created_by: str = ""
    body_size: int = 0
    trace: str | None = None
    claim: int = field(default_factory=count().__next__)


@dataclass(frozen=True, slots=True)
class Policy:
    """By what a claim chooses. caps: how many of a model may be in flight over all workers, where that is not `default_cap`.

    What is due within `urgent_s` goes first. Of the room that is left, `urgency_weight` (0 to 1) goes to the queues whose heads are due first,
    the rest to the accounts that were served least. escalations: model -> the model that serves what is due within so many seconds.
    """

    caps: Mapping[str, int]
    default_cap: int
    urgent_s: float = 300.0
    urgency_weight: float = 0.0
    escalations: Mapping[str, tuple[str, float]] = field(default_factory=dict)


def claim(
    connection: psycopg.Connection[Any],
    *,
    me: UUID,
    most: int,
    policy: Policy,
    following: Mapping[UUID, UUID] = MappingProxyType({}),
) -> list[Job]:
    """Take up to `most` due requests for one worker, urgent and oldest first; they are in state "processing" and its own.

    Fair between accounts; never more in flight of a model, over all workers, than its cap. Rows that another claim holds are skipped.
    `following`: of requests that have ended here, and may still count, those that run in their places.
    """
    cursor = connection.cursor(row_factory=namedtuple_row)
    escalations = policy.escalations
    rows = cursor.execute(
        _QUERIES["claim"],
        {
            "me": me,
            "most": most,
            "capped": list(policy.caps),
            "caps": list(policy.caps.values()),
            "default_cap": policy.default_cap,
            "urgent_s": policy.urgent_s,
            "urgency_weight": policy.urgency_weight,
            "escalating": list(escalations),
            "escalations": [to for to, _ in escalations.values()],
            "thresholds_s": [threshold_s for _, threshold_s in escalations.values()],
            "ended": list(following),
            "following": list(following.values()),
        },
    ).fetchall()
    return [_job(row) for row in rows]


def claim_ahead(
    connection: psycopg.Connection[Any],
    *,
    me: UUID,
    wanted: Mapping[str, int],
    ended: Mapping[str, int],
    policy: Policy,
) -> list[Job]:
    """Take requests for the places that this worker's calls are about to leave, so many of each model; they count for no cap.

    None of a model of which much more is in flight than its cap. `ended`: how many of those have ended here, and still count. A call of theirs may begin when another one of that model has ended here, and
    before that one's end is written down; then `take_places`.
    """
    # What escalates is chosen when it runs.
    wanted = {model: count for model, count in wanted.items() if model not in policy.escalations}
    cursor = connection.cursor(row_factory=namedtuple_row)
    values = {
        "me": me,
        "models": list(wanted),
        "wanted": list(wanted.values()),
        "caps": [
            policy.caps.get(model, policy.default_cap) + ended.get(model, 0) for model in wanted
        ],
        "urgent_s": policy.urgent_s,
        "urgency_weight": policy.urgency_weight,
    }
    return [_job(row) for row in cursor.execute(_QUERIES["claim_ahead"], values).fetchall()]


def with_traces(connection: psycopg.Connection[Any], jobs: list[Job]) -> list[Job]:
    """The same, with the traces of the calls that queued them. Lines of batches have none."""
    ids = [job.id for job in jobs if job.batch_id in (None, job.id)]
    if not ids:
        return jobs
    traces = dict(connection.execute(_QUERIES["traces"], {"ids": ids}).fetchall())
    return [replace(job, trace=traces.get(job.id)) for job in jobs]


def take_places(connection: psycopg.Connection[Any], me: UUID, ids: Collection[UUID]) -> None:
    """Requests that were held ahead count from now on; to be committed before the ends of those whose places they have."""
    connection.execute(_QUERIES["take_places"], {"me": me, "ids": list(ids)})


def retry_later(connection: psycopg.Connection[Any], me: UUID, id: UUID, delay_s: float) -> None:
    """Put a request off; it is anybody's again after `delay_s`."""
    retry_each_later(connection, me, {id: delay_s})


def retry_each_later(
    connection: psycopg.Connection[Any], me: UUID, delays_s: Mapping[UUID, float]
) -> None:
    """The same for several, each with its own delay."""
    values = {"me": me, "ids": list(delays_s), "delays_s": list(delays_s.values())}
    connection.execute(_QUERIES["retry_later"], values)


def give_back(
    connection: psycopg.Connection[Any], owner: UUID, ids: Collection[UUID], *, why: GivenBack
) -> int:
    """Return leases. Those that were lost too often end `failed`, and a duty records them; gives how many."""
    waits_s = None if why is GivenBack.DRAINED else list(WAITS_AFTER_LOSS_S)
    values = {"owner": owner, "ids": list(ids), "waits_s": waits_s}
    row = connection.execute(_QUERIES["give_back"], values).fetchone()
    return row[0] if row else 0


def large_body(connection: psycopg.Connection[Any], id: UUID) -> str | None:
    """The body of a request that was claimed without it; None where its template has gone meanwhile."""
    row = connection.execute(_QUERIES["body"], {"id": id}).fetchone()
    return row[0] if row else None


def queued_of(connection: psycopg.Connection[Any], owner: UUID) -> int:
    """How many single requests of an account wait for a worker; lines of batches, and what is put off for a moment, are not counted."""
    row = connection.execute(_QUERIES["queued_of"], {"owner": str(owner)}).fetchone()
    return row[0] if row else 0


def wake_delayed(connection: psycopg.Connection[Any]) -> None:
    """Move what waited for its time to where claims find it."""
    connection.execute(_QUERIES["wake_delayed"])


def _job(row: Any) -> Job:
    return Job(
        id=row.id,
        model=row.model,
        batch_id=row.batch_id,
        api_key_id=row.api_key_id,
        owner_id=row.owner_id,
        owner_deleted=bool(row.owner_deleted),
        tier=row.service_tier,
        window=row.completion_window or "24h",
        attempt=row.retry_attempt,
        path=row.path,
        body=row.body,
        custom_id=row.custom_id,
        deadline=row.deadline,
        created_at=row.created_at,
        batch_created_at=row.batch_created_at,
        times_lost=row.times_lost,
        escalation=row.escalation,
        created_by=row.created_by,
        body_size=row.body_size or 0,
    )

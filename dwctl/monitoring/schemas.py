"""What the queue's views read and show."""

from __future__ import annotations

from typing import Any, ClassVar

from marshmallow import fields

from dwctl.web import cursors
from dwctl.web.pagination import MAX_LIMIT, PageQuery, PageSchema, envelope
from dwctl.web.schemas import ApiSchema, Clamped, Instant, Text, TrueOrFalse, Words


class DaemonQuery(ApiSchema):
    """Processes of a status."""

    status = Words(load_default=None)


class RequestQuery(PageQuery):
    """Which requests. `model`, `service_tiers`, `status` and `completion_window` may name several, comma-separated."""

    completion_window = Words(load_default=None)
    status = Words(load_default=None)
    model = Words(load_default=None)
    service_tiers = Words(load_default=None)
    member_id = fields.UUID(load_default=None)
    created_after = Instant(load_default=None)
    created_before = Instant(load_default=None)
    active_first = TrueOrFalse(load_default=True)


class RequestSchema(ApiSchema):
    """A request in a list."""

    example: ClassVar[dict[str, Any]] = {
        "id": "0199a8f2-0b7e-7c11-8f3d-6c1d2e3f4a5b",
        "batch_id": "0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a47",
        "model": "gpt-oss",
        "status": "completed",
        "created_at": "2026-01-31T10:20:30.123456Z",
        "completed_at": "2026-01-31T10:20:30.123456Z",
        "failed_at": None,
        "duration_ms": 812.5,
        "response_status": 200,
        "service_tier": None,
        "prompt_tokens": 9,
        "completion_tokens": 3,
        "reasoning_tokens": 0,
        "total_tokens": 12,
        "total_cost": 0.015,
        "created_by_email": "ada@example.com",
    }

    id = fields.UUID()
    batch_id = fields.UUID(allow_none=True)
    model = fields.String()
    status = fields.String()
    created_at = Instant()
    completed_at = Instant(allow_none=True)
    failed_at = Instant(allow_none=True)
    duration_ms = fields.Float(allow_none=True)
    response_status = fields.Integer(allow_none=True)
    service_tier = fields.String(allow_none=True)
    prompt_tokens = fields.Integer(allow_none=True)
    completion_tokens = fields.Integer(allow_none=True)
    reasoning_tokens = fields.Integer(allow_none=True)
    total_tokens = fields.Integer(allow_none=True)
    total_cost = fields.Float(allow_none=True)
    created_by_email = fields.String(allow_none=True)


class RequestDetailSchema(RequestSchema):
    """One request with its bodies, as they are stored."""

    example: ClassVar[dict[str, Any]] = {
        **RequestSchema.example,
        "body": "{}",
        "response_body": "{}",
        "error": None,
        "completion_window": "24h",
        "batch_created_by": "0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a47",
    }

    body = fields.String(allow_none=True)
    response_body = fields.String(allow_none=True)
    error = fields.String(allow_none=True)
    completion_window = fields.String(allow_none=True)
    batch_created_by = fields.String(allow_none=True)


class RequestPage(PageSchema):
    """A page of requests. `total_count` is an estimate where counting would take long."""

    example: ClassVar[dict[str, Any]] = envelope([RequestSchema.example], 1, skip=0, limit=10)

    data = fields.List(fields.Nested(RequestSchema))


class WorkSchema(ApiSchema):
    """What a process has done, and does now."""

    requests_processed = fields.Integer()
    requests_failed = fields.Integer()
    requests_in_flight = fields.Integer()


class DaemonSchema(ApiSchema):
    """A web or worker process. Times in Unix seconds; those that have not come are left out."""

    id = fields.UUID()
    status = fields.String(metadata={"enum": ["initializing", "running", "dead"]})
    hostname = fields.String(allow_none=True)
    pid = fields.Integer(allow_none=True)
    version = fields.String(allow_none=True)
    started_at = fields.Integer()
    last_heartbeat = fields.Integer()
    stopped_at = fields.Integer()
    stats = fields.Nested(WorkSchema)
    config = fields.Dict(allow_none=True)


class DaemonsSchema(ApiSchema):
    """Processes, newest first."""

    example: ClassVar[dict[str, Any]] = {
        "daemons": [
            {
                "id": "0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a47",
                "status": "running",
                "hostname": "web-1",
                "pid": 17,
                "version": "0.1.0",
                "started_at": 1780000000,
                "last_heartbeat": 1780000060,
                "stats": {
                    "requests_processed": 1200,
                    "requests_failed": 2,
                    "requests_in_flight": 4,
                },
                "config": {"type": "worker"},
            }
        ]
    }

    daemons = fields.List(fields.Nested(DaemonSchema))


class ProgressCountsSchema(ApiSchema):
    """A batch's lines by what has become of them."""

    total = fields.Integer()
    prepared = fields.Integer()
    running = fields.Integer()
    completed = fields.Integer()
    failed = fields.Integer()
    cancelled = fields.Integer()
    remaining = fields.Integer()


class ModelProgressSchema(ApiSchema):
    """The lines of one model. `lines_ahead` are those of others that come before; `concurrency` is how many may run at once."""

    model = fields.String()
    requests = fields.Integer()
    remaining = fields.Integer()
    lines_ahead = fields.Integer()
    in_flight = fields.Integer()
    concurrency = fields.Integer(allow_none=True)
    limited_by = fields.String(allow_none=True)
    paused_until = fields.Integer(allow_none=True)


class ProgressSchema(ApiSchema):
    """How far a batch is, what holds it up, and when it will end at the rate that was seen. Times in Unix seconds."""

    example: ClassVar[dict[str, Any]] = {
        "object": "batch.progress",
        "batch_id": "0199a8f2-0b7e-7c11-8f3d-6c1d2e3f4a5b",
        "requests": {
            "total": 100,
            "prepared": 100,
            "running": 4,
            "completed": 40,
            "failed": 0,
            "cancelled": 0,
            "remaining": 60,
        },
        "lines_ahead": 0,
        "limited_by": None,
        "models": [
            {
                "model": "gpt-oss",
                "requests": 100,
                "remaining": 60,
                "lines_ahead": 0,
                "in_flight": 4,
                "concurrency": 10,
                "limited_by": None,
                "paused_until": None,
            }
        ],
        "lines_per_second": 5.25,
        "expires_at": 1780086400,
        "estimated_end_at": 1780000012,
        "estimated_in_time": True,
    }

    object = fields.Constant("batch.progress")
    batch_id = fields.UUID()
    requests = fields.Nested(ProgressCountsSchema)
    lines_ahead = fields.Integer()
    limited_by = fields.String(allow_none=True)
    models = fields.List(fields.Nested(ModelProgressSchema))
    lines_per_second = fields.Float(allow_none=True)
    expires_at = fields.Integer()
    estimated_end_at = fields.Integer(allow_none=True)
    estimated_in_time = fields.Boolean(allow_none=True)


class BatchLineQuery(ApiSchema):
    """Which lines of a batch: of one status, or of any; behind a cursor."""

    status = Words(load_default=None)
    limit = Clamped(1, MAX_LIMIT, load_default=50)
    after = Text(longest=cursors.LONGEST, load_default=None)


class BatchLineSchema(ApiSchema):
    """A line of a batch without its bodies. The cut text of its error where it has failed."""

    id = fields.UUID()
    custom_id = fields.String(allow_none=True)
    model = fields.String()
    status = fields.String(
        metadata={"enum": ["waiting", "running", "completed", "failed", "cancelled"]}
    )
    created_at = Instant()
    started_at = Instant(allow_none=True)
    ended_at = Instant(allow_none=True)
    response_status = fields.Integer(allow_none=True)
    retry_attempt = fields.Integer()
    retried = fields.Integer()
    error_code = fields.String(allow_none=True)
    error = fields.String(allow_none=True)


class BatchLinesSchema(ApiSchema):
    """A page of a batch's lines, in their order."""

    example: ClassVar[dict[str, Any]] = {
        "data": [
            {
                "id": "0199a8f2-0b7e-7c11-8f3d-6c1d00000000",
                "custom_id": "r1",
                "model": "gpt-oss",
                "status": "completed",
                "created_at": "2026-01-31T10:20:30.123456Z",
                "started_at": "2026-01-31T10:20:31.123456Z",
                "ended_at": "2026-01-31T10:20:32.123456Z",
                "response_status": 200,
                "retry_attempt": 0,
                "retried": 0,
                "error_code": None,
                "error": None,
            }
        ],
        "has_more": False,
    }

    data = fields.List(fields.Nested(BatchLineSchema))
    has_more = fields.Boolean()


class FailedLineSchema(ApiSchema):
    """One of the lines that say the same."""

    id = fields.UUID()
    custom_id = fields.String(allow_none=True)


class BatchFailureSchema(ApiSchema):
    """Failed lines that say the same. `status` is the upstream's, where it answered."""

    code = fields.String()
    message = fields.String()
    status = fields.Integer(allow_none=True)
    requests = fields.Integer()
    examples = fields.List(fields.Nested(FailedLineSchema))


class BatchFailuresSchema(ApiSchema):
    """Why lines of a batch have failed. `is_whole`: all failed lines were looked at, not only the last ones."""

    example: ClassVar[dict[str, Any]] = {
        "looked_at": 3,
        "is_whole": True,
        "groups": [
            {
                "code": "invalid_request_error",
                "message": "The prompt is too long.",
                "status": 400,
                "requests": 3,
                "examples": [{"id": "0199a8f2-0b7e-7c11-8f3d-6c1d00000000", "custom_id": "r1"}],
            }
        ],
    }

    looked_at = fields.Integer()
    is_whole = fields.Boolean()
    groups = fields.List(fields.Nested(BatchFailureSchema))


class QueueTierSchema(ApiSchema):
    """What is not over of one model, in `batch` or `flex`. `due`: how much within each of some times; `oldest_s`: how long the first of it is there."""

    model = fields.String()
    tier = fields.String(metadata={"enum": ["batch", "flex"]})
    pending = fields.Integer()
    running = fields.Integer()
    oldest_s = fields.Float()
    due = fields.Dict(keys=fields.String(), values=fields.Integer())


class QueueHeadSchema(ApiSchema):
    """A request that is next in its account's line."""

    id = fields.UUID()
    batch_id = fields.UUID(allow_none=True)
    model = fields.String()
    tier = fields.String(metadata={"enum": ["batch", "flex"]})
    created_at = Instant()
    deadline = Instant()
    owner_email = fields.String(allow_none=True)
    attempts = fields.Integer()


class QueuePauseSchema(ApiSchema):
    """What nobody claims for now: a model, or one account's line at it (`owner_email`)."""

    model = fields.String()
    owner_email = fields.String(allow_none=True)
    reason = fields.String(allow_none=True)
    paused_until = Instant()


class WaitingWorkSchema(ApiSchema):
    """The queue. The rate is that of batches' last lines; without it nobody can say when they are done (`drained_in_s`)."""

    example: ClassVar[dict[str, Any]] = {
        "pending": 12,
        "running": 2,
        "lines_per_second": 4.5,
        "drained_in_s": 3,
        "tiers": [
            {
                "model": "gpt-oss",
                "tier": "batch",
                "pending": 12,
                "running": 2,
                "oldest_s": 61.5,
                "due": {"1h": 0, "4h": 0, "12h": 0, "24h": 12, "7d": 12},
            }
        ],
        "next": [
            {
                "id": "0199a8f2-0b7e-7c11-8f3d-6c1d00000002",
                "batch_id": "0199a8f2-0b7e-7c11-8f3d-6c1d2e3f4a5b",
                "model": "gpt-oss",
                "tier": "batch",
                "created_at": "2026-01-31T10:20:30.123456Z",
                "deadline": "2026-02-01T10:20:30.123456Z",
                "owner_email": "ada@example.com",
                "attempts": 0,
            }
        ],
        "pauses": [
            {
                "model": "gpt-oss",
                "owner_email": "bob@example.com",
                "reason": "no_credit",
                "paused_until": "2026-01-31T10:25:30.123456Z",
            }
        ],
    }

    pending = fields.Integer()
    running = fields.Integer()
    lines_per_second = fields.Float(allow_none=True)
    drained_in_s = fields.Integer(allow_none=True)
    tiers = fields.List(fields.Nested(QueueTierSchema))
    next = fields.List(fields.Nested(QueueHeadSchema))
    pauses = fields.List(fields.Nested(QueuePauseSchema))

"""Batches on the wire."""

from __future__ import annotations

from typing import Any, ClassVar

from marshmallow import fields

from dwctl.web.pagination import MAX_LIMIT
from dwctl.web.schemas import (
    ApiSchema,
    Clamped,
    Instant,
    ListOf,
    MapOf,
    Name,
    Text,
    TrueOrFalse,
    Words,
)


class BatchCreate(ApiSchema):
    """A batch that is wanted."""

    example: ClassVar[dict[str, Any]] = {
        "input_file_id": "file-0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a47",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "metadata": {"project": "search"},
    }

    input_file_id = Text(required=True, longest=255)
    endpoint = Name(required=True)
    completion_window = Name(required=True, longest=64)
    metadata = MapOf(
        keys=fields.String(), values=fields.String(), allow_none=True, load_default=None
    )


class BatchListQuery(ApiSchema):
    """Which batches, and from where on. Limits are moved into range; an empty cursor or search is none."""

    limit = Clamped(1, MAX_LIMIT, load_default=20)
    after = Text(longest=255, load_default=None)
    search = Text(longest=512, load_default=None)
    include = Words(load_default="")
    status = Name(load_default=None)
    created_after = Instant(load_default=None)
    created_before = Instant(load_default=None)
    active_first = TrueOrFalse(load_default=False)
    completion_window = Words(load_default="")
    member_id = fields.UUID(load_default=None)
    input_file_id = Name(load_default=None)


class RetryRequests(ApiSchema):
    """Failed lines to run again; ids with or without their prefix."""

    example: ClassVar[dict[str, Any]] = {"request_ids": ["0199a8f2-0b7e-7c11-8f3d-6c1d2e3f4a5b"]}

    request_ids = ListOf(Text(longest=255), most=100_000, required=True)


class BatchErrorSchema(ApiSchema):
    """What is wrong with a batch as a whole."""

    code = fields.String()
    line = fields.Integer()
    message = fields.String()
    param = fields.String()


class BatchErrorsSchema(ApiSchema):
    """All of it."""

    object = fields.String()
    data = fields.List(fields.Nested(BatchErrorSchema))


class RequestCountsSchema(ApiSchema):
    """How many lines there are, and how many have come to which end."""

    total = fields.Integer()
    completed = fields.Integer()
    failed = fields.Integer()


class CachedSchema(ApiSchema):
    """Of the input."""

    cached_tokens = fields.Integer()


class ReasoningSchema(ApiSchema):
    """Of the output."""

    reasoning_tokens = fields.Integer()


class TokensSchema(ApiSchema):
    """Tokens of a batch's successful calls, in OpenAI's words."""

    input_tokens = fields.Integer()
    input_tokens_details = fields.Nested(CachedSchema)
    output_tokens = fields.Integer()
    output_tokens_details = fields.Nested(ReasoningSchema)
    total_tokens = fields.Integer()


class UsageSchema(ApiSchema):
    """Sums over a batch's successful calls. Costs in USD, as decimal text."""

    example: ClassVar[dict[str, Any]] = {
        "total_requests": 40,
        "total_prompt_tokens": 4800,
        "total_completion_tokens": 3200,
        "total_reasoning_tokens": 0,
        "total_tokens": 8000,
        "avg_duration_ms": 812.5,
        "avg_ttfb_ms": 98.1,
        "total_cost": "0.0208",
    }

    total_requests = fields.Integer()
    total_prompt_tokens = fields.Integer()
    total_completion_tokens = fields.Integer()
    total_reasoning_tokens = fields.Integer()
    total_tokens = fields.Integer()
    avg_duration_ms = fields.Float()
    avg_ttfb_ms = fields.Float()
    total_cost = fields.String()


class ProvenanceSchema(ApiSchema):
    """Where a batch came from."""

    source = fields.String()
    source_name = fields.String()
    source_id = fields.String()
    source_file = fields.String()
    sync_id = fields.String()


class BatchSummarySchema(ApiSchema):
    """What a list shows beside a batch. `models`: those with the most lines, `model_count`: how many there are. The end is an estimate by the last lines."""

    input_file_name = fields.String(allow_none=True)
    models = fields.List(fields.String())
    model_count = fields.Integer()
    cancelled = fields.Integer()
    lines_per_second = fields.Float(allow_none=True)
    estimated_end_at = fields.Integer(allow_none=True)


class BatchSchema(ApiSchema):
    """A batch. What has not happened is not there; times in seconds since 1970."""

    example: ClassVar[dict[str, Any]] = {
        "id": "batch_0199a8f2-0b7e-7c11-8f3d-6c1d2e3f4a5b",
        "object": "batch",
        "endpoint": "/v1/chat/completions",
        "input_file_id": "file-0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a47",
        "completion_window": "24h",
        "status": "in_progress",
        "created_at": 1780000000,
        "in_progress_at": 1780000001,
        "expires_at": 1780086400,
        "request_counts": {"total": 100, "completed": 40, "failed": 0},
        "metadata": {"project": "search"},
    }

    id = fields.String()
    object = fields.String()
    endpoint = fields.String()
    errors = fields.Nested(BatchErrorsSchema)
    input_file_id = fields.String()
    completion_window = fields.String()
    status = fields.String()
    output_file_id = fields.String()
    error_file_id = fields.String()
    created_at = fields.Integer()
    in_progress_at = fields.Integer()
    expires_at = fields.Integer()
    finalizing_at = fields.Integer()
    completed_at = fields.Integer()
    failed_at = fields.Integer()
    expired_at = fields.Integer()
    cancelling_at = fields.Integer()
    cancelled_at = fields.Integer()
    request_counts = fields.Nested(RequestCountsSchema)
    metadata = fields.Dict(keys=fields.String(), values=fields.String())
    model = fields.String()
    usage = fields.Nested(TokensSchema)
    analytics = fields.Nested(UsageSchema)
    summary = fields.Nested(BatchSummarySchema)
    dwext = fields.Nested(ProvenanceSchema)


class RetrySchema(ApiSchema):
    """How many lines are run again, and which of those that were named are not."""

    retried = fields.Integer()
    refused = fields.List(fields.String())


class RetriedBatchSchema(BatchSchema):
    """A batch of which lines are run again."""

    example: ClassVar[dict[str, Any]] = {
        **BatchSchema.example,
        "retry": {"retried": 3, "refused": []},
    }

    retry = fields.Nested(RetrySchema)


class BatchListSchema(ApiSchema):
    """A page of batches; the ids are of its ends, where it has any."""

    example: ClassVar[dict[str, Any]] = {
        "object": "list",
        "data": [BatchSchema.example],
        "first_id": "batch_0199a8f2-0b7e-7c11-8f3d-6c1d2e3f4a5b",
        "last_id": "batch_0199a8f2-0b7e-7c11-8f3d-6c1d2e3f4a5b",
        "has_more": False,
    }

    object = fields.String()
    data = fields.List(fields.Nested(BatchSchema))
    first_id = fields.String()
    last_id = fields.String()
    has_more = fields.Boolean()

"""Batches on the wire."""

from __future__ import annotations

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


class RetryRequests(ApiSchema):
    """Failed lines to run again; ids with or without their prefix."""

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


class UsageSchema(ApiSchema):
    """Sums over a batch's successful calls. Costs in USD, as decimal text."""

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


class BatchSchema(ApiSchema):
    """A batch. What has not happened is not there; times in seconds since 1970."""

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
    analytics = fields.Nested(UsageSchema)
    dwext = fields.Nested(ProvenanceSchema)


class RetrySchema(ApiSchema):
    """How many lines are run again, and which of those that were named are not."""

    retried = fields.Integer()
    refused = fields.List(fields.String())


class RetriedBatchSchema(BatchSchema):
    """A batch of which lines are run again."""

    retry = fields.Nested(RetrySchema)


class BatchListSchema(ApiSchema):
    """A page of batches; the ids are of its ends, where it has any."""

    object = fields.String()
    data = fields.List(fields.Nested(BatchSchema))
    first_id = fields.String()
    last_id = fields.String()
    has_more = fields.Boolean()

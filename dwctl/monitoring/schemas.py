"""What the queue's views read and show."""

from __future__ import annotations

from marshmallow import fields

from dwctl.web.pagination import PageQuery
from dwctl.web.schemas import ApiSchema, Instant, TrueOrFalse, Words


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

    id = fields.UUID()
    batch_id = fields.UUID()
    model = fields.String()
    status = fields.String()
    created_at = Instant()
    completed_at = Instant()
    failed_at = Instant()
    duration_ms = fields.Float()
    response_status = fields.Integer()
    service_tier = fields.String()
    prompt_tokens = fields.Integer()
    completion_tokens = fields.Integer()
    reasoning_tokens = fields.Integer()
    total_tokens = fields.Integer()
    total_cost = fields.Float()
    created_by_email = fields.String()


class RequestDetailSchema(RequestSchema):
    """One request with its bodies, as they are stored."""

    body = fields.String()
    response_body = fields.String()
    error = fields.String()
    completion_window = fields.String()
    batch_created_by = fields.String()


class RequestPage(ApiSchema):
    """A page of requests. `total_count` is an estimate where counting would take long."""

    data = fields.List(fields.Nested(RequestSchema))
    total_count = fields.Integer()
    skip = fields.Integer()
    limit = fields.Integer()

"""What the request log's routes read and show."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any, ClassVar

from marshmallow import ValidationError, fields, post_dump, post_load, validate, validates_schema

from dwctl.billing.money import amount_text, price_text
from dwctl.request_log.filters import Filters
from dwctl.request_log.watching import LONGEST_S, MOST_SAMPLED
from dwctl.web.exporting import CONTENT_TYPES
from dwctl.web.pagination import PageQuery
from dwctl.web.schemas import ApiSchema, Digits, Instant, Money, Name, Text, TrueOrFalse

_BIG = 2**63 - 1
_BOUNDS = (
    ("timestamp_after", "timestamp_before"),
    ("status_code_min", "status_code_max"),
    ("min_duration_ms", "max_duration_ms"),
    ("min_cost", "max_cost"),
)
TIERS = ("realtime", "flex", "batch")
_WHEN_NOT_ZERO = ("reasoning_tokens", "cached_tokens")


class FiltersQuery(ApiSchema):
    """Which calls. All that is given must hold; what is left out narrows nothing."""

    method = Name(load_default=None)
    uri_pattern = Text(
        longest=1000,
        load_default=None,
        metadata={"description": "A pattern of SQL's LIKE: `%` any text, `_` any character."},
    )
    status_code = Digits(load_default=None)
    status_code_min = Digits(load_default=None)
    status_code_max = Digits(load_default=None)
    min_duration_ms = Digits(least=-_BIG, most=_BIG, load_default=None)
    max_duration_ms = Digits(least=-_BIG, most=_BIG, load_default=None)
    timestamp_after = Instant(
        load_default=None, metadata={"description": "Arrived at this time or later."}
    )
    timestamp_before = Instant(
        load_default=None, metadata={"description": "Arrived at this time or earlier."}
    )
    model = Text(longest=2000, load_default=None)
    fusillade_batch_id = fields.UUID(load_default=None)
    custom_id = Text(
        longest=1000,
        load_default=None,
        metadata={"description": "Part of the line's `custom_id`, whatever the case."},
    )
    user_id = fields.UUID(
        load_default=None, metadata={"description": "The account: a person's or an organisation's."}
    )
    api_key_id = fields.UUID(load_default=None)
    request_id = fields.UUID(
        load_default=None, metadata={"description": "As `x-request-id` said it."}
    )
    error_code = Name(load_default=None)
    response_type = Name(load_default=None)
    request_origin = Name(
        load_default=None, metadata={"description": "`api`, `frontend` or `fusillade` (a batch)."}
    )
    served_by = Text(
        longest=1000, load_default=None, metadata={"description": "The endpoint's name."}
    )
    trace_id = Name(load_default=None)
    min_cost = Money(load_default=None, metadata={"description": "In USD; no price counts as 0."})
    max_cost = Money(load_default=None, metadata={"description": "In USD; no price counts as 0."})
    tier = Name(
        load_default=None,
        validate=validate.OneOf(TIERS),
        metadata={
            "description": "`realtime` (at once), `flex` (by a worker) or `batch` (a batch's line)."
        },
    )

    example: ClassVar[dict[str, Any]] = {
        "model": "gpt-oss",
        "status_code_min": 500,
        "timestamp_after": "2026-01-31T00:00:00Z",
    }

    @validates_schema
    def refuse_nonsense(self, data: dict[str, Any], **_kwargs: Any) -> None:
        """Bounds the wrong way round, and what is no pattern."""
        for least, most in _BOUNDS:
            if None not in (data.get(least), data.get(most)) and data[least] > data[most]:
                raise ValidationError(f"Must not be more than {most}.", least)
        pattern = data.get("uri_pattern") or ""
        if (len(pattern) - len(pattern.rstrip("\\"))) % 2:
            raise ValidationError("Must not end with an escape character (\\).", "uri_pattern")

    @post_load
    def gather(self, data: dict[str, Any], **_kwargs: Any) -> dict[str, Any]:
        """The filters as one value, beside what a list adds."""
        names = Filters.__dataclass_fields__
        filters = Filters(**{name: value for name, value in data.items() if name in names})
        return {"filters": filters, **{k: v for k, v in data.items() if k not in names}}


class RequestsQuery(FiltersQuery, PageQuery):
    """Which calls, in which order, and which page of them."""

    order_desc = TrueOrFalse(
        load_default=True, metadata={"description": "Newest first; `false`: oldest first."}
    )
    body_contains = Text(
        longest=1000,
        load_default=None,
        validate=validate.Length(min=1),
        metadata={
            "description": "Words in what the log shows of the request or the answer, whatever the case. Without `timestamp_after` the last hour is searched."
        },
    )


class WatchQuery(FiltersQuery):
    """Which calls, and for how long."""

    seconds = Digits(
        least=1,
        most=LONGEST_S,
        load_default=LONGEST_S,
        metadata={"description": "The stream ends after so many."},
    )
    most = Digits(
        least=1,
        most=MOST_SAMPLED,
        load_default=None,
        metadata={"description": "A sample: so many calls of each second at most."},
    )

    example: ClassVar[dict[str, Any]] = {"seconds": 60, "status_code_min": 500}


class ExportQuery(FiltersQuery):
    """Which calls, in which order, and as what."""

    order_desc = TrueOrFalse(load_default=True)
    format = Name(
        load_default="jsonl",
        validate=validate.OneOf(tuple(CONTENT_TYPES)),
        metadata={
            "description": "`jsonl`: an entry a line, as the list shows it. `csv`: for spreadsheets."
        },
    )

    example: ClassVar[dict[str, Any]] = {"format": "csv", **FiltersQuery.example}


class _Digits(fields.String):
    """A decimal as plain text, or null."""

    def __init__(self, text: Callable[[Decimal], str]) -> None:
        super().__init__(allow_none=True)
        self._text = text

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else self._text(value)


class LoggedSchema(ApiSchema):
    """A call. What is not known of it is left out; so are counts of reasoning and cached tokens that are 0. Money in USD."""

    id = fields.Integer()
    request_id = fields.UUID()
    timestamp = Instant(metadata={"description": "When it arrived; of a batch's line, the batch."})
    created_at = Instant(metadata={"description": "When it was written down: at its end."})
    method = fields.String()
    uri = fields.String()
    model = fields.String()
    status_code = fields.Integer()
    error_code = fields.String()
    finish_reason = fields.String()
    duration_ms = fields.Integer()
    duration_to_first_byte_ms = fields.Integer()
    prompt_tokens = fields.Integer()
    completion_tokens = fields.Integer()
    reasoning_tokens = fields.Integer()
    cached_tokens = fields.Integer()
    total_tokens = fields.Integer()
    usage_source = fields.String(
        metadata={
            "description": "`reported`, `estimated` or `none`; a call that succeeded with `none` (speech, images) did not say its tokens, and was not priced."
        }
    )
    response_type = fields.String()
    user_id = fields.UUID()
    user_email = fields.String()
    api_key_id = fields.UUID()
    api_key_name = fields.String()
    access_source = fields.String()
    input_price_per_token = _Digits(price_text)
    output_price_per_token = _Digits(price_text)
    total_cost = _Digits(amount_text)
    provider_cost = _Digits(amount_text)
    fusillade_batch_id = fields.UUID()
    fusillade_request_id = fields.UUID()
    custom_id = fields.String()
    request_origin = fields.String()
    batch_sla = fields.String()
    served_by = fields.String()
    user_agent = fields.String()
    trace_id = fields.String()
    tier = fields.String(metadata={"description": "`realtime`, `flex` or `batch`."})

    example: ClassVar[dict[str, Any]] = {
        "id": 4711,
        "request_id": "019c1b2d-9a3e-7d10-8f2b-5a0c4e6d7f80",
        "timestamp": "2026-01-31T10:20:30.123456Z",
        "created_at": "2026-01-31T10:20:31.323456Z",
        "method": "POST",
        "uri": "/chat/completions",
        "model": "gpt-oss",
        "status_code": 200,
        "duration_ms": 1200,
        "duration_to_first_byte_ms": 300,
        "prompt_tokens": 9,
        "completion_tokens": 3,
        "total_tokens": 12,
        "usage_source": "reported",
        "response_type": "chat_completion",
        "user_id": "0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a47",
        "user_email": "ada@example.com",
        "api_key_id": "0199a8f2-0b7e-7c11-8f3d-6c1d2e3f4a5b",
        "api_key_name": "production",
        "access_source": "api_key",
        "input_price_per_token": "0.00100000",
        "output_price_per_token": "0.00200000",
        "total_cost": "0.015000000000000",
        "request_origin": "api",
        "served_by": "gpu-1",
        "tier": "realtime",
    }

    @post_dump
    def drop_unknown(self, data: dict[str, Any], **_kwargs: Any) -> dict[str, Any]:
        """Members are there where something is known."""
        return {k: v for k, v in data.items() if v not in (None, "") and not (k in _WHEN_NOT_ZERO and v == 0)}  # fmt: skip


class RequestsSchema(ApiSchema):
    """Calls. `scanned_until` is there where the time for a page was over before the page was full, and with every search in bodies: how far the log was read."""

    example: ClassVar[dict[str, Any]] = {"entries": [LoggedSchema.example]}

    entries = fields.List(fields.Nested(LoggedSchema))
    scanned_until = Instant()


_LEFT_OUT = LoggedSchema._declared_fields.keys() - {"api_key_name"}


class CostPartsSchema(ApiSchema):
    """What a call's cost is made of, in USD."""

    input = _Digits(amount_text)
    cached_input = _Digits(amount_text)
    output = _Digits(amount_text)
    reasoning = _Digits(amount_text)


class PricedBySchema(ApiSchema):
    """The entry of the price list that set a call's price."""

    name = fields.String()
    api_key_purpose = fields.String(allow_none=True)
    completion_window = fields.String(allow_none=True)
    valid_from = Instant()


class ChargeSchema(ApiSchema):
    """The entry of the ledger that a call's cost is, in USD."""

    transaction_id = fields.UUID()
    amount = _Digits(amount_text)
    created_at = Instant()


class QueueSchema(ApiSchema):
    """The request's own row: how it stands, which process ran it, and when. A realtime call is claimed when it arrives."""

    state = fields.String()
    service_tier = fields.String(allow_none=True)
    created_at = Instant()
    due_at = Instant(allow_none=True, metadata={"description": "Until when a worker may begin it."})
    claimed_at = Instant(allow_none=True)
    started_at = Instant(allow_none=True)
    first_byte_at = Instant(allow_none=True)
    ended_at = Instant(allow_none=True)
    attempts = fields.Integer(metadata={"description": "How often it was tried again."})
    times_lost = fields.Integer(metadata={"description": "How many processes died with it."})
    times_retried = fields.Integer(metadata={"description": "How often its owner had it run again."})  # fmt: skip
    process_id = fields.UUID(allow_none=True)
    process = fields.String(allow_none=True)
    model = fields.String(
        allow_none=True,
        metadata={"description": "The model that served it: another one under a redirect rule."},
    )
    error = fields.String(allow_none=True)


class LoggedDetailSchema(LoggedSchema):
    """A call with everything that is known of it: members of a list's entry, and those below, which are always there."""

    api_key_name = fields.String(allow_none=True)
    batch_request_source = fields.String()
    cached_input_price_per_token = _Digits(price_text)
    reasoning_price_per_token = _Digits(price_text)
    tariff_id = fields.UUID(allow_none=True)
    tariff = fields.Nested(PricedBySchema, allow_none=True)
    cost_parts = fields.Nested(CostPartsSchema, allow_none=True)
    charge = fields.Nested(ChargeSchema, allow_none=True)
    sent = fields.Boolean(
        metadata={
            "description": "Whether a model's server was asked, rather than the call refused."
        }
    )
    attempts = fields.List(
        fields.Dict(),
        allow_none=True,
        metadata={"description": "The targets that were tried, in order."},
    )
    response_id = fields.String(allow_none=True)
    queue = fields.Nested(QueueSchema, allow_none=True)
    request_headers = fields.Dict(allow_none=True)
    response_headers = fields.Dict(allow_none=True)
    bodies = fields.String(
        allow_none=True,
        metadata={
            "description": "Why there are none (`zero_data_retention`, `off`, `not_stored`, `not_sampled`, `shed`, `not_kept`); null where there are."
        },
    )
    request_body = fields.String(allow_none=True)
    request_body_size = fields.Integer(
        allow_none=True, metadata={"description": "In bytes. What is longer than shown is cut off."}
    )
    response_body = fields.String(allow_none=True)
    response_body_size = fields.Integer(allow_none=True)

    example: ClassVar[dict[str, Any]] = {
        **LoggedSchema.example,
        "api_key_name": "production",
        "batch_request_source": "",
        "cached_input_price_per_token": None,
        "reasoning_price_per_token": None,
        "tariff_id": "0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a48",
        "cost_parts": {
            "input": "0.009000000000000",
            "cached_input": "0",
            "output": "0.006000000000000",
            "reasoning": "0",
        },
        "tariff": {
            "name": "Standard",
            "api_key_purpose": "realtime",
            "completion_window": None,
            "valid_from": "2026-01-01T00:00:00Z",
        },
        "charge": {
            "transaction_id": "019c1b2d-9a3e-7d10-8f2b-5a0c4e6d7f80",
            "amount": "0.015000000000000",
            "created_at": "2026-01-31T10:20:31.323456Z",
        },
        "sent": True,
        "attempts": None,
        "response_id": "resp_019c1b2d-9a3e-7d10-8f2b-5a0c4e6d7f80",
        "queue": {
            "state": "completed",
            "service_tier": "priority",
            "created_at": "2026-01-31T10:20:30.123456Z",
            "due_at": None,
            "claimed_at": "2026-01-31T10:20:30.123456Z",
            "started_at": "2026-01-31T10:20:30.123456Z",
            "first_byte_at": "2026-01-31T10:20:30.423456Z",
            "ended_at": "2026-01-31T10:20:31.323456Z",
            "attempts": 0,
            "times_lost": 0,
            "times_retried": 0,
            "process_id": "0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a49",
            "process": "web-1 (17)",
            "model": "gpt-oss",
            "error": None,
        },
        "request_headers": None,
        "response_headers": None,
        "bodies": None,
        "request_body": '{"model":"gpt-oss"}',
        "request_body_size": 19,
        "response_body": '{"id":"chatcmpl-1"}',
        "response_body_size": 19,
    }

    @post_dump
    def drop_unknown(self, data: dict[str, Any], **_kwargs: Any) -> dict[str, Any]:
        """As in a list what a list has; the rest is always there."""
        listed = LoggedSchema().drop_unknown(data)
        return {k: v for k, v in data.items() if k in listed or k not in _LEFT_OUT}


class NeighboursSchema(ApiSchema):
    """The calls beside a call in a list, by their ids; null where the list ends, or where none was found in the time that there is for it."""

    newer = fields.UUID(allow_none=True)
    older = fields.UUID(allow_none=True)

    example: ClassVar[dict[str, Any]] = {
        "newer": "019c1b2d-9a3e-7d10-8f2b-5a0c4e6d7f80",
        "older": None,
    }


class StandingSchema(ApiSchema):
    """A call that is not in the log yet: how it stands in the queue, and what it waits for. It is in the log when `state` is final, a moment later."""

    request_id = fields.UUID()
    state = fields.String()
    model = fields.String()
    service_tier = fields.String(allow_none=True)
    completion_window = fields.String()
    uri = fields.String(allow_none=True)
    batch_id = fields.UUID(allow_none=True)
    custom_id = fields.String(allow_none=True)
    user_id = fields.UUID(allow_none=True)
    user_email = fields.String(allow_none=True)
    api_key_id = fields.UUID(allow_none=True)
    api_key_name = fields.String(allow_none=True)
    created_at = Instant()
    due_at = Instant()
    claimed_at = Instant(allow_none=True)
    started_at = Instant(allow_none=True)
    ended_at = Instant(allow_none=True)
    not_before = Instant(
        allow_none=True,
        metadata={"description": "When it is tried again: an earlier try has failed."},
    )
    attempts = fields.Integer(metadata={"description": "How often it was tried again."})
    times_lost = fields.Integer(metadata={"description": "How many processes died with it."})
    process = fields.String(allow_none=True)
    ahead = fields.Integer(
        metadata={
            "description": "How many that are due before it wait for its model; at most 1,000 are counted."
        }
    )
    running = fields.Integer(metadata={"description": "How many workers run of its model."})
    concurrency = fields.Integer(
        allow_none=True, metadata={"description": "How many may run at once."}
    )
    limited_by = fields.String(
        allow_none=True,
        metadata={
            "description": "What keeps it from being run: `cancelling`, `retry`, `model_unknown`, `no_worker`, `no_credit`, `upstream_pressure`, `paused`, `concurrency`, `turn`; null where it runs or is over."
        },
    )
    paused_until = Instant(allow_none=True)

    example: ClassVar[dict[str, Any]] = {
        "request_id": "019c1b2d-9a3e-7d10-8f2b-5a0c4e6d7f80",
        "state": "pending",
        "model": "gpt-oss",
        "service_tier": "flex",
        "completion_window": "1h",
        "uri": "/v1/responses",
        "batch_id": None,
        "custom_id": None,
        "user_id": "0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a47",
        "user_email": "ada@example.com",
        "api_key_id": "0199a8f2-0b7e-7c11-8f3d-6c1d2e3f4a5b",
        "api_key_name": "production",
        "created_at": "2026-01-31T10:20:30.123456Z",
        "due_at": "2026-01-31T11:20:30.123456Z",
        "claimed_at": None,
        "started_at": None,
        "ended_at": None,
        "not_before": None,
        "attempts": 0,
        "times_lost": 0,
        "process": None,
        "ahead": 12,
        "running": 4,
        "concurrency": 4,
        "limited_by": "concurrency",
        "paused_until": None,
    }


def shown(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Entries as they are shown, outside a list too."""
    found: list[dict[str, Any]] = LoggedSchema(many=True).dump(rows)
    return found


COLUMNS = tuple(LoggedSchema._declared_fields)
"""The members of an entry, in their order."""

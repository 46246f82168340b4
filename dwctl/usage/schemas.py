"""What the routes of the sums read and show."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, ClassVar

from marshmallow import ValidationError, fields, pre_load, validate, validates_schema

from dwctl import time_zones
from dwctl.errors import Invalid
from dwctl.usage.breakdown import BY as BY_ONE
from dwctl.usage.breakdown import MOST_LINES, ORDERS
from dwctl.usage.exporting import BY
from dwctl.usage.points import STEPS
from dwctl.usage.spans import WIDTHS
from dwctl.web.exporting import CONTENT_TYPES
from dwctl.web.schemas import ApiSchema, Digits, Instant, Money, Name, TrueOrFalse, Words

_LONGEST_NAME = 512

Fields = dict[str, Any]


def _says(text: str) -> Fields:
    return {"description": text}


class _Times(ApiSchema):
    """Base of what asks for a time: its two ends, in order."""

    ends: ClassVar[tuple[str, str]] = ("start_date", "end_date")

    @validates_schema
    def check_order(self, data: Fields, **_kwargs: Any) -> None:
        """The other way round it is nobody's intention."""
        since, until = (data.get(name) for name in self.ends)
        if since and until and since > until:
            raise ValidationError(f"Must not be after {self.ends[1]}.", self.ends[0])


class _Calls(_Times):
    ends = ("timestamp_after", "timestamp_before")

    model = Name(
        load_default=None, longest=_LONGEST_NAME, metadata=_says("Only calls on this model.")
    )
    timestamp_after = Instant(
        load_default=None,
        metadata=_says("From this minute on; by default 24 hours before the end."),
    )
    timestamp_before = Instant(
        load_default=None, metadata=_says("Up to this minute; by default now.")
    )
    duration_minutes = Digits(
        load_default=None,
        validate=validate.OneOf(WIDTHS),
        metadata=_says(
            "How long a point of the series is. By default 10 for up to six hours, 60 for up to a week, else 1440 (a day). Points are longer "
            "where there would be more than 1,000, or where finer sums are not kept any more (`retention.*`)."
        ),
    )


class _Download(ApiSchema):
    format = Name(
        load_default="jsonl",
        validate=validate.OneOf(tuple(CONTENT_TYPES)),
        metadata=_says("`jsonl`: a row a line. `csv`: for spreadsheets."),
    )


class AggregateQuery(_Calls):
    """Which calls, and how fine."""

    example: ClassVar[Fields] = {"model": "gpt-oss", "timestamp_after": "2026-01-30T00:00:00Z"}


class AggregateExportQuery(_Calls, _Download):
    """Which calls, told apart by what, and as what."""

    example: ClassVar[Fields] = {"by": "model,user", "format": "csv"}

    by = Words(
        load_default="model",
        metadata=_says(f"Comma-separated, some of {', '.join(f'`{one}`' for one in BY)}."),
    )


class ByUserQuery(_Times):
    """Whose calls on which model."""

    example: ClassVar[Fields] = {"model": "gpt-oss"}

    model = Name(required=True, longest=_LONGEST_NAME)
    start_date = Instant(
        load_default=None,
        metadata=_says("From this minute on; by default 24 hours before the end."),
    )
    end_date = Instant(load_default=None, metadata=_says("Up to this minute; by default now."))

    @pre_load
    def ask_for_model(self, data: Any, **_kwargs: Any) -> Any:
        """In the words that clients know."""
        if not data.get("model"):
            raise Invalid("Model parameter is required", param="model")
        return data


class _Whose(_Times):
    user_id = fields.UUID(
        load_default=None,
        metadata=_says(
            "An organisation that one is a member of, or a member of one that one manages (then: what they used in its name). By default the active "
            "organisation, else oneself."
        ),
    )
    start_date = Instant(load_default=None, metadata=_says("From this minute on."))
    end_date = Instant(load_default=None, metadata=_says("Up to this minute."))


class UsageQuery(_Whose):
    """Whose usage, and of what time; without dates of all time."""

    example: ClassVar[Fields] = {"start_date": "2026-01-01T00:00:00Z"}

    refresh = TrueOrFalse(
        load_default=False, metadata=_says("Accepted, and without effect: nothing is cached.")
    )


class UsageExportQuery(_Whose, _Download):
    """Whose usage, of what time, and as what."""

    example: ClassVar[Fields] = {"start_date": "2026-01-01T00:00:00Z", "format": "csv"}

    model = Name(
        load_default=None, longest=_LONGEST_NAME, metadata=_says("Only calls on this model.")
    )
    api_key_id = fields.UUID(load_default=None, metadata=_says("Only calls with this key."))

    by = Words(
        load_default="model", metadata=_says("Comma-separated, some of `model`, `key`, `status`.")
    )
    all_statuses = TrueOrFalse(
        load_default=False,
        metadata=_says("Also calls that failed, and those on no model: some of them are charged."),
    )
    duration_minutes = Digits(
        load_default=None,
        validate=validate.OneOf(WIDTHS),
        metadata=_says("How long a time a row is of; by default as in `/requests/aggregate`."),
    )


def _insist_on_zone(name: str) -> None:
    if time_zones.named(name) is None:
        raise ValidationError("Unknown time zone.")


class _Breakdown(_Times):
    start_date = Instant(
        load_default=None,
        metadata=_says("From this minute on; by default 24 hours before the end."),
    )
    end_date = Instant(load_default=None, metadata=_says("Up to this minute; by default now."))
    model = Name(
        load_default=None, longest=_LONGEST_NAME, metadata=_says("Only calls on this model.")
    )
    order = Name(
        load_default="cost",
        validate=validate.OneOf(tuple(ORDERS)),
        metadata=_says("What rows are ordered by, the most first, and what series are of."),
    )
    duration_minutes = Digits(
        load_default=None,
        validate=validate.OneOf(STEPS),
        metadata=_says(
            "How long a point of a series is; by default so that there are at most 200, or 40 by group. Points are longer where there would be more than 500, where "
            "finer sums are not kept any more (`retention.*`), and where they would be made of more than 5,000 minutes, hours or days, by group of more than 240."
        ),
    )
    time_zone = Name(
        load_default="UTC",
        longest=time_zones.LONGEST_NAME,
        validate=_insist_on_zone,
        metadata=_says("Points of a day begin at its midnight: `Europe/Berlin`. By default UTC."),
    )
    limit = Digits(
        least=0, most=200, load_default=50, metadata=_says("How many rows; `rest` is the others.")
    )
    lines = Digits(
        least=0,
        most=MOST_LINES,
        load_default=MOST_LINES,
        metadata=_says("How many of the rows have a series of their own."),
    )
    compare = TrueOrFalse(
        load_default=False, metadata=_says("Whether to add up the same length of time before.")
    )
    api_key_id = fields.UUID(load_default=None, metadata=_says("Only calls with this key."))


class BreakdownQuery(_Breakdown):
    """Which calls, and told apart by what."""

    example: ClassVar[Fields] = {"by": "user", "start_date": "2026-01-30T00:00:00Z"}

    by = Name(
        load_default="model",
        validate=validate.OneOf(tuple(BY_ONE)),
        metadata=_says(
            "With `group` a call counts for each group that its account is in. With `outcome` rows are 200, 300, 400 and 500: statuses by their first digit."
        ),
    )


class UsageBreakdownQuery(_Whose, _Breakdown):
    """Whose calls, and told apart by what."""

    example: ClassVar[Fields] = {"by": "key", "start_date": "2026-01-30T00:00:00Z"}

    by = Name(load_default="model", validate=validate.OneOf(("model", "key", "status", "outcome")))


_MEASURES: Fields = {
    "errors": 1,
    "input_tokens": 120,
    "output_tokens": 45,
    "reasoning_tokens": 0,
    "cached_tokens": 0,
    "cost": "0.000765",
    "avg_latency_ms": 512.4,
    "p50_latency_ms": 479.8,
    "p95_latency_ms": 1239.2,
    "p99_latency_ms": 1239.2,
    "avg_ttfb_ms": 97.5,
    "p50_ttfb_ms": 92.9,
    "p95_ttfb_ms": 181.2,
    "p99_ttfb_ms": 181.2,
}


_SUMS: Fields = {
    "requests": 4,
    "errors": 1,
    "input_tokens": 120,
    "output_tokens": 45,
    "reasoning_tokens": 0,
    "cached_tokens": 0,
    "total_tokens": 165,
    "cost": "0.000765",
    "avg_latency_ms": 512.4,
}
_TIMES: Fields = {
    name: time for name, time in _MEASURES.items() if name.startswith("p") and name.endswith("_ms")
}


class _Measures(ApiSchema):
    errors = fields.Integer(metadata=_says("Calls with another status than 2xx."))
    input_tokens = fields.Integer()
    output_tokens = fields.Integer()
    reasoning_tokens = fields.Integer(metadata=_says("Of the output tokens."))
    cached_tokens = fields.Integer(metadata=_says("Of the input tokens."))
    cost = Money(metadata=_says("What was charged, in USD."))
    avg_latency_ms = fields.Float(allow_none=True)
    p50_latency_ms = fields.Float(
        allow_none=True, metadata=_says("Percentiles are within 5 % of a call's own time.")
    )
    p95_latency_ms = fields.Float(allow_none=True)
    p99_latency_ms = fields.Float(allow_none=True)
    avg_ttfb_ms = fields.Float(allow_none=True, metadata=_says("Until the first byte."))
    p50_ttfb_ms = fields.Float(allow_none=True)
    p95_ttfb_ms = fields.Float(allow_none=True)
    p99_ttfb_ms = fields.Float(allow_none=True)


class StatusCallsSchema(ApiSchema):
    """Calls with one status; `unknown` for those that failed before it was kept."""

    status = fields.String()
    count = fields.Integer()
    percentage = fields.Float()


class ModelCallsSchema(ApiSchema):
    """Calls on one model."""

    model = fields.String()
    count = fields.Integer()
    percentage = fields.Float(metadata=_says("Of all calls, also those without a model."))
    avg_latency_ms = fields.Float()
    errors = fields.Integer()
    input_tokens = fields.Integer()
    output_tokens = fields.Integer()
    cost = Money()


class CallsPointSchema(_Measures):
    """Calls that arrived within `duration_minutes` from `timestamp` on."""

    timestamp = Instant()
    duration_minutes = fields.Integer()
    requests = fields.Integer()


class AggregateSchema(_Measures):
    """Calls of every status in a time of whole minutes. `models` is left out with `model`, or without calls on any."""

    start_date = Instant()
    end_date = Instant(metadata=_says("Just after the last minute."))
    total_requests = fields.Integer()
    model = fields.String()
    status_codes = fields.List(fields.Nested(StatusCallsSchema))
    models = fields.List(fields.Nested(ModelCallsSchema))
    time_series = fields.List(fields.Nested(CallsPointSchema))

    example: ClassVar[Fields] = {
        "start_date": "2026-01-30T10:20:00Z",
        "end_date": "2026-01-31T10:21:00Z",
        "total_requests": 4,
        **_MEASURES,
        "status_codes": [
            {"status": "200", "count": 3, "percentage": 75.0},
            {"status": "429", "count": 1, "percentage": 25.0},
        ],
        "models": [
            {
                "model": "gpt-oss",
                "count": 4,
                "percentage": 100.0,
                "avg_latency_ms": 512.4,
                "errors": 1,
                "input_tokens": 120,
                "output_tokens": 45,
                "cost": "0.000765",
            }
        ],
        "time_series": [
            {
                "timestamp": "2026-01-31T10:00:00Z",
                "duration_minutes": 60,
                "requests": 4,
                **_MEASURES,
            }
        ],
    }


class _SumsSchema(ApiSchema):
    requests = fields.Integer(metadata=_says("Calls of every status."))
    errors = fields.Integer(metadata=_says("Calls with another status than 2xx."))
    input_tokens = fields.Integer()
    output_tokens = fields.Integer()
    reasoning_tokens = fields.Integer(metadata=_says("Of the output tokens."))
    cached_tokens = fields.Integer(metadata=_says("Of the input tokens."))
    total_tokens = fields.Integer()
    cost = Money(metadata=_says("What was charged, in USD."))
    avg_latency_ms = fields.Float(allow_none=True)


class _TimedSumsSchema(_SumsSchema):
    p50_latency_ms = fields.Float(
        allow_none=True,
        metadata=_says("Percentiles are there by `model`, of everybody's calls."),
    )
    p95_latency_ms = fields.Float(allow_none=True)
    p99_latency_ms = fields.Float(allow_none=True)
    p50_ttfb_ms = fields.Float(allow_none=True, metadata=_says("Until the first byte."))
    p95_ttfb_ms = fields.Float(allow_none=True)
    p99_ttfb_ms = fields.Float(allow_none=True)


class BreakdownRowSchema(_TimedSumsSchema):
    """Calls of one model, account, key, group or status."""

    id = fields.String(metadata=_says("A model's is its alias, empty for calls on none."))
    name = fields.String(allow_none=True, metadata=_says("Null where it has none any more."))


class EarlierSchema(_SumsSchema):
    """The same length of time before."""

    start_date = Instant()
    end_date = Instant()


def _written(values: list[Any]) -> list[Any]:
    """Calls and tokens as they are, money as text: a line is all of one or all of the other."""
    return [format(one, "f") for one in values] if values and isinstance(values[0], Decimal) else values  # fmt: skip


class BreakdownLineSchema(ApiSchema):
    """The values of one row at each of `timestamps`; `is_rest`: of all other rows."""

    id = fields.String(allow_none=True)
    name = fields.String(allow_none=True)
    is_rest = fields.Boolean()
    values = fields.Function(
        lambda line: _written(line["values"]),
        metadata={"type": "array", "items": {"type": ["string", "integer"]}, "description": "Calls or tokens; with `order=cost` USD as text."},
    )  # fmt: skip


class BreakdownSchema(ApiSchema):
    """Calls of every status in a time of whole buckets: all, by row, and over time."""

    start_date = Instant()
    end_date = Instant(metadata=_says("Just after the last minute."))
    duration_minutes = fields.Integer()
    time_zone = fields.String()
    total = fields.Nested(_TimedSumsSchema)
    before = fields.Nested(EarlierSchema, allow_none=True)
    rows = fields.List(fields.Nested(BreakdownRowSchema))
    rest = fields.Nested(_SumsSchema, allow_none=True, metadata=_says("Rows beyond `limit`."))
    timestamps = fields.List(Instant(), metadata=_says("When each point begins."))
    series = fields.List(fields.Nested(BreakdownLineSchema))
    errors = fields.List(fields.Integer(), metadata=_says("At each point."))

    example: ClassVar[Fields] = {
        "start_date": "2026-01-31T10:00:00Z",
        "end_date": "2026-01-31T10:10:00Z",
        "duration_minutes": 5,
        "time_zone": "UTC",
        "total": {**_SUMS, **_TIMES},
        "before": None,
        "rows": [{"id": "gpt-oss", "name": "gpt-oss", **_SUMS, **_TIMES}],
        "rest": None,
        "timestamps": ["2026-01-31T10:00:00Z", "2026-01-31T10:05:00Z"],
        "series": [
            {"id": "gpt-oss", "name": "gpt-oss", "is_rest": False, "values": ["0.000765", "0"]}
        ],
        "errors": [1, 0],
    }


class UserCallsSchema(ApiSchema):
    """Calls of one account on the model."""

    user_id = fields.UUID()
    user_email = fields.String(allow_none=True)
    request_count = fields.Integer()
    total_tokens = fields.Integer()
    input_tokens = fields.Integer()
    output_tokens = fields.Integer()
    total_cost = fields.Float(allow_none=True, metadata=_says("Null where nothing was charged."))
    last_active_at = Instant()


class ByUserSchema(ApiSchema):
    """Calls of every status on one model. Those of nobody are not counted."""

    model = fields.String()
    start_date = Instant()
    end_date = Instant()
    total_requests = fields.Integer()
    total_tokens = fields.Integer()
    total_cost = fields.Float(allow_none=True)
    users = fields.List(fields.Nested(UserCallsSchema))

    example: ClassVar[Fields] = {
        "model": "gpt-oss",
        "start_date": "2026-01-30T10:20:00Z",
        "end_date": "2026-01-31T10:21:00Z",
        "total_requests": 4,
        "total_tokens": 165,
        "total_cost": 0.000765,
        "users": [
            {
                "user_id": "0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a47",
                "user_email": "alice@example.com",
                "request_count": 4,
                "total_tokens": 165,
                "input_tokens": 120,
                "output_tokens": 45,
                "total_cost": 0.000765,
                "last_active_at": "2026-01-31T10:20:30.123456Z",
            }
        ],
    }


class ModelUsageSchema(ApiSchema):
    """What was used of one model."""

    model = fields.String()
    input_tokens = fields.Integer()
    output_tokens = fields.Integer()
    reasoning_tokens = fields.Integer()
    cached_tokens = fields.Integer()
    cost = fields.String()
    request_count = fields.Integer()


class AccountUsageSchema(ApiSchema):
    """Calls that succeeded, and what they cost in USD."""

    total_input_tokens = fields.Integer()
    total_output_tokens = fields.Integer()
    total_request_count = fields.Integer()
    total_batch_count = fields.Integer(
        metadata=_says("Batches that were made in that time, had a call that succeeded and are not deleted.")
    )  # fmt: skip
    avg_requests_per_batch = fields.Float(metadata=_says("All calls, by the number of batches."))
    batch_request_count = fields.Integer(metadata=_says("How many of the calls those batches had."))
    total_cost = fields.String()
    estimated_realtime_cost = fields.String(
        metadata=_says("The same tokens at the realtime tariffs of today.")
    )
    by_model = fields.List(fields.Nested(ModelUsageSchema))

    example: ClassVar[Fields] = {
        "total_input_tokens": 120,
        "total_output_tokens": 45,
        "total_request_count": 3,
        "total_batch_count": 1,
        "avg_requests_per_batch": 3.0,
        "batch_request_count": 2,
        "total_cost": "0.000765000000000",
        "estimated_realtime_cost": "0.00090000",
        "by_model": [
            {
                "model": "gpt-oss",
                "input_tokens": 120,
                "output_tokens": 45,
                "reasoning_tokens": 0,
                "cached_tokens": 0,
                "cost": "0.000765000000000",
                "request_count": 3,
            }
        ],
    }

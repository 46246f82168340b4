"""Models and their parts on the wire."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, ClassVar

from marshmallow import ValidationError, fields, post_load, validate, validates_schema

from dwctl.billing.money import price_text
from dwctl.catalog.discovery import LONGEST_NAME
from dwctl.catalog.endpoint_schemas import EndpointSchema
from dwctl.catalog.routing import Strategy
from dwctl.catalog.search import ORDERS
from dwctl.identity.schemas import GroupSchema
from dwctl.web.dumping import written_by
from dwctl.web.pagination import PageQuery, PageSchema, envelope
from dwctl.web.schemas import (
    ApiSchema,
    Instant,
    ListOf,
    MapOf,
    Money,
    Name,
    Number,
    Text,
    TrueOrFalse,
    Whole,
    Words,
)

PURPOSES = ("platform", "realtime", "batch", "playground")
MODEL_TYPES = ("CHAT", "EMBEDDINGS", "RERANKER")

_ID = "5d0e7a0b-3a52-4f2e-8f5e-0a6f0f6f5c21"
_ENDPOINT_ID = "8c1f3f52-8a6e-4e0b-9d3b-1f0c5b7a2e44"
_AT = "2026-01-31T10:20:30.123456Z"


@written_by(Decimal, price_text)
class Price(fields.Field[Decimal]):
    """A price as text, null where it is that of the other tokens of its side."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else price_text(value)


def _shown_price() -> Price:
    return Price(dump_only=True, metadata={"type": "string"})


class TariffSchema(ApiSchema):
    """A tariff in force, in USD per token. Without a purpose it only informs.

    `cached_input_price_per_token` is for prompt tokens from the provider's cache, `reasoning_price_per_token` for completion tokens that
    the caller does not see; absent where these cost what the others do.
    """

    example: ClassVar[dict[str, Any]] = {
        "id": "0199a8f2-0b7e-7c11-8f3d-6c1d2e3f4a5b",
        "deployed_model_id": _ID,
        "name": "realtime",
        "input_price_per_token": "0.00000020",
        "output_price_per_token": "0.00000080",
        "cached_input_price_per_token": "0.00000002",
        "api_key_purpose": "realtime",
        "valid_from": _AT,
        "valid_until": None,
        "is_active": True,
    }

    id = fields.UUID()
    deployed_model_id = fields.UUID()
    name = fields.String()
    input_price_per_token = _shown_price()
    output_price_per_token = _shown_price()
    cached_input_price_per_token = _shown_price()
    reasoning_price_per_token = _shown_price()
    api_key_purpose = fields.String(allow_none=True)
    completion_window = fields.String()
    valid_from = Instant()
    valid_until = Instant(allow_none=True)
    is_active = fields.Boolean()

    absent_where_null = frozenset(
        {"completion_window", "cached_input_price_per_token", "reasoning_price_per_token"}
    )


class TariffCreate(ApiSchema):
    """A tariff that is wanted, alone or in a set. One with purpose batch needs a window.

    `cached_input_price_per_token` and `reasoning_price_per_token`: see what is shown; null where they are not priced apart. `valid_from` in
    the future schedules a change: what is in force of that purpose and window stays until then (it stands in the set as well).
    """

    example: ClassVar[dict[str, Any]] = {
        "name": "realtime",
        "input_price_per_token": "0.0000002",
        "output_price_per_token": "0.0000008",
        "api_key_purpose": "realtime",
    }

    name = Name(longest=LONGEST_NAME, required=True)
    input_price_per_token = Money(required=True)
    output_price_per_token = Money(required=True)
    cached_input_price_per_token = Money(load_default=None, allow_none=True)
    reasoning_price_per_token = Money(load_default=None, allow_none=True)
    valid_from = Instant(load_default=None, allow_none=True)
    api_key_purpose = fields.String(allow_none=True, validate=validate.OneOf(PURPOSES))
    completion_window = Name(allow_none=True)


class ActionSchema(ApiSchema):
    """Refuse, or serve by another model (`target` is its alias)."""

    type = fields.String(required=True, validate=validate.OneOf(("deny", "redirect")))
    target = Name(longest=LONGEST_NAME, allow_none=True)


class RuleSchema(ApiSchema):
    """What happens to calls by keys of one purpose."""

    api_key_purpose = fields.String(required=True, validate=validate.OneOf(PURPOSES))
    action = fields.Nested(ActionSchema, required=True)


class MetadataSchema(ApiSchema):
    """What a model is, for people who choose one. Replaced as a whole."""

    provider = Name(allow_none=True)
    display_category = fields.String(
        allow_none=True, validate=validate.OneOf(("generation", "embedding", "ocr"))
    )
    intelligence_index = Number(allow_none=True)
    context_window = Whole(most=2**53, allow_none=True)
    released_at = fields.Date(allow_none=True)
    quantization = Name(allow_none=True)
    attribution = Text(allow_none=True)
    extra = MapOf(keys=Name(), allow_none=True)

    @post_load
    def keep_what_is_set(self, data: dict[str, Any], **_kwargs: Any) -> dict[str, Any]:
        """As it is stored: unset members are left out, the date is text."""
        if data.get("released_at") is not None:
            data["released_at"] = data["released_at"].isoformat()
        return {name: value for name, value in data.items() if value is not None}


class ProviderPricingSchema(ApiSchema):
    """What the operator pays; informs, is never billed. Mode per_token has the two prices, hourly has rate and ratio."""

    mode = fields.String(required=True, validate=validate.OneOf(("per_token", "hourly")))
    input_price_per_token = Money(allow_none=True)
    output_price_per_token = Money(allow_none=True)
    rate = Money(allow_none=True)
    input_token_cost_ratio = Money(allow_none=True)

    _MODES = {
        "per_token": ("mode", "input_price_per_token", "output_price_per_token"),
        "hourly": ("mode", "rate", "input_token_cost_ratio"),
        "no_change": ("mode",),
    }

    @post_load
    def keep_fields_of_the_mode(self, data: dict[str, Any], **_kwargs: Any) -> dict[str, Any]:
        """Fields of another mode mean nothing."""
        return {name: data[name] for name in self._MODES[data["mode"]] if name in data}


class ProviderPricingCreate(ProviderPricingSchema):
    """Both fields of mode hourly are needed."""

    @validates_schema
    def hourly_is_complete(self, data: dict[str, Any], **_kwargs: Any) -> None:
        """An hourly price without its ratio says nothing."""
        for name in ("rate", "input_token_cost_ratio") if data.get("mode") == "hourly" else ():
            if data.get(name) is None:
                raise ValidationError("Missing data for required field.", name)


class ProviderPricingUpdate(ProviderPricingSchema):
    """Absent fields stay as they are; null clears a price per token."""

    mode = fields.String(
        required=True, validate=validate.OneOf(("per_token", "hourly", "no_change"))
    )


def _insist_on_callable(alias: str) -> None:
    """A call's `model` is printable (`protocols.asked`): what turns the direction of writing or is not seen names nothing."""
    if not alias.strip().isprintable():
        raise ValidationError("Must have no characters that are not seen: no call could name it.")


class ModelFields(ApiSchema):
    """What can be set and changed. `type` and `is_composite` say the same; neither can change later."""

    type = fields.String(validate=validate.OneOf(("standard", "composite")))
    is_composite = fields.Boolean(allow_none=True)
    alias = Name(
        longest=LONGEST_NAME,
        allow_none=True,
        validate=_insist_on_callable,
        metadata={
            "description": "The name that callers use: exact, with its case; unique among the models that are there. Without one, `model_name`."
        },
    )
    display_name = Name(allow_none=True)
    description = Text(allow_none=True)
    model_type = fields.String(
        allow_none=True,
        validate=validate.OneOf(MODEL_TYPES),
        metadata={"description": "What it is for; null: not said."},
    )
    capabilities = ListOf(
        Name(),
        most=100,
        allow_none=True,
        metadata={
            "description": "Words of your own, such as `vision` and `reasoning`, to filter by."
        },
    )
    requests_per_second = Number(
        allow_none=True, metadata={"description": "Over all processes; fractions are fine."}
    )
    burst_size = Whole(
        most=2**53,
        allow_none=True,
        metadata={
            "description": "Calls that may come at once within that rate; without a rate, so many a second."
        },
    )
    capacity = Whole(
        most=2**53, allow_none=True, metadata={"description": "Calls at the same time."}
    )
    batch_capacity = Whole(
        most=2**53,
        allow_none=True,
        metadata={"description": "The same for queued requests; null: as `capacity`."},
    )
    throughput = Number(
        allow_none=True,
        metadata={
            "description": "Requests per second by which batches are admitted; null: as the setting says."
        },
    )
    tokens_per_minute = Whole(
        most=2**53,
        allow_none=True,
        metadata={"description": "Tokens in and out, over all processes."},
    )
    lb_strategy = fields.String(
        allow_none=True, validate=validate.OneOf([each.value for each in Strategy])
    )
    fallback_enabled = fields.Boolean(allow_none=True)
    fallback_on_rate_limit = fields.Boolean(allow_none=True)
    fallback_on_status = ListOf(
        Whole(),
        most=100,
        allow_none=True,
        metadata={
            "description": "Statuses after which the next component is tried; 5 stands for all of 500 to 599."
        },
    )
    fallback_with_replacement = fields.Boolean(allow_none=True)
    fallback_max_attempts = Whole(
        allow_none=True, metadata={"description": "Null: as many as there are components."}
    )
    sanitize_responses = fields.Boolean(
        allow_none=True,
        metadata={
            "description": "Show callers what the protocol has, and nothing else of the server. For open mode."
        },
    )
    trusted = fields.Boolean(
        allow_none=True, metadata={"description": "Pass on what the server says. For strict mode."}
    )
    open_responses_adapter = fields.Boolean(
        allow_none=True, metadata={"description": "Serve `/responses` through chat completions."}
    )
    forward_service_tier = fields.Boolean(allow_none=True)
    refuse_unrunnable_tools = fields.Boolean(allow_none=True)
    allowed_batch_completion_windows = ListOf(
        Name(),
        most=100,
        allow_none=True,
        metadata={"description": "Null: all that are configured; none: no batches."},
    )
    tariffs = ListOf(
        fields.Nested(TariffCreate),
        most=100,
        allow_none=True,
        metadata={
            "description": "The set in force from now on, and what is scheduled. What stays the same stays, the rest is closed, and kept as history (`GET /models/{id}/tariffs`)."
        },
    )
    traffic_routing_rules = ListOf(
        fields.Nested(RuleSchema),
        most=100,
        allow_none=True,
        metadata={"description": "All of them, one for a purpose; null or none: no rules."},
    )
    metadata = fields.Nested(
        MetadataSchema,
        allow_none=True,
        metadata={"description": "Replaced as a whole; 16 KiB at most."},
    )

    @post_load
    def settle_the_kind(self, data: dict[str, Any], **_kwargs: Any) -> dict[str, Any]:
        """`is_composite` alone goes on."""
        if "type" in data:
            is_composite = data.pop("type") == "composite"
            if data.get("is_composite") not in (is_composite, None):
                raise ValidationError("Contradicts `type`.", "is_composite")
            data["is_composite"] = is_composite
        return data


class ModelCreate(ModelFields):
    """A standard model runs on one endpoint (`hosted_on`), a composite one on its components."""

    conditions: ClassVar[dict[str, Any]] = {
        "if": {"properties": {"type": {"const": "standard"}}, "required": ["type"]},
        "then": {"required": ["hosted_on"]},
    }

    model_name = Name(
        longest=LONGEST_NAME, required=True, metadata={"description": "What the server calls it."}
    )
    hosted_on = fields.UUID(allow_none=True)
    provider_pricing = fields.Nested(ProviderPricingCreate, allow_none=True)

    example: ClassVar[dict[str, Any]] = {
        "type": "standard",
        "model_name": "openai/gpt-oss-20b",
        "alias": "gpt-oss",
        "hosted_on": _ENDPOINT_ID,
        "model_type": "CHAT",
        "capabilities": ["reasoning"],
        "requests_per_second": 20,
        "capacity": 64,
        "tariffs": [
            {
                "name": "realtime",
                "input_price_per_token": "0.0000002",
                "output_price_per_token": "0.0000008",
                "api_key_purpose": "realtime",
            },
            {
                "name": "batch 24h",
                "input_price_per_token": "0.0000001",
                "output_price_per_token": "0.0000004",
                "api_key_purpose": "batch",
                "completion_window": "24h",
            },
        ],
        "metadata": {"provider": "OpenAI", "context_window": 131072},
    }

    @validates_schema
    def kind_and_endpoint_agree(self, data: dict[str, Any], **_kwargs: Any) -> None:
        """A standard model needs its endpoint, a composite one has none."""
        if "type" not in data and data.get("is_composite") is None:
            raise ValidationError("Missing data for required field.", "type")
        is_composite = data["type"] == "composite" if "type" in data else data["is_composite"]
        hosted = data.get("hosted_on") is not None
        if not is_composite and not hosted:
            raise ValidationError("Missing data for required field.", "hosted_on")
        if is_composite and hosted:
            raise ValidationError("A composite model has components, no endpoint.", "hosted_on")


class ModelUpdate(ModelFields):
    """Absent fields stay as they are; null clears what can be empty. `tariffs` replaces the current set."""

    provider_pricing = fields.Nested(ProviderPricingUpdate, allow_none=True)

    example: ClassVar[dict[str, Any]] = {
        "display_name": "GPT-OSS",
        "requests_per_second": None,
        "traffic_routing_rules": [{"api_key_purpose": "playground", "action": {"type": "deny"}}],
    }


class SightQuery(ApiSchema):
    """What of a model is shown. `deleted` and `inactive` are for those who administer the system."""

    include = Words(
        load_default=None,
        metadata={
            "description": "Comma-separated: `groups`, `metrics`, `calls`, `endpoints`, `components`, `status`, `pricing`; `facets` of the list. What is unknown or not the caller's to see is left out."
        },
    )
    since = Instant(
        load_default=None,
        metadata={"description": "From when on `calls` counts; by default the last 24 hours."},
    )
    until = Instant(
        load_default=None,
        metadata={"description": "Up to when `calls` counts; by default until now."},
    )
    deleted = TrueOrFalse(
        load_default=False, metadata={"description": "Also those that are deleted."}
    )
    inactive = TrueOrFalse(
        load_default=False,
        metadata={
            "description": "Those that vanished from their server's list: only these in a list."
        },
    )


class ModelQuery(PageQuery, SightQuery):
    """Filters and order of the list."""

    alias = Name(
        longest=LONGEST_NAME,
        load_default=None,
        metadata={"description": "Exactly this alias, with its case."},
    )
    endpoint = fields.UUID(load_default=None)
    group = Words(
        load_default=None, metadata={"description": "Group ids, comma-separated: any of them."}
    )
    accessible = TrueOrFalse(
        load_default=False, metadata={"description": "Only what the caller's account may use."}
    )
    search = Name(
        load_default=None,
        metadata={"description": "Part of an alias, a model name or an endpoint's name."},
    )
    is_composite = TrueOrFalse(load_default=None)
    provider = Name(
        load_default=None, metadata={"description": "`metadata.provider`; its case is nothing."}
    )
    model_type = fields.String(load_default=None, validate=validate.OneOf(MODEL_TYPES))
    capability = Name(load_default=None, metadata={"description": "One of `capabilities`."})
    sort = fields.String(load_default="created_at", validate=validate.OneOf(tuple(ORDERS)))
    sort_direction = fields.String(load_default=None, validate=validate.OneOf(("asc", "desc")))


class UsableQuery(PageQuery):
    """Which of the models that an account may call."""

    search = Name(
        load_default=None,
        metadata={"description": "Part of an alias, a model name or an endpoint's name."},
    )
    all = TrueOrFalse(
        load_default=False,
        metadata={"description": "Also those that it may not call, for who may read all models."},
    )


class OpeningGroup(ApiSchema):
    """A group that opens a model."""

    example: ClassVar[dict[str, Any]] = {
        "id": "7f0e9c7a-93a8-4b62-8f0c-6d1d4c9b2a11",
        "name": "research",
    }

    id = fields.UUID()
    name = fields.String()


class UsableModel(ApiSchema):
    """A model, and which of an account's groups open it. Limits are there for who may read them, and where there are any."""

    example: ClassVar[dict[str, Any]] = {
        "id": _ID,
        "alias": "gpt-oss",
        "display_name": "GPT OSS",
        "model_type": "CHAT",
        "opened_by": [OpeningGroup.example],
        "requests_per_second": 20.0,
    }

    id = fields.UUID()
    alias = fields.String()
    display_name = fields.String(allow_none=True)
    model_type = fields.String(allow_none=True, validate=validate.OneOf(MODEL_TYPES))
    opened_by = fields.List(
        fields.Nested(OpeningGroup),
        metadata={"description": "Empty where no group of the account opens it: it gets 404."},
    )
    requests_per_second = fields.Float()
    burst_size = fields.Integer()
    tokens_per_minute = fields.Integer()
    capacity = fields.Integer()


class UsableModelPage(PageSchema):
    """A page of models that an account may call."""

    example: ClassVar[dict[str, Any]] = envelope([UsableModel.example], 1, skip=0, limit=10)

    data = fields.List(fields.Nested(UsableModel))


class PointSchema(ApiSchema):
    """Calls within ten minutes."""

    timestamp = Instant()
    requests = fields.Integer()


class MetricsSchema(ApiSchema):
    """How much a model is used: all time, and the last two hours."""

    avg_latency_ms = fields.Float(allow_none=True)
    total_requests = fields.Integer()
    total_input_tokens = fields.Integer()
    total_output_tokens = fields.Integer()
    last_active_at = Instant(allow_none=True)
    time_series = fields.List(fields.Nested(PointSchema))


class CallsSchema(ApiSchema):
    """Calls of every status on the alias since a moment (`since`), and within the last hour. Errors: another status than 2xx; those with 4xx are counted as refused, too."""

    since = Instant()
    requests = fields.Integer()
    errors = fields.Integer()
    refused = fields.Integer()
    p50_latency_ms = fields.Float(allow_none=True)
    p95_latency_ms = fields.Float(allow_none=True)
    cost = Money()
    last_hour_requests = fields.Integer()
    last_hour_errors = fields.Integer()
    last_hour_refused = fields.Integer()


class StatusSchema(ApiSchema):
    """What its probe says of a model; all empty without one."""

    probe_id = fields.UUID(allow_none=True)
    active = fields.Boolean()
    interval_seconds = fields.Integer(allow_none=True)
    last_check = Instant(allow_none=True)
    last_success = fields.Boolean(allow_none=True)
    uptime_percentage = fields.Float(allow_none=True)


class ComponentFields(ApiSchema):
    """A component's place in its composite model. Absent and null fields stay as they are."""

    weight = Whole(allow_none=True, metadata={"description": "1 to 100: the share of calls."})
    enabled = fields.Boolean(allow_none=True)
    sort_order = Whole(allow_none=True, metadata={"description": "The lowest comes first."})

    example: ClassVar[dict[str, Any]] = {"weight": 80, "enabled": True, "sort_order": 0}


class EndpointNameSchema(ApiSchema):
    """Which endpoint."""

    id = fields.UUID()
    name = fields.String()


class ComponentModelSchema(ApiSchema):
    """The standard model that is a component."""

    id = fields.UUID()
    alias = fields.String()
    model_name = fields.String()
    description = fields.String(allow_none=True)
    model_type = fields.String(attribute="type", allow_none=True)
    endpoint = fields.Nested(EndpointNameSchema, allow_none=True)
    trusted = fields.Boolean()
    open_responses_adapter = fields.Function(
        lambda model: model.open_responses_adapter is not False, metadata={"type": "boolean"}
    )


class ComponentSchema(ApiSchema):
    """A component of a composite model."""

    weight = fields.Integer()
    enabled = fields.Boolean()
    sort_order = fields.Integer()
    created_at = Instant()
    model = fields.Nested(ComponentModelSchema)

    example: ClassVar[dict[str, Any]] = {
        "weight": 80,
        "enabled": True,
        "sort_order": 0,
        "created_at": _AT,
        "model": {
            "id": _ID,
            "alias": "gpt-oss",
            "model_name": "openai/gpt-oss-20b",
            "description": None,
            "model_type": "CHAT",
            "endpoint": {"id": _ENDPOINT_ID, "name": "gpu-1"},
            "trusted": False,
            "open_responses_adapter": True,
        },
    }


class FallbackSchema(ApiSchema):
    """When a composite model's next component is tried."""

    enabled = fields.Boolean()
    on_rate_limit = fields.Boolean()
    on_status = fields.List(fields.Integer())
    with_replacement = fields.Boolean()
    max_attempts = fields.Integer()


class ModelSchema(ApiSchema):
    """A model. Members that have no value, were not asked for or are not the caller's to see are absent."""

    id = fields.UUID()
    model_name = fields.String()
    alias = fields.String()
    display_name = fields.String()
    description = fields.String(allow_none=True)
    model_type = fields.String(allow_none=True, validate=validate.OneOf(MODEL_TYPES))
    capabilities = fields.List(fields.String(), allow_none=True)
    created_by = fields.UUID()
    hosted_on = fields.UUID()
    created_at = Instant()
    updated_at = Instant()
    requests_per_second = fields.Float()
    burst_size = fields.Integer()
    capacity = fields.Integer()
    batch_capacity = fields.Integer()
    throughput = fields.Float()
    tokens_per_minute = fields.Integer()
    groups = fields.List(fields.Nested(GroupSchema))
    metrics = fields.Nested(MetricsSchema)
    calls = fields.Nested(CallsSchema)
    status = fields.Nested(StatusSchema)
    provider_pricing = fields.Dict(
        metadata={
            "description": "`mode` per_token with two prices, or hourly with `rate` and `input_token_cost_ratio`."
        }
    )
    endpoint = fields.Nested(EndpointSchema)
    tariffs = fields.List(fields.Nested(TariffSchema))
    is_composite = fields.Boolean()
    lb_strategy = fields.String()
    fallback = fields.Nested(FallbackSchema)
    components = fields.List(fields.Nested(ComponentSchema))
    sanitize_responses = fields.Boolean()
    trusted = fields.Boolean()
    open_responses_adapter = fields.Boolean()
    forward_service_tier = fields.Boolean()
    refuse_unrunnable_tools = fields.Boolean()
    traffic_routing_rules = fields.List(fields.Nested(RuleSchema))
    allowed_batch_completion_windows = fields.List(fields.String())
    metadata = fields.Dict()
    activity_status = fields.String(
        validate=validate.OneOf(("active", "inactive")),
        metadata={"description": "Inactive: vanished from its server's list, and not called."},
    )
    deleted = fields.Boolean()

    example: ClassVar[dict[str, Any]] = {
        "id": _ID,
        "model_name": "openai/gpt-oss-20b",
        "alias": "gpt-oss",
        "description": None,
        "model_type": "CHAT",
        "capabilities": ["reasoning"],
        "hosted_on": _ENDPOINT_ID,
        "created_at": _AT,
        "updated_at": _AT,
        "requests_per_second": 20.0,
        "capacity": 64,
        "is_composite": False,
        "sanitize_responses": False,
        "trusted": False,
        "open_responses_adapter": True,
        "metadata": {"provider": "OpenAI", "context_window": 131072},
    }


class FacetsSchema(ApiSchema):
    """The values to filter by."""

    providers = fields.List(fields.String())
    capabilities = fields.List(fields.String())
    model_types = fields.List(fields.String())


class TariffPage(PageSchema):
    """A page of a model's tariffs: scheduled, in force and over. `warnings` say of which calls the price is not the one that an operator may expect."""

    data = fields.List(fields.Nested(TariffSchema))
    warnings = fields.List(fields.String())

    example: ClassVar[dict[str, Any]] = {
        **envelope([TariffSchema.example], 1, skip=0, limit=10),
        "warnings": [
            "There is no tariff for batch calls with the window 1h: they pay the realtime price."
        ],
    }


class ModelPage(PageSchema):
    """A page of models, with facets where they were asked for."""

    data = fields.List(fields.Nested(ModelSchema))
    facets = fields.Nested(FacetsSchema)

    example: ClassVar[dict[str, Any]] = envelope([ModelSchema.example], 1, skip=0, limit=10)

"""Endpoints, models and their parts on the wire."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from marshmallow import ValidationError, fields, post_dump, post_load, validate, validates_schema

from dwctl.billing.money import price_text
from dwctl.catalog.routing import Strategy
from dwctl.catalog.search import ORDERS
from dwctl.catalog.tables import LONGEST_TIMEOUT_S
from dwctl.identity.schemas import GroupSchema
from dwctl.web.pagination import PageQuery
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

_LONGEST_ALIAS = 512
"""As long as a model's name in a call may be."""
_LONGEST_VALUE = 2048
_MOST_MODELS = 1000

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def not_blank(value: str) -> None:
    """A marshmallow check."""
    if not value.strip():
        raise ValidationError("Must not be blank.")


def header_name(value: str) -> None:
    """A marshmallow check: what HTTP allows as a name."""
    if not _HEADER_NAME.fullmatch(value):
        raise ValidationError("Not a valid HTTP header name.")


def header_value(value: str) -> None:
    """A marshmallow check: what HTTP can carry in a header."""
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        raise ValidationError("Not possible in an HTTP header.") from None
    if not value.isprintable():
        raise ValidationError("Not possible in an HTTP header.")


def _seconds() -> Number:
    return Number(
        allow_none=True,
        validate=validate.Range(
            0,
            LONGEST_TIMEOUT_S,
            min_inclusive=False,
            error="Must be above {min} and at most {max}.",
        ),
        metadata={"description": "Seconds; null: as the setting says."},
    )


class EndpointSchema(ApiSchema):
    """An upstream inference server. Its API key is never shown."""

    example: ClassVar[dict[str, Any]] = {
        "id": "0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a47",
        "name": "gpu-cluster",
        "description": None,
        "url": "http://10.0.0.5:8000/v1",
        "model_filter": None,
        "requires_api_key": True,
        "auth_header_name": "Authorization",
        "auth_header_prefix": "Bearer ",
        "created_by": "0199a8f2-0b7e-7c11-8f3d-6c1d2e3f4a5b",
        "created_at": "2026-01-31T10:20:30.123456Z",
        "updated_at": "2026-01-31T10:20:30.123456Z",
    }

    id = fields.UUID()
    name = fields.String()
    description = fields.String(allow_none=True)
    url = fields.String()
    model_filter = fields.List(fields.String(), allow_none=True)
    requires_api_key = fields.Function(
        lambda endpoint: endpoint.api_key_sealed is not None, metadata={"type": "boolean"}
    )
    auth_header_name = fields.String()
    auth_header_prefix = fields.String()
    created_by = fields.UUID()
    created_at = Instant()
    updated_at = Instant()
    connect_timeout_seconds = fields.Float(allow_none=True)
    first_byte_timeout_seconds = fields.Float(allow_none=True)
    idle_timeout_seconds = fields.Float(allow_none=True)
    total_timeout_seconds = fields.Float(allow_none=True)


class EndpointFields(ApiSchema):
    """What can be set and changed. In a change null clears `description`, `api_key`, `model_filter` and the time-outs."""

    description = Text(allow_none=True)
    api_key = Name(longest=_LONGEST_VALUE, allow_none=True, validate=header_value)
    model_filter = ListOf(
        Name(longest=_LONGEST_ALIAS, validate=not_blank), most=_MOST_MODELS, allow_none=True
    )
    alias_mapping = MapOf(
        keys=Name(longest=_LONGEST_ALIAS),
        values=Name(longest=_LONGEST_ALIAS, validate=not_blank),
        allow_none=True,
    )
    auth_header_name = Name(allow_none=True, validate=header_name)
    auth_header_prefix = Name(allow_none=True, validate=header_value)
    connect_timeout_seconds = _seconds()
    first_byte_timeout_seconds = _seconds()
    idle_timeout_seconds = _seconds()
    total_timeout_seconds = _seconds()

    @post_load
    def trim_aliases(self, data: dict[str, Any], **_kwargs: Any) -> dict[str, Any]:
        """Aliases have no white space around them."""
        if data.get("alias_mapping") is not None:
            data["alias_mapping"] = {k: v.strip() for k, v in data["alias_mapping"].items()}
        return data


class EndpointCreate(EndpointFields):
    """`sync` (or `auto_sync_models`) adds the server's models; with `skip_fetch` those that `model_filter` names, unasked."""

    example: ClassVar[dict[str, Any]] = {
        "name": "gpu-cluster",
        "url": "http://10.0.0.5:8000/v1",
        "api_key": "secret",
        "sync": False,
    }

    name = Name(required=True, validate=not_blank)
    url = Name(longest=_LONGEST_VALUE, required=True)
    sync = fields.Boolean(allow_none=True)
    auto_sync_models = fields.Boolean(
        allow_none=True, metadata={"description": "Another name of `sync`, which wins."}
    )
    skip_fetch = fields.Boolean(load_default=False)


class EndpointUpdate(EndpointFields):
    """Absent fields stay as they are."""

    example: ClassVar[dict[str, Any]] = {
        "description": "The new machines",
        "total_timeout_seconds": 600,
    }

    name = Name(allow_none=True, validate=not_blank)
    url = Name(longest=_LONGEST_VALUE, allow_none=True)


class EndpointValidate(ApiSchema):
    """Either a new server, or one that is known."""

    conditions: ClassVar[dict[str, Any]] = {
        "if": {"properties": {"type": {"const": "new"}}},
        "then": {"required": ["url"]},
        "else": {"required": ["endpoint_id"]},
    }

    example: ClassVar[dict[str, Any]] = {
        "type": "new",
        "url": "http://10.0.0.5:8000/v1",
        "api_key": "secret",
    }

    type = fields.String(required=True, validate=validate.OneOf(("new", "existing")))
    url = Name(longest=_LONGEST_VALUE)
    api_key = Name(longest=_LONGEST_VALUE, allow_none=True, validate=header_value)
    auth_header_name = Name(allow_none=True, validate=header_name)
    auth_header_prefix = Name(allow_none=True, validate=header_value)
    endpoint_id = fields.UUID()

    @validates_schema
    def needs_its_half(self, data: dict[str, Any], **_kwargs: Any) -> None:
        """A new server needs its URL, a known one its id."""
        needed = "url" if data["type"] == "new" else "endpoint_id"
        if needed not in data:
            raise ValidationError("Missing data for required field.", needed)


class ListedModelSchema(ApiSchema):
    """A model as an upstream server lists it."""

    id = fields.String()
    object = fields.String()
    created = fields.Integer(allow_none=True)
    owned_by = fields.String()


class ListedModels(ApiSchema):
    """OpenAI's list."""

    object = fields.String()
    data = fields.List(fields.Nested(ListedModelSchema))


class ValidationSchema(ApiSchema):
    """`status` is success, with the models, or error, with the reason."""

    example: ClassVar[dict[str, Any]] = {
        "status": "success",
        "models": {
            "object": "list",
            "data": [
                {
                    "id": "openai/gpt-oss-120b",
                    "object": "model",
                    "created": 1780000000,
                    "owned_by": "vllm",
                }
            ],
        },
        "error": None,
    }

    status = fields.String()
    models = fields.Nested(ListedModels, allow_none=True)
    error = fields.String(allow_none=True)


class SynchronisedSchema(ApiSchema):
    """What a synchronisation found and changed."""

    example: ClassVar[dict[str, Any]] = {
        "endpoint_id": "0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a47",
        "changes_made": 1,
        "new_models_created": 1,
        "models_reactivated": 0,
        "models_deactivated": 0,
        "models_deleted": 0,
        "total_models_fetched": 1,
        "filtered_models_count": 1,
        "synced_at": "2026-01-31T10:20:30.123456Z",
    }

    endpoint_id = fields.UUID()
    changes_made = fields.Integer()
    new_models_created = fields.Integer()
    models_reactivated = fields.Integer()
    models_deactivated = fields.Integer()
    models_deleted = fields.Integer()
    total_models_fetched = fields.Integer()
    filtered_models_count = fields.Integer()
    synced_at = Instant()


class TariffSchema(ApiSchema):
    """A tariff in force, in USD per token. Without a purpose it only informs."""

    id = fields.UUID()
    deployed_model_id = fields.UUID()
    name = fields.String()
    input_price_per_token = fields.Function(
        lambda tariff: price_text(tariff.input_price_per_token), metadata={"type": "string"}
    )
    output_price_per_token = fields.Function(
        lambda tariff: price_text(tariff.output_price_per_token), metadata={"type": "string"}
    )
    api_key_purpose = fields.String(allow_none=True)
    completion_window = fields.String()
    valid_from = Instant()
    valid_until = Instant(allow_none=True)
    is_active = fields.Function(
        lambda tariff: tariff.valid_until is None, metadata={"type": "boolean"}
    )

    @post_dump
    def drop_no_window(self, data: dict[str, Any], **_kwargs: Any) -> dict[str, Any]:
        """The window is there only where there is one."""
        if data.get("completion_window") is None:
            data.pop("completion_window", None)
        return data


class TariffCreate(ApiSchema):
    """A tariff of the set that is wanted. One with purpose batch needs a window."""

    name = Name(longest=_LONGEST_ALIAS, required=True)
    input_price_per_token = Money(required=True)
    output_price_per_token = Money(required=True)
    api_key_purpose = fields.String(allow_none=True, validate=validate.OneOf(PURPOSES))
    completion_window = Name(allow_none=True)


class ActionSchema(ApiSchema):
    """Refuse, or serve by another model (`target` is its alias)."""

    type = fields.String(required=True, validate=validate.OneOf(("deny", "redirect")))
    target = Name(longest=_LONGEST_ALIAS, allow_none=True)


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


class ModelFields(ApiSchema):
    """What can be set and changed. `type` and `is_composite` say the same; neither can change later."""

    type = fields.String(validate=validate.OneOf(("standard", "composite")))
    is_composite = fields.Boolean(allow_none=True)
    alias = Name(longest=_LONGEST_ALIAS, allow_none=True)
    display_name = Name(allow_none=True)
    description = Text(allow_none=True)
    model_type = fields.String(allow_none=True, validate=validate.OneOf(MODEL_TYPES))
    capabilities = ListOf(Name(), most=100, allow_none=True)
    requests_per_second = Number(allow_none=True)
    burst_size = Whole(most=2**53, allow_none=True)
    capacity = Whole(most=2**53, allow_none=True)
    batch_capacity = Whole(most=2**53, allow_none=True)
    throughput = Number(allow_none=True)
    tokens_per_minute = Whole(most=2**53, allow_none=True)
    lb_strategy = fields.String(
        allow_none=True, validate=validate.OneOf([each.value for each in Strategy])
    )
    fallback_enabled = fields.Boolean(allow_none=True)
    fallback_on_rate_limit = fields.Boolean(allow_none=True)
    fallback_on_status = ListOf(Whole(), most=100, allow_none=True)
    fallback_with_replacement = fields.Boolean(allow_none=True)
    fallback_max_attempts = Whole(allow_none=True)
    sanitize_responses = fields.Boolean(allow_none=True)
    trusted = fields.Boolean(allow_none=True)
    open_responses_adapter = fields.Boolean(allow_none=True)
    forward_service_tier = fields.Boolean(allow_none=True)
    refuse_unrunnable_tools = fields.Boolean(allow_none=True)
    allowed_batch_completion_windows = ListOf(Name(), most=100, allow_none=True)
    tariffs = ListOf(fields.Nested(TariffCreate), most=100, allow_none=True)
    traffic_routing_rules = ListOf(fields.Nested(RuleSchema), most=100, allow_none=True)
    metadata = fields.Nested(MetadataSchema, allow_none=True)

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

    example: ClassVar[dict[str, Any]] = {
        "type": "standard",
        "model_name": "openai/gpt-oss-120b",
        "alias": "gpt-oss",
        "hosted_on": "0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a47",
        "tariffs": [
            {
                "name": "list price",
                "input_price_per_token": "0.00000015",
                "output_price_per_token": "0.00000060",
                "api_key_purpose": "realtime",
            }
        ],
    }

    model_name = Name(longest=_LONGEST_ALIAS, required=True)
    hosted_on = fields.UUID(allow_none=True)
    provider_pricing = fields.Nested(ProviderPricingCreate, allow_none=True)

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

    example: ClassVar[dict[str, Any]] = {
        "display_name": "GPT OSS",
        "requests_per_second": 20,
        "description": None,
    }

    provider_pricing = fields.Nested(ProviderPricingUpdate, allow_none=True)


class SightQuery(ApiSchema):
    """What of a model is shown. `deleted` and `inactive` are for those who administer the system."""

    include = Words(load_default=None)
    deleted = TrueOrFalse(load_default=False)
    inactive = TrueOrFalse(load_default=False)


class ModelQuery(PageQuery, SightQuery):
    """Filters and order of the list."""

    endpoint = fields.UUID(load_default=None)
    group = Words(
        load_default=None, metadata={"description": "Group ids, comma-separated: any of them."}
    )
    accessible = TrueOrFalse(load_default=False)
    search = Name(load_default=None)
    is_composite = TrueOrFalse(load_default=None)
    provider = Name(load_default=None)
    model_type = fields.String(load_default=None, validate=validate.OneOf(MODEL_TYPES))
    capability = Name(load_default=None)
    sort = fields.String(load_default="created_at", validate=validate.OneOf(tuple(ORDERS)))
    sort_direction = fields.String(load_default=None, validate=validate.OneOf(("asc", "desc")))


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

    example: ClassVar[dict[str, Any]] = {"weight": 50, "enabled": True, "sort_order": 0}

    weight = Whole(allow_none=True, metadata={"description": "1 to 100: the share of calls."})
    enabled = fields.Boolean(allow_none=True)
    sort_order = Whole(allow_none=True, metadata={"description": "The lowest comes first."})


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

    example: ClassVar[dict[str, Any]] = {
        "weight": 50,
        "enabled": True,
        "sort_order": 0,
        "created_at": "2026-01-31T10:20:30.123456Z",
        "model": {
            "id": "0199a8f2-0b7e-7c11-8f3d-6c1d2e3f4a5b",
            "alias": "gpt-oss",
            "model_name": "openai/gpt-oss-120b",
            "description": None,
            "model_type": "CHAT",
            "endpoint": {"id": "0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a47", "name": "gpu-cluster"},
            "trusted": False,
            "open_responses_adapter": True,
        },
    }

    weight = fields.Integer()
    enabled = fields.Boolean()
    sort_order = fields.Integer()
    created_at = Instant()
    model = fields.Nested(ComponentModelSchema)


class FallbackSchema(ApiSchema):
    """When a composite model's next component is tried."""

    enabled = fields.Boolean()
    on_rate_limit = fields.Boolean()
    on_status = fields.List(fields.Integer())
    with_replacement = fields.Boolean()
    max_attempts = fields.Integer()


class ModelSchema(ApiSchema):
    """A model. Members that have no value, were not asked for or are not the caller's to see are absent."""

    example: ClassVar[dict[str, Any]] = {
        "id": "0199a8f2-0b7e-7c11-8f3d-6c1d2e3f4a5b",
        "model_name": "openai/gpt-oss-120b",
        "alias": "gpt-oss",
        "display_name": "GPT OSS",
        "description": None,
        "model_type": "CHAT",
        "capabilities": ["reasoning"],
        "created_by": "0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a47",
        "hosted_on": "0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a47",
        "created_at": "2026-01-31T10:20:30.123456Z",
        "updated_at": "2026-01-31T10:20:30.123456Z",
        "is_composite": False,
    }

    id = fields.UUID()
    model_name = fields.String()
    alias = fields.String()
    display_name = fields.String()
    description = fields.String(allow_none=True)
    model_type = fields.String(allow_none=True)
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
    status = fields.Nested(StatusSchema)
    provider_pricing = fields.Dict()
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
    activity_status = fields.String()
    deleted = fields.Boolean()


class FacetsSchema(ApiSchema):
    """The values to filter by."""

    providers = fields.List(fields.String())
    capabilities = fields.List(fields.String())
    model_types = fields.List(fields.String())


class ModelPage(ApiSchema):
    """A page of models, with facets where they were asked for."""

    example: ClassVar[dict[str, Any]] = {
        "data": [
            {
                "id": "0199a8f2-0b7e-7c11-8f3d-6c1d2e3f4a5b",
                "model_name": "openai/gpt-oss-120b",
                "alias": "gpt-oss",
                "display_name": "GPT OSS",
                "description": None,
                "model_type": "CHAT",
                "capabilities": ["reasoning"],
                "created_by": "0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a47",
                "hosted_on": "0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a47",
                "created_at": "2026-01-31T10:20:30.123456Z",
                "updated_at": "2026-01-31T10:20:30.123456Z",
                "is_composite": False,
            }
        ],
        "total_count": 1,
        "skip": 0,
        "limit": 10,
    }

    data = fields.List(fields.Nested(ModelSchema))
    total_count = fields.Integer()
    skip = fields.Integer()
    limit = fields.Integer()
    facets = fields.Nested(FacetsSchema)

"""Endpoints on the wire."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from marshmallow import ValidationError, fields, post_load, validate, validates_schema

from dwctl.catalog.discovery import LONGEST_NAME, MAX_MODELS
from dwctl.catalog.tables import LONGEST_TIMEOUT_S
from dwctl.web.pagination import PageQuery
from dwctl.web.schemas import ApiSchema, Instant, ListOf, MapOf, Name, Number, Text, Words

_LONGEST_VALUE = 2048
_MOST_MODELS = 1000
_ID = "8c1f3f52-8a6e-4e0b-9d3b-1f0c5b7a2e44"
_AT = "2026-01-31T10:20:30.123456Z"

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


class EndpointModelsSchema(ApiSchema):
    """The models on an endpoint; there where it was asked for."""

    active = fields.Integer()
    inactive = fields.Integer(metadata={"description": "Vanished from its server's list."})
    last_sync = Instant(
        allow_none=True, metadata={"description": "When its list was last read for them."}
    )
    last_hour_requests = fields.Integer(
        metadata={"description": "Calls on their aliases; not those that composite models sent on."}
    )
    last_hour_errors = fields.Integer(metadata={"description": "With another status than 2xx."})
    last_hour_refused = fields.Integer(
        metadata={
            "description": "Those of them with 4xx: refused before any server was asked (no credit, a limit), or as the caller's mistake."
        }
    )


class EndpointSchema(ApiSchema):
    """An upstream inference server. Its API key is never shown."""

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
    models = fields.Nested(EndpointModelsSchema)
    created_by = fields.UUID()
    created_at = Instant()
    updated_at = Instant()
    connect_timeout_seconds = fields.Float(allow_none=True)
    first_byte_timeout_seconds = fields.Float(allow_none=True)
    idle_timeout_seconds = fields.Float(allow_none=True)
    total_timeout_seconds = fields.Float(allow_none=True)

    example: ClassVar[dict[str, Any]] = {
        "id": _ID,
        "name": "gpu-1",
        "description": "vLLM in the cellar",
        "url": "http://gpu-1.internal:8000/v1",
        "model_filter": None,
        "requires_api_key": True,
        "auth_header_name": "Authorization",
        "auth_header_prefix": "Bearer ",
        "created_by": "4f6b5f3e-5c1a-4e65-9f0c-2d1a6a3f7b10",
        "created_at": _AT,
        "updated_at": _AT,
        "connect_timeout_seconds": None,
        "first_byte_timeout_seconds": 120.0,
        "idle_timeout_seconds": None,
        "total_timeout_seconds": None,
    }


class EndpointSightQuery(ApiSchema):
    """What is shown beside an endpoint."""

    include = Words(load_default=None, metadata={"description": "`models`."})


class EndpointQuery(PageQuery, EndpointSightQuery):
    """A page of endpoints."""

    search = Name(
        load_default=None,
        metadata={"description": "Part of a name, a URL or a description; its case is nothing."},
    )


class EndpointFields(ApiSchema):
    """What can be set and changed. In a change null clears `description`, `api_key`, `model_filter` and the time-outs."""

    description = Text(allow_none=True)
    api_key = Name(
        longest=_LONGEST_VALUE,
        allow_none=True,
        validate=header_value,
        metadata={
            "description": "The server's key for us, kept encrypted and never shown. A URL with another origin clears it."
        },
    )
    model_filter = ListOf(
        Name(longest=LONGEST_NAME, validate=not_blank),
        most=_MOST_MODELS,
        allow_none=True,
        metadata={
            "description": "The models that are wanted, by the server's names; null: all that it lists. Models outside of it are deleted."
        },
    )
    alias_mapping = MapOf(
        keys=Name(longest=LONGEST_NAME),
        values=Name(longest=LONGEST_NAME, validate=not_blank),
        allow_none=True,
        metadata={
            "description": "The server's name of a model to the alias that callers use. What is not in it has its own name."
        },
    )
    auth_header_name = Name(
        allow_none=True,
        validate=header_name,
        metadata={"description": "The header that carries the key: `Authorization`."},
    )
    auth_header_prefix = Name(
        allow_none=True,
        validate=header_value,
        metadata={"description": "What stands before the key in it: `Bearer `, with the space."},
    )
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

    name = Name(required=True, validate=not_blank)
    url = Name(longest=_LONGEST_VALUE, required=True)
    sync = fields.Boolean(
        allow_none=True,
        metadata={"description": "Add the models that the server lists: true unless it is said."},
    )
    auto_sync_models = fields.Boolean(
        allow_none=True, metadata={"description": "Another name of `sync`, which wins."}
    )
    skip_fetch = fields.Boolean(
        load_default=False,
        metadata={"description": "Do not ask the server: `model_filter` is its list."},
    )

    example: ClassVar[dict[str, Any]] = {
        "name": "gpu-1",
        "url": "http://gpu-1.internal:8000/v1",
        "description": "vLLM in the cellar",
        "api_key": "the-servers-key-for-us",
        "sync": True,
        "model_filter": ["openai/gpt-oss-20b"],
        "alias_mapping": {"openai/gpt-oss-20b": "gpt-oss"},
        "first_byte_timeout_seconds": 120,
    }


class EndpointUpdate(EndpointFields):
    """Absent fields stay as they are."""

    name = Name(allow_none=True, validate=not_blank)
    url = Name(longest=_LONGEST_VALUE, allow_none=True)

    example: ClassVar[dict[str, Any]] = {
        "description": None,
        "api_key": "another-key",
        "model_filter": None,
    }


class EndpointValidate(ApiSchema):
    """Either a new server, or one that is known."""

    conditions: ClassVar[dict[str, Any]] = {
        "if": {"properties": {"type": {"const": "new"}}},
        "then": {"required": ["url"]},
        "else": {"required": ["endpoint_id"]},
    }

    type = fields.String(required=True, validate=validate.OneOf(("new", "existing")))
    url = Name(longest=_LONGEST_VALUE)
    api_key = Name(longest=_LONGEST_VALUE, allow_none=True, validate=header_value)
    auth_header_name = Name(allow_none=True, validate=header_name)
    auth_header_prefix = Name(allow_none=True, validate=header_value)
    endpoint_id = fields.UUID()

    example: ClassVar[dict[str, Any]] = {
        "type": "new",
        "url": "http://gpu-1.internal:8000/v1",
        "api_key": "the-servers-key-for-us",
    }

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
    """`status` is success, with the models, or error, with the reason. `milliseconds`: how long that took; null where nobody was asked."""

    status = fields.String()
    models = fields.Nested(ListedModels, allow_none=True)
    error = fields.String(allow_none=True)
    milliseconds = fields.Float(allow_none=True)

    example: ClassVar[dict[str, Any]] = {
        "status": "success",
        "models": {
            "object": "list",
            "data": [
                {
                    "id": "openai/gpt-oss-20b",
                    "object": "model",
                    "created": 1700000000,
                    "owned_by": "vllm",
                }
            ],
        },
        "error": None,
        "milliseconds": 41.7,
    }


class ConflictSchema(ApiSchema):
    """A model of a list, and the alias that it cannot have."""

    model_name = Name()
    attempted_alias = Name()


class SynchroniseFields(ApiSchema):
    """Nothing has to be sent."""

    may_be_absent = True

    models = ListOf(
        Name(longest=LONGEST_NAME),
        most=MAX_MODELS,
        allow_none=True,
        load_default=None,
        metadata={
            "description": "Of the server's names those that may change now; the others stay as they are until the next time. Null: all."
        },
    )

    example: ClassVar[dict[str, Any]] = {"models": ["openai/gpt-oss-20b"]}


class DifferenceSchema(ApiSchema):
    """A model that a synchronisation would change."""

    change = fields.String(
        validate=validate.OneOf(("new", "taken", "back", "gone", "outside")),
        metadata={
            "description": "`new`: would be added. `taken`: would not, since its alias is another model's. `back`: active again. `gone`: inactive. `outside`: deleted, since `model_filter` does not name it."
        },
    )
    model_name = fields.String()
    alias = fields.String()


class ComparedSchema(ApiSchema):
    """What a synchronisation would change, by change and name; `milliseconds` is how long the server took to answer."""

    endpoint_id = fields.UUID()
    total_models_fetched = fields.Integer()
    unchanged = fields.Integer()
    differences = fields.List(fields.Nested(DifferenceSchema))
    milliseconds = fields.Float()

    example: ClassVar[dict[str, Any]] = {
        "endpoint_id": _ID,
        "total_models_fetched": 3,
        "unchanged": 2,
        "differences": [
            {"change": "new", "model_name": "openai/gpt-oss-20b", "alias": "openai/gpt-oss-20b"}
        ],
        "milliseconds": 41.7,
    }


class SynchronisedSchema(ApiSchema):
    """What a synchronisation found and changed."""

    endpoint_id = fields.UUID()
    changes_made = fields.Integer()
    new_models_created = fields.Integer()
    models_reactivated = fields.Integer()
    models_deactivated = fields.Integer()
    models_deleted = fields.Integer()
    total_models_fetched = fields.Integer()
    filtered_models_count = fields.Integer()
    synced_at = Instant()
    conflicts = fields.List(
        fields.Nested(ConflictSchema),
        metadata={"description": "Models that were not added, since their alias is taken."},
    )

    example: ClassVar[dict[str, Any]] = {
        "endpoint_id": _ID,
        "changes_made": 2,
        "new_models_created": 1,
        "models_reactivated": 0,
        "models_deactivated": 1,
        "models_deleted": 0,
        "total_models_fetched": 3,
        "filtered_models_count": 3,
        "synced_at": _AT,
        "conflicts": [{"model_name": "openai/gpt-oss-20b", "attempted_alias": "gpt-oss"}],
    }

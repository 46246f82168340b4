"""Tool sources on the wire."""

from __future__ import annotations

from typing import Any, ClassVar

from marshmallow import fields, validate

from dwctl.catalog.endpoint_schemas import header_value, not_blank
from dwctl.tools.tables import KINDS
from dwctl.web.schemas import ApiSchema, Instant, MapOf, Name, Text, Whole

_WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}


class ToolSourceSchema(ApiSchema):
    """A tool and the server behind it. Its API key is never shown."""

    id = fields.UUID()
    kind = fields.String(validate=validate.OneOf(KINDS))
    name = Name()
    description = Text(allow_none=True)
    parameters = MapOf(
        allow_none=True, metadata={"description": "What the tool takes: a JSON Schema."}
    )
    url = Name()
    has_api_key = fields.Function(
        lambda source: source.api_key_sealed is not None, metadata={"type": "boolean"}
    )
    timeout_secs = Whole()
    created_at = Instant()
    updated_at = Instant()

    example: ClassVar[dict[str, Any]] = {
        "id": "0b7c3e1e-52f4-4c4e-9a55-3f2b9a1f6c11",
        "kind": "http",
        "name": "weather",
        "description": "The weather in a city",
        "parameters": _WEATHER,
        "url": "https://tools.example.com/weather",
        "has_api_key": True,
        "timeout_secs": 30,
        "created_at": "2026-01-31T10:20:30.123456Z",
        "updated_at": "2026-01-31T10:20:30.123456Z",
    }


class ToolSourceFields(ApiSchema):
    """What can be set and changed. In a change null clears `description`, `parameters` and `api_key`."""

    kind = fields.String(allow_none=True, validate=validate.OneOf(KINDS))
    description = Text(
        allow_none=True, metadata={"description": "Tells models when to call the tool."}
    )
    parameters = MapOf(
        allow_none=True,
        metadata={
            "description": "What the tool takes: a JSON Schema of an object, up to 64 KiB, that refers to no other document."
        },
    )
    api_key = Name(
        longest=2048,
        allow_none=True,
        validate=header_value,
        metadata={
            "description": "Our credential at the server, kept encrypted and never shown. A URL with another origin clears it."
        },
    )
    timeout_secs = Whole(
        allow_none=True, metadata={"description": "How long one call of the tool may take."}
    )


class ToolSourceCreate(ToolSourceFields):
    """A new tool source."""

    name = Name(
        required=True,
        validate=not_blank,
        metadata={
            "description": "What models call the tool by; unique. Most providers take letters, digits, `_` and `-`, 64 at most."
        },
    )
    url = Name(longest=2048, required=True, metadata={"description": "Absolute, http or https."})

    example: ClassVar[dict[str, Any]] = {
        "name": "weather",
        "description": "The weather in a city",
        "url": "https://tools.example.com/weather",
        "parameters": _WEATHER,
        "api_key": "the-servers-key-for-us",
        "timeout_secs": 10,
    }


class ToolSourceUpdate(ToolSourceFields):
    """Absent fields stay as they are."""

    name = Name(allow_none=True, validate=not_blank)
    url = Name(longest=2048, allow_none=True)

    example: ClassVar[dict[str, Any]] = {"timeout_secs": 20, "api_key": None}

"""What the audit log's routes read and show."""

from __future__ import annotations

from typing import Any, ClassVar

from marshmallow import fields, validate

from dwctl.audit.actors import WAYS
from dwctl.web.exporting import CONTENT_TYPES
from dwctl.web.pagination import PageQuery, PageSchema, envelope
from dwctl.web.schemas import ApiSchema, Instant, Name

_UPDATED: dict[str, Any] = {
    "id": 4711,
    "at": "2026-01-31T10:20:30.123456Z",
    "action": "user.role_added",
    "actor_id": "6f1d1f0e-9d5f-4a3c-8a55-2f4a7b0a9c11",
    "actor_name": "admin@example.com",
    "through": "session",
    "api_key_id": None,
    "address": "192.0.2.17",
    "request_id": "019c1b2d-9a3e-7d10-8f2b-5a0c4e6d7f80",
    "method": "PATCH",
    "route": "/admin/api/v1/users/{user_id}",
    "resource_type": "user",
    "resource_id": "0b8d2a44-52b6-4e0e-9d3c-3f6f0f5f2f10",
    "resource_name": "alice@example.com",
    "related_id": None,
    "related_name": None,
    "organization_id": None,
    "before": None,
    "after": {"role": "BILLINGMANAGER"},
}


class _Filters(ApiSchema):
    actor_id = fields.UUID(
        load_default=None, metadata={"description": "Changes by this user, by whatever key."}
    )
    action = Name(
        load_default=None,
        metadata={"description": "How the action begins: `user.`, `api_key.deleted`."},
    )
    resource_type = Name(load_default=None)
    resource_id = Name(
        load_default=None,
        metadata={
            "description": "What was changed, or its other side: a group's member, a key's owner."
        },
    )
    organization_id = fields.UUID(load_default=None)
    request_id = fields.UUID(
        load_default=None,
        metadata={
            "description": "Everything that one request or command changed (`x-request-id`)."
        },
    )
    since = Instant(load_default=None, metadata={"description": "From this time on."})
    until = Instant(load_default=None, metadata={"description": "Before this time."})
    search = Name(
        load_default=None,
        metadata={
            "description": "Part of the actor's name, of the resource's name or of the action."
        },
    )


class AuditQuery(_Filters, PageQuery):
    """Which entries, and which page of them."""

    example: ClassVar[dict[str, Any]] = {"action": "user.", "since": "2026-01-01T00:00:00Z"}


class AuditExportQuery(_Filters):
    """Which entries, and as what."""

    format = Name(
        load_default="jsonl",
        validate=validate.OneOf(tuple(CONTENT_TYPES)),
        metadata={
            "description": "`jsonl`: an entry a line, as the list shows it. `csv`: for spreadsheets."
        },
    )

    example: ClassVar[dict[str, Any]] = {"format": "csv", "since": "2026-01-01T00:00:00Z"}


class AuditEntrySchema(ApiSchema):
    """One change of one thing, with names as they were then."""

    id = fields.Integer(metadata={"description": "Later entries have larger ones."})
    at = Instant()
    action = fields.String(
        metadata={"description": "The kind of resource, and what happened to it."}
    )
    actor_id = fields.UUID(
        allow_none=True,
        metadata={
            "description": "Who did it; null for a command, and for who was not signed in yet."
        },
    )
    actor_name = fields.String(
        allow_none=True,
        metadata={
            "description": "Their user name; of a command, the operating system's name of whoever ran it."
        },
    )
    through = fields.String(
        validate=validate.OneOf(WAYS), metadata={"description": "How the actor was known."}
    )
    api_key_id = fields.UUID(
        allow_none=True, metadata={"description": "The API key that was used."}
    )
    address = fields.String(
        allow_none=True,
        metadata={"description": "The client's address, or the machine on which a command ran."},
    )
    request_id = fields.UUID(
        allow_none=True,
        metadata={"description": "Joins what one request or command changed together."},
    )
    method = fields.String(allow_none=True)
    route = fields.String(
        allow_none=True, metadata={"description": "The path with its parameters, or the command."}
    )
    resource_type = fields.String()
    resource_id = fields.String(allow_none=True)
    resource_name = fields.String(
        allow_none=True,
        metadata={"description": "As it was called then; where that is not kept, as it is now."},
    )
    related_id = fields.String(
        allow_none=True,
        metadata={"description": "The other side: a group's member or model, a key's owner."},
    )
    related_name = fields.String(
        allow_none=True, metadata={"description": "What the other side is called now."}
    )
    organization_id = fields.UUID(
        allow_none=True, metadata={"description": "The organisation that it belongs to."}
    )
    before = fields.Dict(
        allow_none=True,
        metadata={"description": "The members that changed, as they were. Secrets are `(set)`."},
    )
    after = fields.Dict(
        allow_none=True,
        metadata={
            "description": "The same, as they are now. A secret that was replaced is `(changed)`."
        },  # fmt: skip
    )

    example: ClassVar[dict[str, Any]] = _UPDATED


class AuditPage(PageSchema):
    """A page of entries."""

    data = fields.List(fields.Nested(AuditEntrySchema))

    example: ClassVar[dict[str, Any]] = envelope([_UPDATED], 1, skip=0, limit=10)

"""Connections and synchronisations on the wire. Times are whole Unix seconds here, as in the APIs of files and batches."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, ClassVar
from urllib.parse import urlsplit

from marshmallow import ValidationError, fields, validate, validates_schema

from dwctl.sources.tables import EntryStatus
from dwctl.web.schemas import ApiSchema, Clamped, ListOf, Name, Text, TrueOrFalse

_MOST_KEYS = 10_000
_LONGEST_KEY_BYTES = 1024
"""That of S3."""


def object_key(value: str) -> None:
    """A marshmallow check."""
    if not value or len(value.encode()) > _LONGEST_KEY_BYTES:
        raise ValidationError(f"Must have between 1 and {_LONGEST_KEY_BYTES} bytes.")


def prefix(value: str) -> None:
    """A marshmallow check."""
    if len(value.encode()) > _LONGEST_KEY_BYTES:
        raise ValidationError(f"Must have at most {_LONGEST_KEY_BYTES} bytes.")


def printable_ascii(value: str) -> None:
    """A marshmallow check: what a signed header can carry."""
    if not value or not value.isascii() or not value.isprintable():
        raise ValidationError("Must be printable ASCII, and not empty.")


def web_address(value: str) -> None:
    """A marshmallow check: an absolute http(s) URL without user, query and fragment. Whether it may be called is judged when it is."""
    try:
        parts = urlsplit(value)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or "@" in value or "?" in value or "#" in value or re.search(r"\s", value):
        raise ValidationError("Must be an http or https URL without user, query and fragment.")


class Timestamp(fields.Field[datetime]):
    """Unix seconds."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> int | None:
        return None if value is None else int(value.timestamp())


class S3Config(ApiSchema):
    """Where a bucket is, and what lets us in. Never shown again."""

    bucket = Name(required=True, validate=validate.Regexp(r"[A-Za-z0-9._-]{1,255}\Z"))
    region = Name(required=True, validate=validate.Regexp(r"[A-Za-z0-9-]{1,64}\Z"))
    access_key_id = Text(required=True, longest=256, validate=printable_ascii)
    secret_access_key = Text(required=True, longest=1024, validate=printable_ascii)
    prefix = Text(allow_none=True, longest=1024, validate=prefix)
    endpoint_url = Text(allow_none=True, longest=2048, validate=web_address)


class ConnectionCreate(ApiSchema):
    """A new connection."""

    example: ClassVar[dict[str, Any]] = {
        "provider": "s3",
        "name": "nightly",
        "config": {
            "bucket": "prompts",
            "region": "eu-central-1",
            "access_key_id": "AKIDEXAMPLE",
            "secret_access_key": "secret",
            "prefix": "jobs/",
        },
    }

    provider = Name(required=True, validate=validate.OneOf(["s3"]))
    name = Name(required=True, validate=validate.Length(1, 255))
    kind = Name(load_default="source", allow_none=True, validate=validate.OneOf(["source"]))
    config = fields.Nested(S3Config, required=True)


class ConnectionSchema(ApiSchema):
    """A connection; its configuration stays here."""

    example: ClassVar[dict[str, Any]] = {
        "id": "0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a47",
        "kind": "source",
        "provider": "s3",
        "name": "nightly",
        "created_at": 1780000000,
        "updated_at": 1780000000,
    }

    id = fields.UUID()
    kind = fields.String()
    provider = fields.String()
    name = fields.String()
    created_at = Timestamp()
    updated_at = Timestamp()


class ConnectionListSchema(ApiSchema):
    example: ClassVar[dict[str, Any]] = {"data": [ConnectionSchema.example]}

    data = fields.List(fields.Nested(ConnectionSchema))


class ConnectionQuery(ApiSchema):
    kind = Name()


class TestedSchema(ApiSchema):
    """Whether a source can be read, and why not."""

    example: ClassVar[dict[str, Any]] = {
        "ok": True,
        "provider": "s3",
        "message": "The bucket can be read.",
    }

    ok = fields.Boolean()
    provider = fields.String()
    message = fields.String()


class Limited(ApiSchema):
    """Base of a query string with a bounded `limit`."""

    limit = Clamped(1, 1000, load_default=100)


class FilesQuery(Limited):
    """`cursor`: the `next_cursor` of the page before."""

    cursor = Text(longest=_LONGEST_KEY_BYTES, validate=object_key)
    search = Text(longest=_LONGEST_KEY_BYTES)


class ExternalFileSchema(ApiSchema):
    key = fields.String()
    size_bytes = fields.Integer(attribute="size")
    last_modified = Timestamp()


class ExternalFilesSchema(ApiSchema):
    """A page of a source's files. With `search` a page may be short, or empty, and yet not the last."""

    example: ClassVar[dict[str, Any]] = {
        "data": [{"key": "jobs/one.jsonl", "size_bytes": 2048, "last_modified": 1780000000}],
        "has_more": False,
        "next_cursor": None,
    }

    data = fields.List(fields.Nested(ExternalFileSchema))
    has_more = fields.Boolean()
    next_cursor = fields.String(allow_none=True)


class SyncedKeysQuery(ApiSchema):
    limit = Clamped(1, 100_000, load_default=10_000)


class SyncedKeySchema(ApiSchema):
    example: ClassVar[dict[str, Any]] = {"key": "jobs/one.jsonl", "last_modified": 1780000000}

    key = fields.String(attribute="external_key")
    last_modified = Timestamp(attribute="external_last_modified")


class SyncCreate(ApiSchema):
    """What to synchronise: everything (`snapshot`), or objects by their keys (`select`)."""

    conditions: ClassVar[dict[str, Any]] = {
        "if": {"properties": {"strategy": {"const": "select"}}, "required": ["strategy"]},
        "then": {"required": ["file_keys"]},
    }

    example: ClassVar[dict[str, Any]] = {
        "strategy": "select",
        "file_keys": ["jobs/one.jsonl"],
        "force": False,
    }

    strategy = Name(load_default="snapshot", validate=validate.OneOf(["snapshot", "select"]))
    file_keys = ListOf(
        Text(longest=_LONGEST_KEY_BYTES, validate=object_key), most=_MOST_KEYS, allow_none=True
    )
    force = TrueOrFalse(load_default=False)
    endpoint = Name(allow_none=True)
    completion_window = Name(allow_none=True)

    @validates_schema
    def keys_go_with_select(self, data: dict[str, Any], **_kwargs: Any) -> None:
        """Keys are needed for `select`, and mean nothing otherwise."""
        if (data["strategy"] == "select") != bool(data.get("file_keys")):
            raise ValidationError("Needed with strategy select, and only there.", "file_keys")


class SyncSchema(ApiSchema):
    """A synchronisation. Its counters are of objects; `error` says why it failed as a whole."""

    example: ClassVar[dict[str, Any]] = {
        "id": "0199a8f2-0b7e-7c11-8f3d-6c1d2e3f4a5b",
        "connection_id": "0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a47",
        "status": "completed",
        "strategy": "snapshot",
        "force": False,
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "files_found": 2,
        "files_skipped": 0,
        "files_ingested": 2,
        "files_failed": 0,
        "batches_created": 2,
        "error": None,
        "created_at": 1780000000,
        "started_at": 1780000001,
        "completed_at": 1780000030,
    }

    id = fields.UUID()
    connection_id = fields.UUID()
    status = fields.String()
    strategy = fields.String()
    force = fields.Boolean()
    endpoint = fields.String()
    completion_window = fields.String()
    files_found = fields.Integer()
    files_skipped = fields.Integer()
    files_ingested = fields.Integer()
    files_failed = fields.Integer()
    batches_created = fields.Integer()
    error = fields.String(allow_none=True)
    created_at = Timestamp()
    started_at = Timestamp(allow_none=True)
    completed_at = Timestamp(allow_none=True)


class SyncListSchema(ApiSchema):
    example: ClassVar[dict[str, Any]] = {"data": [SyncSchema.example]}

    data = fields.List(fields.Nested(SyncSchema))


class EntriesQuery(Limited):
    """`cursor`: the `next_cursor` of the page before."""

    cursor = Text(longest=_LONGEST_KEY_BYTES, validate=object_key)
    status = Name(validate=validate.OneOf([status.value for status in EntryStatus]))


class LineErrorSchema(ApiSchema):
    line = fields.Integer()
    error = fields.String()


class EntrySchema(ApiSchema):
    """One object of a synchronisation: the file and the batch that it became, or why not."""

    id = fields.UUID()
    sync_id = fields.UUID()
    key = fields.String(attribute="external_key")
    size_bytes = fields.Integer(attribute="external_size_bytes", allow_none=True)
    last_modified = Timestamp(attribute="external_last_modified", allow_none=True)
    status = fields.String()
    file_id = fields.UUID(allow_none=True)
    batch_id = fields.UUID(allow_none=True)
    template_count = fields.Integer(allow_none=True)
    invalid_lines = fields.Integer()
    line_errors = fields.List(fields.Nested(LineErrorSchema), allow_none=True)
    error = fields.String(allow_none=True)
    created_at = Timestamp()
    updated_at = Timestamp()


class EntriesSchema(ApiSchema):
    """Objects of a synchronisation in the order of their keys."""

    example: ClassVar[dict[str, Any]] = {
        "data": [
            {
                "id": "0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a47",
                "sync_id": "0199a8f2-0b7e-7c11-8f3d-6c1d2e3f4a5b",
                "key": "jobs/one.jsonl",
                "size_bytes": 2048,
                "last_modified": 1780000000,
                "status": "activated",
                "file_id": "0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a47",
                "batch_id": "0199a8f2-0b7e-7c11-8f3d-6c1d2e3f4a5b",
                "template_count": 100,
                "invalid_lines": 0,
                "line_errors": None,
                "error": None,
                "created_at": 1780000000,
                "updated_at": 1780000020,
            }
        ],
        "has_more": False,
        "next_cursor": None,
    }

    data = fields.List(fields.Nested(EntrySchema))
    has_more = fields.Boolean()
    next_cursor = fields.String(allow_none=True)

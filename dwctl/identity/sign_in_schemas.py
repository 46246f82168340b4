"""What the routes of sign-in take in and give out, beside those of `schemas`."""

from __future__ import annotations

from typing import Any, ClassVar

from marshmallow import fields, validate

from dwctl.identity.schemas import Trimmed
from dwctl.web.pagination import PageQuery, PageSchema, envelope
from dwctl.web.schemas import ApiSchema, Instant, Name, Text, TrueOrFalse

_SESSION: dict[str, Any] = {
    "id": "0198f3c2-5f0e-7d3a-9c41-2b7f4e1d9a10",
    "created_at": "2026-01-31T10:20:30.123456Z",
    "last_used_at": "2026-01-31T11:02:00.000000Z",
    "expires_at": "2026-02-01T11:02:00.000000Z",
    "address": "192.0.2.17",
    "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "is_current": True,
}


class ResetRequest(ApiSchema):
    """Whose password is forgotten."""

    email = Trimmed(required=True)

    example: ClassVar[dict[str, Any]] = {"email": "alice@example.org"}


class ResetConfirmation(ApiSchema):
    """The token of the mail, and the new password."""

    token = Text(
        required=True, longest=200, metadata={"description": "The token of the mail's link."}
    )
    new_password = Text(required=True)

    example: ClassVar[dict[str, Any]] = {
        "token": "m3Yh1c0m9vZb2l2q8v3p0H2oVbTt6m5rXxkqf1cKq9A",
        "new_password": "a new and longer password",
    }


class SessionSchema(ApiSchema):
    """One signed-in browser."""

    id = fields.UUID()
    created_at = Instant()
    last_used_at = Instant(metadata={"description": "Exact to a minute."})
    expires_at = Instant(metadata={"description": "When it ends unless it is used before."})
    address = fields.String(metadata={"description": "From where it was begun."})
    user_agent = fields.String(metadata={"description": "What the browser called itself then."})
    is_current = fields.Boolean(metadata={"description": "Whether this request came with it."})

    example: ClassVar[dict[str, Any]] = _SESSION


class SessionPage(PageSchema):
    """A page of login sessions."""

    data = fields.List(fields.Nested(SessionSchema))

    example: ClassVar[dict[str, Any]] = envelope([_SESSION], 1, skip=0, limit=10)


class SessionsQuery(PageQuery):
    """Which sessions."""


class EndSessionsQuery(ApiSchema):
    """Which sessions to end."""

    others = TrueOrFalse(
        load_default=False,
        metadata={"description": "`true` spares the session that this request came with."},
    )


class CommandLineQuery(ApiSchema):
    """Where the command line listens, and for what it wants keys."""

    port = fields.Integer(
        required=True,
        validate=validate.Range(1024, 65535),
        metadata={"description": "On which port of 127.0.0.1 the command line waits."},
    )
    state = Name(
        required=True,
        longest=1024,
        metadata={"description": "Given back, so that it knows its own request."},
    )
    org = Name(
        load_default=None,
        metadata={
            "description": "Name of an organisation of yours: its keys in place of your own."
        },
    )
    code_challenge = Name(
        load_default=None,
        validate=validate.Regexp(
            r"[A-Za-z0-9_-]{43}$", error="Must be the unpadded base64url of a SHA-256."
        ),
        metadata={
            "description": "S256 of a secret of the command line's (RFC 7636). Asks the person first, and gives a code in place of keys."
        },
    )


class CodeExchange(ApiSchema):
    """A code, and the secret whose S256 was its challenge."""

    code = Name(required=True)
    code_verifier = Name(
        required=True,
        validate=validate.Regexp(
            r"[A-Za-z0-9._~-]{43,128}$", error="Must be 43 to 128 of A-Z a-z 0-9 - . _ ~"
        ),
    )

    example: ClassVar[dict[str, Any]] = {
        "code": "eT0c2mJ5sQhQv1o3l7rYx9o2b4n6k8w0AaBbCcDdEeF",
        "code_verifier": "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
    }


class CommandLineKeys(ApiSchema):
    """What the command line needs. `org_name` and `org_id` are there for an organisation's keys only."""

    inference_key = fields.String(metadata={"description": "For inference and batches."})
    inference_key_id = fields.UUID()
    platform_key = fields.String(metadata={"description": "For the admin API."})
    platform_key_id = fields.UUID()
    user_id = fields.UUID(metadata={"description": "The account whose keys they are."})
    email = fields.String()
    display_name = fields.String()
    account_name = fields.String()
    account_type = fields.String(metadata={"description": "personal or organization"})
    org_name = fields.String()
    org_id = fields.UUID()

    example: ClassVar[dict[str, Any]] = {
        "inference_key": "sk-...",
        "inference_key_id": "0198f3c2-5f0e-7d3a-9c41-2b7f4e1d9a11",
        "platform_key": "sk-...",
        "platform_key_id": "0198f3c2-5f0e-7d3a-9c41-2b7f4e1d9a12",
        "user_id": "0198f3c2-5f0e-7d3a-9c41-2b7f4e1d9a13",
        "email": "alice@example.org",
        "display_name": "Alice",
        "account_name": "alice",
        "account_type": "personal",
    }

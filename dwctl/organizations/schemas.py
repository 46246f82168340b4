"""What the routes of this room take in and give out."""

from __future__ import annotations

from typing import Any, ClassVar

from marshmallow import fields, post_dump

from dwctl.identity.schemas import (
    Trimmed,
    UserSchema,
    is_email,
    is_not_of_the_deleted,
    share,
    zero_retention,
)
from dwctl.organizations.members import ROLES
from dwctl.web.pagination import PageQuery, PageSchema, envelope
from dwctl.web.schemas import ApiSchema, Clamped, Instant, Name, Number, TrueOrFalse

MOST_MEMBERS = 1000
"""What one answer lists of an organisation's members."""

_ID = "5c1d6f1e-5d7a-4f0c-9a37-0d4e6c2b8f11"
_PERSON = "8a2b7c3d-1f4e-4c5b-8d6a-2e9f0b1c3d4e"
_AT = "2026-01-31T10:20:30.123456Z"
_ROLES = ", ".join(ROLES)

_ACCOUNT: dict[str, Any] = {
    "avatar_url": None,
    "is_admin": False,
    "roles": ["StandardUser"],
    "created_at": _AT,
    "updated_at": _AT,
    "last_login": None,
    "external_user_id": None,
    "has_payment_provider_id": False,
    "batch_notifications_enabled": False,
    "low_balance_threshold": None,
    "auto_topup_amount": None,
    "auto_topup_threshold": None,
    "has_auto_topup_payment_method": False,
    "auto_topup_monthly_limit": None,
    "zero_data_retention": False,
    "log_sample": None,
}
_ORGANIZATION = {
    **_ACCOUNT,
    "id": _ID,
    "username": "acme.example",
    "email": "office@acme.example",
    "display_name": "Acme",
    "auth_source": "organization",
    "user_type": "organization",
    "member_count": 2,
}
_MEMBER: dict[str, Any] = {
    "id": "0b8e1a52-6c0f-4a8e-9d59-7f3f3f0a1b2c",
    "user": {
        **_ACCOUNT,
        "id": _PERSON,
        "username": "bob",
        "email": "bob@acme.example",
        "display_name": "Bob",
        "auth_source": "native",
        "user_type": "individual",
    },
    "role": "member",
    "status": "active",
    "created_at": _AT,
}


class OrganizationSchema(UserSchema):
    """An organisation: an account, and how many it has as members or invited. `credit_balance` is there where one organisation is read by who may know it."""

    example: ClassVar[dict[str, Any]] = _ORGANIZATION

    member_count = fields.Integer(
        metadata={"description": "Members, and invitations that can still be accepted."}
    )


class OrganizationPage(PageSchema):
    """A page of organisations."""

    example: ClassVar[dict[str, Any]] = envelope([_ORGANIZATION], 1, skip=0, limit=10)

    data = fields.List(fields.Nested(OrganizationSchema))


class OrganizationCreate(ApiSchema):
    """An organisation to be made."""

    example: ClassVar[dict[str, Any]] = {
        "name": "acme.example",
        "email": "office@acme.example",
        "display_name": "Acme",
    }

    name = Trimmed(
        required=True,
        validate=is_not_of_the_deleted,
        metadata={"description": "Unique among all accounts; by custom the domain of its e-mail."},
    )
    email = Trimmed(
        required=True,
        validate=[is_email, is_not_of_the_deleted],
        metadata={"description": "Whom to write to about it."},
    )
    display_name = Name(load_default=None, allow_none=True)
    owner_id = fields.UUID(
        load_default=None,
        allow_none=True,
        metadata={
            "description": "Who shall own it; the caller by default. Somebody else takes the permission to create all organizations."
        },
    )


class OrganizationUpdate(ApiSchema):
    """Changes of an organisation. Null clears the display name, the threshold and `log_sample`; elsewhere null means unchanged."""

    example: ClassVar[dict[str, Any]] = {"display_name": "Acme Ltd", "low_balance_threshold": 25.0}

    display_name = Name(allow_none=True)
    email = Trimmed(allow_none=True, validate=[is_email, is_not_of_the_deleted])
    batch_notifications_enabled = TrueOrFalse(allow_none=True)
    low_balance_threshold = Number(
        allow_none=True,
        metadata={"description": "USD. Below it the organization is told that credit runs out."},
    )
    zero_data_retention = zero_retention(allow_none=True)
    log_sample = share()


class OrganizationsQuery(PageQuery):
    """Which organisations. One's own all come at once where `limit` is not given."""

    limit = Clamped(1, 101, load_default=None)
    search = Name(load_default=None)


class MembersQuery(PageQuery):
    """Which of the members; all of them (up to 1000) by default."""

    limit = Clamped(1, MOST_MEMBERS, load_default=MOST_MEMBERS)


class MemberSchema(ApiSchema):
    """A member, or somebody who is invited. `user` is left out where nobody has that address, or one may not know; the last two are there for invitations."""

    example: ClassVar[dict[str, Any]] = _MEMBER

    id = fields.UUID(metadata={"description": "Of the membership or the invitation."})
    user = fields.Nested(UserSchema)
    role = fields.String(metadata={"description": _ROLES})
    status = fields.String(metadata={"description": "active, or pending for an invitation"})
    created_at = Instant()
    invite_email = fields.String()
    expires_at = Instant(metadata={"description": "Until when the invitation can be accepted."})

    @post_dump
    def leave_out(self, data: dict[str, Any], **_kwargs: Any) -> dict[str, Any]:
        """Members without a value, which clients know as absent."""
        return {name: value for name, value in data.items() if value is not None}


class MemberCreate(ApiSchema):
    """A member to be added."""

    example: ClassVar[dict[str, Any]] = {"user_id": _PERSON, "role": "member"}

    user_id = fields.UUID(required=True)
    role = Name(load_default="member", metadata={"description": _ROLES})


class MemberUpdate(ApiSchema):
    """Another role."""

    example: ClassVar[dict[str, Any]] = {"role": "admin"}

    role = Name(required=True, metadata={"description": _ROLES})


class OwnOrganization(ApiSchema):
    """An organisation of a user, and their role in it."""

    example: ClassVar[dict[str, Any]] = {
        "id": _ID,
        "name": "acme.example",
        "display_name": "Acme",
        "role": "owner",
    }

    id = fields.UUID()
    name = fields.String(metadata={"description": "Its unique name."})
    display_name = fields.String(allow_none=True)
    role = fields.String(metadata={"description": _ROLES})


class InviteCreate(ApiSchema):
    """Somebody to be invited."""

    example: ClassVar[dict[str, Any]] = {"email": "carol@example.org", "role": "member"}

    email = Trimmed(required=True)
    role = Name(load_default="member", metadata={"description": _ROLES})


class InviteSchema(ApiSchema):
    """An invitation, for who manages the organisation."""

    example: ClassVar[dict[str, Any]] = {
        "id": "3f9d2c1b-7e6a-4b5c-8d4e-1a2b3c4d5e6f",
        "email": "carol@example.org",
        "role": "member",
        "status": "pending",
        "created_at": _AT,
        "expires_at": "2026-02-07T10:20:30.123456Z",
    }

    id = fields.UUID()
    email = fields.String(attribute="invite_email")
    role = fields.String(metadata={"description": _ROLES})
    status = fields.String(metadata={"description": "pending"})
    created_at = Instant()
    expires_at = Instant()


class InviteDetails(ApiSchema):
    """An invitation, for who has its link."""

    example: ClassVar[dict[str, Any]] = {
        "org_name": "Acme",
        "role": "member",
        "inviter_name": "Alice",
        "expires_at": "2026-02-07T10:20:30.123456Z",
        "organization_id": _ID,
        "for_you": True,
    }

    org_name = fields.String()
    role = fields.String(metadata={"description": _ROLES})
    inviter_name = fields.String()
    expires_at = Instant()
    organization_id = fields.UUID()
    for_you = fields.Boolean(
        metadata={"description": "Whether it was sent to the caller's address: only then they can answer it."}
    )  # fmt: skip


class InviteAnswer(ApiSchema):
    """What has become of an invitation."""

    example: ClassVar[dict[str, Any]] = {"message": "Invite accepted"}

    message = fields.String()

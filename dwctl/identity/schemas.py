"""What the routes of this room take in and give out."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from marshmallow import ValidationError, fields, validate

from dwctl.billing import caps
from dwctl.identity.api_keys import DAY_S, MOST_OVERLAP_S, PURPOSES, STATES
from dwctl.roles import ROLES
from dwctl.web.pagination import PageQuery, PageSchema, envelope
from dwctl.web.schemas import (
    ApiSchema,
    Instant,
    ListOf,
    Money,
    Name,
    Number,
    Text,
    TrueOrFalse,
    Whole,
    Words,
)

_not_blank = validate.Regexp(r".*\S", error="Must not be blank.")
_URL_LENGTH = 2048
is_email = validate.Regexp(r"[^@\s]+@[^@\s]+$", error="Not a valid email address.")
_MOST_TOKENS = 2**53
_SPEND_LIMIT = {"description": "USD: more than 0, with up to 15 decimals."}
_positive = validate.Range(min=0, min_inclusive=False, error="Must be greater than 0.")

_USER: dict[str, Any] = {
    "id": "0b8f5a52-6c0e-4c7f-8f8e-2f4f6a1d9c33",
    "username": "ada",
    "email": "ada@example.org",
    "display_name": "Ada Lovelace",
    "avatar_url": None,
    "is_admin": False,
    "roles": ["StandardUser", "BatchAPIUser"],
    "created_at": "2026-01-31T10:20:30.123456Z",
    "updated_at": "2026-01-31T10:20:30.123456Z",
    "last_login": "2026-02-01T08:00:00.000000Z",
    "auth_source": "proxy-header",
    "external_user_id": None,
    "has_payment_provider_id": False,
    "batch_notifications_enabled": False,
    "low_balance_threshold": None,
    "auto_topup_amount": None,
    "auto_topup_threshold": None,
    "has_auto_topup_payment_method": False,
    "auto_topup_monthly_limit": None,
    "user_type": "individual",
    "zero_data_retention": False,
    "log_sample": None,
}
_GROUP: dict[str, Any] = {
    "id": "7f0e9c7a-93a8-4b62-8f0c-6d1d4c9b2a11",
    "name": "research",
    "description": "May use the large models",
    "created_by": "0b8f5a52-6c0e-4c7f-8f8e-2f4f6a1d9c33",
    "created_at": "2026-01-31T10:20:30.123456Z",
    "updated_at": "2026-01-31T10:20:30.123456Z",
    "source": "native",
}
_API_KEY: dict[str, Any] = {
    "id": "6a1f5c0e-3a52-4a0c-9d1c-0d6f5f1c2b7e",
    "name": "nightly evaluation",
    "description": None,
    "key_prefix": "sk-4fTzc9Q",
    "purpose": "realtime",
    "user_id": "0b8f5a52-6c0e-4c7f-8f8e-2f4f6a1d9c33",
    "created_by": "0b8f5a52-6c0e-4c7f-8f8e-2f4f6a1d9c33",
    "created_at": "2026-01-31T10:20:30.123456Z",
    "last_used": None,
    "model_access": ["d2719f6e-7e64-4f0b-9d5a-1f1a8b7b1f10"],
    "requests_per_second": 2.5,
    "burst_size": None,
    "capacity": None,
    "tokens_per_minute": None,
    "expires_at": "2027-06-30T00:00:00Z",
    "spend_limit": "50.000000000000000",
    "spend_limit_interval": "monthly",
    "spend": "12.340000000000000",
    "spend_resets_at": "2026-02-01T00:00:00Z",
    "zero_data_retention": False,
    "log_sample": None,
    "retired_secrets": [],
}


_DELETED = re.compile("deleted-[0-9a-f]{8}-", re.IGNORECASE)


def is_not_of_the_deleted(name: str) -> None:
    """An account becomes `deleted-<its id>` when it is deleted: whoever had that name could keep it from being deleted."""
    if _DELETED.match(name):
        raise ValidationError("Must not be the name of a deleted account.")


class SharedIds(fields.List[Any]):
    """Ids that all rows of a page have in common: where they are texts already, they are written as they stand."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(fields.UUID(), **kwargs)

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> Any:
        if value and type(value[0]) is str:
            return value
        return super()._serialize(value, attr, obj, **kwargs)


class Trimmed(Name):
    """A name without the white space around it."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        return super()._deserialize(value, attr, data, **kwargs).strip()


def _username() -> fields.Field[str]:
    return Trimmed(required=True, validate=[_not_blank, is_not_of_the_deleted])


def _email() -> fields.Field[str]:
    return Trimmed(required=True, validate=[is_email, is_not_of_the_deleted])


def _optional_text() -> fields.Field[str]:
    return Text(load_default=None, allow_none=True)


def share(**options: Any) -> fields.Field[float]:
    """Which part of some calls: between 0 and 1."""
    about = {"description": "The share of its calls whose bodies the request log shows; null: as `request_logging.sample` says."}  # fmt: skip
    return Number(allow_none=True, validate=validate.Range(0, 1), metadata=about, **options)


def zero_retention(**options: Any) -> fields.Field[bool]:
    """Whether nothing is kept of what calls say."""
    about = {"description": "Nothing that its calls say is kept beyond their run: see Request log."}
    return TrueOrFalse(metadata=about, **options)


def _optional_name(**options: Any) -> fields.Field[str]:
    return Name(load_default=None, allow_none=True, **options)


def _role_list(**options: Any) -> fields.Field[Any]:
    role = fields.String(validate=validate.OneOf(ROLES))
    return ListOf(role, most=100, **options)


class GroupSchema(ApiSchema):
    """A group. `created_by` is left out where it is masked, `users` and `models` where not asked for or empty."""

    example: ClassVar[dict[str, Any]] = _GROUP
    absent_where_null = frozenset({"created_by", "users", "models"})

    id = fields.UUID()
    name = fields.String()
    description = fields.String(allow_none=True)
    created_by = fields.UUID()
    created_at = Instant()
    updated_at = Instant()
    users = fields.List(fields.Nested(lambda: UserSchema()))
    models = fields.List(fields.Dict())
    source = fields.String()


class MembershipSchema(ApiSchema):
    """An organisation and one's role in it."""

    example: ClassVar[dict[str, Any]] = {
        "id": "3b1f8a1e-52a3-4c50-a8c4-0a1de1c5a7d2",
        "name": "acme.example",
        "role": "member",
    }

    id = fields.UUID(attribute="organization_id")
    name = fields.String()
    role = fields.String()


class UserSchema(ApiSchema):
    """An account. The members from `groups` on are there only when asked for."""

    example: ClassVar[dict[str, Any]] = _USER

    id = fields.UUID()
    username = fields.String()
    email = fields.String()
    display_name = fields.String(allow_none=True)
    avatar_url = fields.String(allow_none=True)
    is_admin = fields.Boolean()
    roles = fields.List(fields.String(), attribute="role_names")
    created_at = Instant()
    updated_at = Instant()
    last_login = Instant(allow_none=True)
    auth_source = fields.String()
    external_user_id = fields.String(allow_none=True)
    has_payment_provider_id = fields.Boolean()
    batch_notifications_enabled = fields.Boolean()
    low_balance_threshold = fields.Float(allow_none=True)
    auto_topup_amount = fields.Float(allow_none=True)
    auto_topup_threshold = fields.Float(allow_none=True)
    has_auto_topup_payment_method = fields.Boolean(
        attribute="has_payment_provider_id", dump_only=True
    )
    auto_topup_monthly_limit = fields.Float(allow_none=True)
    user_type = fields.String()
    zero_data_retention = fields.Boolean(allow_none=True)
    log_sample = fields.Float(allow_none=True)
    groups = fields.List(fields.Nested(GroupSchema))
    credit_balance = fields.Float()
    credit_balance_exact = Money(metadata={"description": "The same, to its last digit."})
    organizations = fields.List(fields.Nested(MembershipSchema))
    active_organization_id = fields.UUID()
    onboarding_redirect_url = fields.String()


class UserPage(PageSchema):
    """A page of users."""

    example: ClassVar[dict[str, Any]] = envelope([_USER], 1, skip=0, limit=10)

    data = fields.List(fields.Nested(UserSchema))


class UserCreate(ApiSchema):
    """A person to be made by an administrator."""

    example: ClassVar[dict[str, Any]] = {
        "username": "ada",
        "email": "ada@example.org",
        "roles": ["StandardUser", "BatchAPIUser"],
        "display_name": "Ada Lovelace",
    }

    username = _username()
    email = _email()
    roles = _role_list(required=True)
    display_name = _optional_name()
    avatar_url = _optional_name(longest=_URL_LENGTH)


class UserUpdate(ApiSchema):
    """Changes of an account. The four limits and `log_sample` are cleared by null; elsewhere null means unchanged."""

    example: ClassVar[dict[str, Any]] = {"display_name": "Ada Lovelace", "low_balance_threshold": 5}

    display_name = Name(allow_none=True)
    avatar_url = Name(allow_none=True, longest=_URL_LENGTH)
    batch_notifications_enabled = TrueOrFalse(allow_none=True)
    roles = _role_list(allow_none=True)
    low_balance_threshold = Number(allow_none=True)
    auto_topup_amount = Number(allow_none=True)
    auto_topup_threshold = Number(allow_none=True)
    auto_topup_monthly_limit = Number(allow_none=True)
    zero_data_retention = zero_retention(allow_none=True)
    log_sample = share()


class UsersQuery(PageQuery):
    """Which users, and what to show with each."""

    search = Name(load_default=None)
    include = Words(load_default=None)


class GroupMembersQuery(PageQuery):
    """Which members of a group."""

    search = Name(load_default=None, metadata={"description": "Part of a name or an e-mail."})


class IncludeQuery(ApiSchema):
    """What to show with it."""

    include = Words(load_default=None)


class GroupPage(PageSchema):
    """A page of groups."""

    example: ClassVar[dict[str, Any]] = envelope([_GROUP], 1, skip=0, limit=10)

    data = fields.List(fields.Nested(GroupSchema))


class GroupCreate(ApiSchema):
    """A group to be made."""

    example: ClassVar[dict[str, Any]] = {
        "name": "research",
        "description": "May use the large models",
    }

    name = Trimmed(required=True, validate=_not_blank)
    description = _optional_text()


class GroupUpdate(ApiSchema):
    """Changes of a group; null means unchanged."""

    example: ClassVar[dict[str, Any]] = {"description": "May use all models"}

    name = Trimmed(load_default=None, allow_none=True, validate=_not_blank)
    description = _optional_text()


class RetiredSecretSchema(ApiSchema):
    """An earlier secret of a key that was rotated, and until when it works."""

    key_prefix = fields.String(attribute="secret_prefix")
    expires_at = Instant()


class ApiKeySchema(ApiSchema):
    """A key without its secret."""

    example: ClassVar[dict[str, Any]] = _API_KEY

    id = fields.UUID()
    name = fields.String()
    description = fields.String(allow_none=True)
    key_prefix = fields.String(
        attribute="secret_prefix", metadata={"description": "The first letters of the secret."}
    )
    purpose = fields.String(
        metadata={"description": "`realtime` for inference, `platform` for the admin API."}
    )
    user_id = fields.UUID()
    created_by = fields.UUID()
    created_at = Instant()
    last_used = Instant(allow_none=True)
    model_access = SharedIds()
    requests_per_second = fields.Float(allow_none=True)
    burst_size = fields.Integer(allow_none=True)
    capacity = fields.Integer(
        allow_none=True, metadata={"description": "How many calls run at once."}
    )
    tokens_per_minute = fields.Integer(allow_none=True)
    expires_at = Instant(
        allow_none=True,
        metadata={"description": "From when on the key is refused (401 `api_key_expired`)."},
    )
    spend_limit = Money(
        allow_none=True,
        metadata={
            "description": "What the key may spend, in USD; null: as much as the account has."
        },
    )
    spend_limit_interval = fields.String(
        allow_none=True,
        metadata={
            "description": "When that begins anew, in UTC: `daily`, `weekly` (on Mondays), `monthly`; null: never."
        },
    )
    spend = Money(
        allow_none=True,
        metadata={"description": "What the key has spent since then; null without a limit."},
    )
    spend_resets_at = Instant(allow_none=True)
    zero_data_retention = fields.Boolean()
    log_sample = fields.Float(allow_none=True)
    retired_secrets = fields.List(
        fields.Nested(RetiredSecretSchema),
        attribute="living_retired_secrets",
        metadata={"description": "Earlier secrets that still work, the newest first."},
    )


class ApiKeyWithSecret(ApiKeySchema):
    """A key with its new secret, which is shown this once."""

    example: ClassVar[dict[str, Any]] = {
        **_API_KEY,
        "key": "sk-4fTzc9Qm0gDYq3mP1Yl8wUu0vUe5rJ2nKx7bHsLaE6o",
    }

    key = fields.String(metadata={"description": "The secret. Nobody can show it again."})


class ApiKeysQuery(PageQuery):
    """Which of an account's keys."""

    search = Name(
        load_default=None,
        metadata={"description": "Part of the name, the description or the prefix."},
    )
    purpose = fields.String(load_default=None, validate=validate.OneOf(PURPOSES))
    created_by = fields.UUID(
        load_default=None, metadata={"description": "Keys of this person only."}
    )


class AccountNameSchema(ApiSchema):
    """An account by its names."""

    example: ClassVar[dict[str, Any]] = {
        name: _USER[name] for name in ("id", "username", "display_name", "email", "user_type")
    }

    id = fields.UUID()
    username = fields.String()
    display_name = fields.String(allow_none=True)
    email = fields.String()
    user_type = fields.String(metadata={"description": "`individual` or `organization`."})


class FoundApiKey(ApiKeySchema):
    """A key with whose it is, and who made it. Which models it may call, `/users/{user_id}/models` says."""

    class Meta(ApiKeySchema.Meta):
        exclude = ("model_access",)

    example: ClassVar[dict[str, Any]] = {
        **{name: value for name, value in _API_KEY.items() if name != "model_access"},
        "owner": AccountNameSchema.example,
        "creator": AccountNameSchema.example,
    }

    owner = fields.Nested(AccountNameSchema)
    creator = fields.Nested(AccountNameSchema)


class FoundApiKeysQuery(ApiKeysQuery):
    """Which keys of all that one may see."""

    user_id = fields.UUID(load_default=None, metadata={"description": "Keys of this account only."})
    state = fields.String(
        load_default=None,
        validate=validate.OneOf(STATES),
        metadata={"description": "`expired` for those whose end is over."},
    )


class FoundApiKeyPage(PageSchema):
    """A page of keys of several accounts."""

    example: ClassVar[dict[str, Any]] = envelope([FoundApiKey.example], 1, skip=0, limit=10)

    data = fields.List(fields.Nested(FoundApiKey))


class ApiKeyPage(PageSchema):
    """A page of keys."""

    example: ClassVar[dict[str, Any]] = envelope([_API_KEY], 1, skip=0, limit=10)

    data = fields.List(fields.Nested(ApiKeySchema))


class ApiKeyCreate(ApiSchema):
    """A key to be made. `member_id` says for whom in an organisation."""

    example: ClassVar[dict[str, Any]] = {
        "name": "nightly evaluation",
        "purpose": "realtime",
        "requests_per_second": 2.5,
        "expires_at": "2027-06-30T00:00:00Z",
    }

    name = Name(required=True)
    description = _optional_text()
    purpose = fields.String(load_default="realtime", validate=validate.OneOf(PURPOSES))
    requests_per_second = Number(load_default=None, allow_none=True, validate=_positive)
    burst_size = Whole(least=1, load_default=None, allow_none=True)
    capacity = Whole(least=1, load_default=None, allow_none=True)
    tokens_per_minute = Whole(least=1, most=_MOST_TOKENS, load_default=None, allow_none=True)
    expires_at = Instant(load_default=None, allow_none=True)
    spend_limit = Money(load_default=None, allow_none=True, metadata=_SPEND_LIMIT)
    spend_limit_interval = fields.String(
        load_default=None, allow_none=True, validate=validate.OneOf(caps.INTERVALS)
    )
    zero_data_retention = zero_retention(load_default=False)
    log_sample = share(load_default=None)
    member_id = fields.UUID(load_default=None, allow_none=True)


class ApiKeyRotation(ApiSchema):
    """How a key gets another secret."""

    may_be_absent = True
    example: ClassVar[dict[str, Any]] = {"overlap_seconds": 3600}

    overlap_seconds = Whole(
        least=0,
        most=MOST_OVERLAP_S,
        load_default=DAY_S,
        metadata={"description": "For how long earlier secrets go on working; 0 ends them now."},
    )


class ApiKeyUpdate(ApiSchema):
    """Changes of a key. Null clears the description, the limits, `log_sample` and the end, and leaves the others."""

    example: ClassVar[dict[str, Any]] = {"description": "CI only", "burst_size": 10}

    name = Name(allow_none=True)
    description = Text(allow_none=True)
    requests_per_second = Number(allow_none=True, validate=_positive)
    burst_size = Whole(least=1, allow_none=True)
    capacity = Whole(least=1, allow_none=True)
    tokens_per_minute = Whole(least=1, most=_MOST_TOKENS, allow_none=True)
    expires_at = Instant(allow_none=True)
    spend_limit = Money(allow_none=True, metadata=_SPEND_LIMIT)
    spend_limit_interval = fields.String(allow_none=True, validate=validate.OneOf(caps.INTERVALS))
    zero_data_retention = zero_retention(allow_none=True)
    log_sample = share()


class Registration(ApiSchema):
    """A person who registers."""

    example: ClassVar[dict[str, Any]] = {
        "username": "ada",
        "email": "ada@example.org",
        "password": "a-good-password",
    }

    username = _username()
    email = _email()
    password = Text(required=True)
    display_name = _optional_name()


class Credentials(ApiSchema):
    """A person who signs in."""

    example: ClassVar[dict[str, Any]] = {"email": "ada@example.org", "password": "a-good-password"}

    email = Trimmed(required=True)
    password = Text(required=True)


class PasswordChange(ApiSchema):
    """The password as it is, and as it shall be."""

    example: ClassVar[dict[str, Any]] = {
        "current_password": "a-good-password",
        "new_password": "a-better-password",
    }

    current_password = Text(required=True)
    new_password = Text(required=True)


class Availability(ApiSchema):
    """Whether a way in is open."""

    example: ClassVar[dict[str, Any]] = {"enabled": True, "message": "Native login is enabled"}

    enabled = fields.Boolean()
    message = fields.String()


class Message(ApiSchema):
    """A sentence."""

    example: ClassVar[dict[str, Any]] = {"message": "Password changed successfully"}

    message = fields.String()


class SignedIn(ApiSchema):
    """The person who has come in."""

    example: ClassVar[dict[str, Any]] = {"user": _USER, "message": "Login successful"}

    user = fields.Nested(UserSchema)
    message = fields.String()


class ActiveOrganization(ApiSchema):
    """In whose name to act; null for one's own."""

    example: ClassVar[dict[str, Any]] = {"organization_id": "0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a47"}

    organization_id = fields.UUID(load_default=None, allow_none=True, load_only=True)
    active_organization_id = fields.UUID(dump_only=True, allow_none=True)


class SupportRequest(ApiSchema):
    """What somebody needs help with."""

    example: ClassVar[dict[str, Any]] = {
        "subject": "A batch does not end",
        "message": "batch_6a1f5c0e has been at 99 % since this morning.",
    }

    subject = Name(required=True)
    message = Text(required=True, longest=20_000)


class SupportSent(ApiSchema):
    """That a request for help is on its way."""

    example: ClassVar[dict[str, Any]] = {"sent": True}

    sent = fields.Boolean()


class AsyncRequestsSchema(ApiSchema):
    """Single requests that wait for a worker."""

    enabled = fields.Boolean()
    completion_window = fields.String()


class BatchesSchema(ApiSchema):
    """What batches may be."""

    enabled = fields.Boolean()
    allowed_completion_windows = fields.List(fields.String())
    allowed_url_paths = fields.List(fields.String())
    async_requests = fields.Nested(AsyncRequestsSchema)


class OnwardsSchema(ApiSchema):
    """How strict the gateway is."""

    strict_mode = fields.Boolean()


class ConfigSchema(ApiSchema):
    """The settings that a dashboard needs. `batches` and `ai_api_base_url` are left out where there are none."""

    example: ClassVar[dict[str, Any]] = {
        "region": "eu-1",
        "organization": None,
        "payment_enabled": False,
        "docs_url": "/ai/docs",
        "docs_jsonl_url": "/ai/docs",
        "batches": {
            "enabled": True,
            "allowed_completion_windows": ["24h", "1h"],
            "allowed_url_paths": ["/v1/chat/completions"],
            "async_requests": {"enabled": True, "completion_window": "1h"},
        },
        "onwards": {"strict_mode": False},
    }

    region = fields.String(allow_none=True)
    organization = fields.String(allow_none=True)
    payment_enabled = fields.Boolean()
    docs_url = fields.String()
    docs_jsonl_url = fields.String()
    batches = fields.Nested(BatchesSchema)
    onwards = fields.Nested(OnwardsSchema)
    ai_api_base_url = fields.String()

"""Mapped classes of people and what lets them in."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Enum,
    ForeignKey,
    Index,
    LargeBinary,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, query_expression, relationship

from dwctl.db import Base, CreatedAt, Id
from dwctl.roles import ROLES

NIL = UUID(int=0)
"""The system user, and the Everyone group."""

_SHARE = "log_sample BETWEEN 0 AND 1"
_KEEPING = text("zero_data_retention OR log_sample IS NOT NULL")
_READABLE = "expires_at > '2000-01-01Z' AND expires_at < '10000-01-01Z'"


class RoleName(StrEnum):
    """Roles as stored; the wire shows them in PascalCase (`access.permissions`)."""

    PLATFORMMANAGER = "PLATFORMMANAGER"
    STANDARDUSER = "STANDARDUSER"
    REQUESTVIEWER = "REQUESTVIEWER"
    BILLINGMANAGER = "BILLINGMANAGER"
    BATCHAPIUSER = "BATCHAPIUSER"
    CONNECTIONSUSER = "CONNECTIONSUSER"


_WIRE_NAMES = {RoleName(name.upper()): name for name in ROLES}


def role_name(role: RoleName) -> str:
    """The role as the wire shows it."""
    return _WIRE_NAMES[role]


class User(Base):
    """A person, or an organisation (`user_type`)."""

    __tablename__ = "users"

    id: Mapped[Id]
    username: Mapped[str] = mapped_column(Text)
    email: Mapped[str] = mapped_column(Text)
    display_name: Mapped[str | None] = mapped_column(Text)
    avatar_url: Mapped[str | None] = mapped_column(Text)
    auth_source: Mapped[str] = mapped_column(Text, server_default="vouch")
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt]
    last_login: Mapped[datetime | None]
    is_admin: Mapped[bool] = mapped_column(server_default="false")
    password_hash: Mapped[str | None] = mapped_column(Text)
    external_user_id: Mapped[str | None] = mapped_column(Text)
    payment_provider_id: Mapped[str | None] = mapped_column(Text)
    is_deleted: Mapped[bool] = mapped_column(server_default="false")
    is_internal: Mapped[bool] = mapped_column(server_default="false")
    batch_notifications_enabled: Mapped[bool] = mapped_column(server_default="false")
    first_batch_email_sent: Mapped[bool] = mapped_column(server_default="false")
    low_balance_notification_sent: Mapped[bool] = mapped_column(server_default="false")
    low_balance_threshold: Mapped[float | None]
    user_type: Mapped[str] = mapped_column(Text, server_default="individual")
    auto_topup_amount: Mapped[float | None]
    auto_topup_threshold: Mapped[float | None]
    auto_topup_monthly_limit: Mapped[float | None]
    auto_topup_limit_notification_sent: Mapped[bool] = mapped_column(server_default="false")
    zero_data_retention: Mapped[bool] = mapped_column(server_default="false")
    log_sample: Mapped[float | None]

    @property
    def role_names(self) -> list[str]:
        """The roles as the wire shows them, in the order in which they were given."""
        return [role_name(row.role) for row in self.roles]

    @property
    def has_payment_provider_id(self) -> bool:
        """Whether a payment provider knows this account."""
        return self.payment_provider_id is not None

    memberships: Mapped[list[tuple[str, str, str]] | None] = query_expression()
    """What a query with `organizations.BROUGHT` has brought."""

    roles: Mapped[list[UserRole]] = relationship(
        order_by="UserRole.position, UserRole.role", cascade="all, delete-orphan", lazy="selectin"
    )

    __table_args__ = (
        CheckConstraint("user_type IN ('individual', 'organization')", name="user_type"),
        CheckConstraint(_SHARE, name="log_sample"),
        Index("users_username_unique", "username", unique=True),
        Index(
            "users_email_unique",
            "email",
            "auth_source",
            "external_user_id",
            unique=True,
            postgresql_nulls_not_distinct=True,
            postgresql_where=text("user_type = 'individual'"),
        ),
        Index(
            "users_external_user_id_unique",
            "external_user_id",
            unique=True,
            postgresql_where=text("external_user_id IS NOT NULL"),
        ),
        Index("users_email_lower_idx", text("lower(email)")),
        Index("users_username_lower_idx", text("lower(username)")),
        Index("users_created_at_id_idx", text("created_at DESC"), text("id DESC")),
        Index("users_keeping_idx", "id", postgresql_where=_KEEPING),
    )


class UserRole(Base):
    """One role of one user; `position` keeps the order in which roles were given."""

    __tablename__ = "user_roles"

    id: Mapped[Id]
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    role: Mapped[RoleName] = mapped_column(Enum(RoleName, name="user_role"))
    position: Mapped[int] = mapped_column(server_default="0")

    __table_args__ = (UniqueConstraint("user_id", "role"),)


class Group(Base):
    """A set of users to which models are granted."""

    __tablename__ = "groups"

    id: Mapped[Id]
    name: Mapped[str] = mapped_column(Text, unique=True)
    description: Mapped[str | None] = mapped_column(Text)
    created_by: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt]
    source: Mapped[str] = mapped_column(Text, server_default="native")


class GroupMembership(Base):
    """A user in a group; the Everyone group has no rows here."""

    __tablename__ = "user_groups"

    id: Mapped[Id]
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    group_id: Mapped[UUID] = mapped_column(ForeignKey("groups.id", ondelete="CASCADE"))
    joined_at: Mapped[CreatedAt]

    __table_args__ = (
        UniqueConstraint("user_id", "group_id"),
        Index("user_groups_group_id_idx", "group_id"),
    )


class OrganizationMembership(Base):
    """A user in an organisation, or an invitation to one (`status` pending; `user_id` null, as whoever has the address may accept it).

    A trigger refuses members that are no persons, and organisations that are none.
    """

    __tablename__ = "user_organizations"

    id: Mapped[Id]
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    organization_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    role: Mapped[str] = mapped_column(Text, server_default="member")
    created_at: Mapped[CreatedAt]
    status: Mapped[str] = mapped_column(Text, server_default="active")
    invite_token_hash: Mapped[str | None] = mapped_column(Text)
    invite_email: Mapped[str | None] = mapped_column(Text)
    invited_by: Mapped[UUID | None] = mapped_column(ForeignKey("users.id"))
    expires_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("role IN ('owner', 'admin', 'member')", name="role"),
        CheckConstraint("status IN ('active', 'pending')", name="status"),
        CheckConstraint("user_id IS NOT NULL OR status = 'pending'", name="member"),
        CheckConstraint("user_id IS NOT NULL OR invite_email IS NOT NULL", name="whom"),
        UniqueConstraint("user_id", "organization_id"),
        Index("user_organizations_organization_id_idx", "organization_id"),
        Index(
            "user_organizations_invite_unique",
            text("lower(invite_email)"),
            "organization_id",
            unique=True,
            postgresql_where=text("status = 'pending'"),
        ),
        Index(
            "user_organizations_invite_token_unique",
            "invite_token_hash",
            unique=True,
            postgresql_where=text("invite_token_hash IS NOT NULL"),
        ),
        Index(
            "user_organizations_expires_at_idx",
            "expires_at",
            postgresql_where=text("status = 'pending'"),
        ),
    )


class ApiKey(Base):
    """A key to the API: SHA-256 of its secret and a short prefix for show. Hidden keys have no usable secret."""

    __tablename__ = "api_keys"

    id: Mapped[Id]
    name: Mapped[str] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(Text)
    secret_hash: Mapped[bytes | None] = mapped_column(LargeBinary, unique=True)
    secret_prefix: Mapped[str | None] = mapped_column(Text)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    created_by: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[CreatedAt]
    last_used: Mapped[datetime | None]
    requests_per_second: Mapped[float | None]
    burst_size: Mapped[int | None]
    capacity: Mapped[int | None]
    tokens_per_minute: Mapped[int | None] = mapped_column(BigInteger)
    purpose: Mapped[str] = mapped_column(Text, server_default="realtime")
    hidden: Mapped[bool] = mapped_column(server_default="false")
    is_deleted: Mapped[bool] = mapped_column(server_default="false")
    expires_at: Mapped[datetime | None]
    spend_limit: Mapped[Decimal | None]
    spend_limit_interval: Mapped[str | None] = mapped_column(Text)
    zero_data_retention: Mapped[bool] = mapped_column(server_default="false")
    log_sample: Mapped[float | None]

    living_retired_secrets: Mapped[list[RetiredSecret]] = relationship(
        primaryjoin="and_(RetiredSecret.api_key_id == ApiKey.id, RetiredSecret.expires_at > func.now())",
        order_by="RetiredSecret.retired_at.desc(), RetiredSecret.secret_hash",
        viewonly=True,
    )

    __table_args__ = (
        CheckConstraint(
            "purpose IN ('platform', 'realtime', 'batch', 'playground')", name="purpose"
        ),
        CheckConstraint("hidden OR secret_hash IS NOT NULL", name="secret"),
        CheckConstraint(
            "requests_per_second > 0 AND requests_per_second < 'Infinity'",
            name="requests_per_second",
        ),
        CheckConstraint("burst_size >= 1", name="burst_size"),
        CheckConstraint("capacity >= 1", name="capacity"),
        CheckConstraint("tokens_per_minute >= 1", name="tokens_per_minute"),
        CheckConstraint(_READABLE, name="expires_at"),
        CheckConstraint("spend_limit > 0 AND spend_limit < 'NaN'", name="spend_limit"),
        CheckConstraint(
            "spend_limit_interval IS NULL"
            " OR (spend_limit_interval IN ('daily', 'weekly', 'monthly') AND spend_limit IS NOT NULL)",
            name="spend_limit_interval",
        ),
        Index("api_keys_spend_limit_idx", "id", postgresql_where=text("spend_limit IS NOT NULL")),
        CheckConstraint(_SHARE, name="log_sample"),
        Index("api_keys_keeping_idx", "id", postgresql_where=_KEEPING),
        Index("api_keys_created_by_idx", "created_by"),
        Index(
            "api_keys_name_unique",
            "user_id",
            "created_by",
            "name",
            unique=True,
            postgresql_where=text("NOT is_deleted"),
        ),
        Index(
            "api_keys_listed_idx",
            "user_id",
            text("created_at DESC"),
            text("id DESC"),
            postgresql_where=text("NOT is_deleted AND NOT hidden"),
        ),
        Index(
            "api_keys_of_all_listed_idx",
            text("created_at DESC"),
            text("id DESC"),
            postgresql_where=text("NOT is_deleted AND NOT hidden"),
        ),
        Index(
            "api_keys_hidden_unique",
            "user_id",
            "created_by",
            "purpose",
            unique=True,
            postgresql_where=text("hidden AND NOT is_deleted"),
        ),
    )


class RetiredSecret(Base):
    """An earlier secret of a key, which opens what the key opens until `expires_at`; kept for a while longer, to say what has become of it."""

    __tablename__ = "retired_api_key_secrets"

    secret_hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    secret_prefix: Mapped[str | None] = mapped_column(Text)
    api_key_id: Mapped[UUID] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"))
    retired_at: Mapped[CreatedAt]
    expires_at: Mapped[datetime]

    __table_args__ = (
        CheckConstraint(_READABLE, name="expires_at"),
        Index("retired_api_key_secrets_api_key_id_idx", "api_key_id", "retired_at"),
        Index("retired_api_key_secrets_expires_at_idx", "expires_at"),
    )


class LoginSession(Base):
    """One signed-in browser; the cookie holds a token, this row its SHA-256."""

    __tablename__ = "login_sessions"

    id: Mapped[Id]
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    token_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[datetime]
    last_used_at: Mapped[CreatedAt]
    address: Mapped[str | None] = mapped_column(Text)
    user_agent: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        Index("login_sessions_user_id_idx", "user_id"),
        Index("login_sessions_expires_at_idx", "expires_at"),
    )


class PasswordResetToken(Base):
    """A link by which a person may choose a new password; the mail holds the token, this row its SHA-256."""

    __tablename__ = "password_reset_tokens"

    id: Mapped[Id]
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    token_hash: Mapped[str] = mapped_column(Text, unique=True)
    expires_at: Mapped[datetime]
    created_at: Mapped[CreatedAt]
    used_at: Mapped[datetime | None]

    __table_args__ = (
        Index("password_reset_tokens_user_id_idx", "user_id"),
        Index("password_reset_tokens_expires_at_idx", "expires_at"),
    )


class CommandLineCode(Base):
    """What a command line exchanges for its keys: the redirection holds the code, this row its SHA-256.

    challenge: S256 of what only the command line knows (RFC 7636). login_session_id: the session that asked for it, with which it ends; null
    for who came by trusted header.
    """

    __tablename__ = "command_line_codes"

    id: Mapped[Id]
    code_hash: Mapped[str] = mapped_column(Text, unique=True)
    challenge: Mapped[str] = mapped_column(Text)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    organization_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    login_session_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("login_sessions.id", ondelete="CASCADE")
    )
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[datetime]

    __table_args__ = (
        Index("command_line_codes_user_id_idx", "user_id"),
        Index("command_line_codes_organization_id_idx", "organization_id"),
        Index("command_line_codes_login_session_id_idx", "login_session_id"),
        Index("command_line_codes_expires_at_idx", "expires_at"),
    )


class SystemConfig(Base):
    """What the release command has done once and for all, such as `endpoints_seeded`."""

    __tablename__ = "system_config"

    key: Mapped[str] = mapped_column(Text, primary_key=True)
    value: Mapped[bool] = mapped_column(server_default="false")
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt]


class SignInAttempt(Base):
    """How often one address or account tried to sign in or to register in the running minute (`throttle`)."""

    __tablename__ = "sign_in_attempts"

    key: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    began_at: Mapped[CreatedAt]
    attempts: Mapped[int] = mapped_column(server_default="1")

    # What a crash of the server may lose; forgiving a minute's attempts is no harm.
    __table_args__ = ({"prefixes": ["UNLOGGED"]},)

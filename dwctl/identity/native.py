"""Sign-in by password. No database connection is held while a hash is computed, so these functions end the transaction before it."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy.orm import Session

from dwctl import clock
from dwctl.config import Settings
from dwctl.errors import Conflict, Invalid, Unauthenticated
from dwctl.identity import names, passwords, sessions, throttle, users
from dwctl.identity.tables import User

_ACCOUNT = "account"


def insist_on_enabled(settings: Settings) -> None:
    """400 where passwords are switched off."""
    if not settings.auth.native.enabled:
        raise Invalid("Native authentication is disabled")


def insist_on_registration(settings: Settings) -> None:
    """400 where nobody may register."""
    insist_on_enabled(settings)
    if not settings.auth.native.allow_registration:
        raise Invalid("User registration is disabled")


def register(
    session: Session,
    *,
    username: str,
    email: str,
    password: str,
    display_name: str | None,
    settings: Settings,
) -> User:
    """A new person with a password. Raises Conflict for an e-mail that somebody has, in any spelling of its case."""
    rule = settings.auth.native.password
    passwords.check_length(password, rule)
    password_hash = passwords.hash_password(password, rule)
    users.lock(session, f"email {email.lower()}")
    if users.with_email(session, email):
        raise Conflict(
            "An account with this email address already exists", members={"resource": "user"}
        )
    user = users.create(
        session,
        username=username,
        email=email,
        roles=settings.auth.default_user_roles,
        auth_source="native",
        display_name=display_name or names.random_display_name(),
        password_hash=password_hash,
    )
    users.grant_initial_credits(session, user, settings)
    return user


def log_in(session: Session, email: str, password: str, settings: Settings) -> User:
    """The person with this e-mail and password. Unknown, without a password and wrong password are told apart by nothing."""
    native = settings.auth.native
    limit = native.throttle.failures_per_account_per_minute
    throttle.check(session, _ACCOUNT, email.lower(), limit)
    holders = (user for user in users.with_email(session, email) if user.password_hash)
    user = next(holders, None)
    stored = user.password_hash if user else None
    session.rollback()
    if not passwords.verify(password, stored, native.password) or user is None:
        throttle.count(session, _ACCOUNT, email.lower())
        raise Unauthenticated("Invalid email or password")
    return user


def change_password(
    session: Session, user_id: UUID, current: str, new: str, settings: Settings, *, keep: str | None
) -> None:
    """Replace the password and end the person's other sessions; `keep` is the token of the one that goes on."""
    native = settings.auth.native
    passwords.check_length(new, native.password)
    user = users.get(session, user_id)
    stored, email = user.password_hash, user.email.lower()
    if stored is None:
        raise Invalid("This account has no password")
    limit = native.throttle.failures_per_account_per_minute
    throttle.check(session, _ACCOUNT, email, limit)
    session.rollback()
    if not passwords.verify(current, stored, native.password):
        throttle.count(session, _ACCOUNT, email)
        raise Unauthenticated("Current password is incorrect")
    set_password(session, user, new, settings, keep=keep)


def set_password(
    session: Session, user: User, new: str, settings: Settings, *, keep: str | None = None
) -> None:
    """Give the person this password, whatever it was, and end their sessions but the one of the token `keep`."""
    user_id = user.id
    session.rollback()
    password_hash = passwords.hash_password(new, settings.auth.native.password)
    person = users.get(session, user_id)
    person.password_hash = password_hash
    person.updated_at = clock.now()
    sessions.end_all(session, user_id, but=keep)

"""Sign-in by password. No database connection is held while a hash is computed, so these functions end the transaction before it."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy.orm import Session

from dwctl import clock
from dwctl.config import Settings
from dwctl.errors import Invalid, Unauthenticated
from dwctl.identity import names, passwords, sessions, throttle, users
from dwctl.identity.tables import User


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
    """A new person with a password. Raises Conflict for a name or an e-mail that somebody has, in any spelling of its case."""
    rule = settings.auth.native.password
    passwords.check_length(password, rule)
    password_hash = passwords.hash_password(password, rule)
    users.insist_on_free(session, username=username, email=email)
    user = users.create(
        session,
        username=username,
        email=email,
        roles=settings.auth.default_user_roles,
        auth_source="native",
        display_name=display_name or names.random_display_name(),
        password_hash=password_hash,
    )
    users.welcome(session, user, settings)
    return user


def log_in(
    session: Session, email: str, password: str, settings: Settings, *, address: str
) -> User:
    """The person with this e-mail and password, whose row stays locked against a change of either. Nothing tells unknown, without a password and wrong apart.

    `address` is where the attempt comes from.
    """
    native = settings.auth.native
    account = users.folded(session, email)
    guess = throttle.begin_guess(session, account, address, native.throttle)
    holders = (user for user in users.with_email(session, email) if user.password_hash)
    user = next(holders, None)
    user_id, stored = (user.id, user.password_hash) if user else (None, None)
    session.rollback()
    if not passwords.verify(password, stored, native.password) or user_id is None:
        raise Unauthenticated("Invalid email or password")
    throttle.was_right(session, guess)
    return _still(session, user_id, stored, "Invalid email or password")


def change_password(
    session: Session,
    user_id: UUID,
    current: str,
    new: str,
    settings: Settings,
    *,
    keep: str | None,
    address: str,
) -> None:
    """Replace the password and end the person's other sessions; `keep` is the token of the one that goes on, `address` where the attempt comes from."""
    native = settings.auth.native
    passwords.check_length(new, native.password, param="new_password")
    user = users.get(session, user_id)
    stored, account = user.password_hash, users.folded(session, user.email)
    if stored is None:
        raise Invalid("This account has no password")
    guess = throttle.begin_guess(session, account, address, native.throttle)
    if not passwords.verify(current, stored, native.password):
        raise Unauthenticated("Current password is incorrect")
    password_hash = passwords.hash_password(new, native.password)
    throttle.was_right(session, guess)
    person = _still(session, user_id, stored, "Current password is incorrect")
    replace_password(session, person, password_hash, keep=keep)


def set_password(
    session: Session, user: User, new: str, settings: Settings, *, keep: str | None = None
) -> None:
    """Give the person this password, whatever it was, and end their sessions but the one of the token `keep`."""
    user_id = user.id
    session.rollback()
    password_hash = passwords.hash_password(new, settings.auth.native.password)
    replace_password(session, users.get(session, user_id), password_hash, keep=keep)


def replace_password(
    session: Session, person: User, password_hash: str, *, keep: str | None
) -> None:
    """Store the hash, and end the person's sessions but the one of the token `keep`, and every link by which the old password could be replaced."""
    person.password_hash = password_hash
    person.updated_at = clock.now()
    session.flush()
    sessions.end_all(session, person.id, but=keep)
    users.end_reset_tokens(session, person.id)


def _still(session: Session, user_id: UUID, stored: str | None, refusal: str) -> User:
    """The person, locked, if the password that was verified meanwhile is theirs still: it may have been changed or taken away."""
    same = users.people().where(User.id == user_id, User.password_hash == stored)
    person = session.scalar(same.with_for_update().execution_options(populate_existing=True))
    if person is None:
        session.rollback()
        raise Unauthenticated(refusal)
    return person

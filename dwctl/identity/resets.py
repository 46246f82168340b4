"""A new password by mail, for people who have forgotten theirs.

Whoever asks costs us the same whatever address they name: one mail that is to be composed. Who that is, whether they have a password, and
the token are for whoever sends it (`compose`), so no answer and no time tells which accounts exist. A token is known to the mail alone; the
row has its SHA-256. It works once, and for `auth.native.password_reset_token_duration`.
"""

from __future__ import annotations

import hmac
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import psycopg
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dwctl import clock, sql
from dwctl.config import Settings
from dwctl.errors import Invalid
from dwctl.identity import native, passwords, tokens, users
from dwctl.identity.tables import PasswordResetToken, User
from dwctl.mail import outbox
from dwctl.mail.outbox import Composed, Mail

MAIL = "password_reset"
REFUSAL = "Invalid or expired reset token"

_QUERIES = sql.load("dwctl.identity")


def ask(session: Session, email: str, settings: Settings) -> None:
    """Have a link sent to whoever has this e-mail and a password, if anybody. The caller commits."""
    valid_for = timedelta(seconds=settings.auth.native.password_reset_token_duration)
    outbox.put(session, Mail(MAIL, email, {}, clock.now() + valid_for))


def compose(
    connection: psycopg.Connection[Any], settings: Settings, asked: Composed
) -> Composed | None:
    """The mail with a new token in it; None where there is nobody to send it to.

    It goes to the address that the account has: the one that was asked for may be another that a database takes for the same.
    """
    rule = settings.auth.native
    if not rule.enabled:
        return None
    token = tokens.new()
    values = {
        "email": asked.to,
        "token_hash": tokens.fingerprint(token),
        "valid_for_s": rule.password_reset_token_duration,
    }
    row = connection.execute(_QUERIES["make_reset_token"], values).fetchone()
    if row is None:
        return None
    token_id, email, name = row
    query = urlencode({"id": token_id, "token": token})
    return Composed(
        email,
        {
            "name": name,
            "email": email,
            "link": f"{settings.dashboard_url.rstrip('/')}/reset-password?{query}",
            "minutes": str(round(rule.password_reset_token_duration / 60)),
        },
    )


def confirm(
    session: Session, token_id: UUID, token: str, new_password: str, settings: Settings
) -> None:
    """Give the token's person this password, end their sessions and every other token of theirs; the caller commits.

    Raises Invalid for a password of a wrong length and for a token that is unknown, used or too old, all of which look alike.
    """
    rule = settings.auth.native.password
    passwords.check_length(new_password, rule, param="new_password")
    user_id = _holder(session, token_id, token)
    session.rollback()
    if user_id is None:
        raise Invalid(REFUSAL, code="invalid_reset_token")
    password_hash = passwords.hash_password(new_password, rule)
    locked = users.people().where(User.id == user_id, User.password_hash.is_not(None))
    person = session.scalar(locked.with_for_update().execution_options(populate_existing=True))
    # Looked at again under the lock: it may have been used, or the person deleted, while the hash was computed.
    if person is None or _holder(session, token_id, token) != user_id:
        session.rollback()
        raise Invalid(REFUSAL, code="invalid_reset_token")
    native.replace_password(session, person, password_hash, keep=None)


def _holder(session: Session, token_id: UUID, token: str) -> UUID | None:
    """Whose token this is, if it is one that may be used now."""
    found = session.execute(
        select(PasswordResetToken.user_id, PasswordResetToken.token_hash).where(
            PasswordResetToken.id == token_id,
            PasswordResetToken.used_at.is_(None),
            PasswordResetToken.expires_at > func.now(),
        )
    ).one_or_none()
    if found is None or not hmac.compare_digest(found.token_hash, tokens.fingerprint(token)):
        return None
    user_id: UUID = found.user_id
    return user_id


outbox.composed_by(MAIL, compose)

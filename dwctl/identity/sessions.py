"""Login sessions: a random token in a cookie, its SHA-256 in a row. The row is the authority: ending it ends the session.

A session in use is extended on the server, at most once a minute, up to its absolute end; the cookie is set once, when signing in.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta
from typing import Any, Literal, cast
from uuid import UUID

from flask import Response
from sqlalchemy import Select, delete, func, select, update
from sqlalchemy.orm import Session

from dwctl import clock, config
from dwctl.errors import NotFound
from dwctl.identity.tables import LoginSession
from dwctl.printable import printable

ORGANIZATION_COOKIE = "dw_active_org"
ORGANIZATION_COOKIE_AGE_S = 30 * 86400

EXTEND_AFTER_S = 60
LONGEST_AGENT = 300


def start(
    session: Session,
    user_id: UUID,
    rule: config.Session,
    *,
    address: str | None = None,
    user_agent: str | None = None,
) -> str:
    """A new session's token. Old ones of the user stay, those that have run out are cleared away.

    `address` and `user_agent` are what the list of sessions shows of where it was begun.
    """
    token = secrets.token_urlsafe(32)
    now = clock.now()
    session.execute(
        delete(LoginSession).where(LoginSession.user_id == user_id, LoginSession.expires_at <= now)
    )
    expires_at = now + timedelta(seconds=min(rule.timeout, rule.lifetime))
    session.add(
        LoginSession(
            user_id=user_id,
            token_hash=token_hash(token),
            expires_at=expires_at,
            address=address,
            user_agent=printable(user_agent, LONGEST_AGENT) if user_agent else None,
        )
    )
    return token


def living(user_id: UUID) -> Select[LoginSession]:
    """A person's sessions that have not run out, the last used first."""
    mine = select(LoginSession).where(
        LoginSession.user_id == user_id, LoginSession.expires_at > func.now()
    )
    return mine.order_by(LoginSession.last_used_at.desc(), LoginSession.id.desc())


def end_one(session: Session, user_id: UUID, session_id: UUID) -> None:
    """End one session of a person. Raises NotFound, also where it has run out."""
    same = delete(LoginSession).where(
        LoginSession.id == session_id, LoginSession.user_id == user_id
    )
    if session.scalar(same.returning(LoginSession.id)) is None:
        raise NotFound(f"Session with ID {session_id} not found")


def extend(session: Session, login: LoginSession, rule: config.Session) -> None:
    """Give the session its full time again, unless that was done a moment ago. One that is ended in the same moment stays ended."""
    full = min(clock.now() + timedelta(seconds=rule.timeout), _end(login, rule))
    if full - login.expires_at >= timedelta(seconds=min(EXTEND_AFTER_S, rule.timeout / 4)):
        same = update(LoginSession).where(LoginSession.id == login.id)
        # Not by the object: an UPDATE of no row is an error there.
        session.execute(
            same.values(expires_at=full, last_used_at=clock.now()),
            execution_options={"synchronize_session": False},
        )


def is_over(login: LoginSession, rule: config.Session) -> bool:
    """Whether it has run out: unused for too long, or past its absolute end (which an old one may have been extended beyond)."""
    return min(login.expires_at, _end(login, rule)) <= clock.now()


def _end(login: LoginSession, rule: config.Session) -> datetime:
    return login.created_at + timedelta(seconds=rule.lifetime)


def end(session: Session, token: str) -> None:
    """Sign out where this token was used."""
    session.execute(delete(LoginSession).where(LoginSession.token_hash == token_hash(token)))


def end_all(session: Session, user_id: UUID, *, but: str | None = None) -> None:
    """Sign the user out everywhere, except where the token `but` is used."""
    others = delete(LoginSession).where(LoginSession.user_id == user_id)
    if but is not None:
        others = others.where(LoginSession.token_hash != token_hash(but))
    session.execute(others)


def end_others(session: Session, user_id: UUID, session_id: UUID) -> None:
    """Sign the user out everywhere but in this session."""
    session.execute(
        delete(LoginSession).where(LoginSession.user_id == user_id, LoginSession.id != session_id)
    )


def set_cookie(response: Response, token: str, rule: config.Session) -> None:
    """Hand the token to the browser."""
    age_s = max(1, round(min(rule.timeout, rule.lifetime)))
    response.set_cookie(rule.cookie_name, token, max_age=age_s, **_attributes(rule))


def set_organization_cookie(
    response: Response, organization_id: UUID | None, rule: config.Session
) -> None:
    """Remember the organisation in whose name the browser acts, or forget it."""
    if organization_id is None:
        response.delete_cookie(ORGANIZATION_COOKIE, **_attributes(rule))
    else:
        response.set_cookie(
            ORGANIZATION_COOKIE,
            str(organization_id),
            max_age=ORGANIZATION_COOKIE_AGE_S,
            **_attributes(rule),
        )


def clear_cookies(response: Response, rule: config.Session) -> None:
    """Make the browser forget the session and the active organisation."""
    response.delete_cookie(rule.cookie_name, **_attributes(rule))
    response.delete_cookie(ORGANIZATION_COOKIE, **_attributes(rule))


def _attributes(rule: config.Session) -> dict[str, Any]:
    same_site = cast(Literal["Strict", "Lax", "None"], rule.cookie_same_site.capitalize())
    return {
        "path": "/",
        "domain": rule.cookie_domain or None,
        "secure": rule.cookie_secure,
        "httponly": True,
        "samesite": same_site,
    }


def token_hash(token: str) -> bytes:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).digest()

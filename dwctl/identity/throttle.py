"""How often one address or one account may try to sign in or to register within a minute, over all processes.

Counts stand in the unlogged table sign_in_attempts under a hash of what they are about; a minute begins with the first attempt in it.
"""

from __future__ import annotations

import hashlib

from flask import Request
from sqlalchemy import text
from sqlalchemy.orm import Session

from dwctl.errors import DwctlError
from dwctl.web import proxies

WINDOW_S = 60

_COUNT = text(
    f"""
    INSERT INTO sign_in_attempts AS a (key) VALUES (:key)
    ON CONFLICT (key) DO UPDATE SET
        attempts = CASE WHEN a.began_at > now() - interval '{WINDOW_S} seconds' THEN a.attempts + 1 ELSE 1 END,
        began_at = CASE WHEN a.began_at > now() - interval '{WINDOW_S} seconds' THEN a.began_at ELSE now() END
    RETURNING attempts, ceil({WINDOW_S} - extract(epoch FROM now() - began_at))::int AS left_s
    """
)
_LOOK = text(
    f"""
    SELECT attempts, ceil({WINDOW_S} - extract(epoch FROM now() - began_at))::int AS left_s
      FROM sign_in_attempts WHERE key = :key AND began_at > now() - interval '{WINDOW_S} seconds'
    """
)
_FORGET = text(
    "DELETE FROM sign_in_attempts WHERE key IN (SELECT key FROM sign_in_attempts"
    f" WHERE began_at < now() - interval '{WINDOW_S} seconds' LIMIT 100 FOR UPDATE SKIP LOCKED)"
)


class TooManyAttempts(DwctlError):
    """Too many attempts. Try again later."""

    code = "too_many_requests"
    status = 429
    retryable = True


def admit(session: Session, what: str, who: str, limit: int) -> None:
    """Count one attempt and refuse it beyond the limit (0: no limit). Commits, because a refused attempt counts, too."""
    if limit:
        attempts, left_s = session.execute(_COUNT, {"key": _key(what, who)}).one()
        if attempts == 1:
            session.execute(_FORGET)
        session.commit()
        _refuse(attempts > limit, left_s)


def check(session: Session, what: str, who: str, limit: int) -> None:
    """Refuse where `count` has reached the limit (0: no limit)."""
    found = session.execute(_LOOK, {"key": _key(what, who)}).one_or_none() if limit else None
    if found is not None:
        _refuse(found.attempts >= limit, found.left_s)


def count(session: Session, what: str, who: str) -> None:
    """Count a failure, and commit."""
    session.execute(_COUNT, {"key": _key(what, who)})
    session.commit()


def address_of(request: Request) -> str:
    """Where the attempt comes from: the client behind trusted proxies (`web.proxies`)."""
    return proxies.origin_in(request.environ).client


def _key(what: str, who: str) -> bytes:
    return hashlib.sha256(f"{what}\0{who}".encode()).digest()


def _refuse(exhausted: bool, left_s: int) -> None:
    if exhausted:
        raise TooManyAttempts(retry_after_s=max(1, left_s), members={"error": TooManyAttempts.code})

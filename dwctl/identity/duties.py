"""Chores of the identity room: login sessions and secrets that ran out, attempts to sign in that count no more."""

from __future__ import annotations

from typing import Any

import psycopg

from dwctl.config import Settings
from dwctl.identity.throttle import HOUR_S
from dwctl.queue.duties import Duty

_AT_ONCE = 1000
_ATTEMPTS_AT_ONCE = 5000
_TEN_MINUTES_S = 600.0


def forget_sessions(connection: psycopg.Connection[Any], _settings: Settings) -> float:
    """Delete login sessions past their end."""
    return _rest_s(_forget(connection, "login_sessions"))


def forget_attempts(connection: psycopg.Connection[Any], _settings: Settings) -> float:
    """Delete attempts to sign in whose window is over (the longest is an hour, see `throttle`), some at a time."""
    gone = connection.execute(
        "DELETE FROM sign_in_attempts WHERE key IN (SELECT key FROM sign_in_attempts"
        " WHERE began_at < now() - %s * interval '1 second' LIMIT %s FOR UPDATE SKIP LOCKED)",
        (HOUR_S, _ATTEMPTS_AT_ONCE),
    ).rowcount
    return 1.0 if gone == _ATTEMPTS_AT_ONCE else _TEN_MINUTES_S


def forget_secrets(connection: psycopg.Connection[Any], _settings: Settings) -> float:
    """Delete earlier secrets of keys a week after their end: until then whoever uses one is told what has become of it."""
    more = _forget(connection, "retired_api_key_secrets", key="secret_hash", days_later=7)
    return _rest_s(more)


def forget_resets(connection: psycopg.Connection[Any], _settings: Settings) -> float:
    """Delete links for new passwords and codes of command lines a day after their end."""
    links = _forget(connection, "password_reset_tokens", days_later=1)
    codes = _forget(connection, "command_line_codes", days_later=1)
    return _rest_s(links or codes)


def _forget(
    connection: psycopg.Connection[Any], table: str, *, key: str = "id", days_later: int = 0
) -> bool:
    """Delete rows that ran out, the oldest first and some at a time; whether there may be more."""
    gone = connection.execute(
        f"DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table} WHERE expires_at < now() - %s * interval '1 day'"
        " ORDER BY expires_at LIMIT %s FOR UPDATE SKIP LOCKED)",
        (days_later, _AT_ONCE),
    ).rowcount
    return gone == _AT_ONCE


def _rest_s(is_more: bool) -> float:
    return 1.0 if is_more else float(HOUR_S)


DUTIES = (
    Duty("forget_sessions", forget_sessions),
    Duty("forget_secrets", forget_secrets),
    Duty("forget_attempts", forget_attempts),
    Duty("forget_resets", forget_resets),
)

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
    """Delete login sessions past their end, some at a time."""
    gone = connection.execute(
        "DELETE FROM login_sessions WHERE id IN (SELECT id FROM login_sessions WHERE expires_at < now()"
        " ORDER BY expires_at LIMIT %s FOR UPDATE SKIP LOCKED)",
        (_AT_ONCE,),
    ).rowcount
    return 1.0 if gone == _AT_ONCE else float(HOUR_S)


def forget_attempts(connection: psycopg.Connection[Any], _settings: Settings) -> float:
    """Delete attempts to sign in whose window is over (the longest is an hour, see `throttle`), some at a time."""
    gone = connection.execute(
        "DELETE FROM sign_in_attempts WHERE key IN (SELECT key FROM sign_in_attempts"
        " WHERE began_at < now() - %s * interval '1 second' LIMIT %s FOR UPDATE SKIP LOCKED)",
        (HOUR_S, _ATTEMPTS_AT_ONCE),
    ).rowcount
    return 1.0 if gone == _ATTEMPTS_AT_ONCE else _TEN_MINUTES_S


def forget_secrets(connection: psycopg.Connection[Any], _settings: Settings) -> float:
    """Delete earlier secrets of keys a week after their end, some at a time: until then whoever uses one is told what has become of it."""
    gone = connection.execute(
        "DELETE FROM retired_api_key_secrets WHERE secret_hash IN (SELECT secret_hash FROM retired_api_key_secrets"
        " WHERE expires_at < now() - interval '7 days' ORDER BY expires_at LIMIT %s FOR UPDATE SKIP LOCKED)",
        (_AT_ONCE,),
    ).rowcount
    return 1.0 if gone == _AT_ONCE else float(HOUR_S)


def forget_resets(connection: psycopg.Connection[Any], _settings: Settings) -> float:
    """Delete links for new passwords and codes of command lines a day after their end, some at a time."""
    gone = 0
    for table in ("password_reset_tokens", "command_line_codes"):
        gone = max(
            gone,
            connection.execute(
                f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE expires_at < now() - interval '1 day'"
                " ORDER BY expires_at LIMIT %s FOR UPDATE SKIP LOCKED)",
                (_AT_ONCE,),
            ).rowcount,
        )
    return 1.0 if gone == _AT_ONCE else float(HOUR_S)


DUTIES = (
    Duty("forget_sessions", forget_sessions),
    Duty("forget_secrets", forget_secrets),
    Duty("forget_attempts", forget_attempts),
    Duty("forget_resets", forget_resets),
)

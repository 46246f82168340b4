"""Argon2id hashes: made and verified outside the event loop, a few at a time; and the rule on a password's length."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import cache
from threading import BoundedSemaphore
from typing import Any, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError
from gevent import monkey

from dwctl import threads
from dwctl.config import Password
from dwctl.errors import Invalid, Unavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

AT_ONCE = 4
"""Hashes computed at the same time in one process; each takes about 19 MiB."""

WAIT_S = 10

_turns = BoundedSemaphore(AT_ONCE)


def check_length(password: str, rule: Password, *, param: str = "password") -> None:
    """Refuse a password that is too short or too long, counted in characters. `param` is the field that holds it."""
    if len(password) < rule.min_length:
        raise Invalid(f"Password must be at least {rule.min_length} characters", param=param)
    if len(password) > rule.max_length:
        raise Invalid(f"Password must be no more than {rule.max_length} characters", param=param)


def hash_password(password: str, rule: Password) -> str:
    """The PHC string to store. Hold no database connection meanwhile: it takes some 20 to 50 ms, and waits for its turn."""
    return _outside_the_loop(_hasher(rule).hash, password)


def verify(password: str, stored: str | None, rule: Password) -> bool:
    """Whether the password has this hash. Where there is none, as much time is spent, so that nobody learns which accounts exist."""
    matches = _outside_the_loop(_matches, stored or _nobodys_hash(rule), password)
    return matches and stored is not None


@cache
def _hasher(rule: Password) -> PasswordHasher:
    return PasswordHasher(
        time_cost=rule.argon2_iterations,
        memory_cost=rule.argon2_memory_kib,
        parallelism=rule.argon2_parallelism,
    )


@cache
def _nobodys_hash(rule: Password) -> str:
    return _hasher(rule).hash(os.urandom(16))


def _matches(stored: str, password: str) -> bool:
    try:
        return PasswordHasher().verify(stored, password)
    except VerifyMismatchError:
        return False
    except (InvalidHashError, VerificationError):
        log.warning("a stored password hash cannot be read")
        return False


def _outside_the_loop(function: Callable[..., T], *args: Any) -> T:
    if not _turns.acquire(timeout=WAIT_S):
        raise Unavailable("Too many sign-ins at the same time. Try again shortly.")
    try:
        if monkey.is_module_patched("threading"):
            return threads.in_hashes(function, *args)
        return function(*args)
    finally:
        _turns.release()

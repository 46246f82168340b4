"""How often one address, and whoever guesses at one account, may try within some time, over all processes.

Attempts are counted before anything is verified, and those that were right are taken back: however many guesses come at once, over however
many processes, no more are verified than are allowed. Refused ones count nowhere. Guesses at an account are counted by the account together
with the address they come from, so that a stranger locks out nobody but himself; where an account has seen too many wrong ones within an
hour, from wherever, each address has one try a minute left.

Counts stand in the unlogged table sign_in_attempts under a hash of what they are about; a window begins with the first attempt in it.
"""

from __future__ import annotations

import hashlib
import ipaddress
import logging
from dataclasses import dataclass

from flask import Request
from sqlalchemy import text
from sqlalchemy.orm import Session

from dwctl.config import Throttle
from dwctl.errors import DwctlError
from dwctl.web import proxies
from dwctl.web.peers import network_of

log = logging.getLogger(__name__)

MINUTE_S = 60
HOUR_S = 3600
SHARED_BY = 10
"""How many times as much an address that many people share may try."""

_SHARED = ipaddress.ip_network("100.64.0.0/10")

_COUNT = text(
    """
    INSERT INTO sign_in_attempts AS a (key) VALUES (:key)
    ON CONFLICT (key) DO UPDATE SET
        attempts = CASE WHEN a.began_at > now() - :window_s * interval '1 second' THEN a.attempts + 1 ELSE 1 END,
        began_at = CASE WHEN a.began_at > now() - :window_s * interval '1 second' THEN a.began_at ELSE now() END
    RETURNING attempts, ceil(:window_s - greatest(0, extract(epoch FROM now() - began_at)))::int AS left_s
    """
)
_TAKE_BACK = text("UPDATE sign_in_attempts SET attempts = attempts - 1 WHERE key = :key AND attempts > 0")  # fmt: skip


class TooManyAttempts(DwctlError):
    """Too many attempts. Try again later."""

    code = "too_many_requests"
    status = 429
    retryable = True


@dataclass(frozen=True, slots=True)
class Guess:
    """An attempt that was counted and may now be verified; `keys` are the rows that count it."""

    keys: tuple[bytes, ...]


def admit(session: Session, what: str, address: str, limit: int) -> None:
    """Count one attempt of an address within the minute, or refuse it beyond the limit (0: no limit). Ends the transaction."""
    if limit:
        network = network_of(address)
        most = limit * (SHARED_BY if _is_shared(network) else 1)
        attempts, left_s = _count(session, _key(what, network), MINUTE_S)
        _settle(session, attempts <= most, left_s)


def admit_account(session: Session, what: str, account: str, limit: int, window_s: float) -> None:
    """Count one thing done to an account from wherever, or refuse it beyond the limit (0: no limit). Ends the transaction.

    `account` is whatever stands for it at this door, known or not. The window is at most the longest of this module.
    """
    if limit:
        attempts, left_s = _count(session, _key(what, account), min(round(window_s), HOUR_S))
        _settle(session, attempts <= limit, left_s)


def begin_guess(session: Session, account: str, address: str, rule: Throttle) -> Guess:
    """Count a guess at an account's secret as a wrong one, or refuse it. Ends the transaction; verify only after it.

    `account` is whatever stands for the account at this door, known or not: nobody learns from a refusal which accounts exist.
    """
    limit = rule.failures_per_account_per_minute
    if not limit:
        return Guess(())
    whole, pair = _key("account", account), _key("account", account, network_of(address))
    keys: tuple[bytes, ...] = (pair,)
    if rule.failures_per_account_per_hour:
        # The account's row first, on every door: whoever waits for one of them holds none that the other wants.
        keys = (whole, pair)
        failures, _ = _count(session, whole, HOUR_S)
        if failures > rule.failures_per_account_per_hour:
            limit = 1
        if failures == rule.failures_per_account_per_hour + 1:
            log.warning("many wrong passwords for one account", extra={"within_s": HOUR_S})
    attempts, left_s = _count(session, pair, MINUTE_S)
    _settle(session, attempts <= limit, left_s)
    return Guess(keys)


def was_right(session: Session, guess: Guess) -> None:
    """Take a guess back; the caller commits."""
    for key in guess.keys:
        session.execute(_TAKE_BACK, {"key": key})


def address_of(request: Request) -> str:
    """Where the attempt comes from: the client behind trusted proxies (`web.proxies`)."""
    return proxies.origin_in(request.environ).client


def _is_shared(network: str) -> bool:
    try:
        return ipaddress.ip_address(network) in _SHARED
    except ValueError:
        return False


def _key(*parts: str) -> bytes:
    return hashlib.sha256("\0".join(parts).encode()).digest()


def _count(session: Session, key: bytes, window_s: int) -> tuple[int, int]:
    """How many with this one, and for how long these still count. The row is locked until the transaction ends."""
    attempts, left_s = session.execute(_COUNT, {"key": key, "window_s": window_s}).one()
    return attempts, left_s


def _settle(session: Session, allowed: bool, left_s: int) -> None:
    """Let what was counted stand, or undo it and refuse."""
    if allowed:
        session.commit()
        return
    session.rollback()
    raise TooManyAttempts(retry_after_s=max(1, left_s), members={"error": TooManyAttempts.code})

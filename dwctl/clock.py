"""What time it is; tests replace it here.

Ids and times of calls are minted by the process that takes them, and kept, looked up and purged by the database's clock. Where the two
are far apart the database's counts (`follow`): a machine that is months behind would write into days that are gone already.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from uuid import UUID, SafeUUID

import msgspec

TOLERANCE_S = 5.0
"""Clocks that are no further apart are left alone: looking at another one takes time, too."""

_off_s = 0.0

_RANDOM_AT_ONCE = 320
_randomness = b""

_48_BITS = (1 << 48) - 1
_VERSION_AND_VARIANT = 0x7 << 76 | 0x2 << 62
_RANDOM_BITS = (1 << 80) - 1 & ~(0xF << 76 | 0x3 << 62)

_new = object.__new__
_set_number = UUID.__dict__["int"].__set__
_set_safety = UUID.__dict__["is_safe"].__set__


def time_s() -> float:
    """Unix time."""
    return time.time() + _off_s


def off_s() -> float:
    """By how much this machine's clock is corrected, in seconds; 0 as a rule."""
    return _off_s


def follow(reference: datetime) -> bool:
    """Look at a clock that counts, just read. Whether the correction has changed."""
    global _off_s
    ahead_s = reference.timestamp() - time.time()
    before = _off_s
    if abs(ahead_s) <= TOLERANCE_S:
        _off_s = 0.0
    elif abs(ahead_s - before) > TOLERANCE_S:
        _off_s = ahead_s
    return _off_s != before


def now() -> datetime:
    """The present moment, aware, in UTC."""
    return datetime.fromtimestamp(time_s(), UTC)


def uuid7(at_s: float | None = None) -> UUID:
    """A time-ordered UUID (RFC 9562, version 7): new rows land at the warm end of their indexes."""
    ms = int((time_s() if at_s is None else at_s) * 1000)
    tail = int.from_bytes(_random(10), "big") & _RANDOM_BITS
    found = _new(UUID)
    # (What UUID's own constructor does with a number that is right, in a quarter of its time: each call has one.)
    _set_number(found, (ms & _48_BITS) << 80 | tail | _VERSION_AND_VARIANT)
    _set_safety(found, SafeUUID.unknown)
    return found


def id_text(id: UUID) -> str:
    """As `str` writes it, in a third of its time."""
    text: str = msgspec.to_builtins(id)
    return text


def _random(size: int) -> bytes:
    """From the system, which is asked for many at once: each time takes it as long as all else that makes an id."""
    global _randomness
    if len(_randomness) < size:
        _randomness = os.urandom(_RANDOM_AT_ONCE)
    found, _randomness = _randomness[:size], _randomness[size:]
    return found


def _forget_randomness() -> None:
    """A process that was forked would make the ids of its sibling once more."""
    global _randomness
    _randomness = b""


os.register_at_fork(after_in_child=_forget_randomness)


def uuid7_seconds(value: UUID) -> float | None:
    """The Unix time minted into a version 7 UUID; None for every other version."""
    return (value.int >> 80) / 1000 if value.version == 7 else None

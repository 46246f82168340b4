"""What time it is; tests replace it here."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from uuid import UUID


def now() -> datetime:
    """The present moment, aware, in UTC."""
    return datetime.now(UTC)


def uuid7(at_s: float | None = None) -> UUID:
    """A time-ordered UUID (RFC 9562, version 7): new rows land at the warm end of their indexes."""
    ms = int((time.time() if at_s is None else at_s) * 1000)
    tail = int.from_bytes(os.urandom(10), "big")
    value = (ms & (1 << 48) - 1) << 80 | tail
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return UUID(int=value)


def uuid7_seconds(value: UUID) -> float | None:
    """The Unix time minted into a version 7 UUID; None for every other version."""
    return (value.int >> 80) / 1000 if value.version == 7 else None

"""What is written down of a call, as the JSON line that the statements in `queries.sql` and the spool both take."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any
from uuid import UUID

import orjson

_NUL = rb"\u0000"
_FILES = UUID("6a1d7f3e-4c0b-5f0e-9d0a-3f1f5f0c2b11")


@dataclass(frozen=True, slots=True)
class Tracking:
    """The part of a record that becomes rows in `fusillade`: who asked for what.

    `owner` is the account's id as text. `window_s` is the time until the deadline. `batch_id` is set for a line of a real batch only.
    """

    id: UUID
    at: float
    owner: str
    api_key_id: UUID | None
    path: str
    model: str
    tier: str
    window: str
    window_s: float
    daemon_id: UUID | None
    request_body: str
    request_size: int
    batch_id: UUID | None = None

    def opening(self, state: str) -> dict[str, Any]:
        """The object that `open_calls` takes."""
        return {
            "id": self.id,
            "at": timestamp(self.at),
            "file_id": file_of(self.owner, self.at),
            "owner": self.owner,
            "api_key_id": self.api_key_id,
            "path": self.path,
            "model": self.model,
            "request_body": self.request_body,
            "request_size": self.request_size,
            "tier": self.tier,
            "sla": self.window,
            "expires_at": timestamp(self.at + self.window_s),
            "daemon_id": self.daemon_id,
            "state": state,
        }


def timestamp(at: float) -> datetime:
    """A Unix time as `line` writes it best: orjson makes RFC 3339 of it."""
    return datetime.fromtimestamp(at, UTC)


def file_of(owner: str, at: float) -> UUID:
    """The `files` row that an owner's single requests of that day share."""
    return _file(owner, int(at) // 86400)


@lru_cache(4096)
def _file(owner: str, day: int) -> UUID:
    return uuid.uuid5(_FILES, f"{owner} {day}")


def text_of(body: bytes) -> str:
    """A body as PostgreSQL can store it: what is no UTF-8 is replaced, and so is NUL, which JSON texts cannot contain anyway."""
    text = body.decode("utf-8", "replace")
    return text.replace("\x00", "\ufffd") if "\x00" in text else text


def line(record: dict[str, Any]) -> bytes:
    """A record as one line of JSON. What PostgreSQL cannot store (NUL) or orjson cannot write (lone surrogates) is replaced."""
    try:
        found = orjson.dumps(record, default=_other)
    except TypeError:
        return orjson.dumps(_storable(record), default=_other)
    # Bodies are clean; but any other text may come from an upstream, too. A body that merely spells it out is found here as well.
    return orjson.dumps(_storable(record), default=_other) if _NUL in found else found


def _storable(record: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")
        if isinstance(value, str)
        else value
        for key, value in record.items()
    }


def _other(value: Any) -> str:
    if isinstance(value, Decimal):
        return format(value, "f")
    raise TypeError(type(value).__name__)

"""API keys as the database gives them, of which only those that calls come with become values. Pure.

A hundred thousand keys are a hundred thousand tuples of bytes, texts and numbers: little to make, little to hold, and nothing in them that the garbage
collector has to look at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from sys import intern
from typing import Any
from uuid import UUID

from dwctl.catalog.layers import Shards
from dwctl.catalog.routing import UNLIMITED, Key, Limits

Row = tuple[Any, ...]
"""Hash of the secret; id, owner, creator (16 bytes each); purpose, sees_providers, expires_at, and four limits: the columns of `snapshot_keys`."""

_EXPIRES_AT = 6
_NO_LIMITS = (None, None, None, None)


class KeyRows(Mapping[bytes, Key]):
    """Keys by the hash of their secret."""

    __slots__ = ("_made", "rows")

    def __init__(self, rows: Shards[bytes, Row]) -> None:
        self.rows = rows
        self._made: dict[bytes, Key] = {}

    def __getitem__(self, secret_hash: bytes) -> Key:
        key = self._made.get(secret_hash)
        if key is None:
            key = self._made[secret_hash] = key_of(self.rows[secret_hash])
        return key

    def __contains__(self, secret_hash: object) -> bool:
        return secret_hash in self.rows

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


def key_of(row: Row) -> Key:
    """The key that a row stands for."""
    _, id, owner, creator, purpose, sees_providers, expires_at, *limits = row
    return Key(
        id=UUID(bytes=id),
        owner_id=UUID(bytes=owner),
        created_by=UUID(bytes=creator),
        purpose=intern(purpose),
        limits=limited(*limits),
        sees_providers=sees_providers,
        expires_at=expires_at,
    )


def retired(row: Row, secret_hash: bytes, expires_at: float) -> Row:
    """The same key by an earlier secret, which ends then, or with the key."""
    own = row[_EXPIRES_AT]
    end = expires_at if own is None else min(own, expires_at)
    return (secret_hash, *row[1:_EXPIRES_AT], end, *row[_EXPIRES_AT + 1 :])


def limited(*limits: Any) -> Limits:
    """The limits. Nearly all keys and models share the one value that has none. A burst alone is a rate as well: so many a second."""
    if limits == _NO_LIMITS:
        return UNLIMITED
    found = Limits(*limits)
    if found.requests_per_second is None and found.burst_size is not None:
        return replace(found, requests_per_second=float(found.burst_size))
    return found

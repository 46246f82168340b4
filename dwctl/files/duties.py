"""Chores of files: what is past its time expires, what is deleted, or was never completely uploaded, is purged; newcomers are given samples."""

from __future__ import annotations

from typing import Any

import psycopg

from dwctl import sql
from dwctl.config import Settings
from dwctl.files import samples
from dwctl.queue.duties import Duty

_QUERIES = sql.load("dwctl.files")
_EXPIRE_AT_ONCE = 1000
_EXPIRE_EVERY_S = 60.0
_NEWCOMERS_AT_ONCE = 5
_OFF_S = 3600.0
_UPLOADS_AT_ONCE = 5000
_UNHEARD_OF_S = 600.0


def expire_files(connection: psycopg.Connection[Any], settings: Settings) -> float:
    """Files past their time: expired, and after a grace deleted, some at a time."""
    values = {
        "grace_s": settings.batches.files.expired_grace_seconds,
        "most": _EXPIRE_AT_ONCE,
    }
    changed = _count(connection, "expire_files", values)
    return 0.5 if changed and changed >= _EXPIRE_AT_ONCE else _EXPIRE_EVERY_S


def purge_templates(connection: psycopg.Connection[Any], settings: Settings) -> float:
    """What was in deleted files."""
    return _purge(connection, settings, "purge_templates")


def purge_requests(connection: psycopg.Connection[Any], settings: Settings) -> float:
    """What came of deleted batches, an interval after their deletion."""
    return _purge(connection, settings, "purge_requests")


def purge_uploads(connection: psycopg.Connection[Any], settings: Settings) -> float:
    """Delete lines of uploads that were refused, or whose process has died, some at a time.

    A slow upload is not heard of while its next megabytes come: it is given the whole time that its body may take, and some more.
    """
    silent_s = settings.limits.files.body_timeout + _UNHEARD_OF_S
    values = {"silent_s": silent_s, "most": _UPLOADS_AT_ONCE}
    return 0.2 if _count(connection, "purge_uploads", values) else 10.0


def make_samples(connection: psycopg.Connection[Any], settings: Settings) -> float:
    """Sample files for people who have just registered, some at a time."""
    made = samples.make_some(connection, settings, _NEWCOMERS_AT_ONCE)
    return 0.1 if made == _NEWCOMERS_AT_ONCE else 2.0


def _purge(connection: psycopg.Connection[Any], settings: Settings, statement: str) -> float:
    """One slice; when to come for the next. Slices follow each other at `purge_throttle_ms` while there is something left."""
    daemon = settings.background_services.batch_daemon
    interval_s = daemon.purge_interval_ms / 1000
    if not interval_s:
        return _OFF_S
    values = {"most": daemon.purge_batch_size, "wait_s": interval_s}
    purged = _count(connection, statement, values)
    return interval_s if purged is None else daemon.purge_throttle_ms / 1000


def _count(connection: psycopg.Connection[Any], statement: str, values: dict[str, Any]) -> int | None:  # fmt: skip
    row = connection.execute(_QUERIES[statement], values).fetchone()
    count: int | None = row[0] if row else None
    return count


DUTIES = (
    Duty("expire_files", expire_files),
    Duty("purge_templates", purge_templates),
    Duty("purge_requests", purge_requests),
    Duty("purge_uploads", purge_uploads),
    Duty("make_samples", make_samples),
)

"""The batch object: the one place that makes it from a row, and says what its status is. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from dwctl.batches import metadata
from dwctl.queue.tables import Batch


class Status(StrEnum):
    """What a batch is doing, in OpenAI's words."""

    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


OVER = frozenset({Status.COMPLETED, Status.FAILED, Status.EXPIRED, Status.CANCELLED})
"""Where nothing more comes."""


def has_ended(batch: Batch) -> bool:
    """Whether all of its lines are there and have come to their end."""
    ended = batch.completed_requests + batch.failed_requests + batch.canceled_requests
    # A batch whose requests were written by hand has begun without a line that was populated.
    is_populated = not 0 < batch.populated_lines < batch.total_requests
    return batch.requests_started_at is not None and is_populated and ended >= batch.total_requests


def status_of(batch: Batch) -> Status:
    """The status, by the stamps of its end, else by how far it has come. The first that holds."""
    if batch.cancelled_at is not None:
        return Status.CANCELLED
    if batch.cancelling_at is not None:
        return Status.CANCELLING
    if batch.expired_at is not None:
        return Status.EXPIRED
    if batch.completed_at is not None:
        return Status.COMPLETED
    if batch.failed_at is not None:
        return Status.FAILED
    if batch.requests_started_at is None:
        return Status.VALIDATING
    return Status.FINALIZING if has_ended(batch) else Status.IN_PROGRESS


def batch_object(batch: Batch, said: Mapping[str, str], now: datetime) -> dict[str, Any]:
    """The object as the API shows it. `said`: pairs of metadata about people, which are looked up when it is shown."""
    status = status_of(batch)
    finalizing = status in (Status.FINALIZING, Status.COMPLETED)
    made: dict[str, Any] = {
        "id": str(batch.id),
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": _errors(batch.errors),
        "input_file_id": "" if batch.file_id is None else str(batch.file_id),
        "completion_window": batch.completion_window,
        "status": status.value,
        "output_file_id": None if batch.output_file_id is None else str(batch.output_file_id),
        "error_file_id": None if batch.error_file_id is None else str(batch.error_file_id),
        "created_at": _unix(batch.created_at),
        "in_progress_at": _unix(batch.requests_started_at),
        "expires_at": _unix(batch.expires_at),
        "finalizing_at": _unix(batch.finalizing_at) if finalizing else None,
        "completed_at": _unix(batch.completed_at),
        "failed_at": _unix(batch.failed_at),
        "expired_at": _unix(_expired_at(batch, status, now)),
        "cancelling_at": _unix(batch.cancelling_at),
        "cancelled_at": _unix(batch.cancelled_at),
        "request_counts": {
            "total": batch.total_requests,
            "completed": batch.completed_requests,
            "failed": batch.failed_requests,
        },
        "metadata": {**metadata.shown(batch.metadata_), **said},
        "dwext": metadata.provenance(batch.metadata_) or None,
    }
    return {name: value for name, value in made.items() if value is not None}


def _expired_at(batch: Batch, status: Status, now: datetime) -> datetime | None:
    """When it ended by its deadline, or since when it runs late."""
    if batch.expired_at is not None:
        return batch.expired_at
    return batch.expires_at if status not in OVER and batch.expires_at <= now else None


def _errors(kept: Any) -> dict[str, Any] | None:
    """OpenAI's list, whatever was written; None where nothing in it says what is wrong."""
    if not isinstance(kept, Mapping):
        return None
    entries = kept.get("data")
    found = [_error(e) for e in (entries if isinstance(entries, list) else [kept])]
    data = [error for error in found if error]
    return {"object": "list", "data": data} if data else None


def _error(entry: Any) -> dict[str, Any]:
    if not isinstance(entry, Mapping):
        return {}
    texts = {
        name: entry[name]
        for name in ("code", "message", "param")
        if isinstance(entry.get(name), str)
    }
    line = entry.get("line")
    return texts if not isinstance(line, int) else {**texts, "line": line}


def _unix(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp())

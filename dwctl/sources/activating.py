"""Runs an object's file as a batch, when there is room for it and its owner is not in debt."""

from __future__ import annotations

from dwctl.batches import creation
from dwctl.batches.capacity import AtCapacity
from dwctl.batches.creation import BalanceTooLow, Order
from dwctl.config import Settings
from dwctl.db import Connections, DatabaseAway
from dwctl.errors import DwctlError
from dwctl.printable import printable
from dwctl.sources import jobs
from dwctl.sources.jobs import MOST_TRIES, Activation

_LONGEST_VALUE = 512
"""Of a batch's metadata."""


def carry_out(connections: Connections, settings: Settings, job: Activation) -> None:
    """Make the batch, or find that it is made. Raises ClaimLost, DatabaseAway."""
    try:
        with connections.transaction() as connection:
            creation.create(connection, settings, _order(job))
            jobs.change(connection, "activated", job)
            jobs.count(connection, job.sync_id, activated=1)
    except DatabaseAway:
        raise
    except (AtCapacity, BalanceTooLow) as error:
        # Both pass: batches end, and accounts are credited.
        jobs.put_off(connections, settings, job, f"waiting: {error.message}")
    except DwctlError as error:
        if error.retryable and job.attempts + 1 < MOST_TRIES:
            jobs.put_off(connections, settings, job, error.message)
        else:
            jobs.fail(connections, job, error.message)


def _order(job: Activation) -> Order:
    return Order(
        file_id=str(job.file_id),
        endpoint=job.endpoint,
        window=job.completion_window,
        metadata={
            "request_source": "sync",
            "created_by": str(job.created_by),
            "dw_source_id": str(job.connection_id),
            "dw_source_name": printable(job.connection_name, _LONGEST_VALUE),
            "dw_sync_id": str(job.sync_id),
            "dw_external_key": printable(job.external_key, _LONGEST_VALUE),
        },
        owner_id=job.owner_id,
        api_key_id=job.api_key_id,
        reach=None,
        any_window=job.any_window,
        batch_id=job.batch_id,
    )

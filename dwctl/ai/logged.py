"""What the log row of a call says that a worker has run: its caller waits in another process, which knows the answer and nothing else."""

from __future__ import annotations

import logging
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

import psycopg
from psycopg.rows import class_row

from dwctl import sql
from dwctl.ai.admission import Admitted
from dwctl.analytics.records import timestamp
from dwctl.db import DatabaseAway

if TYPE_CHECKING:
    from dwctl.ai.gateway import Gateway

log = logging.getLogger(__name__)

_QUERIES = sql.load("dwctl.analytics")
_AROUND = timedelta(seconds=1)


class Logged(NamedTuple):
    """The charge, and the target of the last attempt; None for what there was not. `model`: only of composite models, as its name there."""

    cost: Decimal | None
    endpoint: str | None
    model: str | None


def read(gateway: Gateway, admitted: Admitted) -> Logged | None:
    """None where the log says nothing of it (yet), or cannot be read."""
    stamp = admitted.request.stamp
    at = timestamp(stamp.at)
    values = {"id": stamp.id, "since": at - _AROUND, "until": at + _AROUND}
    try:
        with gateway.connections.transaction() as connection:
            cursor = connection.cursor(row_factory=class_row(Logged))
            return cursor.execute(_QUERIES["told_of_call"], values).fetchone()
    except (DatabaseAway, psycopg.Error) as error:
        log.warning(
            "log row not told", extra={"request_id": str(stamp.id), "reason": type(error).__name__}
        )
        return None

"""How much there is to do, in two numbers: asked of the database now and then, and shown on every page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg

from dwctl import sql
from dwctl.db import Connections
from dwctl.monitoring import queue_depth
from dwctl.polled import Polled

_QUERIES = sql.load("dwctl.monitoring")

_EVER = "100000d"
_KEPT_S = 10.0


@dataclass(frozen=True, slots=True)
class Outline:
    """pending: requests that are not over, of everybody; None where nobody could say. batches: that are not over, by their owner."""

    pending: int | None = None
    batches: Mapping[str, int] = field(default_factory=dict)


def polled(connections: Connections) -> Polled[Outline]:
    """The outline as it was up to ten seconds ago; an empty one where the database does not answer in time."""
    return Polled(connections, _outline, Outline(), kept_s=_KEPT_S)


def _outline(connection: psycopg.Connection[Any]) -> Outline:
    pending = sum(tier.due[_EVER] for tier in queue_depth.by_tier(connection, [_EVER]))
    return Outline(pending, dict(connection.execute(_QUERIES["open_batches"]).fetchall()))

"""What is asked of the database now and then and shown often: at most once in a while, and never for long."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, Generic, TypeVar

import psycopg

from dwctl.db import Connections, DatabaseAway
from dwctl.patience import Patience

Answer = TypeVar("Answer")

_PATIENCE_S = 2.0


class Polled(Generic[Answer]):
    """One question. Call it for the answer, which is up to `kept_s` old."""

    def __init__(
        self,
        connections: Connections,
        ask: Callable[[psycopg.Connection[Any]], Answer],
        otherwise: Answer,
        *,
        kept_s: float,
        outlives_faults: bool = False,
    ) -> None:
        """`otherwise` is the answer where the database does not give one in time; with `outlives_faults`, the last one that it gave."""
        self._connections = connections
        self._ask = ask
        self._otherwise = self._found = otherwise
        self._kept_s = kept_s
        self._outlives_faults = outlives_faults
        self._until = 0.0

    def __call__(self) -> Answer:
        if monotonic() >= self._until:
            # Before the answer: several who want it at once ask once.
            self._until = monotonic() + self._kept_s
            try:
                with Patience(_PATIENCE_S), self._connections.transaction() as connection:
                    connection.execute(f"SET LOCAL statement_timeout = {_PATIENCE_S * 1000:.0f}")
                    self._found = self._ask(connection)
            except (DatabaseAway, psycopg.Error, Patience):
                if not self._outlives_faults:
                    self._found = self._otherwise
        return self._found

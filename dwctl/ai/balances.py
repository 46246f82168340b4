"""The balance that a refusal for want of credit tells: whoever has none must not cost a question for each of their calls."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from uuid import UUID

import psycopg

from dwctl.billing import ledger
from dwctl.billing.money import short_text
from dwctl.db import Connections, DatabaseAway

log = logging.getLogger(__name__)

_MOST_REMEMBERED = 10_000


class Balances:
    """Those that this process has told of late."""

    def __init__(
        self, connections: Connections, is_away: Callable[[], bool], *, kept_s: float = 1.0
    ) -> None:
        """`is_away`: whether the database is known to be away, so that nobody waits for it. An answer is told for `kept_s`."""
        self._connections = connections
        self._is_away = is_away
        self._kept_s = kept_s
        self._told: dict[UUID, tuple[float, str | None]] = {}

    def text_of(self, account_id: UUID) -> str | None:
        """In USD; None where nobody can say now."""
        until, text = self._told.get(account_id, (0.0, None))
        if monotonic() < until:
            return text
        if self._is_away():
            return None
        if len(self._told) >= _MOST_REMEMBERED:
            self._told.clear()
        # Before the answer: several who want it at once ask once.
        until = monotonic() + self._kept_s
        self._told[account_id] = (until, text)
        try:
            with self._connections.transaction() as connection:
                text = short_text(ledger.balance(connection, account_id))
        except (DatabaseAway, psycopg.Error) as error:
            log.warning("balance not told", extra={"reason": type(error).__name__})
            return None
        self._told[account_id] = (until, text)
        return text

"""Requests whose callers were told no, although they may be there: each is cancelled as soon as the database lets it, and never forgotten.

They wait in memory, for the next moment, and in the spool, for the case that this process dies before it: who drains it cancels them. Twice
is as good as once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from uuid import UUID

import msgspec

from dwctl.analytics.spool import Spool
from dwctl.analytics.writing import Busy, Kind, Writer

log = logging.getLogger(__name__)

_AGAIN_S = 0.5


class Withdrawals:
    """Those of one process."""

    def __init__(self, writer: Writer, spool: Spool) -> None:
        self._writer = writer
        self._spool = spool
        self._ids: list[UUID] = []
        self._unkept: list[UUID] = []
        self._not_before = 0.0

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, ids: Sequence[UUID]) -> None:
        """Before their callers are told no; `keep` must follow where the database may not hear of it in the next moment."""
        self._ids += ids
        self._unkept += ids
        self._not_before = 0.0

    def keep(self) -> None:
        """In the spool; where that refuses, they are in memory only until the next time."""
        if not self._unkept:
            return
        some, self._unkept = self._unkept, []
        try:
            self._spool.append(lines_of(some))
        except Exception:
            log.exception("withdrawals not kept", extra={"requests": len(some)})
            self._unkept = [*some, *self._unkept]

    def carry_out(self) -> None:
        """Cancel them. One that somebody else has locked waits for another time, and holds up nobody. Raises Away."""
        if not self._ids or time.monotonic() < self._not_before:
            return
        ids = list(self._ids)
        try:
            left = self._writer.withdraw(ids)
        except Busy:
            left = ids
        self._ids[: len(ids)] = left
        self._unkept = [id for id in self._unkept if id in self._ids]
        if left:
            self._not_before = time.monotonic() + _AGAIN_S
            self.keep()


def lines_of(ids: Sequence[UUID]) -> list[tuple[str, bytes]]:
    """As the spool keeps them."""
    return [(Kind.WITHDRAW, msgspec.json.encode({"id": id})) for id in ids]

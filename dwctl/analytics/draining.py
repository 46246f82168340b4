"""Bringing spooled records into the database, in groups, each file from where the last attempt stopped."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from uuid import UUID

from dwctl import clock
from dwctl.analytics import withdrawals
from dwctl.analytics.figures import Figures
from dwctl.analytics.records import Kept
from dwctl.analytics.spool import Spool, SpoolFile
from dwctl.analytics.writing import Entry, Kind, Later, Writer, entry_from, groups
from dwctl.config import Settings

log = logging.getLogger(__name__)

_GROUP = 100


class Drainer:
    """Empties the spool of this process and of dead siblings, on a connection that it has for as long as that takes."""

    def __init__(
        self,
        settings: Settings,
        spool: Spool,
        on_empty: Callable[[Iterable[UUID]], None],
        figures: Figures | None = None,
    ) -> None:
        self._spool = spool
        self._figures = figures or Figures()
        self._writer = Writer(
            settings, set_aside=self._set_aside, on_empty=on_empty, figures=self._figures
        )
        self.set_aside = 0

    def drain(self) -> None:
        """Bring in what is there. What the database does not take now stays for the next call."""
        own = self._spool.take_own()
        try:
            # One after the other: a file that is taken is locked, and those behind one that cannot be drained must stay free.
            for file in chain([own] if own else [], self._spool.adopt()):
                if not self._drain_file(file):
                    return
        finally:
            self._writer.close()

    def _drain_file(self, file: SpoolFile) -> bool:
        drained = 0
        try:
            for group in groups(self._entries(file), _GROUP):
                records = [entry for entry in group if entry.kind is not Kind.WITHDRAW]
                if records:
                    self._writer.write(records, self._written)
                self._withdraw([entry.id for entry in group if entry.kind is Kind.WITHDRAW])
                drained += len(group)
                file.mark(group[-1].end)
        except (Later, OSError) as error:
            reason = type(error.__cause__ or error).__name__
            log.warning("spool not drained yet", extra={"reason": reason, "records": drained})
            file.release()
            return False
        except BaseException:
            file.release()
            raise
        file.remove()
        log.warning("spool drained", extra={"file": file.path.name, "records": drained})
        return True

    def _withdraw(self, ids: list[UUID]) -> None:
        """Those that somebody has locked go to the spool again, so that the records behind them need not wait. Raises OSError."""
        if ids and (left := self._writer.withdraw(ids)):
            self._spool.append(withdrawals.lines_of(left))

    def _entries(self, file: SpoolFile) -> Iterator[Entry]:
        for line in file.lines():
            try:
                entry = entry_from(line)
            except ValueError:
                self._spool.reject(line.kind, line.record, "Unreadable")
                self.set_aside += 1
            else:
                yield entry

    def _written(self, entries: Sequence[Entry], kept: Kept) -> None:
        now = clock.now()
        for entry in entries:
            if kept is Kept.COMMITTED and entry.ended_at is not None:
                lag_s = (now - entry.ended_at).total_seconds()
                self._figures.lag_s.add((), max(0.0, lag_s))

    def _set_aside(self, entry: Entry, reason: str) -> None:
        self.set_aside += 1
        self._spool.reject(entry.kind, entry.line, reason)

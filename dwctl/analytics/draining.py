"""Bringing spooled records into the database, in groups, each file from where the last attempt stopped."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from uuid import UUID

from dwctl.analytics.spool import Spool, SpoolFile
from dwctl.analytics.writing import Entry, Later, Writer, entry_from, groups
from dwctl.config import Settings

log = logging.getLogger(__name__)

_GROUP = 100


class Drainer:
    """Empties the spool of this process and of dead siblings, on a connection that it has for as long as that takes."""

    def __init__(
        self, settings: Settings, spool: Spool, on_empty: Callable[[Iterable[UUID]], None]
    ) -> None:
        self._spool = spool
        self._writer = Writer(settings, set_aside=self._set_aside, on_empty=on_empty)
        self.set_aside = 0

    def drain(self) -> None:
        """Bring in what is there. What the database does not take now stays for the next call."""
        own = self._spool.take_own()
        try:
            # One by one: each is locked when its turn comes, so none stays locked when one before it does not go.
            for file in chain([own] if own else [], self._spool.adopt()):
                if not self._drain_file(file):
                    return
        finally:
            self._writer.close()

    def _drain_file(self, file: SpoolFile) -> bool:
        drained = 0
        try:
            for group in groups(self._entries(file), _GROUP):
                self._writer.write(group, lambda _entries, _kept: None)
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

    def _entries(self, file: SpoolFile) -> Iterator[Entry]:
        for line in file.lines():
            try:
                entry = entry_from(line)
            except ValueError:
                self._spool.reject(line.kind, line.record, "Unreadable")
                self.set_aside += 1
            else:
                yield entry

    def _set_aside(self, entry: Entry, reason: str) -> None:
        self.set_aside += 1
        self._spool.reject(entry.kind, entry.line, reason)

"""Callers without a valid key. They cost a counter, and now and then a line of the log: no row, no roll-up, nothing of what they wrote."""

from __future__ import annotations

import logging
import time
from collections import Counter

from dwctl.ai.calls import Incoming
from dwctl.errors import DwctlError

log = logging.getLogger(__name__)

_WINDOW_S = 60.0


class Strangers:
    """Those of this process."""

    def __init__(self, lines_per_minute: int) -> None:
        """`lines_per_minute`: how many of them the log names; 0 names none."""
        self.refused: Counter[str] = Counter()
        """How many, by the code of their refusal: one of ours, so there are few."""
        self._most = lines_per_minute
        self._since = -_WINDOW_S
        self._lines = 0
        self._left_out = 0

    def refuse(self, incoming: Incoming, error: DwctlError) -> None:
        """Count a caller that was sent away with `error`."""
        self.refused[error.code] += 1
        if not self._may_log():
            self._left_out += 1
            return
        log.info(
            "caller without a valid key refused",
            extra={
                "reason": error.code,
                "path": incoming.surface.path,
                "peer": _address_of(incoming),
                "left_out": self._left_out,
            },
        )
        self._left_out = 0

    def _may_log(self) -> bool:
        now = time.monotonic()
        if now >= self._since + _WINDOW_S:
            self._since, self._lines = now, 0
        self._lines += 1
        return self._lines <= self._most


def _address_of(incoming: Incoming) -> str:
    """The other end of the connection, where the server shows it: behind a proxy that is the proxy."""
    if incoming.peer is None:
        return "unknown"
    try:
        name = incoming.peer.getpeername()
    except OSError:
        return "gone"
    return str(name[0]) if isinstance(name, tuple) else "local"

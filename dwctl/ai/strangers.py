"""Callers without a valid key. They cost a counter, and now and then a line of the log: no row, no roll-up, nothing of what they wrote."""

from __future__ import annotations

import logging
from collections import Counter

from dwctl.ai.calls import Incoming
from dwctl.errors import DwctlError
from dwctl.sampling import Sample

log = logging.getLogger(__name__)


class Strangers:
    """Those of this process."""

    def __init__(self, lines_per_minute: int) -> None:
        """`lines_per_minute`: how many of them the log names; 0 names none."""
        self.refused: Counter[str] = Counter()
        """How many, by the code of their refusal: one of ours, so there are few."""
        self._named = Sample(lines_per_minute)

    def refuse(self, incoming: Incoming, error: DwctlError) -> None:
        """Count a caller that was sent away with `error`."""
        self.refused[error.code] += 1
        left_out = self._named.take()
        if left_out is not None:
            log.info(
                "caller without a valid key refused",
                extra={
                    "reason": error.code,
                    "path": incoming.surface.path,
                    "peer": _address_of(incoming),
                    "left_out": left_out,
                },
            )


def _address_of(incoming: Incoming) -> str:
    """The other end of the connection, where the server shows it: behind a proxy that is the proxy."""
    if incoming.peer is None:
        return "unknown"
    try:
        name = incoming.peer.getpeername()
    except OSError:
        return "gone"
    return str(name[0]) if isinstance(name, tuple) else "local"

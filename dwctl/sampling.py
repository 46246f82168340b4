"""Log lines about what anybody may cause as often as they like: so many a minute, and how many were left out."""

from __future__ import annotations

import time

_WINDOW_S = 60.0


class Sample:
    """Those of one kind in this process."""

    def __init__(self, per_minute: int) -> None:
        """0 takes none."""
        self._most = per_minute
        self._since = -_WINDOW_S
        self._taken = 0
        self._left_out = 0

    def take(self) -> int | None:
        """For one that happened: how many were left out since the last that was taken; None where it is left out, too."""
        now = time.monotonic()
        if now >= self._since + _WINDOW_S:
            self._since, self._taken = now, 0
        if self._taken >= self._most:
            self._left_out += 1
            return None
        self._taken += 1
        left_out, self._left_out = self._left_out, 0
        return left_out

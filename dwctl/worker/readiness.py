"""What `/readyz` of a worker says beside what every process says: whether it claims."""

from __future__ import annotations

import time
from collections.abc import Callable

from dwctl.operations.health import Check
from dwctl.worker.claims import Claims


def checks(claims: Claims, late_after_s: float) -> Callable[[], dict[str, Check]]:
    """Those of a worker with these claims, which should succeed at least every `late_after_s` and one interval."""
    made_at = time.monotonic()

    def look() -> dict[str, Check]:
        since_s = time.monotonic() - (claims.fine_at or made_at)
        facts = {"since_s": round(since_s, 1), "running": len(claims.runs), "room": claims.room}
        if since_s <= late_after_s + claims.interval_s:
            return {"claims": Check(True, None, facts)}
        problem = "nothing could be claimed for long: see the log (claim failed)"
        return {"claims": Check(False, problem, facts)}

    return look

"""When a worker looks for requests by itself: by the clock, and once after each pause of a model."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from dwctl import config
from dwctl.worker.claims import Claims


def test_a_pause_that_has_ended_is_looked_after_once() -> None:
    gateway: Any = SimpleNamespace(settings=config.load({"DATABASE_URL": "postgresql://nowhere"}))
    claims = Claims(gateway)
    by_the_clock = claims._rest_s()
    assert by_the_clock > 0
    claims._paused = {"ended": time.monotonic() - 1, "goes on": time.monotonic() + 3600}
    assert claims._rest_s() == 0
    # Where no slot is free the round ends before it looks at pauses: the next rest is a real one all the same.
    assert claims._rest_s() == by_the_clock

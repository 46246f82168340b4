"""The watcher of held calls, on a database that says something nobody has thought of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import gevent

from dwctl import config
from dwctl.ai.held import Held
from dwctl.wakeups import Wakeups


class Odd:
    """Connections that fail in a way of their own, once; after that no request is there."""

    def __init__(self) -> None:
        self.failed = False

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        if not self.failed:
            self.failed = True
            raise ValueError("a row that cannot be read")
        yield self

    def cursor(self, **_more: Any) -> Odd:
        return self

    def execute(self, _statement: str, values: dict[str, Any]) -> Odd:
        ids = values["ids"]
        texts = ids.strip("{}").split(",") if isinstance(ids, str) else []
        self.rows = [(UUID(text),) for text in texts]
        return self

    def fetchall(self) -> list[Any]:
        return self.rows


def test_a_fault_that_nobody_has_thought_of_ends_no_watch() -> None:
    connections: Any = Odd()
    held = Held(connections, sweep_s=0.01, most_per_owner=1)
    held.start(Wakeups(config.load({"DATABASE_URL": "postgresql://nowhere"})))
    waiter = held.enter(uuid4(), uuid4())
    held.look(waiter)
    with gevent.Timeout(10):
        while not waiter.over:
            waiter.wait(0.1)
    assert connections.failed
    held.stop()

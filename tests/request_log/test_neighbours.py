"""Which calls stand beside a call in a list."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID, uuid4

from tests.cast import Cast
from tests.identity.doors import Doors
from tests.request_log.conftest import LOG, Ask, Log


def beside(ask: Ask, id: UUID, path: str = LOG, who: str = "viewer", **query: Any) -> list[str]:
    found = ask(f"{path}/{id}/neighbours", who, **query)
    return [found["newer"], found["older"]]


def test_under_the_same_filters(ask: Ask, log: Log) -> None:
    old, failed, new = (log.call(ago_s=ago_s, status_code=status) for ago_s, status in ((30, 200), (20, 500), (10, 200)))  # fmt: skip
    assert beside(ask, failed) == [str(new), str(old)]
    assert beside(ask, new) == [None, str(failed)]
    assert beside(ask, new, status_code=200) == [None, str(old)]
    # A call that does not fit itself has its place among those that do.
    assert beside(ask, failed, status_code=200) == [str(new), str(old)]


def test_of_calls_that_came_at_once(ask: Ask, log: Log) -> None:
    """Lines of a batch have its time."""
    at = time.time()
    ids = sorted(log.call(at=at) for _ in range(3))
    assert beside(ask, ids[1]) == [str(ids[2]), str(ids[0])]


def test_one_sees_ones_own(ask: Ask, call: Doors, log: Log, cast: Cast) -> None:
    mine, theirs, older = (log.call(ago_s=ago_s, user_id=cast[who]) for who, ago_s in (("alice", 10), ("bob", 20), ("alice", 30)))  # fmt: skip
    assert beside(ask, mine, "/users/current/requests", "alice") == [None, str(older)]
    assert call("alice", "GET", f"/users/current/requests/{theirs}/neighbours").status_code == 404
    assert call("alice", "GET", f"{LOG}/{mine}/neighbours").status_code == 403
    assert call("viewer", "GET", f"{LOG}/{uuid4()}/neighbours").status_code == 404

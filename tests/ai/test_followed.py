"""Who follows a stream: nothing is left of one whose caller went before it began."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import create_engine

from dwctl.ai.followed import Followed
from dwctl.ai.following import Following
from dwctl.ai.held import Waiter
from dwctl.ai.in_progress import Flight
from dwctl.db import Connections
from dwctl.protocols.held_streams import KEEP_ALIVE, HeldStream
from dwctl.protocols.surfaces import CHAT
from tests.ai.values import a_request


@pytest.fixture
def following() -> Following:
    """It does not look: no database is needed."""
    return Following(Connections(create_engine("postgresql+psycopg://")), sweep_s=1.0)


def followed(following: Following, stream: HeldStream) -> Followed:
    responses = SimpleNamespace(keepalive=0.01)
    gateway: Any = SimpleNamespace(settings=SimpleNamespace(responses=responses), following=following)  # fmt: skip
    id = uuid4()
    return Followed(
        gateway,
        Waiter(id, uuid4()),
        Flight(id),
        stream,
        response_id=f"resp_{id}",
        owners=set(),
        until=float("inf"),
        has_events=False,
    )


def test_nothing_is_left_of_a_caller_that_leaves_before_its_stream_begins(
    following: Following,
) -> None:
    asked = a_request(alias="m", stream=True).asked
    pieces: Any = followed(following, CHAT.held_stream(asked)).pieces(begun=True)
    pieces.close()
    assert len(following) == 0


def test_nothing_is_left_of_a_caller_that_leaves_later(following: Following) -> None:
    asked = a_request(alias="m", stream=True).asked
    pieces: Any = followed(following, CHAT.held_stream(asked)).pieces(begun=True)
    assert next(pieces) == KEEP_ALIVE
    assert len(following) == 1
    pieces.close()
    assert len(following) == 0

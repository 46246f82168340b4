"""Callers without a valid key: all are counted, some are named."""

from __future__ import annotations

import logging
import socket

import pytest

from dwctl.ai.calls import Incoming
from dwctl.ai.strangers import Strangers
from dwctl.errors import Unauthenticated
from dwctl.protocols.surfaces import SURFACES

SURFACE = SURFACES["chat/completions"]


def named(caplog: pytest.LogCaptureFixture) -> list[tuple[str, int]]:
    return [(record.reason, record.left_out) for record in caplog.records]


@pytest.fixture
def heard(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("dwctl"), "propagate", True)
    caplog.set_level(logging.INFO, "dwctl.ai.strangers")
    return caplog


@pytest.mark.parametrize("most", [0, 1, 3])
def test_the_log_names_so_many_a_minute_and_all_are_counted(
    heard: pytest.LogCaptureFixture, most: int
) -> None:
    strangers = Strangers(most)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for _ in range(50):
            incoming = Incoming(SURFACE, "q" * 9000, [("authorization", "Bearer secret")], {}, None, bytes, ours)  # fmt: skip
            strangers.refuse(incoming, Unauthenticated())
    assert strangers.refused == {"unauthenticated": 50}
    assert named(heard) == [("unauthenticated", 0)] * most
    assert "secret" not in str([vars(record) for record in heard.records])


def test_a_line_says_how_many_were_left_out_before_it(
    heard: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("dwctl.sampling.time.monotonic", lambda: now)
    strangers = Strangers(1)
    incoming = Incoming(SURFACE, "", [], {}, None, bytes)
    for _ in range(7):
        strangers.refuse(incoming, Unauthenticated())
    now += 61
    strangers.refuse(incoming, Unauthenticated())
    assert named(heard) == [("unauthenticated", 0), ("unauthenticated", 6)]

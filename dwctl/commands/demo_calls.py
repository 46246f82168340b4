"""The first calls of `dwctl up --demo`, so that what opens has something to show: some at once, streamed, through the queue, and one that fails.

They go through the API, as everybody's do, and only where no call was ever made: a later start finds those of the first.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import requests
from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from dwctl.analytics.tables import CallLog
from dwctl.local.demo_upstream import CHAT_MODEL, EMBEDDING_MODEL
from dwctl.upstream import outbound
from dwctl.upstream.addresses import Policy, Purpose

log = logging.getLogger(__name__)

_TIMEOUT_S = 10
_OURS = Policy(Purpose.ENDPOINTS, "any")
_SAID = ("Hello", "What can you do?", "Say it again, in one short sentence")


def are_wanted(session: Session) -> bool:
    """Whether the log is empty."""
    return not session.scalar(select(exists(select(CallLog.id))))


def make(url: str, api_key: str) -> None:
    """Make them, within seconds. One that comes to nothing is no reason for the start to fail: the page then has fewer to show."""
    try:
        with outbound.session(_OURS) as session:
            session.headers["Authorization"] = f"Bearer {api_key}"
            for path, body in _calls():
                # Read to its end: a stream that is left is recorded as one that was cut off.
                _ = session.post(f"{url}/ai/v1/{path}", json=body, timeout=_TIMEOUT_S).content
    except requests.RequestException as error:
        log.warning("demo calls were not all made", extra={"error": str(error)})


def _calls() -> Iterator[tuple[str, dict[str, Any]]]:
    for text in _SAID:
        yield "chat/completions", {"model": CHAT_MODEL, "messages": _message(text)}
        yield "chat/completions", {"model": CHAT_MODEL, "messages": _message(text), "stream": True}
    yield "embeddings", {"model": EMBEDDING_MODEL, "input": list(_SAID)}
    yield "responses", {"model": CHAT_MODEL, "input": _SAID[0], "service_tier": "flex"}
    yield "chat/completions", {"model": "no-such-model", "messages": _message(_SAID[0])}


def _message(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]

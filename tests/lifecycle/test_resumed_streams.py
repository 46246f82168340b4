"""Streams that survive: resumed from another process, live and afterwards; flex streams word by word from the worker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.cast import Cast
from tests.gateway import Gateway, Json, events, marker
from tests.processes import Service, eventually

WORDS = [f"w{n} " for n in range(8)]


@pytest.fixture(scope="module")
def service(environ: dict[str, str], cast: Cast) -> Iterator[Service]:
    with Service(environ) as running:
        running.start_web()
        running.start_web()
        running.start_worker()
        yield running


@pytest.fixture(scope="module")
def other(stage: Gateway) -> str:
    """The address of the second web process."""
    return stage.service.webs[1].url


def resume(
    stage: Gateway, response_id: str, *, after: int | None = None, **more: Any
) -> requests.Response:
    query = "?stream=true" + ("" if after is None else f"&starting_after={after}")
    return requests.get(
        f"{more.pop('url', stage.url)}/ai/v1/responses/{response_id}{query}",
        headers=(more.pop("by", None) or stage.alice).authorization,
        stream=True,
        timeout=30,
    )


def test_a_background_stream_is_resumed_from_another_process(stage: Gateway, other: str) -> None:
    model = stage.flexible("chunks-8+gap-100")
    first = stage.respond(model, marker(), background=True, stream=True)
    arriving = events(first)
    seen = [next(arriving) for _ in range(6)]
    id = seen[0]["response"]["id"]
    resumed = resume(stage, id, after=seen[2]["sequence_number"], url=other)
    assert resumed.status_code == 200
    assert resumed.headers["content-type"].startswith("text/event-stream")
    again = list(events(resumed))
    whole = seen + list(arriving)
    assert again == whole[3:]
    assert whole[-1] == "[DONE]"
    assert whole[-2]["response"] == stage.shown(id)
    assert list(events(resume(stage, id, url=other))) == whole

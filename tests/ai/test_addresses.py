"""A gateway that may call public addresses only, with endpoints that are none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import requests

from dwctl.upstream.errors import AddressNotAllowed
from tests.gateway import Gateway, assert_openai_error, request_id, unique

pytestmark = pytest.mark.usefixtures("nothing_fell_over")

HOSTS = [
    "127.0.0.1",
    "localhost",
    "127.1",
    "0.0.0.0",
    "[::ffff:127.0.0.1]",
    "169.254.169.254",
    "10.0.0.1",
]


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | {"DWCTL_OUTBOUND__ENDPOINTS": "public"}


def url_at(gateway: Gateway, host: str) -> str:
    return gateway.upstream.url.replace("127.0.0.1", host)


def model_at(gateway: Gateway, host: str) -> str:
    endpoint = gateway.endpoint(url_at(gateway, host))
    return gateway.model("ok", alias=unique("near"), endpoint=endpoint)


def chat(gateway: Gateway, model: str) -> requests.Response:
    return gateway.chat(model)


def stream(gateway: Gateway, model: str) -> requests.Response:
    return gateway.chat(model, stream=True)


def respond(gateway: Gateway, model: str) -> requests.Response:
    return gateway.respond(model)


CALLS: list[Callable[[Gateway, str], requests.Response]] = [chat, stream, respond]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("host", HOSTS)
def test_a_call_is_refused_and_recorded(
    stage: Gateway, host: str, call: Callable[[Gateway, str], requests.Response]
) -> None:
    answer = call(stage, model_at(stage, host))
    assert_openai_error(answer, 502, AddressNotAllowed.code)
    assert host not in answer.text
    left = stage.left(answer)
    assert (left.request.state, left.request.response_status) == ("failed", 502)
    assert [log.status_code for log in left.logs] == [502]
    assert left.charges == []
    assert stage.upstream.seen() == []


def test_a_queued_request_fails_at_once(stage: Gateway) -> None:
    stage.service.worker()
    answer = stage.respond(model_at(stage, "localhost"), service_tier="flex", background=True)
    id = answer.json()["id"]
    assert stage.over(id)["status"] == "failed"
    tries = stage.one("SELECT retry_attempt FROM fusillade.requests WHERE id = %s", request_id(id))
    assert tries.retry_attempt == 0
    assert stage.upstream.seen() == []


@pytest.mark.parametrize("host", HOSTS)
def test_neither_is_it_asked_for_its_models(stage: Gateway, host: str) -> None:
    candidate: dict[str, Any] = {"type": "new", "url": url_at(stage, host)}
    shown = stage.admin("POST", "/endpoints/validate", candidate).json()
    assert shown["status"] == "error"
    assert "may not be called: outbound.endpoints is 'public'" in shown["error"]
    assert stage.upstream.seen() == []

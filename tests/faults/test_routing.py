"""Composite models whose targets hang, die, refuse and lie, through real processes: what the caller gets, what is written down."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.cast import Cast
from tests.fake_upstream import FakeUpstream
from tests.gateway import FLEX, REALTIME, Gateway, Held, assert_openai_error, cost, marker
from tests.processes import IMPATIENT, Service, eventually

pytestmark = pytest.mark.usefixtures("nothing_fell_over")

# Each in the name of the first target, which is asked first.
FAULTS = [
    "hang", "hang-in-head", "reset", "drop", "nowhere", "not-http", "fail-500", "fail-503", "fail-429+wait-60",
    "fail-429+wait-60+date", "error-in-200", "empty", "html",
]  # fmt: skip


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return (
        environ
        | IMPATIENT
        | {
            "DWCTL_UPSTREAM__CIRCUIT__FAILURES": "3",
            "DWCTL_UPSTREAM__CIRCUIT__OPEN_FOR": "1s",
            "DWCTL_BACKGROUND_SERVICES__BATCH_DAEMON__MAX_RETRIES": "2",
        }
    )


@pytest.fixture(scope="module")
def service(environ: dict[str, str], cast: Cast, upstream: FakeUpstream) -> Iterator[Service]:
    with Service(environ) as running:
        with running.at_once():
            running.start_web()
            running.start_worker()
        yield running


def story(stage: Gateway, answer: requests.Response | str) -> list[dict[str, Any]]:
    """The attempts of a call, from its log row."""
    attempts: list[dict[str, Any]] = stage.log_of(answer).attempts
    return attempts


def served(stage: Gateway, id: Any, tier: tuple[str, str] = REALTIME) -> list[dict[str, Any]]:
    """The attempts of a call that its second target has answered."""
    left = stage.left(id)
    assert left.request.state == "completed"
    (log,) = left.logs
    assert log.served_by.startswith("server1-")
    assert [charge.amount for charge in left.charges] == [cost(tier)]
    first, second = log.attempts
    assert first["next"]
    assert second["status"] == 200
    assert second["endpoint"] == log.served_by
    return [first, second]


@pytest.mark.parametrize("name", FAULTS)
def test_the_second_target_answers_in_every_mode(stage: Gateway, name: str) -> None:
    model = stage.pool(name, "ok", fallback_on_status=[429, 500, 503])
    answer = stage.chat(model)
    assert answer.status_code == 200, answer.text
    first, _ = served(stage, answer)
    assert first["model"] == name
    assert first["endpoint"].startswith("server0-")

    # Whoever said when to come back is left alone until then; the others are asked again.
    streamed = stage.respond(stage.pool(name, "ok"), stream=True)
    assert streamed.content.count(b"response.completed") == 2  # event and type
    served(stage, streamed)

    background = stage.respond(stage.pool(name, "ok"), background=True).json()["id"]
    assert stage.over(background)["status"] == "completed"
    served(stage, background.removeprefix("resp_"))

    flex = stage.respond(stage.pool(name, "ok"), service_tier="flex")
    assert flex.json()["status"] == "completed", flex.text
    served(stage, flex, FLEX)


@pytest.mark.parametrize("how", ["whole", "stream"])
@pytest.mark.parametrize(
    ("names", "status", "code", "retry_after"),
    [
        (("fail-429+wait-9", "fail-429+wait-4"), 429, None, "4"),
        (
            ("fail-429+wait-9+date", "fail-429+wait-120+date"),
            429,
            None,
            ("8", "9"),
        ),
        (("fail-503+wait-9", "nowhere"), 503, None, "9"),
        (("hang", "fail-500"), 500, None, None),
        (("nowhere", "hang"), 504, "gateway_timeout", None),
        (("hang", "nowhere"), 502, "upstream_unreachable", None),
        (("fail-500", "fail-422"), 422, None, None),
        (("error-in-200", "empty"), 502, None, None),
    ],
)
def test_when_all_fail_the_last_status_that_was_said_is_what_the_caller_gets(
    stage: Gateway, names: tuple[str, ...], status: int, code: str | None, retry_after: Any, how: str,
) -> None:  # fmt: skip
    answer = stage.chat(stage.pool(*names), stream=how == "stream")
    error = assert_openai_error(answer, status)
    if code:
        assert error["code"] == code
    found = answer.headers.get("retry-after")
    assert found in retry_after if isinstance(retry_after, tuple) else found == retry_after
    attempts = story(stage, answer)
    assert [one["model"] for one in attempts] == list(names)
    assert "next" in attempts[0]
    assert "next" not in attempts[1]
    assert stage.left(answer).charges == []


def test_without_fallback_the_first_answer_stands(stage: Gateway) -> None:
    model = stage.pool("fail-503+wait-30", "ok", fallback_enabled=False)
    answer = stage.chat(model)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
    assert len(story(stage, answer)) == 1
    # But who is to be left alone for 30 seconds is not chosen meanwhile.
    assert stage.chat(model).status_code == 200


def test_who_said_when_to_come_back_is_left_alone_until_then(stage: Gateway) -> None:
    model = stage.pool("fail-429+wait-2", "ok")
    assert len(story(stage, stage.chat(model))) == 2
    assert len(story(stage, stage.chat(model))) == 1
    time.sleep(2.1)
    assert len(story(stage, stage.chat(model))) == 2


def test_when_all_are_to_be_left_alone_nobody_is_asked(stage: Gateway) -> None:
    model = stage.pool("fail-429+wait-90", "fail-429+wait-60", fallback_max_attempts=9)
    assert stage.chat(model).status_code == 429
    stage.upstream.reset()
    for stream in (False, True):
        answer = stage.chat(model, stream=stream)
        assert_openai_error(answer, 429, "rate_limit")
        assert 50 <= int(answer.headers["retry-after"]) <= 60
    assert stage.upstream.seen() == []
    # The only one of its pool is asked all the same.
    alone = stage.pool("fail-429+wait-90", fallback_max_attempts=9)
    for _ in range(2):
        assert_openai_error(stage.chat(alone), 429, "upstream_code")
    assert len(stage.upstream.seen()) == 2


def test_a_second_round_where_more_attempts_are_wanted_than_there_are_targets(
    stage: Gateway,
) -> None:
    model = stage.pool("flaky-1", "fail-500", fallback_max_attempts=3)
    answer = stage.chat(model, body={"user": marker()})
    assert answer.status_code == 200
    assert [one["model"] for one in story(stage, answer)] == ["flaky-1", "fail-500", "flaky-1"]


def test_a_target_that_keeps_failing_is_left_out_and_probed_back(stage: Gateway) -> None:
    said = marker()
    model = stage.pool("flaky-3", "ok")
    for _ in range(3):
        assert len(story(stage, stage.chat(model, body={"user": said}))) == 2
    for _ in range(3):
        (only,) = story(stage, stage.chat(model, body={"user": said}))
        assert only["model"] == "ok"
    assert "target keeps failing" in stage.service.webs[0].output()
    metrics = stage.session.get(stage.url + "/internal/metrics", timeout=5)
    if metrics.ok:
        assert 'dwctl_upstream_target_left_out{endpoint="server0-' in metrics.text
        assert "dwctl_upstream_attempts_failed_total" in metrics.text
    time.sleep(1.05)
    (only,) = story(stage, stage.chat(model, body={"user": said}))
    assert only["model"] == "flaky-3"
    assert "target answers again" in stage.service.webs[0].output()


def test_if_all_keep_failing_all_are_tried(stage: Gateway) -> None:
    model = stage.pool("fail-500", "drop")
    for _ in range(4):
        answer = stage.chat(model)
        assert answer.status_code == 500
    assert len(story(stage, answer)) == 2


def test_who_served_a_call_is_said_to_those_who_may_know(stage: Gateway) -> None:
    bob = stage.account()
    model = stage.pool("fail-500", "ok/meta llama")
    for stream in (False, True):
        assert "x-dwctl-served-by" not in stage.chat(model, by=bob, stream=stream).headers
    roles = ["StandardUser", "PlatformManager"]
    stage.admin("PATCH", f"/users/{bob.id}", {"roles": roles})
    eventually(lambda: "x-dwctl-served-by" in stage.chat(model, by=bob).headers, 5)
    for stream in (False, True):
        name = stage.chat(model, by=bob, stream=stream).headers["x-dwctl-served-by"]
        assert name.startswith("server1-")
        assert name.endswith("/ok/meta%20llama")
    stage.admin("PATCH", f"/users/{bob.id}", {"roles": roles[:1]})
    eventually(lambda: "x-dwctl-served-by" not in stage.chat(model, by=bob).headers, 5)
    free = stage.pool("fail-500", "ok", tariffs=[])
    asked = {"model": free, "messages": [{"role": "user", "content": "Hello"}]}
    for who, knows in (("admin", True), ("alice", False)):
        answer = requests.post(
            f"{stage.url}/admin/api/v1/ai/v1/chat/completions",
            json=asked, headers=Cast.headers(who), timeout=20,
        )  # fmt: skip
        assert ("x-dwctl-served-by" in answer.headers) is knows, answer.text


def test_who_served_a_call_of_a_worker_is_said_to_those_who_may_know(stage: Gateway) -> None:
    bob = stage.account()
    pool = stage.pool("fail-500", "ok/meta llama")
    alone = stage.flexible("ok/alone")
    stage.admin("PATCH", f"/users/{bob.id}", {"roles": ["StandardUser", "PlatformManager"]})
    flex = {"service_tier": "flex"}
    eventually(lambda: "x-dwctl-served-by" in stage.chat(alone, by=bob).headers, 5)
    for model, there in ((pool, "/ok/meta%20llama"), (alone, "/ok/alone")):
        said = stage.chat(model, by=bob, body=flex).headers["x-dwctl-served-by"]
        assert said.endswith(there)
    assert "x-dwctl-served-by" not in stage.chat(alone, by=stage.account(), body=flex).headers


def test_a_redirect_leads_to_a_composite_model(stage: Gateway) -> None:
    pool = stage.pool("fail-500", "ok")
    rule = {"api_key_purpose": "realtime", "action": {"type": "redirect", "target": pool}}
    asked = stage.model("echo", traffic_routing_rules=[rule])
    answer = stage.chat(asked)
    assert answer.status_code == 200, answer.text
    assert stage.left(answer).request.routed_model == pool
    assert [one["model"] for one in story(stage, answer)] == ["fail-500", "ok"]


def test_a_pool_of_nothing_is_unavailable(stage: Gateway) -> None:
    empty = stage.pool()
    assert_openai_error(stage.chat(empty), 503, "service_unavailable")
    rule = {"api_key_purpose": "realtime", "action": {"type": "redirect", "target": empty}}
    asked = stage.model("echo", traffic_routing_rules=[rule])
    assert_openai_error(stage.chat(asked), 502)


def test_a_call_that_is_cancelled_between_two_targets_stops_there(stage: Gateway) -> None:
    model = stage.pool("fail-500", "hold", "ok")
    said = marker()
    id = stage.respond(model, said, background=True).json()["id"]
    eventually(lambda: len(stage.sent(said)) == 2)
    assert stage.cancel(id).status_code == 200
    eventually(lambda: [seen["outcome"] for seen in stage.sent(said)] == ["answered", "left"])
    attempts = eventually(lambda: [log.attempts for log in stage.of(id).logs])[0]
    assert [one.get("failure") for one in attempts] == ["http_500", "stopped"]
    assert stage.leases() == []


def test_a_flex_call_whose_targets_all_fail_is_tried_again_later(stage: Gateway) -> None:
    said = marker()
    model = stage.pool("flaky-1", "flaky-2")
    answer = Held(lambda: stage.respond(model, said, service_tier="flex")).answer()
    assert answer.json()["status"] == "completed", answer.text
    row = stage.left(answer).request
    assert (row.state, row.retry_attempt) == ("completed", 1)
    assert [one["model"] for one in story(stage, answer)] == ["flaky-1"]

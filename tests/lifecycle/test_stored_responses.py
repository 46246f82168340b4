"""Responses after they were accepted: fetched, cancelled and deleted, by their owner only, wherever they wait or run."""

from __future__ import annotations

import pytest
import requests

from tests.gateway import (
    REALTIME,
    UNKNOWN,
    Account,
    Gateway,
    Held,
    Json,
    assert_openai_error,
    cost,
    frames,
    marker,
    request_id,
)
from tests.processes import Process, eventually
from tests.protocols.openresponses.schema import check_response, events_of

MODES = {"realtime": {}, "flex": {"service_tier": "flex"}}


@pytest.fixture(scope="module")
def bob(stage: Gateway) -> Account:
    return stage.account()


@pytest.fixture
def other_web(stage: Gateway) -> Process:
    """A second web process, which has nothing of the first but the database."""
    return stage.service.webs[1]


def running(stage: Gateway, model: str = "hold", **more: object) -> str:
    """The id of a background response that the upstream is working on."""
    said = marker()
    answer = stage.respond(stage.flexible(model), said, background=True, **more)
    assert answer.status_code == 202, answer.text
    eventually(lambda: stage.sent(said))
    id: str = answer.json()["id"]
    stage.begun(id)
    return id


def queued(stage: Gateway, said: str, **more: object) -> str:
    """The id of a flex response that waits, because its model is busy with another one."""
    model = stage.flexible("hold", alias="hold+one", batch_capacity=1)
    if not stage.upstream.active()["active"]:
        first = stage.respond(model, marker(), background=True, service_tier="flex").json()["id"]
        stage.begun(first)
    answer = stage.respond(model, said, background=True, service_tier="flex", **more)
    id: str = answer.json()["id"]
    assert stage.state(id) == "pending"
    return id


@pytest.fixture(autouse=True)
def nothing_is_left(stage: Gateway) -> object:
    """Each test lets go of what it holds at the upstream."""
    yield
    stage.upstream.release()
    eventually(lambda: not stage.leases())
    stage.upstream.reset()


# --- who may see it


@pytest.mark.parametrize("mode", MODES)
def test_only_its_owner_sees_a_response(stage: Gateway, bob: Account, mode: str) -> None:
    id = stage.respond(stage.flexible("plain"), **MODES[mode]).json()["id"]
    for answer in (
        stage.get(f"/responses/{id}", by=bob),
        stage.cancel(id, by=bob),
        stage.delete(id, by=bob),
    ):
        assert_openai_error(answer, 404, "response_not_found")
    assert stage.shown(id)["status"] == "completed"


def test_every_key_and_the_session_of_an_account_see_its_responses(stage: Gateway) -> None:
    id = stage.respond(stage.flexible("plain")).json()["id"]
    more = stage.admin("POST", f"/users/{stage.alice.id}/api-keys", {"name": "another"}).json()
    eventually(
        lambda: stage.get("/models", headers={"Authorization": f"Bearer {more['key']}"}).ok, 5
    )
    for headers in ({"Authorization": f"Bearer {more['key']}"}, stage.alice.session):
        answer = stage.get(f"/responses/{id}", headers=headers)
        assert answer.status_code == 200
        assert answer.json()["id"] == id


def test_the_prefix_may_be_left_out(stage: Gateway) -> None:
    id = stage.respond(stage.flexible("plain")).json()["id"]
    assert stage.shown(str(request_id(id)))["id"] == id


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer sk-unknown"}])
def test_without_a_good_key_there_is_nothing_to_see(stage: Gateway, headers: Json) -> None:
    id = stage.respond(stage.flexible("plain")).json()["id"]
    assert_openai_error(stage.get(f"/responses/{id}", headers=headers), 401)
    delete = requests.delete(f"{stage.url}/ai/v1/responses/{id}", headers=headers, timeout=20)
    assert_openai_error(delete, 401)


@pytest.mark.parametrize(
    "id",
    [
        f"resp_{UNKNOWN}",
        "resp_nonsense",
        "nonsense",
        "resp_",
        "resp_" + "0" * 3000,
        "resp_%00",
        "resp_{" + UNKNOWN + "}",
        f"resp_resp_{UNKNOWN}",
    ],
    ids=lambda id: id[:12],
)
def test_an_unknown_id_is_404(stage: Gateway, id: str) -> None:
    for answer in (stage.get(f"/responses/{id}"), stage.cancel(id), stage.delete(id)):
        assert_openai_error(answer, 404)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_what_asked_not_to_be_stored_cannot_be_fetched(
    stage: Gateway, mode: str, stream: bool
) -> None:
    answer = stage.respond(stage.flexible("plain"), store=False, stream=stream, **MODES[mode])
    assert answer.status_code == 200
    assert answer.content
    id = f"resp_{answer.headers['x-request-id']}"
    if not stream:
        assert answer.json()["store"] is False
    assert_openai_error(stage.get(f"/responses/{id}"), 404, "response_not_found")
    assert len(stage.charges(id)) == 1


# --- cancel


def test_a_waiting_response_is_cancelled_before_anything_is_sent(stage: Gateway) -> None:
    said = marker()
    id = queued(stage, said)
    answer = stage.cancel(id)
    assert answer.status_code == 200, answer.text
    check_response(answer.json())
    assert answer.json()["status"] == "cancelled"
    assert stage.shown(id) == answer.json()
    stage.upstream.release()
    eventually(lambda: not stage.leases())
    assert stage.state(id) == "canceled"
    assert stage.sent(said) == []
    assert stage.charges(id) == []
    assert stage.of(id).batch.cancelled_at is not None


@pytest.mark.parametrize("mode", MODES)
def test_a_running_response_is_cancelled_and_its_upstream_call_stops(
    stage: Gateway, other_web: Process, mode: str
) -> None:
    """From another process than the one that runs it: flex runs in the worker, realtime in the first web process."""
    id = running(stage, **MODES[mode])
    answer = stage.cancel(id, url=other_web.url)
    assert answer.status_code == 200, answer.text
    check_response(answer.json())
    assert answer.json()["status"] == "cancelled"
    stage.upstream.wait_active(0)
    eventually(lambda: not stage.leases())
    assert [seen["outcome"] for seen in stage.upstream.seen()] == ["left"]
    assert stage.state(id) == "canceled"
    assert stage.shown(id) == answer.json()
    assert stage.charges(id) == []


@pytest.mark.parametrize("mode", MODES)
def test_cancelling_again_or_too_late_changes_nothing(stage: Gateway, mode: str) -> None:
    done = stage.respond(stage.flexible("plain"), **MODES[mode]).json()
    assert stage.cancel(done["id"]).json() == done
    assert stage.shown(done["id"]) == done

    cancelled = running(stage, **MODES[mode])
    first = stage.cancel(cancelled)
    again = stage.cancel(cancelled)
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json() == again.json()

    failed = stage.respond(stage.flexible("fail-400"), background=True, **MODES[mode]).json()["id"]
    shown = stage.over(failed)
    assert shown["status"] == "failed"
    assert stage.cancel(failed).json() == shown


def test_a_cancelled_stream_in_the_background_bills_what_it_used(stage: Gateway) -> None:
    model = stage.flexible("chunks-6+usage-each+hold-stream")
    stream = stage.respond(model, background=True, stream=True)
    id = f"resp_{stream.headers['x-request-id']}"
    eventually(lambda: stage.state(id) == "processing")
    stage.upstream.wait_active(1)
    some = b""
    pieces = stream.iter_content(None)
    while b"output_text.delta" not in some:
        some += next(pieces)
    assert stage.cancel(id).json()["status"] == "cancelled"
    events = events_of(some + b"".join(pieces))
    assert events[-1]["response"]["status"] == "cancelled"
    stage.upstream.wait_active(0)
    eventually(lambda: not stage.leases())
    assert stage.state(id) == "canceled"
    assert stage.charges(id) == [cost(REALTIME)]
    assert stage.shown(id)["status"] == "cancelled"


def test_a_cancelled_stream_whose_usage_is_unknown_bills_what_it_said(stage: Gateway) -> None:
    stream = stage.respond(stage.flexible("chunks-6+hold-stream"), background=True, stream=True)
    id = f"resp_{stream.headers['x-request-id']}"
    pieces = stream.iter_content(None)
    some = b""
    while b"w1 " not in some:
        some += next(pieces)
    stage.cancel(id)
    eventually(lambda: stage.of(id).logs)
    (log,) = stage.of(id).logs
    assert log.usage_source == "estimated"
    assert log.completion_tokens > 0
    assert log.prompt_tokens > 0
    assert stage.charges(id) == [cost(REALTIME, log.prompt_tokens, log.completion_tokens)]
    stream.close()


def test_a_held_caller_hears_of_its_cancel(stage: Gateway) -> None:
    said = marker()
    model = stage.flexible("hold")
    held = Held(lambda: stage.respond(model, said, service_tier="flex"))
    talking = Held(lambda: stage.converse(model, said, service_tier="flex"))
    eventually(lambda: len(stage.sent(said)) == 2)
    for row in stage.all("SELECT id FROM fusillade.requests WHERE state = 'processing'"):
        assert stage.cancel(f"resp_{row.id}").status_code == 200
    assert_openai_error(held.answer(), 499, "cancelled")
    assert_openai_error(talking.answer(), 499, "cancelled")


def test_a_streaming_caller_hears_of_its_cancel(stage: Gateway) -> None:
    stream = stage.respond(stage.flexible("hold"), stream=True, service_tier="flex")
    id = f"resp_{stream.headers['x-request-id']}"
    stage.begun(id)
    stage.cancel(id)
    last = events_of(stream.content)[-1]
    assert last["response"]["status"] == "cancelled"
    assert last["response"]["id"] == id


def test_a_blocking_realtime_call_that_lasts_can_be_cancelled(stage: Gateway) -> None:
    said = marker()
    held = Held(lambda: stage.respond(stage.flexible("hold"), said))
    rows = eventually(
        lambda: stage.all("SELECT id FROM fusillade.requests WHERE state = 'processing'")
    )
    id = f"resp_{rows[0].id}"
    assert stage.cancel(id).json()["status"] == "cancelled"
    assert_openai_error(held.answer(), 499, "cancelled")
    assert stage.state(id) == "canceled"
    assert stage.sent(said)[0]["outcome"] == "left"


# --- delete


@pytest.mark.parametrize("mode", MODES)
def test_a_deleted_response_is_gone_and_what_it_cost_stays(stage: Gateway, mode: str) -> None:
    id = stage.respond(stage.flexible("plain"), **MODES[mode]).json()["id"]
    before = stage.balance(stage.alice.id)
    answer = stage.delete(id)
    assert answer.status_code == 200
    assert answer.json() == {"id": id, "object": "response", "deleted": True}
    assert_openai_error(stage.get(f"/responses/{id}"), 404, "response_not_found")
    assert_openai_error(stage.delete(id), 404, "response_not_found")
    assert_openai_error(stage.cancel(id), 404, "response_not_found")
    left = stage.of(id)
    assert (left.request, left.batch, left.template) == (None, None, None)
    assert len(left.logs) == 1
    assert len(left.charges) == 1
    assert stage.balance(stage.alice.id) == before


@pytest.mark.parametrize("mode", MODES)
def test_a_response_deleted_while_it_runs_stays_deleted(
    stage: Gateway, other_web: Process, mode: str
) -> None:
    id = running(stage, **MODES[mode])
    answer = stage.delete(id, url=other_web.url)
    assert answer.status_code == 200, answer.text
    stage.upstream.wait_active(0)
    eventually(lambda: not stage.leases())
    assert_openai_error(stage.get(f"/responses/{id}"), 404)
    left = stage.of(id)
    assert (left.request, left.batch, left.template) == (None, None, None)


def test_a_response_deleted_while_it_waits_is_never_run(stage: Gateway) -> None:
    said = marker()
    id = queued(stage, said)
    assert stage.delete(id).status_code == 200
    stage.upstream.release()
    eventually(lambda: not stage.leases())
    other = stage.respond(stage.flexible("hold", alias="hold+one"), background=True, service_tier="flex")  # fmt: skip
    stage.begun(other.json()["id"])
    assert stage.sent(said) == []
    assert stage.of(id).request is None


def test_a_held_caller_hears_of_its_deletion(stage: Gateway) -> None:
    said = marker()
    held = Held(lambda: stage.respond(stage.flexible("hold"), said, service_tier="flex"))
    eventually(lambda: stage.sent(said))
    (row,) = stage.all("SELECT id FROM fusillade.requests WHERE state = 'processing'")
    assert stage.delete(f"resp_{row.id}").status_code == 200
    answer = held.answer()
    assert answer.status_code in (404, 499), answer.text
    assert answer.json()["error"]["code"] in ("response_not_found", "cancelled")


# --- rows changed by hand: no notification says so


def test_a_row_deleted_by_hand_wakes_its_held_caller(stage: Gateway) -> None:
    said = marker()
    held = Held(lambda: stage.respond(stage.flexible("hold"), said, service_tier="flex"))
    eventually(lambda: stage.sent(said))
    stage.execute("DELETE FROM fusillade.requests WHERE state = 'processing'")
    assert_openai_error(held.answer(), 404, "response_not_found")


def test_a_row_ended_by_hand_is_not_overwritten_by_its_worker(stage: Gateway) -> None:
    said = marker()
    held = Held(lambda: stage.respond(stage.flexible("hold"), said, service_tier="flex"))
    eventually(lambda: stage.sent(said))
    (row,) = stage.all("SELECT id FROM fusillade.requests WHERE state = 'processing'")
    stage.execute(
        "UPDATE fusillade.requests SET state = 'completed', response_status = 200, completed_at = now(), "
        'response_body = \'{"output": [{"type": "message", "content": "by hand"}]}\' WHERE id = %s',
        row.id,
    )
    answer = held.answer()
    assert answer.status_code == 200
    assert answer.json()["output"][0]["content"][0]["text"] == "by hand"
    stage.upstream.release()
    stage.upstream.wait_active(0)
    eventually(lambda: not stage.leases())
    assert stage.shown(f"resp_{row.id}")["output"][0]["content"][0]["text"] == "by hand"
    assert stage.charges(f"resp_{row.id}") == []


def test_a_row_failed_by_hand_fails_its_streaming_caller(stage: Gateway) -> None:
    stream = stage.respond(stage.flexible("hold"), stream=True, service_tier="flex")
    id = f"resp_{stream.headers['x-request-id']}"
    stage.begun(id)
    stage.execute(
        "UPDATE fusillade.requests SET state = 'failed', error = 'by hand', failed_at = now() WHERE id = %s",
        request_id(id),
    )
    assert frames(stream.content)[-2:] == ["response.failed", "[DONE]"]
    assert stage.shown(id)["error"]["message"] == "by hand"

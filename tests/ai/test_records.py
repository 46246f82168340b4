"""What a call leaves behind, looked at the moment its answer is in: tracking rows, one log row, one charge, the balance."""

from __future__ import annotations

import threading
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import orjson
import pytest
import requests

from tests.cast import Cast
from tests.gateway import HELLO, UNKNOWN, Gateway, assert_openai_error, events
from tests.processes import eventually


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | {"DWCTL_RECORDER__OPEN_AFTER": "0.2s"}


BODIES: dict[str, dict[str, Any]] = {
    "/chat/completions": {"messages": HELLO},
    "/completions": {"prompt": "Hello"},
    "/embeddings": {"input": "Hello"},
}


def call(gateway: Gateway, path: str, model: str, *, stream: bool = False, **more: Any) -> Any:
    body = {"model": model} | BODIES[path] | ({"stream": True} if stream else {})
    answer = gateway.post(path, body, stream=stream, **more)
    if stream:
        assert list(events(answer))[-1] == "[DONE]"
    return answer


# --- calls that succeed


@pytest.mark.parametrize(
    ("path", "stream", "type", "tokens", "amount"),
    [
        ("/chat/completions", False, "chat_completion", (9, 3, 12), "0.015"),
        ("/chat/completions", True, "chat_completion_stream", (9, 3, 12), "0.015"),
        ("/completions", False, "completion", (9, 3, 12), "0.015"),
        ("/completions", True, "completion_stream", (9, 3, 12), "0.015"),
        ("/embeddings", False, "embeddings", (9, 0, 9), "0.009"),
    ],
)
def test_an_answered_call_is_tracked_logged_and_charged_when_its_answer_is_in(
    seeded: Gateway,
    path: str,
    stream: bool,
    type: str,
    tokens: tuple[int, int, int],
    amount: str,
) -> None:
    model, account = seeded.model("ok"), seeded.account("1")
    answer = call(seeded, path, model, stream=stream, by=account)
    left = seeded.left(answer)
    check_tracking(seeded, left, path, model, account.id)
    assert left.request.state == "completed"
    assert left.request.response_status == 200
    assert left.request.error is None
    assert left.request.completed_at >= left.request.started_at
    (log,) = left.logs
    assert (log.prompt_tokens, log.completion_tokens, log.total_tokens) == tokens
    assert (log.method, log.uri, log.model, log.status_code) == ("POST", path, model, 200)
    assert (log.response_type, log.usage_source) == (type, "reported")
    assert (log.user_id, log.api_key_id) == (account.id, account.key_id)
    assert (log.access_source, log.request_origin) == ("api_key", "api")
    assert 0 <= log.duration_to_first_byte_ms <= log.duration_ms < 30_000
    assert log.served_by.startswith("endpoint-")
    assert log.total_cost == Decimal(amount)
    (charge,) = left.charges
    assert (charge.transaction_type, charge.amount) == ("usage", Decimal(amount))
    assert (charge.user_id, charge.api_key_id) == (account.id, account.key_id)
    assert seeded.balance(account.id) == 1 - Decimal(amount)


def check_tracking(
    gateway: Gateway, left: SimpleNamespace, path: str, model: str, owner: object
) -> None:
    request, batch, template = left.request, left.batch, left.template
    assert request.batch_id is not None
    assert (request.batch_id, request.template_id) == (batch.id, template.id)
    assert (request.model, request.service_tier) == (model, "priority")
    assert request.retry_attempt == 0
    assert (template.method, template.path, template.model) == ("POST", f"/v1{path}", model)
    assert orjson.loads(template.body)["model"] == model
    assert template.body_byte_size == len(template.body.encode())
    assert (batch.created_by, batch.total_requests) == (str(owner), 1)
    assert (batch.endpoint, batch.completion_window) == (f"/v1{path}", "0s")
    file = gateway.one("SELECT * FROM fusillade.files WHERE id = %s", batch.file_id)
    assert (file.name, file.purpose, file.uploaded_by) == ("single_request", "batch", str(owner))
    daemon = gateway.one("SELECT * FROM fusillade.daemons WHERE id = %s", request.daemon_id)
    assert daemon.status == "running"


def test_the_body_that_is_stored_is_the_body_that_was_answered(seeded: Gateway) -> None:
    for path in BODIES:
        answer = call(seeded, path, seeded.model("ok"))
        stored = seeded.left(answer).request
        assert stored.response_body == answer.text
        assert stored.response_size == len(answer.content)


def test_a_stream_is_stored_as_the_answer_that_it_adds_up_to(seeded: Gateway) -> None:
    answer = call(seeded, "/chat/completions", seeded.model("tools-2"), stream=True)
    stored = orjson.loads(seeded.left(answer).request.response_body)
    assert stored["object"] == "chat.completion"
    assert stored["id"] == f"resp_{answer.headers['x-request-id']}"
    message = stored["choices"][0]["message"]
    assert [tool["id"] for tool in message["tool_calls"]] == ["call_1", "call_2"]
    assert stored["usage"]["total_tokens"] == 12


def test_texts_that_a_database_does_not_like_are_stored(seeded: Gateway) -> None:
    # As JSON text: an escaped NUL, quotes, marks of other placeholders, characters of four bytes.
    said = rb"NUL \u0000, quote ' \" \\ {} %s $1 ? " + "世界 🌍".encode()
    body = b'{"model":"%b","messages":[{"role":"user","content":"%b"}]}' % (
        seeded.model("echo").encode(),
        said,
    )
    answer = seeded.post("/chat/completions", body)
    assert answer.status_code == 200
    left = seeded.left(answer)
    assert left.template.body == body.decode()
    assert left.request.response_body == answer.text
    read = seeded.get(f"/responses/resp_{left.id}").json()
    assert read["output"][0]["content"][0]["text"] == orjson.loads(b'"%b"' % said)


def test_reasoning_and_cached_tokens_are_logged(seeded: Gateway) -> None:
    answer = seeded.chat(seeded.model("usage-100-50+cached-40+thought-30"))
    (log,) = seeded.left(answer).logs
    assert (log.cached_tokens, log.reasoning_tokens) == (40, 30)
    # They are among the others: nothing is charged twice.
    assert seeded.left(answer).charges[0].amount == Decimal("0.2")


def test_a_query_string_is_logged(seeded: Gateway) -> None:
    answer = seeded.post("/chat/completions?a=b", {"model": seeded.model("ok"), "messages": HELLO})
    assert seeded.left(answer).logs[0].uri == "/chat/completions?a=b"


def test_a_platform_key_may_call_and_is_charged(seeded: Gateway) -> None:
    account = seeded.account("1", purpose="platform")
    answer = seeded.chat(seeded.model("ok"), by=account)
    assert answer.status_code == 200
    assert seeded.left(answer).charges[0].amount == Decimal("0.015")


def test_each_call_adds_to_the_sums(seeded: Gateway) -> None:
    model, other, account = seeded.model("ok"), seeded.model("fail-500"), seeded.account()
    for _ in range(3):
        seeded.chat(model, by=account)
    seeded.chat(other, by=account)
    rows = seeded.all(
        "SELECT model, sum(calls)::int AS calls, coalesce(sum(calls) FILTER (WHERE status_code = 200), 0)::int AS succeeded, sum(prompt_tokens)::int AS prompt_tokens, "
        "sum(completion_tokens)::int AS completion_tokens, sum(cost) AS cost FROM usage_deltas WHERE user_id = %s GROUP BY 1",
        account.id,
    )
    assert {row.model: tuple(row[1:]) for row in rows} == {
        model: (3, 3, 27, 9, Decimal("0.045")),
        other: (1, 0, 0, 0, 0),
    }
    assert seeded.balance(account.id) == 1000 - Decimal("0.045")
    assert not seeded.unbalanced()


def test_a_call_that_lasts_is_visible_before_it_is_answered(seeded: Gateway) -> None:
    seeded.upstream.reset()
    account, answers = seeded.account(), []
    model = seeded.model("hold")
    thread = threading.Thread(target=lambda: answers.append(seeded.chat(model, by=account)))
    thread.start()
    opened = eventually(
        lambda: seeded.all(
            "SELECT r.* FROM fusillade.requests r JOIN fusillade.batches b USING (id) WHERE b.created_by = %s",
            str(account.id),
        )
    )[0]
    assert opened.state == "processing"
    running = seeded.get(f"/responses/resp_{opened.id}", by=account).json()
    assert running["status"] == "in_progress"
    seeded.upstream.release()
    thread.join(10)
    assert answers[0].headers["x-request-id"] == str(opened.id)
    left = seeded.left(opened.id)
    assert left.request.state == "completed"
    assert (left.template.body, len(left.logs), len(left.charges)) != (None, 1, 0)
    assert not seeded.all("SELECT FROM fusillade.open_calls WHERE id = %s", opened.id)
    assert seeded.get(f"/responses/resp_{opened.id}", by=account).json()["status"] == "completed"


def test_a_stream_is_visible_from_its_first_event(seeded: Gateway) -> None:
    seeded.upstream.reset()
    answer = seeded.chat(seeded.model("hold-stream"), stream=True)
    arriving = events(answer)
    id = next(arriving)["id"]
    assert seeded.get(f"/responses/{id}").json()["status"] == "in_progress"
    seeded.upstream.release()
    assert list(arriving)[-1] == "[DONE]"
    assert seeded.get(f"/responses/{id}").json()["status"] == "completed"


# --- calls that fail upstream


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
def test_a_failed_upstream_leaves_a_failed_row_a_log_row_and_no_charge(
    seeded: Gateway, status: int, stream: bool
) -> None:
    answer = seeded.chat(seeded.model(f"fail-{status}"), stream=stream)
    assert answer.status_code == status
    left = seeded.left(answer)
    assert left.request.state == "failed"
    assert left.request.response_status == status
    assert left.request.failed_at is not None
    assert orjson.loads(left.request.error)["details"]["status"] == status
    (log,) = left.logs
    assert (log.status_code, log.error_code) == (status, f"http_{status}")
    assert (log.prompt_tokens, log.usage_source) == (0, "none")
    assert left.charges == []
    shown = seeded.get(f"/responses/resp_{left.id}").json()
    assert (shown["status"], shown["object"]) == ("failed", "response")
    assert shown["error"]["message"]


# --- calls that are refused


def test_refusals_are_logged_and_leave_no_row(seeded: Gateway) -> None:
    poor, rich = seeded.account(None), seeded.account()
    ok = seeded.model("ok")
    hidden = seeded.model("ok", alias="refused-model", everyone=False)
    eventually(lambda: seeded.chat(hidden, by=rich).status_code == 403)
    table = [
        (seeded.chat(ok, by=poor), 402, "api_key", poor.id),
        (seeded.chat(hidden, by=rich), 403, "api_key", rich.id),
        (seeded.chat("no-such-model", by=rich), 404, "api_key", rich.id),
        (seeded.chat(ok, by=rich, body={"service_tier": "gold"}), 400, "api_key", rich.id),
    ]
    for answer, status, source, user_id in table:
        assert answer.status_code == status
        log = seeded.log_of(answer)
        assert (log.status_code, log.access_source, log.user_id) == (status, source, user_id)
        assert log.total_cost is None
        assert log.error_code
        left = seeded.left(answer)
        assert (left.request, left.batch, left.charges) == (None, None, [])
    assert seeded.balance(rich.id) == 1000


def test_strangers_leave_no_row_and_callers_one_that_is_cut(seeded: Gateway) -> None:
    caller = seeded.account()
    name = "no-such-" + "x" * 400
    strangers = [
        seeded.chat(name, headers={"Authorization": authorization})
        for authorization in ("", "Bearer sk-unknown", "Basic Zm9vOmJhcg==")
    ]
    known = [seeded.chat(name + str(n), by=caller) for n in range(2)]
    for answer in known:
        assert answer.status_code == 404
        log = seeded.log_of(answer)
        assert log.model.startswith("no-such-xxx")
        assert len(log.model) == 256
        assert log.model.endswith("…")
    # What was sent before it is written by now.
    for answer in strangers:
        assert answer.status_code == 401
        assert seeded.left(answer).logs == []
    # Names that no model has share one sum.
    sums = seeded.all("SELECT model, sum(calls) AS n FROM usage_deltas WHERE user_id = %s GROUP BY 1", caller.id)  # fmt: skip
    assert [(row.model, row.n) for row in sums] == [("", 2)]
    assert not seeded.all("SELECT FROM usage_deltas WHERE user_id = %s", UUID(int=0))


# --- reading them again


def test_a_call_can_be_read_by_its_owner_in_every_way(seeded: Gateway) -> None:
    account = seeded.account()
    answer = seeded.chat(seeded.model("ok"), by=account)
    id = answer.json()["id"]
    second = seeded.admin("POST", f"/users/{account.id}/api-keys", {"name": "second"}).json()["key"]
    ways = [
        account.authorization,
        {"Authorization": f"Bearer {second}"},
        {"authorization": f"bearer   {second} "},
        account.session,
    ]
    for headers in ways:
        read = seeded.get(f"/responses/{id}", headers=headers)
        assert read.status_code == 200, read.text
        assert read.json()["id"] == id
        assert read.json()["object"] == "response"
        assert read.json()["status"] == "completed"
        assert read.json()["output"][0]["content"][0]["text"] == "Hello there friend"
    # The bare id will do, too.
    assert seeded.get(f"/responses/{id.removeprefix('resp_')}", by=account).ok


def test_what_is_not_yours_does_not_exist(seeded: Gateway) -> None:
    id = seeded.chat(seeded.model("ok")).json()["id"]
    for headers in (seeded.account().authorization, Cast.headers("bob"), Cast.headers("admin")):
        assert_openai_error(seeded.get(f"/responses/{id}", headers=headers), 404)


@pytest.mark.parametrize(
    "id",
    ["resp_nonsense", "nonsense", f"resp_{UNKNOWN}", "resp_", "resp_resp_", "%00", "a" * 3000, "☃"],
)
def test_an_id_that_never_was_is_404(seeded: Gateway, id: str) -> None:
    assert_openai_error(seeded.get(f"/responses/{id}"), 404)


def test_reading_wants_a_credential(seeded: Gateway) -> None:
    id = seeded.chat(seeded.model("ok")).json()["id"]
    assert_openai_error(seeded.get(f"/responses/{id}", headers={}), 401)
    wrong = {"Authorization": "Bearer sk-wrong"}
    assert_openai_error(seeded.get(f"/responses/{id}", headers=wrong), 401)


def test_a_body_written_by_hand_can_be_read(seeded: Gateway) -> None:
    for body in (
        "{",
        "null",
        "[]",
        '"text"',
        "",
        '{"choices": 3}',
        '{"choices": [{"message": 5}]}',
    ):
        answer = seeded.chat(seeded.model("ok"))
        seeded.all(
            "UPDATE fusillade.requests SET response_body = %s WHERE id = %s RETURNING id",
            body,
            answer.headers["x-request-id"],
        )
        read = seeded.get(f"/responses/{answer.json()['id']}")
        assert read.status_code == 200, body
        assert read.json()["status"] == "completed"


def test_deleting_a_call_keeps_its_charge(seeded: Gateway) -> None:
    answer = seeded.chat(seeded.model("ok"))
    id = answer.json()["id"]
    gone = requests.delete(
        f"{seeded.url}/ai/v1/responses/{id}", headers=seeded.alice.authorization, timeout=10
    )
    assert gone.status_code == 200, gone.text
    assert_openai_error(seeded.get(f"/responses/{id}"), 404)
    left = seeded.left(answer)
    assert left.request is None
    assert len(left.logs) == len(left.charges) == 1


def test_money_adds_up_after_all_that(seeded: Gateway) -> None:
    assert not seeded.unbalanced()

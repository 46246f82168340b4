"""Lines of batches: what each way of an upstream to answer comes to. State, status, code, tries, charge."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Any
from uuid import UUID

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.gateway import BATCH, HELLO, TERMINAL, Account, Gateway, cost, marker, unique
from tests.processes import IMPATIENT, Process, eventually

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return (
        environ
        | IMPATIENT
        | {
            "DWCTL_BACKGROUND_SERVICES__BATCH_DAEMON__MAX_RETRIES": "2",
        }
    )


@pytest.fixture(scope="module", autouse=True)
def worker(stage: Gateway) -> Process:
    return stage.service.start_worker()


@dataclass(frozen=True)
class Line:
    """One of a batch that was made by hand, as an operator might."""

    model: str
    body: str
    path: str = CHAT


def chat(model: str, **more: Any) -> Line:
    return Line(model, orjson.dumps({"model": model, "messages": HELLO} | more).decode())


def batch(
    stage: Gateway,
    lines: Iterable[Line],
    *,
    by: Account | None = None,
    due_s: float = 3600,
    **more: Any,
) -> tuple[UUID, list[UUID]]:
    """Insert a batch with these lines, all at once; its id and theirs."""
    account, id = by or stage.alice, uuid.uuid4()
    columns = {
        "id": id,
        "created_by": str(account.id),
        "api_key_id": account.key_id,
        "completion_window": "24h",
        "total_requests": len(list(lines)),
        "requests_started_at": "now",
    } | more
    names = ", ".join(columns)
    stage.execute(
        f"INSERT INTO fusillade.batches ({names}, expires_at) VALUES ({', '.join(['%s'] * len(columns))}, now() + %s * interval '1 second')",
        *columns.values(),
        due_s,
    )
    ids = [uuid.uuid4() for _ in lines]
    rows = [
        {"id": str(i), "model": line.model, "body": line.body, "path": line.path, "n": n}
        for n, (i, line) in enumerate(zip(ids, lines, strict=True))
    ]
    stage.execute(
        "INSERT INTO fusillade.request_templates (id, custom_id, endpoint, method, path, body, model, line_number) "
        "SELECT id, 'line-' || n, 'http://localhost/ai', 'POST', path, body, model, n "
        "FROM json_to_recordset(%s) AS r(id uuid, model text, body text, path text, n int)",
        orjson.dumps(rows).decode(),
    )
    stage.execute(
        "INSERT INTO fusillade.requests (id, batch_id, template_id, custom_id, model, state) "
        "SELECT id, %s, id, 'line-' || n, model, 'pending' "
        "FROM json_to_recordset(%s) AS r(id uuid, model text, n int)",
        id,
        orjson.dumps(rows).decode(),
    )
    return id, ids


def ended(stage: Gateway, ids: list[UUID], timeout_s: float = 20) -> list[Any]:
    """Their rows, once all of them are over."""

    def rows() -> list[Any]:
        found = stage.all("SELECT * FROM fusillade.requests WHERE id = ANY (%s)", ids)
        return found if all(row.state in TERMINAL for row in found) else []

    by_id = {row.id: row for row in eventually(rows, timeout_s)}
    return [by_id[id] for id in ids]


@dataclass(frozen=True)
class Case:
    """A line, and what it comes to: state, status, code (None: it succeeds), how often the upstream is asked, tokens (in, out) charged."""

    upstream: str
    state: str = "completed"
    status: int = 200
    code: str | None = None
    asked: int = 1
    charged: tuple[int, int] | None = (9, 3)
    path: str = CHAT
    body: Any = None
    more: Any = None


def failed(upstream: str, status: int, code: str, asked: int, **more: Any) -> Case:
    return Case(upstream, "failed", status, code, asked, None, **more)


RESPONSES, STREAM = "/v1/responses", {"stream": True}
CASES: dict[str, Case] = {
    "answers": Case("plain"),
    "streams": Case("chunks-3", more=STREAM),
    "streams though nobody asked": Case("sse-anyway"),
    "answers in one piece though asked to stream": Case("json-anyway", more=STREAM),
    "a path without version": Case("plain", path="/chat/completions"),
    "500 once": Case("flaky-1-500", asked=2),
    "404 once": Case("flaky-1-404", asked=2),
    "408 once": Case("flaky-1-408", asked=2),
    "429 once": Case("flaky-1-429", asked=2),
    "499 once": Case("flaky-1-499", asked=2),
    "429 that says when": Case("flaky-1-429+wait-1", asked=2),
    "500": failed("fail-500", 500, "http_500", 3),
    "500 of one whose words are kept back": failed("hidden", 500, "http_500", 3),
    "400": failed("fail-400", 400, "http_400", 1),
    "401": failed("fail-401", 502, "http_401", 1),
    "402": failed("fail-402", 502, "http_402", 1),
    "403": failed("fail-403", 502, "http_403", 1),
    "422": failed("fail-422", 422, "http_422", 1),
    "says nothing": failed("hang", 504, "timeout", 3),
    "resets": failed("reset", 502, "network_error", 3),
    "hangs up": failed("drop", 502, "network_error", 3),
    "breaks off": failed("cut", 502, "network_error", 3),
    "breaks off a stream": failed("chunks-5+cut", 502, "network_error", 3, more=STREAM),
    "half a JSON": failed("wrong-json", 502, "http_502", 3),
    "nothing in the answer": failed("empty", 502, "http_502", 3),
    "an error in a 200": failed("error-in-200", 502, "http_502", 3),
    "a final error in a 200": failed("error-in-200-400", 502, "http_400", 1),
    "an error in a stream": failed("error-in-stream", 502, "http_502", 3, more=STREAM),
    "a model that there is not": failed("nobody", 404, "http_404", 0),
    "a model of others": failed("theirs", 403, "http_403", 0),
    "no JSON": failed("plain", 400, "http_400", 0, body="{"),
    "a list": failed("plain", 400, "http_400", 0, body="[]"),
    "deep": failed("plain", 400, "http_400", 0, body='{"a":' * 500 + "1" + "}" * 500),
    "a path that there is not": failed("plain", 400, "http_400", 0, path="/v1/moderations"),
    "a model that is no text": failed("plain", 400, "http_400", 0, body='{"model":7}'),
    "completions": Case("plain", path="/v1/completions", body={"prompt": "{said}"}),
    "embeddings": Case("plain", path="/v1/embeddings", body={"input": "{said}"}, charged=(9, 0)),
    "responses": Case("plain", path=RESPONSES, body={"input": "{said}"}),
    "responses in every mode": Case(
        "plain",
        path=RESPONSES,
        body={"input": "{said}", "service_tier": "flex", "background": True, "stream": True, "store": False},
    ),
    "responses that go on from nothing": failed(
        "plain", 404, "http_404", 0, path=RESPONSES, body={"input": "{said}", "previous_response_id": "resp_" + "0" * 8 + "-0000-7000-8000-" + "0" * 12},
    ),
    "responses of a failing upstream": failed("fail-500", 500, "http_500", 3, path=RESPONSES, body={"input": "{said}"}),
}  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """What became of a case."""

    row: Any
    said: str
    batch_id: UUID


@pytest.fixture(scope="module")
def seen(stage: Gateway) -> dict[str, Seen]:
    """All cases at once, as the lines of one batch."""
    stage.upstream.reset()
    known: dict[str, str] = {"nobody": unique("nobody")}
    for name in dict.fromkeys(case.upstream for case in CASES.values()):
        if name == "theirs":
            known[name] = stage.flexible("plain", alias=unique("theirs"), everyone=False)
        elif name == "hidden":
            known[name] = stage.flexible(
                "fail-500", alias=unique("hidden"), wait=False, sanitize_responses=True
            )
        elif name == "hang":
            # Others may take their time where the machine is busy.
            url = f"{stage.upstream.url.removesuffix('/v1')}/impatient/v1"
            impatient = stage.endpoint(url, first_byte_timeout_seconds=0.4)
            known[name] = stage.flexible(name, endpoint=impatient, wait=False)
        elif name != "nobody":
            known[name] = stage.flexible(name, wait=False)
    said = {name: marker() for name in CASES}
    lines = []
    for name, case in CASES.items():
        model = known[case.upstream]
        if isinstance(case.body, str):
            lines.append(Line(model, case.body, case.path))
            continue
        body = case.body or {"messages": [{"role": "user", "content": "{said}"}]}
        text = orjson.dumps({"model": model} | body | (case.more or {})).decode()
        lines.append(Line(model, text.replace("{said}", said[name]), case.path))
    id, ids = batch(stage, lines)
    rows = ended(stage, ids, 40)
    return {name: Seen(row, said[name], id) for name, row in zip(CASES, rows, strict=True)}


@pytest.mark.parametrize("name", CASES)
def test_a_line_ends_as_its_upstream_deserves(
    stage: Gateway, seen: dict[str, Seen], name: str
) -> None:
    case, row = CASES[name], seen[name].row
    assert (row.state, row.response_status) == (case.state, case.status), row.error
    assert len(stage.sent(seen[name].said)) == case.asked
    assert row.retry_attempt == max(0, case.asked - 1)
    failure = orjson.loads(row.error) if row.error else {}
    assert failure.get("code") == case.code, failure
    left = stage.left(row.id)
    assert [log.fusillade_batch_id for log in left.logs] == [seen[name].batch_id]
    charges = [charge.amount for charge in left.charges]
    assert charges == ([] if case.charged is None else [cost(BATCH, *case.charged)])
    if case.code is not None:
        assert failure["type"] in {"RetriableHttpStatus", "NonRetriableHttpStatus", "NetworkError", "Timeout"}  # fmt: skip
        assert failure["message"]
    if case.upstream == "hidden":
        assert "sk-upstream-secret" not in f"{row.error} {row.response_body}"


def test_what_is_stored_is_what_the_endpoint_answers(seen: dict[str, Seen]) -> None:
    objects = {
        "answers": "chat.completion",
        "streams": "chat.completion",
        "streams though nobody asked": "chat.completion",
        "completions": "text_completion",
        "embeddings": "list",
        "responses": "response",
        "responses in every mode": "response",
    }
    for name, kind in objects.items():
        row = seen[name].row
        body = orjson.loads(row.response_body)
        assert body["object"] == kind
        if kind in ("chat.completion", "response"):
            assert body["id"] == f"resp_{row.id}"
        assert body["model"] == row.model
        assert row.response_size == len(row.response_body)
    whole = orjson.loads(seen["responses in every mode"].row.response_body)
    assert whole["status"] == "completed"
    assert (whole["background"], whole["service_tier"]) == (False, "default")


STOPPED = {
    "cancelled": "UPDATE fusillade.batches SET cancelling_at = now() WHERE id = %s",
    "deleted": "UPDATE fusillade.batches SET deleted_at = now(), cancelling_at = now() WHERE id = %s",
}


def test_lines_in_flight_of_a_batch_that_is_stopped_are_stopped(stage: Gateway) -> None:
    """At once where that is heard, and soon where it is not; others go on."""
    stage.upstream.reset()
    model, kept = stage.flexible("hold"), marker()
    said = {name: marker() for name in STOPPED}
    texts = [*said.values(), kept]
    batches = [
        batch(stage, [chat(model, user=f"{text}{n}") for n in range(3)], completion_window="1h")
        for text in texts
    ]
    eventually(lambda: all(len(stage.sent(text)) == 3 for text in texts))

    def left(text: str) -> bool:
        return [one["outcome"] for one in stage.sent(text)] == ["left"] * 3

    for (id, _), statement in zip(batches, STOPPED.values(), strict=False):
        stage.execute(statement, id)
    stage.execute("SELECT pg_notify('fusillade_cancel', %s)", str(batches[0][0]))
    eventually(lambda: left(said["cancelled"]), 3)
    eventually(lambda: left(said["deleted"]), 10)
    assert [one["outcome"] for one in stage.sent(kept)] == ["open"] * 3
    stage.upstream.release()
    assert {row.state for row in ended(stage, batches[2][1])} == {"completed"}
    for _, ids in batches[:2]:
        rows = ended(stage, ids)
        assert {row.state for row in rows} == {"canceled"}
        assert [stage.left(row.id).charges for row in rows] == [[], [], []]
    eventually(lambda: not stage.leases())


def test_lines_that_are_claimed_again_while_they_still_run_here_end_once(
    stage: Gateway, worker: Process
) -> None:
    """Their worker was thought dead, and came back before anybody else had them."""
    model, said = stage.flexible("hold+again", batch_capacity=4), marker()
    id, ids = batch(stage, [chat(model, user=said)] * 4)
    eventually(lambda: len(stage.sent(said)) == 4)
    stage.execute(
        "SELECT fusillade.give_back(daemon_id, array_agg(id), NULL) FROM fusillade.inflight WHERE id = ANY (%s) GROUP BY daemon_id",
        ids,
    )
    eventually(lambda: len(stage.sent(said)) == 8)
    stage.upstream.release()
    assert {row.state for row in ended(stage, ids)} == {"completed"}
    for line in ids:
        assert stage.charges(f"resp_{line}") == [cost(BATCH)]
    eventually(lambda: not stage.leases())
    assert "Traceback" not in worker.output()


def test_an_overloaded_database_slows_the_worker(stage: Gateway, worker: Process) -> None:
    """What ends, fails or is claimed meanwhile waits; nothing is lost, nothing is charged twice."""
    stage.upstream.reset()
    names = ("slow-300", "flaky-1-500+slow-100", "fail-400")
    models = {name: stage.flexible(name, batch_capacity=4) for name in names}
    lines = [chat(model, user=f"{name}{n}") for name, model in models.items() for n in range(8)]
    _, ids = batch(stage, lines)
    eventually(lambda: stage.all("SELECT id FROM fusillade.inflight"))
    for table, seconds in (("fusillade.inflight", 2), ("fusillade.requests", 2)):
        with stage.locked(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"):
            time.sleep(seconds)
    rows = ended(stage, ids, 40)
    assert [row.state for row in rows] == ["completed"] * 16 + ["failed"] * 8
    for row in rows:
        left = stage.left(row.id)
        assert len(left.logs) == 1
        assert len(left.charges) == (row.state == "completed")
    eventually(lambda: not stage.leases())
    assert stage.unbalanced() == []
    assert "Traceback" not in worker.output(), worker.output()[-3000:]


def test_no_more_run_at_once_than_the_cap_over_two_workers(stage: Gateway) -> None:
    """Although requests are held ahead, and begin in the place of others."""
    stage.upstream.reset()
    cap = 12
    model = stage.flexible("slow-20", alias=unique("capped"), batch_capacity=cap)
    other = stage.service.start_worker()
    _, ids = batch(stage, [chat(model) for _ in range(300)])
    rows = ended(stage, ids, 40)
    assert {row.state for row in rows} == {"completed"}
    assert stage.upstream.active()["peak"] <= cap
    assert stage.upstream.active()["total"] == len(ids)
    other.stop()
    stage.service.workers.remove(other)
    eventually(lambda: not stage.leases())


def test_lines_of_a_model_that_is_not_there_do_not_wait_for_each_other(
    stage: Gateway, worker: Process
) -> None:
    """What a model may have in flight spares somebody; these end without a call."""

    def large_claims() -> float:
        """Of more requests than the default concurrency."""
        page = stage.session.get(f"{worker.url}/internal/metrics", timeout=10).text
        sizes = {float(s.labels["le"]): s.value for f in text_string_to_metric_families(page) for s in f.samples if s.name.startswith("fusillade_claim_size_bucket")}  # fmt: skip
        return sizes.get(inf, 0.0) - sizes.get(10.0, 0.0)

    before = large_claims()
    _, ids = batch(stage, [chat("nobody-has-it")] * 200)
    assert {row.state for row in ended(stage, ids)} == {"failed"}
    assert large_claims() > before


def test_lines_of_an_account_without_credit_wait_for_some(stage: Gateway) -> None:
    stage.upstream.reset()
    poor, model = stage.account(credit=None), stage.flexible("plain")
    id, ids = batch(stage, [chat(model) for _ in range(5)], by=poor)
    eventually(
        lambda: stage.all(
            "SELECT FROM fusillade.queues WHERE created_by = %s AND pause_reason = 'no_credit'",
            str(poor.id),
        )
    )
    # Others go on.
    _, served = batch(stage, [chat(model)])
    assert ended(stage, served)[0].state == "completed"
    assert {row.state for row in stage.all("SELECT state FROM fusillade.requests WHERE batch_id = %s", id)} == {"pending"}  # fmt: skip
    stage.credit(poor.id, "10")
    rows = ended(stage, ids, 10)
    assert [row.state for row in rows] == ["completed"] * 5
    assert {row.retry_attempt for row in rows} == {0}
    assert len(stage.upstream.seen()) == 1 + 5


def test_an_upstream_that_names_a_time_is_left_alone_until_then(stage: Gateway) -> None:
    stage.upstream.reset()
    model = stage.flexible("fail-429+wait-2", batch_capacity=4)
    batch(stage, [chat(model) for _ in range(12)])
    eventually(
        lambda: stage.all(
            "SELECT FROM fusillade.model_slots WHERE model = %s AND paused_until > now()", model
        )
    )
    time.sleep(1)
    assert len(stage.upstream.seen()) <= 2 * 4

"""Traces of real processes, as a real collector gets them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import orjson
import pytest
import requests

from tests.cast import Cast
from tests.collector import Collector
from tests.fake_upstream import FakeUpstream
from tests.gateway import Gateway
from tests.processes import QUICK, Service, eventually

SERVER, CLIENT, CONSUMER, INTERNAL = 2, 3, 5, 1
CHAT = "POST /ai/v1/chat/completions"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@pytest.fixture(scope="module")
def service(
    environ: dict[str, str], cast: Cast, upstream: FakeUpstream, collector: Collector
) -> Iterator[Service]:
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=a%20b",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test",
        "DWCTL_OTEL__FORWARD_TO_UPSTREAM": "true",
        "DWCTL_LOG_REQUESTS": "true",
        "DWCTL_LOG_FORMAT": "json",
    }
    with Service(environ | QUICK | variables) as running:
        with running.at_once():
            running.start_web()
            running.start_worker()
        yield running


def test_a_call_is_one_trace_from_its_caller_to_its_record(
    stage: Gateway, collector: Collector
) -> None:
    alias = stage.model("usual", alias="traced")
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=secret"}
    answer = stage.chat(alias, headers=headers)
    id = answer.headers["x-request-id"]
    server = collector.one(CHAT, dwctl__request_id=id)
    assert (server.trace, server.parent, server.kind, server.failed) == (TRACE, PARENT, SERVER, False)  # fmt: skip
    assert server.attributes == {
        "http.request.method": "POST",
        "http.route": "/ai/v1/chat/completions",
        "url.path": "/ai/v1/chat/completions",
        "http.response.status_code": 200,
        "api.type": "ai_proxy",
        "dwctl.request_id": id,
    }
    [attempt] = collector.named("chat usual")
    assert (attempt.trace, attempt.parent, attempt.kind) == (TRACE, server.id, CLIENT)
    told = attempt.attributes
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.request.model"] == "usual"
    assert told["gen_ai.response.finish_reasons"] == ["stop"]
    assert told["http.response.status_code"] == 200
    log = stage.log_of(answer)
    tokens = (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"])
    assert tokens == (log.prompt_tokens, log.completion_tokens)
    assert log.trace_id == TRACE
    [record] = [span for span in collector.of(TRACE) if span.name == "record"]
    assert record.parent == server.id
    assert {span.name for span in collector.of(TRACE)} == {CHAT, "chat usual", "record"}
    # The group that it was written with is a trace of its own.
    assert eventually(
        lambda: [s for s in collector.named("recorder flush") if (TRACE, server.id) in s.links]
    )
    assert server.resource["service.name"] == "dwctl"
    assert server.resource["deployment.environment"] == "test"
    assert collector.headers["x-tenant"] == "a b"
    assert collector.paths == {"/v1/traces"}


def test_lines_of_the_log_name_request_and_trace(stage: Gateway) -> None:
    answer = stage.chat(stage.model("usual", alias="traced"), headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})  # fmt: skip
    lines = [orjson.loads(line) for line in stage.service.webs[0].output().splitlines() if line.startswith("{")]  # fmt: skip
    [line] = [
        one
        for one in lines
        if one["message"] == "request" and one["request_id"] == answer.headers["x-request-id"]
    ]
    assert (line["trace_id"], line["status"], line["route"]) == (TRACE, "200", "/ai/v1/chat/completions")  # fmt: skip


def test_a_stream_is_over_when_it_is(stage: Gateway, collector: Collector) -> None:
    alias = stage.model("usual", alias="streamed")
    answer = stage.chat(alias, stream=True)
    assert answer.text.endswith("data: [DONE]\n\n")
    server = collector.one(CHAT, dwctl__request_id=answer.headers["x-request-id"])
    attempt = next(s for s in collector.of(server.trace) if s.kind == CLIENT)
    assert attempt.attributes["gen_ai.usage.output_tokens"] > 0
    assert attempt.attributes["gen_ai.response.finish_reasons"] == ["stop"]


def test_a_queued_call_is_run_in_a_trace_linked_to_its_own(
    stage: Gateway, collector: Collector
) -> None:
    alias = stage.flexible("usual", alias="queued")
    answer = stage.respond(alias, service_tier="flex")
    assert answer.ok, answer.text
    id = answer.json()["id"].removeprefix("resp_")
    server = collector.one("POST /ai/v1/responses", dwctl__request_id=answer.headers["x-request-id"])  # fmt: skip
    run = collector.one(f"run {alias}")
    assert (run.kind, run.parent) == (CONSUMER, "")
    assert run.links == [(server.trace, server.id)]
    assert run.attributes["dwctl.request_id"].replace("-", "") == id.replace("-", "")
    assert run.resource["dwctl.role"] == "worker"
    names = {span.name for span in collector.of(run.trace)}
    assert names == {f"run {alias}", "responses usual", "record"}
    # Who looks for the trace of a caller finds the call.
    assert stage.log_of(answer).trace_id == server.trace


def test_a_failed_attempt_and_a_refusal_say_what_they_were(
    stage: Gateway, collector: Collector
) -> None:
    answer = stage.chat(stage.model("fail-500", alias="failing"))
    server = collector.one(CHAT, dwctl__request_id=answer.headers["x-request-id"])
    assert server.failed
    assert server.attributes["error.type"] == str(answer.status_code)
    [attempt] = [s for s in collector.of(server.trace) if s.kind == CLIENT]
    assert attempt.failed
    assert attempt.attributes["error.type"] == "http_500"
    refused = stage.chat("no-such-model")
    server = collector.one(CHAT, dwctl__request_id=refused.headers["x-request-id"])
    assert (server.failed, server.attributes["error.type"]) == (False, "404")
    assert stage.log_of(refused).trace_id == server.trace


@pytest.mark.parametrize("trusted", [True, False], ids=["trusted", "untrusted"])
def test_only_trusted_servers_are_told_the_trace_and_nothing_else_of_the_caller(
    stage: Gateway, collector: Collector, trusted: bool
) -> None:
    alias = stage.model("usual", alias=f"told-{trusted}", trusted=trusted)
    said = f"told of traces: {trusted}"
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=secret"}
    answer = stage.converse(alias, said, headers=headers)
    [sent] = stage.sent(said)
    assert "tracestate" not in sent["headers"]
    if not trusted:
        assert "traceparent" not in sent["headers"]
        return
    server = collector.one(CHAT, dwctl__request_id=answer.headers["x-request-id"])
    [attempt] = [s for s in collector.of(TRACE) if s.parent == server.id and s.kind == CLIENT]
    assert sent["headers"]["traceparent"] == f"00-{TRACE}-{attempt.id}-01"


def test_nothing_that_callers_write_is_on_a_span(stage: Gateway, collector: Collector) -> None:
    secret = "sk-very-secret-0123456789"
    stage.converse(stage.model("usual", alias="traced"), f"the word is {secret}")
    stage.get(f"/responses/{secret}?key={secret}")
    requests.get(f"{stage.url}/nothing/{secret}?key={secret}", timeout=5)
    requests.get(f"{stage.url}/healthz?mark={secret}", timeout=5)
    eventually(lambda: collector.named("GET", http__response__status_code=404))
    assert secret.encode() not in collector.bytes
    assert stage.alice.key.encode() not in collector.bytes


def test_a_collector_that_hangs_or_refuses_holds_up_nobody_and_is_counted(
    stage: Gateway, environ: dict[str, str]
) -> None:
    with Collector() as hanging:
        hanging.hangs.set()
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": hanging.url,
            "OTEL_EXPORTER_OTLP_TIMEOUT": "60000",
            "OTEL_BSP_MAX_QUEUE_SIZE": "100",
        }
        web = stage.service.start_web(**variables)
        alias = stage.model("usual", alias="traced")
        eventually(lambda: requests.get(web.url + "/healthz", timeout=5).ok and hanging.asked)
        began = time.monotonic()
        for _ in range(60):
            assert stage.chat(alias, url=web.url).ok
        assert time.monotonic() - began < 20
        page = requests.get(web.url + "/internal/metrics", timeout=5).text
        [dropped] = [line for line in page.splitlines() if line.startswith("dwctl_spans_dropped_total{")]  # fmt: skip
        assert 'reason="queue_full"' in dropped
        assert float(dropped.split()[-1]) > 0
        # Nor does it hold up the end.
        began = time.monotonic()
        web.terminate()
        assert web.wait() == 0
        assert time.monotonic() - began < 6
    stage.service.webs.remove(web)

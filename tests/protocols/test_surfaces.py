"""Surfaces: what each allows and says, and that nothing a caller or an upstream sends makes them raise what nobody expects."""

import json
import re
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwctl.protocols.asked import Asked, read, read_alias
from dwctl.protocols.disclosure import Disclosure
from dwctl.protocols.errors import BadUpstreamBody, InvalidRequest
from dwctl.protocols.held_streams import KEEP_ALIVE, resumed
from dwctl.protocols.json_objects import MAX_DEPTH
from dwctl.protocols.modes import Mode, Tier
from dwctl.protocols.rows import StillRunning, StoredRow
from dwctl.protocols.surfaces import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    RESPONSES,
    SURFACES,
    Surface,
)
from dwctl.protocols.treatments import StreamTreatment, Treatment
from dwctl.protocols.usage import UsageSource
from tests.protocols.json_values import altered, nested
from tests.protocols.openresponses.samples import COMPLETIONS as ANSWERS
from tests.protocols.openresponses.samples import REQUESTS
from tests.protocols.openresponses.schema import check_event, check_response, events_of
from tests.protocols.streams import USAGE, chunk, data_of, hello, sse, usage_chunk

ID = UUID(int=7)
OWN = f"resp_{ID}"
CHAT_REQUEST = {
    "model": "m",
    "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
    "stream_options": {"include_usage": True},
    "max_tokens": 5,
}
WITH_TOOLS: dict[str, Any] = {
    "model": "m",
    "input": [
        {"role": "user", "content": "Hi"},
        {"type": "custom_tool_call", "call_id": "a", "name": "p", "input": "x"},
        {"type": "custom_tool_call_output", "call_id": "a", "output": [{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": "u"}]},
        {"type": "mcp_call", "id": "x"},
    ],
    "tools": [
        {"type": "function", "name": "f", "parameters": {"properties": {}}},
        {"type": "custom", "name": "p", "format": {"type": "grammar", "syntax": "lark", "definition": "s"}},
        {"type": "mcp"},
    ],
    "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "custom", "name": "p"}]},
}  # fmt: skip
BASES: dict[Surface, list[Any]] = {
    CHAT: [CHAT_REQUEST],
    COMPLETIONS: [{"model": "m", "prompt": "Hello"}, {"model": "m", "prompt": [[1, 2]]}],
    EMBEDDINGS: [{"model": "m", "input": ["a", "b"]}],
    RESPONSES: [
        WITH_TOOLS,
        *REQUESTS.values(),
        {"model": "m", "input": "Hello", "metadata": {"a": "b"}},
    ],
}
EMBEDDED = {"object": "list", "data": [{"index": 0, "embedding": [0.5]}], "usage": {"total_tokens": 3}}  # fmt: skip
RESPONSE = {"id": "r", "object": "response", "status": "completed", "output": [{"type": "message", "id": "i", "content": [{"type": "output_text", "text": "Hi"}]}], "usage": {"input_tokens": 1}}  # fmt: skip
UPSTREAM_ANSWERS = [*ANSWERS.values(), EMBEDDED, RESPONSE, {"error": {"message": "m", "code": 401}}]
UPSTREAM_CHUNKS = [
    *hello(),
    chunk({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}]}),
    chunk(
        {
            "tool_calls": [
                {"index": 1, "id": "b", "function": {"name": "p", "arguments": '{"input":"\\ud8'}}
            ]
        }
    ),
    chunk({"tool_calls": [{"index": 1, "custom": {"name": "p", "input": "x"}}]}),
    chunk({"function_call": {"name": "p", "arguments": "x"}}, "function_call"),
    chunk({"reasoning_content": "c", "annotations": [{"url": "u"}]}),
    {"error": {"message": "m"}},
    {"type": "response.created", "sequence_number": 0, "response": RESPONSE},
    {"type": "response.output_text.delta", "delta": "Hi", "sequence_number": 1},
    {"type": "response.output_item.done", "item": RESPONSE["output"][0], "sequence_number": 2},
    {"type": "response.completed", "response": RESPONSE, "sequence_number": 3},
]
disclosures = st.builds(Disclosure, st.booleans(), st.booleans(), st.booleans())


def asked(surface: Surface, content: Any, **members: Any) -> Asked:
    body = content if isinstance(content, bytes) else orjson.dumps(content)
    parsed = read(body)
    mode = members.pop("mode", None) or surface.mode(parsed)
    return Asked(surface, body, parsed, read_alias(parsed), ID, 100.5, mode, **members)


def treated(surface: Surface, content: Any, adapted: bool = False, **members: Any) -> Treatment:
    return surface.treat(asked(surface, content, **members), Disclosure(), adapted=adapted)


# --- what each allows


def test_every_surface_is_found_by_its_path():
    assert {path: s.path for path, s in SURFACES.items()} == {path: path for path in SURFACES}
    assert sorted(s.name for s in SURFACES.values()) == ["chat_completions", "completions", "embeddings", "responses"]  # fmt: skip


MODES = {
    "nothing said": (CHAT, {}, Mode()),
    "a stream": (CHAT, {"stream": True}, Mode(stream=True)),
    "nulls": (CHAT, {"stream": None, "background": None, "service_tier": None}, Mode()),
    "flex": (CHAT, {"service_tier": "flex"}, Mode(Tier.FLEX)),
    "auto": (CHAT, {"service_tier": "auto"}, Mode()),
    "flex embeddings": (EMBEDDINGS, {"service_tier": "flex"}, Mode(Tier.FLEX)),
    "embeddings do not stream": (EMBEDDINGS, {"stream": True}, Mode()),
    "background": (RESPONSES, {"background": True, "stream": True}, Mode(Tier.REALTIME, True, True)),
    "background false": (CHAT, {"background": False}, Mode()),
}  # fmt: skip


@pytest.mark.parametrize(("surface", "content", "mode"), MODES.values(), ids=MODES)
def test_how_a_request_is_run(surface, content, mode):
    assert surface.mode(content) == mode


NO_MODES = {
    "stream as text": (CHAT, {"stream": "yes"}, "stream", "invalid_type"),
    "stream as text, embeddings": (EMBEDDINGS, {"stream": 1}, "stream", "invalid_type"),
    "unknown tier": (CHAT, {"service_tier": "fast"}, "service_tier", "unsupported_value"),
    "tier of another type": (CHAT, {"service_tier": []}, "service_tier", "unsupported_value"),
    "flex completions": (COMPLETIONS, {"service_tier": "flex"}, "service_tier", "unsupported_value"),
    "flex embeddings as a stream": (EMBEDDINGS, {"service_tier": "flex", "stream": True}, "stream", "unsupported_parameter"),
    "chat in the background": (CHAT, {"background": True}, "background", "unsupported_parameter"),
}  # fmt: skip


@pytest.mark.parametrize(("surface", "content", "param", "code"), NO_MODES.values(), ids=NO_MODES)
def test_what_cannot_be_run_is_refused_by_name(surface, content, param, code):
    with pytest.raises(InvalidRequest) as error:
        surface.mode(content)
    assert (error.value.param, error.value.code) == (param, code)


def test_what_somebody_else_tracks_runs_at_once():
    content = {"service_tier": "flex", "background": True, "stream": True}
    assert RESPONSES.mode(content, tracked=False) == Mode(stream=True)


# --- limits that a writer has


@pytest.mark.parametrize("surface", SURFACES.values(), ids=repr)
def test_a_request_is_read_as_deep_as_everything_here_can_write_it(surface):
    base = BASES[surface][0]
    deep = {**base, "metadata": nested(MAX_DEPTH - 1)}
    treatment = treated(surface, deep)
    assert treatment.request_body("up")
    with pytest.raises(InvalidRequest) as error:
        read(orjson.dumps({**base, "metadata": nested(MAX_DEPTH)}))
    assert (error.value.param, error.value.code) == ("metadata", "invalid_value")


@pytest.mark.parametrize("depth", [230, 500, 1000, 5000])
def test_a_request_that_is_too_deep_is_refused(depth):
    raw = b'{"a":' * depth + b"1" + b"}" * depth
    with pytest.raises(InvalidRequest):
        read(raw)


def test_brackets_in_strings_are_not_nesting():
    text = "[{" * 5000
    assert read(orjson.dumps({"a": text})) == {"a": text}
    assert read(orjson.dumps({"a": [[[1]]] * 500})) == {"a": [[[1]]] * 500}


@pytest.mark.parametrize("name", ["max_tool_calls", "max_output_tokens", "top_logprobs"])
@pytest.mark.parametrize("number", ["1e30", "9007199254740993", "123456789012345678901234567890"])
def test_a_number_that_no_integer_holds_is_refused(name, number):
    content = read(b'{"model":"m","input":"x","%s":%s}' % (name.encode(), number.encode()))
    with pytest.raises(InvalidRequest) as error:
        RESPONSES.check(content, alias="m", strict=False, adapted=True)
    assert error.value.param == name
    # Where nothing is checked it has no meaning, and no effect on anything of ours.
    assert asked(RESPONSES, content).skeleton()[name] in (None, 0)


def test_a_refusal_does_not_repeat_what_it_refuses_at_length():
    content = {"model": "m", "input": "x", "truncation": "y" * 100_000}
    with pytest.raises(InvalidRequest) as error:
        RESPONSES.check(content, alias="m", strict=False, adapted=True)
    assert len(error.value.message) < 500


@pytest.mark.parametrize(
    ("content", "override", "alias"),
    [({"model": "a"}, None, "a"), ({"model": "a"}, "b", "b"), ({}, "b", "b"), ({"model": None}, "b", "b")],
)  # fmt: skip
def test_which_model_is_asked_for(content, override, alias):
    assert read_alias(content, override) == alias


@pytest.mark.parametrize(
    ("content", "override"),
    [({}, None), ({}, ""), ({"model": 5}, "b"), ({"model": "a\x00"}, None), ({"model": "x" * 600}, None), ({}, "\udc80")],
)  # fmt: skip
def test_what_is_no_models_name_is_refused(content, override):
    with pytest.raises(InvalidRequest) as error:
        read_alias(content, override)
    assert error.value.param == "model"


def test_a_model_that_only_a_header_names_is_enough():
    content = read(b'{"input":"x"}')
    RESPONSES.check(content, alias="m", strict=True, adapted=True)
    request = Asked(RESPONSES, b'{"input":"x"}', content, "m", ID, 100.0)
    body = json.loads(RESPONSES.treat(request, Disclosure(), adapted=True).request_body("up"))
    assert body["model"] == "up"


# --- nothing raises what nobody expects


@settings(max_examples=60, deadline=None)
@given(st.data())
@pytest.mark.parametrize("adapted", [True, False], ids=["adapted", "passed"])
@pytest.mark.parametrize("surface", SURFACES.values(), ids=repr)
def test_what_passes_the_check_can_be_sent_answered_and_shown(surface, adapted, data):
    disclosure = data.draw(disclosures)
    raw = json.dumps(data.draw(altered(BASES[surface]))).encode()
    try:
        content = read(raw)
        alias = read_alias(content, "m")
        surface.check(content, alias=alias, strict=disclosure.strict, adapted=adapted)
        surface.left_out(content, adapted=adapted)
        mode = surface.mode(content)
    except InvalidRequest:
        return
    request = Asked(surface, raw, content, alias, ID, 100.0, mode)
    treatment = surface.treat(request, disclosure, adapted=adapted)
    assert orjson.loads(treatment.request_body("up"))["model"] == "up"
    assert orjson.loads(surface.accepted(request))["id"] == OWN
    answer = json.dumps(data.draw(altered(UPSTREAM_ANSWERS))).encode()
    chunks = data.draw(st.lists(altered(UPSTREAM_CHUNKS), max_size=4))
    stored = [answer, *_complete(treatment, answer), *_complete_stream(treatment, chunks)]
    for body in stored:
        for state in ("completed", "failed", "processing"):
            _show(surface, request, _row(body.decode(), request=raw.decode(), state=state))


ODD_RESPONSES = [
    {"output": [5]},
    {"output": [{"type": "message", "content": 5}]},
    {"output": [{"type": "message", "content": [5, {"type": "output_text", "annotations": 5, "text": 5, "logprobs": 5}]}]},
    {"output": [{"type": "reasoning", "summary": [5]}]},
    {"output": [{"type": {}}], "status": []},
    {"output": [{"type": "function_call", "arguments": {}}]},
]  # fmt: skip


@pytest.mark.parametrize("response", ODD_RESPONSES, ids=str)
def test_a_response_of_any_kind_is_replayed(response):
    replayed = treated(RESPONSES, BASES[RESPONSES][-1]).replay(orjson.dumps(response))
    assert replayed.endswith(b"data: [DONE]\n\n")


def _complete(treatment: Treatment, answer: bytes) -> list[bytes]:
    try:
        body = treatment.complete(answer).body
        treatment.replay(body)
    except BadUpstreamBody:
        return []
    return [body]


def _complete_stream(treatment: Treatment, chunks: list[Any]) -> list[bytes]:
    events = b"".join([b"data: " + json.dumps(c).encode() + b"\n\n" for c in chunks])
    stream = treatment.stream()
    for end in (StreamTreatment.finish, StreamTreatment.cancel):
        stream = treatment.stream()
        out = stream.feed(events) + getattr(stream, end.__name__)()
        assert b"[DONE]" in out
        stream.settle()
        orjson.dumps(stream.assembled())
    try:
        return [orjson.dumps(stream.assembled()), treatment.from_stream(events).body]
    except BadUpstreamBody:
        return []


def _row(body: str | None, request: str = "{}", state: str = "completed", **members: Any) -> StoredRow:  # fmt: skip
    return StoredRow(OWN, state, "m", 100, 105, "flex", request, response_body=body, **members)


def _show(surface: Surface, request: Asked, row: StoredRow) -> None:
    held = surface.held_stream(request)
    assert held.begin()
    for stream in (held, resumed(row)):
        for say in (stream.end, stream.break_off, stream.pause):
            assert say(row, 5).endswith(b"data: [DONE]\n\n")
    assert surface.last_object(request, row)
    if row.is_over:
        assert surface.answer(row).status


# --- held calls


def test_a_held_chat_is_answered_with_what_is_stored():
    request = asked(CHAT, CHAT_REQUEST)
    body = json.dumps(ANSWERS["text"])
    assert CHAT.answer(_row(body)).body.decode() == body
    held = CHAT.held_stream(request)
    assert held.begin() == KEEP_ALIVE
    chunks = data_of(held.end(_row(body), -1))
    assert chunks[-1] == "[DONE]"
    assert "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks[:-1] if c["choices"])  # fmt: skip


def test_a_held_response_is_created_queued_and_then_all_the_rest():
    request = asked(RESPONSES, {"model": "m", "input": "x", "service_tier": "flex"})
    held = RESPONSES.held_stream(request)
    events = events_of(held.begin() + held.end(_row(json.dumps(ANSWERS["text"])), held.begun))
    names = [event["type"].removeprefix("response.") for event in events]
    assert (names[:3], names[-1]) == (["created", "queued", "in_progress"], "completed")
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    check_response(events[-1]["response"])


@pytest.mark.parametrize(("state", "status"), [("pending", "queued"), ("processing", "in_progress")])  # fmt: skip
def test_a_stream_that_nobody_waits_for_any_more_says_how_its_response_stands(state, status):
    """Under the number of the event before: who resumes behind it misses nothing."""
    held = RESPONSES.held_stream(asked(RESPONSES, {"model": "m", "input": "x"}))
    (event, done) = data_of(held.pause(_row(None, state=state), 7))
    assert (event["type"], event["sequence_number"], done) == (f"response.{status}", 7, "[DONE]")
    assert event["response"]["status"] == status
    check_event(event)


@pytest.mark.parametrize("state", ["completed", "failed", "canceled"])
@pytest.mark.parametrize("after", [-1, 0, 1, 4, 1000])
def test_the_end_of_a_response_is_told_whatever_was_sent(state: str, after: int):
    body = json.dumps(ANSWERS["text"]) if state == "completed" else None
    row = _row(body, state=state)
    stream = resumed(row)
    whole = events_of(stream.end(row, -1))
    for text in (stream.end(row, after), stream.break_off(row, after)):
        events = events_of(text)
        assert events[-1]["response"] == whole[-1]["response"]
        assert events[0]["sequence_number"] > after
    assert list(events_of(stream.end(row, after))[:-1]) == [
        event for event in whole[:-1] if event["sequence_number"] > after
    ]


def test_a_stream_whose_request_is_gone_or_cannot_be_read_ends():
    held = RESPONSES.held_stream(asked(RESPONSES, {"model": "m", "input": "x"}))
    (gone,) = events_of(held.gone(3))
    assert (gone["type"], gone["response"]["status"]) == ("response.failed", "cancelled")
    (failed, _) = data_of(held.fail(StillRunning("Gone."), 3))
    assert (failed["response"]["status"], failed["sequence_number"]) == ("failed", 4)
    chat = CHAT.held_stream(asked(CHAT, CHAT_REQUEST))
    assert data_of(chat.gone(3))[0]["error"]["code"] == "cancelled"
    cut = data_of(chat.break_off(_row(json.dumps(ANSWERS["text"])), 3))
    assert cut[0]["error"]["code"] == "stream_not_kept"


FAILED = json.dumps({"type": "Timeout"})
ENDS = {
    "cancelled": (_row(None, state="canceled"), 499, "cancelled"),
    "failed, with its error": (_row('{"error":{"message":"m","code":"c"}}', state="failed", response_status=429), 429, "c"),
    "failed, with an object": (_row('{"object":"response","error":{"code":"c"}}', state="failed", error=FAILED), 502, "timeout"),
    "failed, with its reason": (_row(None, state="failed", error=FAILED), 502, "timeout"),
    "failed after a 200": (_row("x", state="failed", response_status=200, error=FAILED), 502, "timeout"),
}  # fmt: skip


@pytest.mark.parametrize("surface", [CHAT, EMBEDDINGS, RESPONSES], ids=repr)
@pytest.mark.parametrize(("row", "status", "code"), ENDS.values(), ids=ENDS)
def test_how_a_row_that_did_not_complete_is_answered(surface, row, status, code):
    shown = surface.answer(row)
    assert (shown.status, json.loads(shown.body)["error"]["code"]) == (status, code)


@pytest.mark.parametrize("surface", [CHAT, RESPONSES], ids=repr)
def test_a_row_that_is_not_over_runs_on(surface):
    row = _row(None, state="processing")
    with pytest.raises(StillRunning) as error:
        surface.answer(row)
    assert OWN in error.value.message
    held = surface.held_stream(asked(surface, BASES[surface][-1]))
    assert OWN.encode() in held.pause(row, held.begun)
    assert held.pause(row, held.begun).endswith(b"[DONE]\n\n")


def test_the_last_object_says_what_went_wrong():
    request = asked(RESPONSES, {"model": "m", "input": "x"})
    failed = json.loads(RESPONSES.last_object(request, StillRunning("Gone.")))
    check_response(failed, sdk=False)
    assert (failed["status"], failed["error"]["message"]) == ("failed", "Gone.")


# --- what an answer shows


def test_chat_under_flex_says_so():
    content = {**CHAT_REQUEST, "service_tier": "flex"}
    treatment = treated(CHAT, content)
    answer = orjson.dumps({**ANSWERS["text"], "service_tier": "default"})
    assert orjson.loads(treatment.complete(answer).body)["service_tier"] == "flex"
    assert orjson.loads(treatment.from_stream(sse(hello())).body)["service_tier"] == "flex"
    assert "service_tier" not in orjson.loads(treatment.request_body("up"))
    assert orjson.loads(treated(CHAT, CHAT_REQUEST).complete(answer).body)["service_tier"] == "default"  # fmt: skip


def test_the_identifier_stays_the_upstreams_where_somebody_else_tracks_the_call():
    treatment = treated(CHAT, CHAT_REQUEST, shows_id=False)
    answer = orjson.dumps(ANSWERS["text"])
    assert treatment.complete(answer).body == answer


def test_an_answer_without_usage_is_estimated():
    answer = {n: v for n, v in ANSWERS["text"].items() if n != "usage"}
    usage = treated(CHAT, CHAT_REQUEST).complete(orjson.dumps(answer)).usage
    assert usage is not None
    assert usage.source is UsageSource.ESTIMATED
    assert usage.prompt_tokens > 0
    assert usage.completion_tokens > 0


def test_a_response_shows_what_is_charged_where_its_server_says_only_a_total():
    treatment = treated(RESPONSES, BASES[RESPONSES][0], True)
    whole = treatment.complete(orjson.dumps({**ANSWERS["text"], "usage": {"total_tokens": 40}}))
    stream = treatment.stream()
    stream.feed(sse([*hello(usage=False), usage_chunk({"total_tokens": 40})]))
    stream.finish()
    for usage, body in ((whole.usage, orjson.loads(whole.body)), (stream.settle(), stream.final)):
        assert usage is not None
        shown = body["usage"]
        assert (usage.prompt_tokens + usage.completion_tokens, usage.source) == (40, UsageSource.ESTIMATED)  # fmt: skip
        assert (shown["input_tokens"], shown["output_tokens"], shown["total_tokens"]) == (
            usage.prompt_tokens,
            usage.completion_tokens,
            40,
        )


KINDS = {
    "chat": (CHAT, {}, ("chat_completion", "chat_completion_stream")),
    "completions": (COMPLETIONS, {}, ("completion", "completion_stream")),
    "responses": (RESPONSES, {}, ("response", "response_stream")),
    "embeddings": (EMBEDDINGS, {}, ("embeddings", None)),
    "embeddings in base64": (EMBEDDINGS, {"encoding_format": "base64"}, ("base64_embeddings", None)),
}  # fmt: skip


@pytest.mark.parametrize(("surface", "content", "kinds"), KINDS.values(), ids=KINDS)
def test_the_log_tells_kinds_of_answers_apart(surface, content, kinds):
    whole, streamed = kinds
    assert surface.type_of_answer(content) == whole
    if streamed:
        assert surface.type_of_answer(content, streamed=True) == streamed


def test_embeddings_with_a_total_only_pay_for_their_prompt():
    usage = treated(EMBEDDINGS, BASES[EMBEDDINGS][0]).complete(orjson.dumps(EMBEDDED)).usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.source) == (3, 0, UsageSource.REPORTED)  # fmt: skip


def test_who_hangs_up_before_the_usage_chunk_pays_for_the_prompt():
    stream = treated(CHAT, {**CHAT_REQUEST, "stream": True}).stream()
    stream.feed(sse(hello(usage=False), done=False))
    assert stream.ended
    usage = stream.settle()
    assert usage is not None
    assert (usage.prompt_tokens > 0, usage.completion_tokens) == (True, 5)
    stream.feed(sse([hello()[-1]]))
    usage = stream.settle()
    assert usage is not None
    assert (usage.prompt_tokens, usage.source) == (USAGE["prompt_tokens"], UsageSource.REPORTED)


@pytest.mark.parametrize("surface", [CHAT, RESPONSES], ids=repr)
def test_text_after_the_latest_running_usage_is_paid_for_too(surface):
    begun = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
    stream = treated(surface, {**BASES[surface][0], "stream": True}, surface is RESPONSES).stream()
    stream.feed(sse([chunk({"content": "Hi"}, usage=begun)], done=False))
    usage = stream.settle()
    assert (usage.prompt_tokens, usage.completion_tokens) == (9, 1)
    assert usage.source == UsageSource.REPORTED
    stream.feed(sse([chunk({"content": "x" * 80})], done=False))
    usage = stream.settle()
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (9, 21, 30)
    assert usage.source == UsageSource.ESTIMATED
    stream.feed(sse([chunk({}, "stop"), usage_chunk()]))
    usage = stream.settle()
    assert (usage.completion_tokens, usage.source) == (
        USAGE["completion_tokens"],
        UsageSource.REPORTED,
    )


BROKEN_OFF = {
    "reason error": ({"choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "error"}]}, "failed while it answered"),
    "an error beside choices": ({**ANSWERS["text"], "error": {"message": "plain", "code": 503}}, "plain"),
    "an error, flat": ({"object": "error", "message": "plain", "code": 503}, "plain"),
    "our credential": ({"choices": [], "error": {"message": "Incorrect API key provided: sk-OURS", "code": 401}}, "Bad gateway"),
}  # fmt: skip


@pytest.mark.parametrize(("answer", "message"), BROKEN_OFF.values(), ids=BROKEN_OFF)
@pytest.mark.parametrize(("surface", "adapted"), [(CHAT, False), (RESPONSES, True)], ids=repr)
def test_an_answer_only_in_form_is_a_failure_in_every_mode(surface, adapted, answer, message):
    done = treated(surface, BASES[surface][0], adapted).complete(orjson.dumps(answer))
    assert done.failure
    assert message in done.failure
    assert message in orjson.loads(done.body)["error"]["message"]
    assert b"OURS" not in done.body


def test_content_filter_is_incomplete():
    answer = {"choices": [{"message": {"content": "a"}, "finish_reason": "content_filter"}]}
    done = treated(RESPONSES, BASES[RESPONSES][0], True).complete(orjson.dumps(answer))
    response = orjson.loads(done.body)
    assert (done.failure, response["status"]) == (None, "incomplete")
    assert response["incomplete_details"] == {"reason": "content_filter"}


@pytest.mark.parametrize("surface", [CHAT, COMPLETIONS, RESPONSES], ids=repr)
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_the_portions_of_a_stream_do_not_matter(surface, data):
    """Whatever an upstream sends, and wherever it is cut: the same bytes out, the same answer, the same usage."""
    adapted = data.draw(st.booleans())
    treatment = treated(surface, BASES[surface][0], adapted)
    chunks = data.draw(st.lists(altered(UPSTREAM_CHUNKS), min_size=1, max_size=5))
    line_end = data.draw(st.sampled_from([b"\n", b"\r\n", b"\r"]))
    raw = sse(chunks, done=data.draw(st.booleans())).replace(b"\n", line_end)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=12)))
    whole, parts = treatment.stream(), treatment.stream()
    expected = whole.feed(raw) + whole.finish()
    out = b""
    for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        out += parts.feed(raw[start:end])
    out += parts.finish()
    assert _timeless(out) == _timeless(expected)
    assert _timeless(orjson.dumps(parts.assembled())) == _timeless(orjson.dumps(whole.assembled()))
    assert (parts.settle(), parts.ended, parts.error) == (whole.settle(), whole.ended, whole.error)


def _timeless(text: bytes) -> bytes:
    """Without the second in which it was made, and with one kind of line end."""
    text = re.sub(rb'"completed_at":[0-9]+', b'"completed_at":0', text)
    return re.sub(rb"\r\n|\r", b"\n", text)


def test_an_answer_that_is_passed_on_unread_is_billed_by_its_length() -> None:
    odd = b"[" * 250 + b"]" * 250
    answer = b'{"choices":[{"message":{"content":"' + b"x" * 80 + b'"}}],"odd":%b}' % odd
    done = treated(CHAT, BASES[CHAT][0], False).complete(answer)
    assert done.body == answer
    assert done.usage
    assert done.usage.completion_tokens == 20
    with pytest.raises(BadUpstreamBody):
        treated(CHAT, BASES[CHAT][0], False).complete(b"<html>busy</html>")


def test_a_request_of_brackets_is_refused_before_it_is_read() -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(b'{"model":"m","input":[' + b",".join([b"[[[]]]"] * 100_000) + b"]}")
    assert refused.value.code == "invalid_value"
    # Brackets that somebody writes about are none.
    text = "{[" * 300_000 + '\\"[' * 10
    assert read(orjson.dumps({"input": text}))["input"] == text

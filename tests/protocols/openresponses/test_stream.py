import json

import pytest

from dwctl.protocols import forms
from dwctl.protocols.assembly import replay as chat_replay
from dwctl.protocols.disclosure import Disclosure
from dwctl.protocols.openresponses import resource
from dwctl.protocols.openresponses.events import Events
from dwctl.protocols.openresponses.replay import replay
from dwctl.protocols.openresponses.stream import ResponsesStream
from dwctl.protocols.usage import TokenUsage
from tests.protocols.openresponses.samples import (
    CITATION,
    COMPLETIONS,
    LOGPROB,
    RESPONSE_USAGE,
    USAGE,
    skeleton,
)
from tests.protocols.openresponses.schema import check_response, events_of
from tests.protocols.streams import (
    chunk,
    data_of,
    drive,
    hello,
    portions,
    sse,
    text_chunks,
    usage_chunk,
)


def make(*, strict=True, trusted=False, sanitise=False, **options):
    disclosure = Disclosure(strict, trusted, sanitise)
    return ResponsesStream(skeleton(), disclosure=disclosure, **{"now": lambda: 107, **options})


def run(stream, **options):
    transformer, out = drive(lambda: make(**options), stream)
    events = events_of(out)
    assert events[-1]["response"] == transformer.final
    check_response(transformer.final, sdk=not transformer.error)
    check_one_item_at_a_time(events)
    return transformer, events


def check_one_item_at_a_time(events):
    """Each item is done before the next is added, and everything between is about it."""
    current = None
    for event in events:
        kind, index = event["type"], event.get("output_index")
        if kind == "response.output_item.added":
            assert current is None
            current = index
        elif index is not None:
            assert index == current
        if kind == "response.output_item.done":
            current = None
    assert current is None


def types(events):
    return [event["type"].removeprefix("response.") for event in events]


def call_delta(index=0, id=None, name=None, arguments=None):
    function = {k: v for k, v in {"name": name, "arguments": arguments}.items() if v is not None}
    part = {"index": index, "id": id, "function": function}
    return chunk({"tool_calls": [{k: v for k, v in part.items() if v is not None}]})


def test_a_text_comes_in_the_published_order():
    stream, events = run(sse(hello()))
    assert types(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert "".join(e.get("delta", "") for e in events) == "Hello there friend"
    assert events[0]["response"] == skeleton()
    assert stream.settle() == TokenUsage(9, 3, 12)
    assert (stream.final["completed_at"], stream.final["status"]) == (107, "completed")


def test_events_name_their_place():
    _, events = run(sse(hello()))
    added, part, delta = events[2], events[3], events[4]
    id = added["item"]["id"]
    assert added["item"] == {"type": "message", "id": id, "status": "in_progress", "role": "assistant", "content": []}  # fmt: skip
    place = {"item_id": id, "output_index": 0, "content_index": 0}
    text = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    assert part == {"type": "response.content_part.added", **place, "part": text, "sequence_number": 3}  # fmt: skip
    assert delta == {"type": "response.output_text.delta", **place, "delta": "Hello", "logprobs": [], "sequence_number": 4}  # fmt: skip
    assert events[9]["item"] == events[10]["response"]["output"][0]


@pytest.mark.parametrize(
    "name",
    ["text", "length", "content filter", "tool calls", "text and tool call", "reasoning cut", "refusal", "text and refusal", "log probabilities", "no usage"],
)  # fmt: skip
def test_a_stream_ends_with_the_object_that_a_blocking_call_gets(name):
    body = COMPLETIONS[name]
    stream, _ = run(chat_replay(body, forms.CHAT, usage_wanted=True))
    assert stream.final == resource.from_chat(skeleton(), body, completed_at=107)


def test_reasoning_then_text():
    chunks = [chunk({"role": "assistant", "content": None, "reasoning_content": "H"}), chunk({"reasoning_content": "m", "reasoning": "m"}), chunk({"content": "Yes"}), chunk({}, "stop")]  # fmt: skip
    stream, events = run(sse([*chunks, usage_chunk(USAGE)]))
    assert types(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    thought, message = stream.final["output"]
    assert thought["summary"] == []
    assert thought["content"] == [{"type": "reasoning_text", "text": "Hm"}]
    assert message["content"][0]["text"] == "Yes"
    assert stream.final["usage"] == RESPONSE_USAGE


def test_a_summary_is_a_summary_where_the_upstream_calls_it_one():
    def thought(text):
        detail = {"type": "reasoning.summary", "summary": text}
        return chunk({"reasoning": text, "reasoning_details": [detail]})

    stream, events = run(sse([thought("H"), thought("m"), chunk({"content": "Yes"}, "stop")]))
    item = stream.final["output"][0]
    assert item["summary"] == [{"type": "summary_text", "text": "Hm"}]
    assert "content" not in item
    assert types(events)[3:8] == [
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
    ]


MIXED = {
    "text, then reasoning again": [
        chunk({"reasoning": "a"}),
        chunk({"content": "b"}),
        chunk({"reasoning": "c"}),
        chunk({"content": "d"}, "stop"),
    ],
    "text after a call": [
        chunk({"content": "a"}),
        call_delta(0, "x", "f", "{}"),
        chunk({"content": "b"}, "stop"),
    ],
    "text in the middle of a call": [
        call_delta(0, "x", "f", "{"),
        chunk({"content": "a"}),
        call_delta(0, arguments="}"),
        chunk({"content": "b"}, "stop"),
    ],
    "calls one after the other": [
        call_delta(0, "x", "f", "{}"),
        call_delta(1, "y", "g", "{}"),
        call_delta(2, "z", "h", "{}"),
        chunk({}, "tool_calls"),
    ],
    "several choices": [
        {"choices": [{"index": i, "delta": {"content": f"{i}{n}"}} for i in (0, 1)]} for n in (0, 1)
    ]
    + [{"choices": [{"index": i, "delta": {}, "finish_reason": "stop"} for i in (1, 0)]}],
}


@pytest.mark.parametrize("chunks", MIXED.values(), ids=MIXED)
def test_items_are_closed_before_the_next_opens_and_nothing_is_lost(chunks):
    stream, events = run(sse(chunks))
    sent = json.dumps([[c.get("delta") for c in chunk["choices"]] for chunk in chunks])
    told = "".join(event.get("delta", "") for event in events)
    shown = json.dumps(stream.final["output"])
    for text in ("a", "b", "c", "d", "00", "01", "10", "11"):
        if f'"{text}"' in sent:
            assert text in told
    assert all(item["status"] == "completed" for item in stream.final["output"])
    assert shown.count('"arguments": "{}"') == sent.count('"id"')


REASONS = {
    "known": ("stop", True, None),
    "empty": ("", False, "server_error"),
    "unknown": ("because", False, "server_error"),
    "another type": ([], False, "server_error"),
    "error": ("error", True, "upstream_error"),
}


@pytest.mark.parametrize(("reason", "ends", "code"), REASONS.values(), ids=REASONS)
def test_which_reasons_end_a_stream(reason, ends, code):
    stream = make()
    stream.feed(sse([chunk({"content": "a"}), chunk({}, reason)], done=False))
    assert stream.ended is ends
    stream.finish()
    assert (stream.error or {}).get("code") == code
    assert stream.final["output"][0]["content"][0]["text"] == "a"


@pytest.mark.parametrize("end", [sse([]), sse([usage_chunk()], done=False)])
def test_an_end_marker_or_a_usage_chunk_ends_a_stream_too(end):
    stream = make()
    stream.feed(sse([chunk({"content": "a"}), chunk({"content": "b"}, "")], done=False) + end)
    stream.finish()
    assert stream.error is None
    assert stream.final["output"][0]["content"][0]["text"] == "ab"


def test_function_calls_in_parallel():
    chunks = [
        call_delta(0, "a", "f", ""),
        call_delta(0, arguments='{"x"'),
        call_delta(1, "b", "g", "{}"),
        call_delta(0, arguments=":1}"),
        chunk({}, "tool_calls"),
    ]
    stream, events = run(sse(chunks))
    assert types(events)[2:-1] == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
    ]
    first, second = stream.final["output"]
    assert (first["call_id"], first["name"], first["arguments"]) == ("a", "f", '{"x":1}')
    assert (second["call_id"], second["name"], second["arguments"]) == ("b", "g", "{}")
    assert stream.final["status"] == "completed"
    assert events[2]["item"]["arguments"] == ""


def test_a_function_call_waits_for_its_id_and_its_name():
    chunks = [call_delta(0, "a", None, "{"), call_delta(0, None, None, "}"), call_delta(0, None, "f", " "), chunk({}, "tool_calls")]  # fmt: skip
    stream, events = run(sse(chunks))
    assert types(events)[2:5] == ["output_item.added", "function_call_arguments.delta", "function_call_arguments.done"]  # fmt: skip
    assert (events[2]["item"]["name"], events[3]["delta"]) == ("f", "{} ")
    assert stream.final["output"][0]["arguments"] == "{} "


def test_a_function_call_that_never_says_its_id_gets_one():
    stream, _ = run(sse([call_delta(0, None, "f", "{}"), chunk({}, "tool_calls")]))
    [item] = stream.final["output"]
    assert item["call_id"].startswith("call_")
    assert (item["name"], item["arguments"]) == ("f", "{}")


def test_function_calls_without_index_are_told_apart_by_their_ids():
    chunks = [call_delta(None, "a", "f", "{"), call_delta(None, None, None, "}"), call_delta(None, "b", "g", "{}"), chunk({}, "tool_calls")]  # fmt: skip
    stream, _ = run(sse(chunks))
    assert [item["arguments"] for item in stream.final["output"]] == ["{}", "{}"]


def test_function_calls_that_share_an_index_are_told_apart_by_their_ids():
    chunks = [call_delta(0, "a", "f", '{"x":1}'), call_delta(0, "b", "f", '{"x"'), call_delta(0, None, None, ":2}"), chunk({}, "tool_calls")]  # fmt: skip
    stream, _ = run(sse(chunks))
    assert [(item["call_id"], item["arguments"]) for item in stream.final["output"]] == [
        ("a", '{"x":1}'),
        ("b", '{"x":2}'),
    ]


def test_parts_of_one_function_call_may_each_have_an_id_of_their_own():
    chunks = [call_delta(0, "a", "f", "{"), call_delta(0, "b", None, "}"), chunk({}, "tool_calls")]
    [item] = run(sse(chunks))[0].final["output"]
    assert (item["call_id"], item["arguments"]) == ("a", "{}")


def test_arguments_that_are_an_object_become_its_text():
    _, events = run(sse([call_delta(0, "a", "f", {"x": 1}), chunk({}, "tool_calls")]))
    [delta] = [event["delta"] for event in events if event["type"].endswith("arguments.delta")]
    [item] = events[-1]["response"]["output"]
    assert delta == item["arguments"] == '{"x":1}'


def test_a_refusal_has_its_own_events():
    chunks = [chunk({"content": None, "refusal": "I "}), chunk({"refusal": "can't"}), chunk({}, "stop")]  # fmt: skip
    stream, events = run(sse(chunks))
    assert types(events)[2:-1] == [
        "output_item.added",
        "content_part.added",
        "refusal.delta",
        "refusal.delta",
        "refusal.done",
        "content_part.done",
        "output_item.done",
    ]
    assert stream.final["output"][0]["content"] == [{"type": "refusal", "refusal": "I can't"}]


def test_citations_and_log_probabilities():
    first = chunk({"content": "é"})
    first["choices"][0]["logprobs"] = {"content": [LOGPROB]}
    stream, events = run(sse([first, chunk({"annotations": [CITATION, 5]}), chunk({}, "stop")]))
    assert events[4]["logprobs"][0]["bytes"] == [195, 169]
    assert events[5]["type"] == "response.output_text.annotation.added"
    [part] = stream.final["output"][0]["content"]
    assert (len(part["logprobs"]), len(part["annotations"])) == (1, 1)
    assert events[6]["logprobs"] == part["logprobs"]


ENDINGS = {
    "stop": ("stop", "completed", "completed"),
    "tool_calls": ("tool_calls", "completed", "completed"),
    "something else": ("eos", "completed", "completed"),
    "length": ("length", "incomplete", "incomplete"),
    "content_filter": ("content_filter", "incomplete", "incomplete"),
}


@pytest.mark.parametrize(("reason", "ending", "status"), ENDINGS.values(), ids=ENDINGS)
def test_the_last_event_follows_from_the_finish_reason(reason, ending, status):
    stream, events = run(sse([*text_chunks("Hi"), chunk({}, reason)]))
    assert types(events)[-1] == ending
    assert stream.final["status"] == stream.final["output"][0]["status"] == status


def test_only_the_last_item_is_incomplete():
    chunks = [chunk({"reasoning": "Hm"}), chunk({"content": "Ye"}), chunk({}, "length")]
    stream, _ = run(sse(chunks))
    assert [item["status"] for item in stream.final["output"]] == ["completed", "incomplete"]


def test_a_stream_without_done_is_complete_once_it_has_finished():
    assert run(sse(hello(), done=False))[0].final["status"] == "completed"


def test_a_stream_that_says_done_without_a_reason_is_complete():
    assert run(sse(text_chunks("Hi")))[0].final["status"] == "completed"


CUT = {
    "in the middle": (sse(hello()[:3], done=False), "Hello there"),
    "within an event": (sse(hello())[:300], ""),
    "before anything": (b"", ""),
    "after a role": (sse(hello()[:1], done=False), ""),
    "a [DONE] alone": (b"data: [DONE]\n\n", ""),
    "too large": (sse(hello()[:2], done=False) + b"data: " + b"x" * 2000 + b"\n\n" + sse(hello()), "Hello"),
}  # fmt: skip


@pytest.mark.parametrize(("stream", "text"), CUT.values(), ids=CUT)
def test_an_upstream_that_dies_makes_a_failed_response_that_keeps_what_was_said(stream, text):
    transformer, events = run(stream, max_event_bytes=1000)
    assert types(events)[:2] == ["created", "in_progress"]
    assert types(events)[-1] == "failed"
    assert types(events).count("output_item.added") == types(events).count("output_item.done")
    final = transformer.final
    assert (final["status"], final["completed_at"]) == ("failed", None)
    assert final["error"] == transformer.error
    too_large = stream == CUT["too large"][0]
    assert final["error"]["code"] == (
        "upstream_response_too_large" if too_large else "server_error"
    )
    said = [part["text"] for item in final["output"] for part in item["content"]]
    assert said == ([text] if text else [])
    assert all(item["status"] == "incomplete" for item in final["output"])


ERRORS = {
    "untrusted": ({"message": "secret", "code": 503}, {}, ("http_503", "Service unavailable")),
    "our credential": ({"message": "secret", "code": 401}, {}, ("http_502", "Bad gateway")),
    "just text": ("secret", {}, ("http_500", "Internal server error")),
    "trusted": ({"message": "plain", "code": "overloaded"}, {"trusted": True}, ("overloaded", "plain")),
    "trusted, code as number": ({"message": "plain", "code": 503}, {"trusted": True}, ("http_503", "plain")),
    "not strict": ({"message": "plain"}, {"strict": False}, ("http_500", "plain")),
    "not strict, text": ("plain", {"strict": False}, ("http_500", "plain")),
    "sanitised": ({"message": "secret"}, {"strict": False, "sanitise": True}, ("internal_error", "An internal error occurred. Please try again later.")),
}  # fmt: skip


@pytest.mark.parametrize(("error", "options", "seen"), ERRORS.values(), ids=ERRORS)
def test_an_error_inside_the_stream_fails_the_response(error, options, seen):
    transformer, out = drive(lambda: make(**options), sse([*text_chunks("Hi"), {"error": error}]))
    final = transformer.final
    check_response(final, sdk=False)
    assert (final["error"]["code"], final["error"]["message"]) == seen
    assert json.loads(transformer.upstream_error) == {"error": error}
    assert b"secret" not in out
    assert out.endswith(b"data: [DONE]\n\n")


FLAT = {
    "an object": (
        b'data: {"object":"error","message":"plain","code":503}\n\n',
        ("http_503", "plain"),
    ),
    "an event": (b'event: error\ndata: {"message":"plain","code":"odd"}\n\n', ("odd", "plain")),
    "an event of words": (b"event: error\ndata: plain\n\n", ("http_500", "plain")),
}


@pytest.mark.parametrize(("frame", "seen"), FLAT.values(), ids=FLAT)
def test_an_error_without_an_error_member_fails_the_response_too(frame, seen):
    stream = sse(text_chunks("Hi"), done=False) + frame + b"data: [DONE]\n\n"
    final = drive(lambda: make(strict=False), stream)[0].final
    assert final["status"] == "failed"
    assert (final["error"]["code"], final["error"]["message"]) == seen


def test_usage_at_the_beginning_does_not_make_a_cut_stream_whole():
    cut, whole = [usage_chunk(), *text_chunks("Hi")], [usage_chunk(), *hello(usage=False)]
    assert drive(make, sse(cut, done=False))[0].final["status"] == "failed"
    assert drive(make, sse(whole, done=False))[0].final["status"] == "completed"


def test_what_says_nothing_is_skipped():
    odd = b'data: oops\n\ndata: 5\n\ndata: {"choices":5}\n\ndata: {"choices":[5,{"delta":5}]}\n\n'
    odd += sse([{"choices": [{"delta": {"content": [{"text": "a"}, 5], "tool_calls": [5], "refusal": 5, "reasoning": 5}}]}], done=False)  # fmt: skip
    stream, _ = run(odd + sse(hello()))
    assert stream.final["output"][0]["content"][0]["text"] == "aHello there friend"


def test_comments_and_pings_keep_the_connection_alive_and_begin_nothing():
    said = b": ping\n\ndata: {}\n\n" + sse(hello()).replace(
        b"data: [DONE]", b": pong\ndata: [DONE]"
    )
    _, out = drive(make, said)
    assert out.startswith(b": ping\n\n: keep-alive\n\nevent: response.created\n")
    assert b"\n\n: pong\n\n" in out


STREAMS = {
    "hello": sse(hello()),
    "text beyond ASCII": sse([*text_chunks("é", "日本", "😀\u2028"), chunk({}, "stop")]),
    "CRLF": sse(hello()).replace(b"\n", b"\r\n"),
    "calls": sse([call_delta(0, "a", "f", ""), call_delta(0, None, None, "{}"), chunk({}, "tool_calls")]),
    "cut": sse(hello()[:3], done=False),
    "error": sse([*hello()[:2], {"error": {"message": "m", "code": 503}}]),
    "too large": CUT["too large"][0],
    "nothing": b"",
}  # fmt: skip


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_portions_do_not_matter(stream):
    whole, expected = drive(lambda: make(max_event_bytes=1000), stream)
    for parts in portions(stream, 15):
        transformer, out = drive(lambda: make(max_event_bytes=1000), parts)
        assert out == expected
        assert (transformer.final, transformer.settle()) == (whole.final, whole.settle())


def test_a_call_can_be_failed_from_outside():
    stream = make()
    out = stream.feed(sse(hello()[:3], done=False)) + stream.fail("server_error", "Timed out.")
    events = events_of(out)
    assert types(events)[-2:] == ["output_item.done", "failed"]
    assert events[-1]["response"]["error"]["message"] == "Timed out."
    assert stream.finish() == stream.fail("x", "again") == stream.cancel() == stream.feed(sse(hello())) == b""  # fmt: skip


def test_a_call_can_be_cancelled():
    stream = make()
    events = events_of(stream.feed(sse(hello()[:2], done=False)) + stream.cancel())
    assert types(events)[-1] == "failed"
    assert stream.final["status"] == "cancelled"
    assert stream.final["output"][0]["content"][0]["text"] == "Hello"


OUTSIDE = {
    "failed": lambda stream: stream.fail("server_error", "Timed out."),
    "cancelled": lambda stream: stream.cancel(),
}


@pytest.mark.parametrize(("status", "end"), OUTSIDE.items(), ids=OUTSIDE)
def test_nobody_hears_that_a_call_is_done_which_was_interrupted(status, end):
    first, second = [call_delta(0, "a", "f", "{}")], [call_delta(1, "b", "g", '{"x"')]
    stream = make()
    events = events_of(stream.feed(sse([*first, *second], done=False)) + end(stream))
    assert types(events)[2:] == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "failed",
    ]
    assert stream.final["status"] == status
    assert [(item["arguments"], item["status"]) for item in stream.final["output"]] == [
        ("{}", "completed"),
        ('{"x"', "incomplete"),
    ]


def test_what_was_said_so_far_can_be_asked_for():
    stream = make()
    stream.feed(sse([chunk({"reasoning": "Hm"}), chunk({"content": "Ye"})], done=False))
    so_far = stream.assembled()
    check_response(so_far)
    assert [item["status"] for item in so_far["output"]] == ["completed", "incomplete"]
    assert so_far["output"][1]["content"][0]["text"] == "Ye"
    stream.feed(sse([chunk({"content": "s"}), chunk({}, "stop")]))
    stream.finish()
    assert stream.assembled() == stream.final


def test_the_end_waits_until_it_is_asked_for():
    stream = make()
    out = stream.feed(sse(hello()))
    assert stream.done
    assert b"response.completed" not in out
    assert stream.final["status"] == "in_progress"
    assert types(events_of(out + stream.finish()))[-1] == "completed"


def test_delivered_tokens_are_estimated_from_the_text():
    chunks = [chunk({"reasoning": "abcd"}), chunk({"content": "abcde"}), call_delta(0, "a", "f", "{}")]  # fmt: skip
    assert drive(make, sse(chunks))[0].settle().completion_tokens == 3


@pytest.mark.parametrize("body", COMPLETIONS.values(), ids=COMPLETIONS)
def test_a_finished_response_is_replayed_as_its_stream(body):
    response = resource.from_chat(skeleton(), body, completed_at=107)
    events = events_of(replay(response))
    assert events[-1]["response"] == response
    assert events[0]["response"] == skeleton()
    done = [e["item"] for e in events if e["type"] == "response.output_item.done"]
    assert done == response["output"]


def test_a_replay_of_a_text_is_the_stream_with_one_delta():
    stream, streamed = run(sse([chunk({"content": "Hello"}), chunk({}, "stop"), usage_chunk()]))
    assert events_of(replay(stream.final)) == streamed


def test_a_replay_can_go_on_where_a_queued_stream_stands():
    response = resource.from_chat(skeleton(), COMPLETIONS["text"], completed_at=107)
    out = Events().began_queued(response)
    out += replay(response, queued=True, after=1)
    assert out == replay(response, queued=True)
    events = events_of(out)
    assert types(events)[:3] == ["created", "queued", "in_progress"]
    assert [e["response"]["status"] for e in events[:3]] == ["queued", "queued", "in_progress"]
    assert [e["sequence_number"] for e in events] == list(range(len(events)))


def test_a_replay_takes_items_and_parts_of_other_kinds():
    output = [
        {"type": "function_call_output", "id": "x", "call_id": "c", "output": "o", "status": "completed"},
        {"type": "message", "id": "y", "role": "assistant", "status": "completed", "content": [{"type": "text", "text": "a"}]},
        {"type": "reasoning", "id": "z", "summary": []},
    ]  # fmt: skip
    response = {**resource.from_chat(skeleton(), COMPLETIONS["text"], completed_at=107), "output": output}  # fmt: skip
    done = [e["item"] for e in data_of(replay(response))[:-1] if e["type"] == "response.output_item.done"]  # fmt: skip
    assert done == output


@pytest.mark.parametrize(("status", "ending"), [("failed", "failed"), ("cancelled", "failed"), ("incomplete", "incomplete")])  # fmt: skip
def test_a_replay_ends_as_the_response_did(status, ending):
    response = {**skeleton(), "status": status}
    assert types(events_of(replay(response)))[-1] == ending

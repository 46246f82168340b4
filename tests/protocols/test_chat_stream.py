import json

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from dwctl.protocols import forms
from dwctl.protocols.chat_stream import ChatStream
from dwctl.protocols.disclosure import Disclosure
from dwctl.protocols.usage import TokenUsage
from tests.protocols.streams import (
    USAGE,
    chunk,
    data_of,
    drive,
    frame,
    hello,
    portions,
    sse,
    text_chunks,
    usage_chunk,
)


def chat_stream(*, strict=True, trusted=False, sanitise=False, **options):
    defaults = {"response_id": "resp_1", "alias": "alias", "usage_wanted": False}
    disclosure = Disclosure(strict, trusted, sanitise)
    return ChatStream(disclosure=disclosure, **{**defaults, **options})


def run(stream, **options):
    return drive(lambda: chat_stream(**options), stream)


def test_a_strict_stream_carries_our_id_and_alias_and_no_usage_chunk():
    stream, out = run(sse(hello()))
    expected = [{**c, "id": "resp_1", "model": "alias"} for c in hello(usage=False)]
    assert data_of(out) == [*expected, "[DONE]"]
    assert stream.settle() == TokenUsage(9, 3, 12)
    assert stream.error is None


def test_the_usage_chunk_goes_to_who_asked_for_it():
    _, out = run(sse(hello()), usage_wanted=True)
    assert data_of(out)[-2]["usage"] == USAGE
    assert data_of(out)[-2]["id"] == "resp_1"


def test_a_usage_chunk_without_choices_is_one_too():
    bare = {"id": "c", "usage": USAGE}
    stream, out = run(sse([*hello(usage=False), bare]))
    assert len(data_of(out)) == 6
    assert stream.settle() == TokenUsage(9, 3, 12)


def test_usage_beside_choices_stays_where_it_is():
    chunks = [*text_chunks("Hi"), chunk({}, "stop", usage=USAGE)]
    stream, out = run(sse(chunks))
    assert data_of(out)[-2]["usage"] == USAGE
    assert stream.settle() == TokenUsage(9, 3, 12)


def test_the_last_of_running_usages_counts():
    running = [chunk({"content": "a"}, usage={**USAGE, "completion_tokens": n}) for n in (1, 2)]
    stream, _ = run(sse([*running, chunk({}, "stop")]))
    assert stream.settle() == TokenUsage(9, 2, 12)


def test_a_chunk_with_no_choices_and_no_usage_is_kept():
    azure = {**chunk({}), "choices": [], "usage": None}
    _, out = run(sse([azure, *hello()]))
    assert data_of(out)[0]["choices"] == []


def test_without_strict_mode_only_the_id_changes():
    raw = b'data: {"id":"chatcmpl-1", "n":1.50, "choices":[{"index":0,"delta":{"content":"\xc3\xa9"}}]}\n\n'
    end = b'data: {"x":1,"id":"chatcmpl-1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    _, out = run(raw + raw + end + b"data: [DONE]\n\n", strict=False)
    expected = (raw + raw + end).replace(b"chatcmpl-1", b"resp_1") + b"data: [DONE]\n\n"
    assert out.replace(b" ", b"") == expected.replace(
        b" ", b""
    )  # blanks between members do not count


def test_without_strict_mode_a_tool_calls_id_stays():
    function = {"name": "f", "arguments": "{}"}
    call = {"index": 0, "id": "call_1", "type": "function", "function": function}
    chunks = [chunk({"content": "a"}), chunk({"tool_calls": [call]}), chunk({}, "tool_calls")]
    _, out = run(sse(chunks), strict=False)
    assert data_of(out)[:-1] == [{**c, "id": "resp_1"} for c in chunks]


WORDLESS = b"retry: 3000\n\nid: 7\n\nevent: ping\n\nid\n: hi\n\n"


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("response_id", [None, "resp_1"])
def test_what_a_client_would_take_for_an_event_without_data_is_a_comment(strict, response_id):
    numbered = b"".join(
        b"id: %d\nretry: 5\n%s\n\n" % (n, one)
        for n, one in enumerate(sse(hello()).split(b"\n\n")[:-1])
    )
    for parts in portions(WORDLESS + numbered):
        stream, out = drive(
            lambda: chat_stream(strict=strict, response_id=response_id, usage_wanted=True), parts
        )
        assert stream.error is None
        assert out.startswith(b": keep-alive\n\n: hi\n\ndata: {")
        for event in out.split(b"\n\n")[:-1]:
            assert event.startswith((b": ", b"data: "))
            assert b"\nid" not in event
            assert b"retry" not in event


def test_with_nothing_to_change_the_bytes_are_the_upstreams():
    odd = b": hi\r\n\r\nevent: x\ndata: not json\n\ndata:5\n\n" + sse(hello())
    for parts in portions(odd):
        _, out = drive(
            lambda: chat_stream(strict=False, response_id=None, usage_wanted=True), parts
        )
        assert out == odd


def test_completions_keep_their_id():
    part = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "up"}
    chunks = [
        {**part, "choices": [{"index": 0, "text": "Hel"}]},
        {**part, "choices": [{"index": 0, "text": "lo", "finish_reason": "stop"}]},
    ]
    stream, out = run(sse(chunks), form=forms.COMPLETIONS)
    assert data_of(out) == [*[{**c, "model": "alias"} for c in chunks], "[DONE]"]
    assert stream.assembled() == {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 1,
        "model": "alias",
        "choices": [{"index": 0, "text": "Hello", "finish_reason": "stop"}],
    }
    assert run(sse(chunks), form=forms.COMPLETIONS, strict=False)[1] == sse(chunks)


def test_bookkeeping_is_filled_in_with_one_id_for_the_stream():
    chunks = [{"choices": [{"delta": {"content": "a"}}]}, {"choices": [{"finish_reason": "stop"}]}]
    _, out = run(sse(chunks), response_id=None)
    first, second, _ = data_of(out)
    assert first == {
        "choices": [{"delta": {"content": "a"}, "index": 0}],
        "id": first["id"],
        "object": "chat.completion.chunk",
        "created": 0,
        "model": "alias",
    }
    assert first["id"].startswith("chatcmpl-")
    assert second["id"] == first["id"]


def test_unknown_top_level_members_go_and_everything_in_a_delta_stays():
    delta = {"content": "a", "refusal": None, "annotations": [1], "citations": [2], "audio": {"id": "x"}, "own": 1}  # fmt: skip
    _, out = run(sse([chunk(delta, region="secret"), chunk({}, "stop")]))
    assert "region" not in data_of(out)[0]
    assert data_of(out)[0]["choices"][0]["delta"] == delta


def test_sanitising_drops_a_choices_own_members_too():
    own = chunk({"content": "a"}, region="x")
    own["choices"][0]["stop_reason"] = 5
    usage = usage_chunk({**USAGE, "cost": 1})
    stream, out = run(
        sse([own, chunk({}, "stop"), usage]), strict=False, sanitise=True, usage_wanted=True
    )
    assert "stop_reason" not in data_of(out)[0]["choices"][0]
    assert data_of(out)[0]["model"] == "alias"
    assert data_of(out)[2]["usage"] == USAGE
    assert stream.assembled()["usage"] == USAGE


def test_comments_and_event_names_are_kept():
    stream = b": ping\n\nevent: delta\ndata: " + json.dumps(chunk({"content": "a"})).encode() + b"\n\n"  # fmt: skip
    _, out = run(stream + b": with data\n" + sse([chunk({}, "stop"), usage_chunk()]))
    assert out.startswith(b": ping\n\nevent: delta\ndata: {")
    assert b"\n\n: with data\ndata: {" in out


def test_data_over_several_lines_stays_one_event():
    raw = b'data: {"id":"c",\ndata: "choices":[{"finish_reason":"stop","index":0,"delta":{}}]}\n\n'
    _, out = run(raw + b"data: [DONE]\n\n", strict=False)
    last = {"finish_reason": "stop", "index": 0, "delta": {}}
    assert data_of(out) == [{"id": "resp_1", "choices": [last]}, "[DONE]"]


QUIRKS = {
    "CRLF": lambda s: s.replace(b"\n", b"\r\n"),
    "CR": lambda s: s.replace(b"\n", b"\r"),
    "no space after the colon": lambda s: s.replace(b"data: ", b"data:"),
    "comments": lambda s: s.replace(b"data: ", b": keep-alive\n\ndata: "),
    "byte order mark": lambda s: b"\xef\xbb\xbf" + s,
}


@pytest.mark.parametrize("spoil", QUIRKS.values(), ids=QUIRKS)
def test_an_upstreams_manners_do_not_matter(spoil):
    _, out = run(spoil(sse(hello())))
    assert data_of(out) == data_of(run(sse(hello()))[1])


STREAMS = {
    "hello": sse(hello()),
    "text beyond ASCII": sse([*text_chunks("é", "日本", "😀\u2028"), chunk({}, "stop")]),
    "CRLF": sse(hello()).replace(b"\n", b"\r\n"),
    "cut": sse(hello()[:3], done=False),
    "cut within an event": sse(hello())[:-220],
    "no [DONE]": sse(hello(), done=False),
    "not JSON": sse(hello()[:2], done=False) + b"data: {oops\n\n" + sse(hello()),
    "error": sse([*hello()[:2], {"error": {"message": "m", "code": 503}}]),
    "too large": sse(hello()[:2], done=False) + b"data: " + b"x" * 2000 + b"\n\n" + sse(hello()),
    "nothing": b"",
    "more after [DONE]": sse(hello()) + sse(hello()),
}


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "plain"])
@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_portions_do_not_matter(stream, strict):
    def make():
        return chat_stream(strict=strict, max_event_bytes=1000)

    whole, expected = drive(make, stream)
    assert expected.endswith(b"data: [DONE]\n\n")
    assert expected.count(b"data: [DONE]") == 1
    for parts in portions(stream, 20):
        transformer, out = drive(make, parts)
        assert out == expected
        assert transformer.assembled() == whole.assembled()
        assert (transformer.settle(), transformer.error) == (whole.settle(), whole.error)


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "plain"])
@pytest.mark.parametrize("name", ["cut", "nothing", "too large", "cut within an event"])
def test_a_stream_that_just_ends_ends_in_an_error_frame(name, strict):
    stream, out = run(STREAMS[name], strict=strict, max_event_bytes=1000)
    *_, error, done = data_of(out)
    assert done == "[DONE]"
    assert error["error"] == stream.error
    assert error["error"].keys() == {"message", "type", "param", "code"}
    code = "upstream_response_too_large" if name == "too large" else "upstream_error"
    assert (error["error"]["type"], error["error"]["code"]) == ("api_error", code)


def test_usage_at_the_beginning_does_not_make_a_cut_stream_whole():
    stream, out = run(sse([usage_chunk(), *text_chunks("Hi")], done=False))
    assert data_of(out)[-2]["error"]
    assert stream.error
    stream, _ = run(sse([usage_chunk(), *hello(usage=False)], done=False))
    assert stream.error is None


def test_a_stream_that_finished_but_forgot_done_gets_it():
    stream, out = run(sse(hello(), done=False))
    assert stream.error is None
    assert data_of(out)[-1] == "[DONE]"


def test_words_that_are_no_json_end_a_strict_stream():
    stream, out = run(sse(hello()[:2], done=False) + b"data: oops\n\n" + sse(hello()))
    assert "error" in data_of(out)[2]
    assert len(data_of(out)) == 4
    assert stream.done


@pytest.mark.parametrize("data", ["null", "[]", "{}", "", '{"choices":5}', '{"choices":[5]}'])
def test_an_event_that_says_nothing_is_passed_over(data):
    stream, out = run(f"data: {data}\n\n".encode() + sse(hello()))
    assert stream.error is None
    assert data_of(out)[-1] == "[DONE]"


@pytest.mark.parametrize("data", ["5", '"x"', "[5]"])
def test_json_of_another_shape_cannot_be_read_either(data):
    stream, _ = run(f"data: {data}\n\n".encode() + sse(hello()))
    assert stream.error
    assert run(f"data: {data}\n\n".encode() + sse(hello()), strict=False)[0].error is None


ERRORS = {
    "untrusted": ({"message": "secret", "code": 503}, {}, ("Service unavailable", "http_503")),
    "untrusted, code as text": ({"message": "secret", "code": "429"}, {}, ("Rate limit exceeded", "http_429")),
    "untrusted, no code": ({"message": "secret"}, {}, ("Internal server error", "http_500")),
    "untrusted, a word as code": ({"message": "secret", "code": "overloaded"}, {}, ("Service unavailable", "http_503")),
    "untrusted, our credential": ({"message": "secret", "code": 401}, {}, ("Bad gateway", "http_502")),
    "untrusted, just text": ("secret", {}, ("Internal server error", "http_500")),
    "trusted": ({"message": "plain", "code": 503, "own": 1}, {"trusted": True}, ("plain", "http_503")),
    "not strict": ({"message": "plain", "code": 503}, {"strict": False}, ("plain", "http_503")),
    "not strict, sanitised": ({"message": "secret", "code": 400}, {"strict": False, "sanitise": True}, ("The upstream provider rejected the request.", "upstream_error")),
    "trusted, sanitised": ({"message": "secret", "code": 500}, {"trusted": True, "sanitise": True}, ("An internal error occurred. Please try again later.", "internal_error")),
}  # fmt: skip


@pytest.mark.parametrize(("error", "options", "seen"), ERRORS.values(), ids=ERRORS)
def test_an_error_inside_a_stream(error, options, seen):
    stream, out = run(sse([*text_chunks("Hi"), {"error": error}], done=False), **options)
    *_, frame_, done = data_of(out)
    assert done == "[DONE]"
    assert (frame_["error"]["message"], frame_["error"]["code"]) == seen
    assert stream.error == frame_["error"]
    assert json.loads(stream.upstream_error) == {"error": error}
    assert (b"secret" in out) is False


FLAT = {
    "an object": (
        b'data: {"object":"error","message":"plain","code":503}\n\n',
        ("plain", "http_503"),
    ),
    "a type": (b'data: {"type":"error","message":"plain","code":503}\n\n', ("plain", "http_503")),
    "an event": (b'event: error\ndata: {"message":"plain","code":"odd"}\n\n', ("plain", "odd")),
    "an event of words": (b"event: error\ndata: plain\n\n", ("plain", "http_500")),
    "an event of nothing": (b"event: error\ndata: {}\n\n", ("Internal server error", "http_500")),
}


@pytest.mark.parametrize(("frame_", "seen"), FLAT.values(), ids=FLAT)
def test_an_error_without_an_error_member_is_one_too(frame_, seen):
    said = sse(text_chunks("Hi"), done=False)
    stream, out = run(said + frame_ + b"data: [DONE]\n\n", strict=False)
    shown = data_of(out)[-2]["error"]
    assert (shown["message"], shown["code"]) == seen
    assert stream.error == shown
    stream, out = run(said + frame_.replace(b"plain", b"secret"))
    assert stream.error
    assert b"secret" not in out


def test_a_chunk_with_choices_is_none_whatever_it_is_called():
    said = sse([chunk({"content": "a"}), chunk({}, "stop")]).replace(
        b"data: {", b"event: error\ndata: {"
    )
    stream, _ = run(said)
    assert stream.error is None


def test_a_null_error_is_none():
    stream, _ = run(sse([{**c, "error": None} for c in hello()]))
    assert stream.error is None


def test_a_broken_connection_ends_in_our_error_frame():
    stream = chat_stream()
    stream.feed(sse(hello()[:3], done=False))
    out = stream.fail("connection_failed", "The connection broke.")
    assert data_of(out) == [
        {"error": {"message": "The connection broke.", "type": "api_error", "param": None, "code": "connection_failed"}},
        "[DONE]",
    ]  # fmt: skip
    assert stream.finish() == stream.fail("x", "again") == stream.feed(b"data: {}\n\n") == b""


def test_a_cancelled_call_says_so():
    stream = chat_stream()
    assert data_of(stream.cancel())[0]["error"]["code"] == "cancelled"


def test_nothing_after_done_matters():
    stream = chat_stream()
    stream.feed(sse(hello()))
    assert stream.done
    assert stream.feed(b"data: {oops\n\n") == b""
    assert stream.finish() == b"data: [DONE]\n\n"


def test_a_complete_answer_is_put_together():
    stream, _ = run(sse(hello()))
    assert stream.assembled() == {
        "id": "resp_1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "alias",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello there friend"},
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
    }


def assembled_message(*deltas, **options):
    stream, _ = run(sse([*map(chunk, deltas), chunk({}, "stop")]), **options)
    return stream.assembled()["choices"][0]["message"]


def call_part(index, id=None, name=None, arguments=None):
    function = {k: v for k, v in {"name": name, "arguments": arguments}.items() if v is not None}
    part = {"index": index, "id": id, "type": "function" if id else None, "function": function}
    return {"tool_calls": [{k: v for k, v in part.items() if v is not None}]}


def a_call(id, name, arguments):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


MESSAGES = {
    "tool calls": (
        [call_part(0, "a", "f", ""), call_part(0, arguments='{"x"'), call_part(1, "b", "g", "{}"), call_part(0, arguments=":1}")],
        {"role": "assistant", "content": None, "tool_calls": [a_call("a", "f", '{"x":1}'), a_call("b", "g", "{}")]},
    ),
    "tool calls without index": (
        [call_part(None, "a", "f", "{"), call_part(None, arguments="}"), call_part(None, "b", "g", "{}")],
        {"role": "assistant", "content": None, "tool_calls": [a_call("a", "f", "{}"), a_call("b", "g", "{}")]},
    ),
    "tool calls that share an index": (
        [call_part(0, "a", "f", "{}"), call_part(0, "b", "f", "{"), call_part(0, arguments="}"), call_part(1, "c", "g", "{}")],
        {"role": "assistant", "content": None, "tool_calls": [a_call("a", "f", "{}"), a_call("b", "f", "{}"), a_call("c", "g", "{}")]},
    ),
    "a repeated name and id": (
        [call_part(0, "a", "f", "{"), call_part(0, "a", "f", "}")],
        {"role": "assistant", "content": None, "tool_calls": [a_call("a", "f", "{}")]},
    ),
    "text before a tool call": (
        [{"role": "assistant", "content": "Let me"}, call_part(0, "a", "f", "{}")],
        {"role": "assistant", "content": "Let me", "tool_calls": [a_call("a", "f", "{}")]},
    ),
    "empty text before a tool call": (
        [{"role": "assistant", "content": ""}, call_part(0, "a", "f", "{}")],
        {"role": "assistant", "content": None, "tool_calls": [a_call("a", "f", "{}")]},
    ),
    "reasoning": (
        [{"reasoning_content": "Hm"}, {"reasoning_content": "m.", "content": None}, {"content": "Yes"}],
        {"role": "assistant", "content": "Yes", "reasoning_content": "Hmm."},
    ),
    "reasoning in the other spelling": ([{"reasoning": "Hm"}, {"content": "Yes"}], {"role": "assistant", "content": "Yes", "reasoning": "Hm"}),
    "reasoning details": (
        [{"reasoning_details": [{"text": "a"}]}, {"reasoning_details": [{"text": "b"}]}, {"content": "Yes"}],
        {"role": "assistant", "content": "Yes", "reasoning_details": [{"text": "a"}, {"text": "b"}]},
    ),
    "refusal": ([{"content": None, "refusal": "I "}, {"refusal": "can't"}], {"role": "assistant", "content": None, "refusal": "I can't"}),
    "null refusal": ([{"content": "a", "refusal": None}, {"content": "b"}], {"role": "assistant", "content": "ab", "refusal": None}),
    "annotations": ([{"content": "a", "annotations": [1]}, {"annotations": [2]}], {"role": "assistant", "content": "a", "annotations": [1, 2]}),
    "audio": (
        [{"audio": {"id": "x", "data": "AA", "transcript": "He"}}, {"audio": {"data": "BB", "transcript": "y"}}, {"audio": {"expires_at": 5}}],
        {"role": "assistant", "content": None, "audio": {"id": "x", "data": "AABB", "transcript": "Hey", "expires_at": 5}},
    ),
    "function call of old": (
        [{"function_call": {"name": "f", "arguments": "{"}}, {"function_call": {"arguments": "}"}}],
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
    ),
    "a member of the provider's own": ([{"content": "a", "own": 1}, {"own": 2}], {"role": "assistant", "content": "a", "own": 2}),
    "content in parts": ([{"content": [{"type": "text", "text": "a"}, {"type": "x"}, 5]}], {"role": "assistant", "content": "a"}),
    "garbage": (
        [{"content": 5, "tool_calls": "x", "role": None}, {"tool_calls": [5, {"function": 5}, {"index": "x", "function": {"arguments": 5}}]}],
        {"role": "assistant", "content": "5", "tool_calls": [a_call("call_c7524081794e1759a1a5077f", "", "5")]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "plain"])
@pytest.mark.parametrize(("deltas", "expected"), MESSAGES.values(), ids=MESSAGES)
def test_a_message_is_put_together(deltas, expected, strict):
    assert assembled_message(*deltas, strict=strict) == expected


def test_several_choices_are_put_together_each():
    def part(index, delta, reason=None):
        return {"index": index, "delta": delta, "finish_reason": reason}

    chunks = [
        {**chunk({}), "choices": [part(1, {"content": "b"}), part(0, {"content": "a"})]},
        {**chunk({}), "choices": [part(1, {"content": "B"}, "length")]},
    ]
    stream, out = run(sse(chunks, done=False))
    assert stream.error  # choice 0 never said why it ended
    assert [c["message"]["content"] for c in stream.assembled()["choices"]] == ["a", "bB"]
    assert [c["finish_reason"] for c in stream.assembled()["choices"]] == [None, "length"]


def test_log_probabilities_and_a_choices_own_members_are_kept():
    first = chunk({"content": "a"}, system_fingerprint="fp")
    first["choices"][0]["logprobs"] = {"content": [{"token": "a"}], "refusal": None}
    last = chunk({"content": "b"}, "stop", service_tier="default")
    last["choices"][0] |= {"logprobs": {"content": [{"token": "b"}]}, "stop_reason": 7}
    answer = run(sse([first, last]))[0].assembled()
    assert answer["choices"][0]["logprobs"] == {
        "content": [{"token": "a"}, {"token": "b"}],
        "refusal": None,
    }
    assert answer["choices"][0]["stop_reason"] == 7
    assert (answer["system_fingerprint"], answer["service_tier"]) == ("fp", "default")


@pytest.mark.parametrize(
    ("deltas", "tokens"),
    [
        ([], 0),
        ([{"content": "a"}], 1),
        ([{"content": "abcd"}], 1),
        ([{"content": "abcde"}], 2),
        ([{"reasoning_content": "abcd"}, {"content": "abcd"}, call_part(0, "a", "f", "{}{}")], 3),
    ],
)
def test_delivered_tokens_are_estimated_from_the_text(deltas, tokens):
    stream = run(sse(map(chunk, deltas), done=False))[0]
    usage = stream.settle()
    assert (usage.completion_tokens if usage else 0) == tokens


def test_openais_types_take_our_chunks_and_the_assembled_answer():
    stream, out = run(sse(hello()), usage_wanted=True)
    for data in data_of(out)[:-1]:
        ChatCompletionChunk.model_validate(data)
    ChatCompletion.model_validate(stream.assembled())


def test_frames_are_given_on_as_soon_as_they_are_whole():
    stream = chat_stream()
    whole = frame(chunk({"content": "a"}))
    assert stream.feed(whole[:-1]) == b""
    assert b'"content":"a"' in stream.feed(whole[-1:])


REASONS = {
    "known": ("stop", True, None),
    "empty": ("", False, "upstream_error"),
    "unknown": ("because", False, "upstream_error"),
    "another type": ([], False, "upstream_error"),
    "error": ("error", True, "upstream_error"),
}


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "plain"])
@pytest.mark.parametrize(("reason", "ends", "code"), REASONS.values(), ids=REASONS)
def test_which_reasons_end_a_stream(reason, ends, code, strict):
    stream = chat_stream(strict=strict)
    out = stream.feed(sse([chunk({"content": "a"}), chunk({}, reason)], done=False))
    assert stream.ended is ends
    out += stream.finish()
    assert (stream.error or {}).get("code") == code
    assert (b'"error":{' in out) is (code is not None)
    assert stream.assembled()["choices"][0]["message"]["content"] == "a"


@pytest.mark.parametrize("end", [sse([]), sse([usage_chunk()], done=False)])
def test_an_end_marker_or_a_usage_chunk_ends_a_stream_too(end):
    stream = chat_stream()
    stream.feed(sse([chunk({"content": "a"}), chunk({"content": "b"}, "")], done=False) + end)
    stream.finish()
    assert stream.error is None


def test_an_error_beside_choices_is_a_failure():
    stream, out = run(sse([chunk({"content": "a"}, error={"message": "m", "code": 503})]))
    assert stream.error
    assert out.endswith(b"data: [DONE]\n\n")


def test_the_prompt_of_a_stream_that_is_settled_again_and_again_is_read_once():
    class Watched(dict):
        reads = 0

        def __getitem__(self, name):
            self.reads += 1
            return super().__getitem__(name)

    asked = Watched(messages=[{"role": "user", "content": "Hello there"}])
    stream = chat_stream(request=asked)
    for number in range(3):
        stream.feed(frame(chunk({"content": f"word {number} "})))
        assert stream.settle().prompt_tokens == 3
    assert asked.reads == 1


UNREADABLE = [
    b'"deep":' + b"[" * 300 + b"]" * 300,
    b'"many":' + b"[" * 3000 + b"]" * 3000,
]


@pytest.mark.parametrize("odd", UNREADABLE)
def test_what_is_passed_on_unread_is_billed_by_its_length(odd):
    """Also to who leaves before the usage comes."""
    stream = chat_stream(request={"messages": []}, strict=False)
    said = (
        b'data: {"choices":[{"index":0,"delta":{"content":"' + b"x" * 80 + b'"},' + odd + b"}]}\n\n"
    )
    assert stream.feed(said * 2) == said * 2
    usage = stream.settle()
    assert usage
    assert (usage.completion_tokens, usage.source) == (40, "estimated")


def test_a_usage_at_the_beginning_is_no_end():
    usage = {"id": "c", "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 0}}
    stream = chat_stream()
    stream.feed(sse([usage, chunk({"content": "Hel"})], done=False))
    assert not stream.ended
    assert b"ended the stream too early" in stream.finish()


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "open"])
@pytest.mark.parametrize(
    "data",
    [
        b'{"error":{"message":"Incorrect API key sk-secret"},"at":1e400}',
        b' { "error" : "Incorrect API key sk-secret \\ud800"}',
        b'{"object":"error","message":"Incorrect API key sk-secret","at":NaN}',
        b'{"type":"error","message":"Incorrect API key sk-secret","more":' + b"[" * 300 + b"]" * 300 + b"}",
    ],
    ids=["infinite", "lone surrogate", "flat", "deep"],
)  # fmt: skip
def test_an_error_that_cannot_be_read_is_disclosed_as_any_other(data, strict):
    stream, out = run(sse(hello()[:2], done=False) + b"data: " + data + b"\n\n", strict=strict)
    assert b"sk-secret" not in out
    assert b"sk-secret" in stream.upstream_error
    assert "error" in data_of(out)[-2]


def test_words_that_are_no_json_pass_in_open_mode():
    """No part of an answer is in them."""
    odd = b"data: one moment, please\n\n"
    theirs = sse(hello()[:2], done=False) + odd + sse(hello()[2:])
    stream, out = run(theirs, strict=False, usage_wanted=True)
    assert (odd in out, stream.error) == (True, None)


@pytest.mark.parametrize("mode", [{}, {"strict": False}, {"strict": False, "trusted": True}, {"strict": False, "sanitise": True}])  # fmt: skip
def test_a_chunk_that_nobody_can_read_ends_the_stream_and_what_was_said_is_billed(mode):
    odd = b'data: {"error":null,"choices":[{"delta":{"content":"' + b"x" * 9 + b"\n\n"
    theirs = sse(hello()[:2], done=False) + odd + sse(hello()[2:])
    stream, out = run(theirs, usage_wanted=True, **mode)
    assert odd not in out
    assert (
        data_of(out)[-2]["error"]["message"]
        == "The upstream provider sent data that cannot be read."
    )
    assert stream.upstream_error == odd[6:-2]
    usage = stream.settle()
    assert usage
    assert (usage.source, usage.completion_tokens > 0) == ("estimated", True)


@pytest.mark.parametrize("strict", [True, False])
def test_each_chunk_names_the_tier_and_nothing_else_changes(strict):
    stream = chat_stream(strict=strict, service_tier="flex", response_id="resp_1")
    sent = b'data: {"id":"up","object":"chat.completion.chunk","created":1,"model":"alias","choices":[{"index":0,"delta":{"content":"Hi"},"logprobs":null}],"x":1.50}\n\n'
    got = stream.feed(sent)
    chunk = json.loads(got[6:])
    assert (chunk["id"], chunk["service_tier"]) == ("resp_1", "flex")
    assert (b"1.50" in got) is not strict


def test_who_gets_events_of_another_protocol_pays_for_what_they_say():
    said = {"type": "response.output_text.delta", "delta": "Hello there friend"}
    usage = {"input_tokens": 9, "output_tokens": 5, "total_tokens": 14}
    end = {"type": "response.completed", "response": {"output": [], "usage": usage}}
    for events, used in (([said], (2, 5)), ([said, end], (9, 5))):
        stream = chat_stream(strict=False, request={"messages": [{"content": "Hello"}]})
        out = stream.feed(sse(events)) + stream.finish()
        found = stream.settle()
        assert b"there" in out
        assert stream.error is not None
        assert (found.prompt_tokens, found.completion_tokens) == used

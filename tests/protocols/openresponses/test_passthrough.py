import json
import re
from uuid import UUID

import orjson
import pytest

from dwctl.protocols.asked import Asked
from dwctl.protocols.disclosure import Disclosure
from dwctl.protocols.errors import BadUpstreamBody
from dwctl.protocols.json_objects import parse_object
from dwctl.protocols.openresponses import resource
from dwctl.protocols.openresponses.items import item_id
from dwctl.protocols.openresponses.passthrough import ResponsesRelay, finish_body
from dwctl.protocols.openresponses.stream import ResponsesStream
from dwctl.protocols.surfaces import RESPONSES
from dwctl.protocols.usage import TokenUsage
from tests.protocols.openresponses.samples import COMPLETIONS, ID, RESPONSE_USAGE, skeleton
from tests.protocols.openresponses.schema import check_response, events_of
from tests.protocols.streams import chunk, data_of, drive, hello, portions, sse

THEIRS = {**skeleton(), "id": "resp_theirs", "model": "up", "created_at": 5}
ANSWER = {**resource.from_chat(THEIRS, COMPLETIONS["text"], completed_at=6), "region": "secret"}


def upstream(chunks=None, done=True) -> bytes:
    """A stream of an upstream that speaks the protocol."""
    stream = ResponsesStream(THEIRS, now=lambda: 6)
    out = stream.feed(sse(hello() if chunks is None else chunks, done=done))
    return out + stream.finish() if done else out


def make(*, strict=True, trusted=False, sanitise=False, **options):
    disclosure = Disclosure(strict, trusted, sanitise)
    return ResponsesRelay(skeleton(), disclosure=disclosure, **{"now": lambda: 107, **options})


def finish(raw, strict):
    return finish_body(
        raw,
        parse_object(raw),
        skeleton=skeleton(),
        disclosure=Disclosure(strict),
        completed_at=107,
    )


def test_a_strict_body_gets_our_identifier_alias_and_times():
    finished = finish(orjson.dumps(ANSWER), strict=True)
    assert orjson.loads(finished) == resource.from_chat(skeleton(), COMPLETIONS["text"], completed_at=107) | {"output": ANSWER["output"]}  # fmt: skip


def test_a_strict_body_is_completed():
    finished = finish(b'{"output":[],"created_at":5}', strict=True)  # fmt: skip
    response = orjson.loads(finished)
    check_response(response)
    assert (response["status"], response["completed_at"]) == ("completed", 107)


COUNTS = {"input_tokens": 9, "output_tokens": 3, "total_tokens": 12}
WHOLE = COUNTS | {
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens_details": {"reasoning_tokens": 0},
}
USAGES = {
    "counts alone": (COUNTS, {}),
    "details null": ({**COUNTS, "input_tokens_details": None}, {}),
    "some details": (
        {**COUNTS, "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": None}},
        {"input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0}},
    ),
    "more than the standard": ({**COUNTS, "cost": 0.5}, {"cost": 0.5}),
    "by chat's names": (
        {"prompt_tokens": 9, "completion_tokens": 3},
        {"prompt_tokens": 9, "completion_tokens": 3},
    ),
}


@pytest.mark.parametrize(("given", "said"), USAGES.values(), ids=USAGES)
def test_a_strict_usage_has_all_that_the_standard_requires(given, said):
    body = orjson.loads(finish(orjson.dumps({**ANSWER, "usage": given}), strict=True))
    check_response(body)
    assert body["usage"] == WHOLE | said

    theirs = upstream()
    said_last = data_of(theirs)[-2]["response"]["usage"]
    theirs = theirs.replace(orjson.dumps(said_last), orjson.dumps(given))
    last = events_of(drive(make, theirs)[1])[-1]["response"]
    check_response(last)
    assert last["usage"] == WHOLE | said


def test_a_usage_without_counts_is_none():
    body = orjson.loads(finish(orjson.dumps({**ANSWER, "usage": {}}), strict=True))
    check_response(body)
    assert body["usage"] is None


def test_what_is_null_in_a_strict_body_is_lacking():
    nothing = dict.fromkeys(resource.REQUIRED - {"output"})
    body = orjson.loads(finish(orjson.dumps({**nothing, "output": []}), strict=True))
    check_response(body)
    assert body["status"] == "completed"


@pytest.mark.parametrize("raw", [b"", b"oops", b"[]", b"{}", b'{"output":5}', b'{"error":{}}'])
def test_a_strict_body_that_is_no_response_is_refused(raw):
    with pytest.raises(BadUpstreamBody):
        finish(raw, strict=True)


@pytest.mark.parametrize("raw", [b"", b"oops", b"[]", b'{"output":5}'])
def test_a_body_that_is_no_response_is_refused_in_open_mode_too(raw):
    with pytest.raises(BadUpstreamBody):
        finish(raw, strict=False)


def test_without_strict_mode_only_the_identifier_changes():
    raw = orjson.dumps(ANSWER)
    finished = finish(raw, strict=False)
    assert finished == raw.replace(b"resp_theirs", ID.encode())


def test_a_strict_stream_gets_our_identifier_alias_and_times():
    relay, out = drive(make, upstream())
    events = events_of(out)
    for event in events:
        if "response" in event:
            check_response(event["response"])
            assert (event["response"]["id"], event["response"]["model"]) == (ID, "m")
            assert event["response"]["created_at"] == 100
    assert events[-1]["response"] == relay.final
    assert relay.final["completed_at"] == 107
    assert relay.settle() == TokenUsage(9, 3, 12)
    assert [e["type"] for e in events] == [e["type"] for e in data_of(upstream())[:-1]]


def test_without_strict_mode_only_the_identifier_of_a_stream_changes():
    _, out = drive(lambda: make(strict=False), upstream())
    assert data_of(out) == data_of(upstream().replace(b"resp_theirs", ID.encode()))


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "plain"])
@pytest.mark.parametrize(
    "stream",
    [upstream(), upstream(hello()[:3], done=False), upstream() [:-400], b"", b": hi\n\n" + upstream(), upstream().replace(b"\n", b"\r\n")],
    ids=["whole", "cut", "cut in the end", "nothing", "comment", "CRLF"],
)  # fmt: skip
def test_portions_do_not_matter(stream, strict):
    whole, expected = drive(lambda: make(strict=strict), stream)
    for parts in portions(stream, 10):
        relay, out = drive(lambda: make(strict=strict), parts)
        assert out.replace(b"\r\n", b"\n") == expected.replace(b"\r\n", b"\n")
        assert relay.final == whole.final


def _calls(*names: str) -> list[dict]:
    parts = [{"index": n, "id": f"call_{n}", "type": "function", "function": {"name": name, "arguments": "{}"}} for n, name in enumerate(names)]  # fmt: skip
    return [*(chunk({"tool_calls": [part]}) for part in parts), chunk({}, "tool_calls")]


STREAMS = {
    "text": hello(),
    "reasoning": [chunk({"reasoning_content": "Hm"}), *hello()],
    "tools": [chunk({"content": "Let me"}), *_calls("f", "g")],
}


def _renamed(stream: bytes, change) -> bytes:
    """The stream with `change` made to each event that is about an item, and to each item of the last object."""
    frames = []
    for event in data_of(stream)[:-1]:
        for item in event.get("response", {}).get("output", ()):
            change("last", item, "id")
        if "item" in event:
            change(event["type"].rpartition(".")[2], event["item"], "id")
        elif "item_id" in event:
            change("part", event, "item_id")
        frames.append(b"data: " + orjson.dumps(event) + b"\n\n")
    return b"".join(frames) + b"data: [DONE]\n\n"


def _another_each_time(where, holder, name):
    holder[name] = f"{where}_{holder[name]}"


def _none_at_the_end(where, holder, name):
    if where in ("done", "last"):
        del holder[name]


def _none_at_all(where, holder, name):
    holder.pop(name)
    if name == "item_id":
        holder[name] = ""


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("change", [_another_each_time, _none_at_the_end, _none_at_all])
@pytest.mark.parametrize("kind", ["text", "tools", "reasoning"])
def test_an_item_has_one_identifier_wherever_it_is_named(kind, change, strict):
    chunks = STREAMS[kind]
    _, caller = drive(lambda: make(strict=strict), _renamed(upstream(chunks), change))
    own = {}
    for event in data_of(caller)[:-1]:
        if event["type"] == "response.output_item.added":
            own[event["output_index"]] = event["item"]["id"]
        elif "output_index" in event:
            named = event["item"]["id"] if "item" in event else event["item_id"]
            assert named == own[event["output_index"]], event
    last = data_of(caller)[-2]["response"]["output"]
    assert [item["id"] for item in last] == list(own.values())
    assert len(set(own.values())) == len(own) > 0
    assert all(own.values())


def test_identifiers_that_are_right_stay_as_they_came_also_where_places_are_wrong():
    """Some servers count all items as the first."""
    stream = upstream(STREAMS["tools"])
    wrong = re.sub(rb'"output_index":[0-9]+', b'"output_index":0', stream)
    _, caller = drive(lambda: make(strict=False), wrong)
    assert [e.get("item_id") for e in data_of(caller)[:-1]] == [e.get("item_id") for e in data_of(stream)[:-1]]  # fmt: skip


@pytest.mark.parametrize("strict", [True, False])
def test_an_item_of_a_body_without_an_identifier_gets_one(strict):
    lacking = [{n: v for n, v in item.items() if n != "id"} for item in ANSWER["output"]]
    body = orjson.loads(finish(orjson.dumps({**ANSWER, "output": lacking}), strict=strict))
    assert [item["id"] for item in body["output"]] == [item_id(ID, "message", 0)]


def test_a_stream_that_just_ends_fails_and_keeps_the_items_that_were_done():
    chunks = [*hello(usage=False)]
    theirs = upstream(chunks, done=False)
    assert b"output_item.done" in theirs
    relay, out = drive(make, theirs)
    events = events_of(out)
    assert events[-1]["type"] == "response.failed"
    assert relay.final["output"][0]["content"][0]["text"] == "Hello there friend"
    assert relay.final["error"] == relay.error
    assert relay.settle().completion_tokens == 5


def test_an_upstreams_failure_is_not_shown_unless_it_is_trusted():
    stream = ResponsesStream(THEIRS, now=lambda: 6)
    theirs = stream.feed(sse(hello()[:2], done=False)) + stream.fail("server_error", "secret")
    relay, out = drive(make, theirs)
    assert b"secret" not in out
    assert json.loads(relay.upstream_error)["message"] == "secret"
    assert relay.final["status"] == "failed"
    relay, out = drive(lambda: make(trusted=True), theirs)
    assert relay.error["message"] == "secret"


@pytest.mark.parametrize("number", [2**64 - 1, -5, True, 1.5, "7", None])
def test_a_number_that_no_event_can_have_is_replaced(number):
    theirs = upstream(hello()[:2], done=False) + sse(
        [{"type": "response.output_text.delta", "delta": "x", "sequence_number": number}],
        done=False,
    )
    relay, out = drive(make, theirs)
    numbers = [event["sequence_number"] for event in data_of(out) if isinstance(event, dict)]
    assert numbers == list(range(len(numbers)))
    assert relay.final["status"] == "failed"


@pytest.mark.parametrize("type", ["response.failed", "response.in_progress"])
def test_an_error_beside_the_object_is_disclosed_as_one_in_it(type):
    held = {"type": type, "response": THEIRS | {"status": "failed"}, "error": {"message": "secret"}}
    theirs = upstream(hello()[:2], done=False) + sse([held], done=False)
    relay, out = drive(make, theirs)
    assert b"secret" not in out
    assert data_of(out)[-2]["type"] == "response.failed"
    assert relay.error["message"]
    assert b"secret" in drive(lambda: make(trusted=True), theirs)[1]


@pytest.mark.parametrize(
    "error",
    [
        {"type": "error", "sequence_number": 5, "code": "x", "message": "secret", "param": None},
        {"type": "error", "sequence_number": 5, "error": {"type": "t", "code": None, "message": "secret", "param": None}},
        {"error": {"message": "secret", "code": 503}},
    ],
)  # fmt: skip
def test_an_error_event_ends_in_a_failed_response(error):
    theirs = upstream(hello()[:2], done=False) + sse([error], done=False)
    relay, out = drive(make, theirs)
    assert b"secret" not in out
    assert data_of(out)[-2]["type"] == "response.failed"
    assert relay.final["status"] == "failed"
    assert b"secret" in drive(lambda: make(trusted=True), theirs)[1]


UNREADABLE = {
    "deep": b"[" * 300 + b"]" * 300,
    "beyond every reader": b"[" * 5000 + b"]" * 5000,
    "cut": b'{"a":',
}
ENDS = ("response.completed", "response.failed", "response.incomplete")


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "open"])
@pytest.mark.parametrize("unreadable", UNREADABLE.values(), ids=UNREADABLE.keys())
@pytest.mark.parametrize(
    "frame",
    [
        b'event: %(type)b\ndata: {"type":"%(type)b","response":{"id":"resp_theirs","output":%(odd)b}}\n\n',
        b'data: {"response":{"output":%(odd)b},\ndata: "type" : "%(type)b"}\n\n',
        b'event: %(type)b\r\ndata: {"response":%(odd)b}\r\n\r\n',
    ],
    ids=["as usual", "without a name", "by its name only"],
)
@pytest.mark.parametrize("type", ENDS)
def test_an_end_that_cannot_be_read_is_told_once_and_by_us(type, frame, unreadable, strict):
    theirs = upstream(hello()[:3], done=False)
    last = frame % {b"type": type.encode(), b"odd": unreadable}
    for more in (b"", last, b"data: [DONE]\n\n"):
        relay, out = drive(lambda: make(strict=strict), theirs + last + more)
        types = [event["type"] for event in events_of(out)]
        assert [found for found in types if found in ENDS] == types[-1:] == ["response.failed"]
        assert (
            relay.final["error"]["message"]
            == "The upstream provider sent data that cannot be read."
        )
        assert relay.upstream_error
        assert relay.settle().completion_tokens


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "open"])
@pytest.mark.parametrize(
    "frame",
    [
        b'event: error\ndata: {"message":"Incorrect API key sk-secret","at":1e400}\n\n',
        b"event: error\ndata: Incorrect API key sk-secret\n\n",
        b'data: {"type":"error","message":"Incorrect API key sk-secret","at":1e400}\n\n',
        b'data: {"error":{"message":"Incorrect API key sk-secret"},"at":1e400}\n\n',
    ],
)
def test_an_error_that_cannot_be_read_is_disclosed_as_any_other(frame, strict):
    relay, out = drive(lambda: make(strict=strict), upstream(hello()[:3], done=False) + frame)
    assert b"sk-secret" not in out
    assert b"sk-secret" in relay.upstream_error
    assert events_of(out)[-1]["type"] == "response.failed"


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "open"])
@pytest.mark.parametrize(
    "rest",
    [b": hi", b'data: {"type":"response.output_text.delta","del', b"data: hi", b"event: x\ndata: {", b"event: x"],
)  # fmt: skip
def test_what_was_cut_in_the_middle_does_not_run_into_the_last_event(rest, strict):
    _, out = drive(lambda: make(strict=strict), upstream(hello()[:3], done=False) + rest)
    assert events_of(out)[-1]["type"] == "response.failed"


BROKEN = b'data: {"type":"response.output_text.delta","delta":"x \\"type\\":\\"response.completed\\""\n\n'
DEEP = b'data: {"type":"response.odd","value":' + b"[" * 300 + b"]" * 300 + b"}\n\n"


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "open"])
@pytest.mark.parametrize("odd", [BROKEN, DEEP, b"data: one moment\n\n"], ids=["broken", "deep", "words"])  # fmt: skip
def test_an_event_that_cannot_be_read_is_left_out_where_the_last_one_says_all(odd, strict):
    """Open mode passes on what the caller may be able to read."""
    whole = upstream()
    at = whole.index(b"event: response.output_item.done")
    relay, out = drive(lambda: make(strict=strict), whole[:at] + odd + whole[at:])
    assert (odd in out) == (not strict and odd is not BROKEN)
    assert (relay.final["status"], relay.error) == ("completed", None)
    assert "".join(p["text"] for i in relay.final["output"] for p in i["content"]) == "Hello there friend"  # fmt: skip


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "open"])
def test_a_response_that_has_to_be_put_together_needs_all_its_events(strict):
    whole = upstream()
    begun = whole[: whole.index(b"event: response.completed")]
    end = b'event: response.completed\ndata: {"type":"response.completed","response":{"id":"resp_theirs","status":"completed","output":[]}}\n\n'  # fmt: skip
    relay, _ = drive(lambda: make(strict=strict), begun + end)
    assert relay.final["status"] == "completed"
    assert relay.final["output"]
    relay, out = drive(lambda: make(strict=strict), begun + BROKEN + end)
    assert relay.final["error"]["message"] == "The upstream provider sent data that cannot be read."
    assert b"response.failed" in out
    own = end.replace(b"completed", b"failed").replace(b'"output":[]', b'"error":{"code":"server_error","message":"Out of memory."},"output":[]')  # fmt: skip
    relay, _ = drive(lambda: make(strict=strict), begun + BROKEN + own)
    assert relay.final["error"]["message"] == relay.error["message"]
    assert relay.error["message"] != "The upstream provider sent data that cannot be read."


PARTS_OF_A_USAGE = {
    "a total": ({"total_tokens": 9}, (3, 6, 9)),
    "the prompt": ({"input_tokens": 4}, (4, 2, 6)),
    "zeros and a total": ({"input_tokens": 0, "output_tokens": 0, "total_tokens": 9}, (0, 9, 9)),
    "words": ({"input_tokens": "4", "output_tokens": "2", "total_tokens": "6"}, (4, 2, 6)),
    "fractions": ({"input_tokens": 4.5, "output_tokens": 2.0, "total_tokens": 6.5}, (4, 2, 6)),
    "no prompt": ({"input_tokens": 0, "output_tokens": 2, "total_tokens": 6}, (4, 2, 6)),
    "too small a total": ({"input_tokens": 4, "output_tokens": 2, "total_tokens": 5}, (4, 2, 6)),
    "less than nothing": ({"input_tokens": 4, "output_tokens": -2, "total_tokens": 6}, (4, 2, 6)),
}


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "open"])
@pytest.mark.parametrize(("usage", "counted"), PARTS_OF_A_USAGE.values(), ids=PARTS_OF_A_USAGE)
def test_what_is_shown_of_a_usage_is_what_is_charged(usage, counted, strict):
    request = {"model": "m", "input": "Hello you"}
    asked = Asked(RESPONSES, orjson.dumps(request), request, "m", UUID(int=7), 100.5)
    answer = {**ANSWER, "usage": usage}
    treatment = RESPONSES.treat(asked, Disclosure(strict))
    complete = treatment.complete(orjson.dumps(answer))
    assert counts(orjson.loads(complete.body)["usage"], complete.usage) == counted
    stream = treatment.stream()
    end = {"type": "response.completed", "sequence_number": 99, "response": answer}
    begun = upstream(hello()[:2], done=False)
    out = stream.feed(begun + sse([end], done=False)) + stream.finish()
    counts(data_of(out)[-2]["response"]["usage"], stream.settle())


def counts(shown, charged):
    """What is shown, where it is what is charged."""
    of_charge = (charged.prompt_tokens, charged.completion_tokens, charged.total_tokens)
    assert tuple(shown.get(n, 0) for n in ("input_tokens", "output_tokens", "total_tokens")) == of_charge  # fmt: skip
    return of_charge


def test_a_call_can_be_failed_from_outside():
    relay = make()
    out = relay.feed(upstream(hello()[:2], done=False)) + relay.fail("server_error", "Timed out.")
    assert events_of(out)[-1]["response"]["error"]["message"] == "Timed out."
    assert relay.finish() == relay.fail("x", "y") == relay.feed(upstream()) == b""


def test_a_call_can_be_cancelled():
    relay = make()
    out = relay.feed(upstream(hello(usage=False), done=False))
    assert relay.assembled()["output"][0]["content"][0]["text"] == "Hello there friend"
    assert events_of(out + relay.cancel())[-1]["type"] == "response.failed"
    assert (relay.final["status"], len(relay.final["output"])) == ("cancelled", 1)
    assert relay.assembled() == relay.final
    assert relay.cancel() == b""


def test_an_event_that_is_too_large_fails_the_response():
    relay, out = drive(lambda: make(max_event_bytes=100), upstream())
    assert events_of(out)[-1]["type"] == "response.failed"


def test_usage_counts_however_the_response_ended():
    chunks = [*hello(usage=False)[:-1], {"choices": [{"finish_reason": "length"}]}, hello()[-1]]
    relay, _ = drive(make, upstream(chunks))
    assert relay.final["status"] == "incomplete"
    assert relay.settle() == TokenUsage(9, 3, 12)
    assert RESPONSE_USAGE.keys() == relay.final["usage"].keys()


USAGE_CHUNK = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}}  # fmt: skip
ANTHROPIC = [
    {"type": "message_start", "message": {"usage": {"input_tokens": 9, "output_tokens": 1}}},
    {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hello there friend"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
]
FOREIGN = {
    "chunks of a chat": ([*hello(usage=False), USAGE_CHUNK], TokenUsage(9, 5, 14)),
    "chunks without a usage": (hello(usage=False), (2, 5)),
    "events of messages": (ANTHROPIC, TokenUsage(9, 5, 14)),
}


@pytest.mark.parametrize(("events", "used"), FOREIGN.values(), ids=FOREIGN)
def test_who_gets_events_of_another_protocol_pays_for_what_they_say(events, used):
    relay, out = drive(lambda: make(strict=False, request={"input": "Hello"}), sse(events))
    assert "there" in out.decode()
    assert relay.error is not None
    found = relay.settle()
    assert used in (found, (found.prompt_tokens, found.completion_tokens))


def test_chunks_that_are_left_out_cost_nothing():
    relay, out = drive(make, sse([*hello(usage=False), USAGE_CHUNK]))
    assert "there" not in out.decode()
    assert relay.settle() is None


def test_items_that_come_without_their_deltas_are_written_too():
    events = [e for e in data_of(upstream()) if e != "[DONE]" and "delta" not in e]
    broken, _ = drive(make, sse(events[:-1], done=False))
    assert broken.settle().completion_tokens == 5
    events[-1]["response"]["usage"] = None
    whole, _ = drive(make, sse([events[-1]]))
    assert whole.settle().completion_tokens == 5

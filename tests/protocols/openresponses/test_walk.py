"""Whatever an upstream streams, for whatever tools: each event and object is right by all judges, and they all tell one story."""

import json
import re
from collections import Counter
from copy import deepcopy
from typing import Any

import pytest

from dwctl.protocols import forms
from dwctl.protocols.assembly import Assembler
from dwctl.protocols.dialects import put_answer_right
from dwctl.protocols.disclosure import Disclosure
from dwctl.protocols.openresponses import resource
from dwctl.protocols.openresponses.replay import replay
from dwctl.protocols.openresponses.stream import ResponsesStream
from tests.protocols.openresponses.samples import CITATION, ID, LOGPROB, skeleton
from tests.protocols.openresponses.schema import check_response, events_of
from tests.protocols.streams import chunk, drive, sse, text_chunks, usage_chunk

END, CALLED = chunk({}, "stop"), chunk({}, "tool_calls")


def call(index: Any = 0, id: Any = None, name: Any = None, arguments: Any = None) -> dict[str, Any]:
    function = {k: v for k, v in {"name": name, "arguments": arguments}.items() if v is not None}
    part = {"index": index, "id": id, "function": function}
    return chunk({"tool_calls": [{k: v for k, v in part.items() if v is not None}]})


def with_logprobs(part: dict[str, Any]) -> dict[str, Any]:
    part["choices"][0]["logprobs"] = {"content": [LOGPROB]}
    return part


def other_choice(part: dict[str, Any]) -> dict[str, Any]:
    part = deepcopy(part)
    part["choices"][0]["index"] = 1
    return part


THINK = [chunk({"reasoning_content": "Let me "}), chunk({"reasoning_content": "see"})]
SUMMARY = [chunk({"reasoning_details": [{"type": "reasoning.summary", "summary": "In short"}]})]
F = [call(0, "c1", "f", ""), call(0, None, None, '{"x":'), call(0, None, None, "1}")]
P = [call(1, "c2", "p", ""), call(1, None, None, '{"inp'), call(1, None, None, 'ut":"a\\'), call(1, None, None, 'nb"}')]  # fmt: skip
CHAT_CUSTOM = chunk({"tool_calls": [{"index": 0, "id": "c2", "type": "custom", "custom": {"name": "p", "input": "a"}}]})  # fmt: skip
STREAMS: dict[str, list[Any]] = {
    "text": [*text_chunks("Hello", " you"), END, usage_chunk()],
    "nothing": [chunk({"role": "assistant", "content": ""}), END],
    "no usage": [*text_chunks("Hello"), END],
    "reasoning, text": [*THINK, *text_chunks("Hi"), END, usage_chunk()],
    "reasoning, text, calls": [*THINK, *text_chunks("Hi"), *F, *P, CALLED, usage_chunk()],
    "summary, text": [*SUMMARY, *text_chunks("Hi"), END],
    "summary and reasoning, text": [*THINK, *SUMMARY, *text_chunks("Hi"), END],
    "reasoning alone": [*THINK, END],
    "reasoning, call": [*THINK, *F, CALLED],
    "reasoning between texts": [*text_chunks("a"), *THINK, chunk({"content": "b"}), END],
    "reasoning between calls": [*F, *THINK, *P, CALLED],
    "text, call, text": [*text_chunks("a"), *F, chunk({"content": "b"}), CALLED],
    "calls by turns": [*[part for pair in zip(F, P, strict=False) for part in pair], P[3], CALLED],
    "calls by turns, then text": [F[0], P[0], F[1], *P[1:], F[2], chunk({"content": "b"}), END],
    "call whole in one part": [call(0, "c1", "f", '{"x":1}'), call(1, "c2", "p", '{"input":"y"}'), CALLED],
    "call without arguments": [call(0, "c1", "f"), CALLED],
    "call with white space for arguments": [call(0, "c1", "f", " "), CALLED],
    "call without id": [call(0, None, "f", "{}"), call(1, None, "p", '{"input":"y"}'), CALLED],
    "call whose id and name come late": [call(0, None, None, '{"input'), call(0, "c2", "p", '":"y"}'), CALLED],
    "call without a name": [call(0, "c1", None, "{}"), CALLED],
    "custom tool called with words": [call(0, "c2", "p", "just "), call(0, None, None, "words"), CALLED],
    "custom tool called by another member": [call(0, "c2", "p", '{"patch":"y"}'), CALLED],
    "custom call of chat": [CHAT_CUSTOM, chunk({"tool_calls": [{"index": 0, "custom": {"input": "b"}}]}), CALLED],
    "call of the older form": [chunk({"function_call": {"name": "f", "arguments": '{"x"'}}), chunk({"function_call": {"arguments": ":1}"}}), chunk({}, "function_call")],
    "custom call of the older form": [chunk({"function_call": {"name": "p", "arguments": '{"input":"y"}'}}), chunk({}, "function_call")],
    "call in both forms": [chunk({"function_call": {"name": "f", "arguments": "{}"}, "tool_calls": [{"index": 0, "id": "c1", "function": {"name": "f", "arguments": "{}"}}]}), CALLED],
    "refusal": [chunk({"refusal": "I "}), chunk({"refusal": "can't"}), END],
    "text and refusal": [*text_chunks("Well"), chunk({"refusal": "no"}), END],
    "text, refusal, text": [*text_chunks("Well"), chunk({"refusal": "no"}), chunk({"content": "but"}), END],
    "refusals of two choices by turns": [chunk({"refusal": "I"}), other_choice(text_chunks("a")[1]), other_choice(chunk({"refusal": "no"})), chunk({"refusal": "'m"}), END, other_choice(END)],
    "citation": [*text_chunks("Yes"), chunk({"annotations": [CITATION]}), END],
    "log probabilities": [with_logprobs(chunk({"content": "é"})), END],
    "two choices": [*text_chunks("a"), other_choice(chunk({"content": "b"})), END, other_choice(chunk({}, "length"))],
    "length": [*text_chunks("Hel"), chunk({}, "length"), usage_chunk()],
    "length in a call": [*F[:2], chunk({}, "length")],
    "length in a custom call": [*P[:3], chunk({}, "length")],
    "length before arguments": [F[0], chunk({}, "length")],
    "filtered": [*text_chunks("Hel"), chunk({}, "content_filter")],
    "error": [*text_chunks("Hel"), {"error": {"message": "m"}}],
    "failed": [*text_chunks("Hel"), chunk({}, "error")],
    "error in a call": [*F[:2], {"error": {"message": "m"}}],
    "error in a custom call": [*P[:3], {"error": {"message": "m"}}],
    "error behind a whole call": [*F, {"error": {"message": "m"}}],
    "error behind a reason": [*F, CALLED, {"error": {"message": "m"}}],
    "failed in a call": [*F[:2], chunk({}, "error")],
    "failed before arguments": [F[0], chunk({}, "error")],
    "failed in a custom call of chat": [CHAT_CUSTOM, chunk({}, "error")],
    "filtered in a call": [*F[:2], chunk({}, "content_filter")],
    "length in a custom call of chat": [CHAT_CUSTOM, chunk({}, "length")],
    "length behind a whole call": [*F, chunk({}, "length")],
    "length in the second call": [*F, *P[:2], chunk({}, "length")],
    "length in the first of two calls": [*F[:2], *P, chunk({}, "length")],
    "two choices, of which one is cut in a call": [*text_chunks("a"), other_choice(F[0]), END, other_choice(F[1]), other_choice(chunk({}, "length"))],
    "cut": text_chunks("Hel"),
    "cut in a call": F[:2],
    "cut in a custom call": P[:3],
    "cut in a custom call's name for its input": P[:2],
    "cut in a custom call of chat": [CHAT_CUSTOM],
    "cut in a call of the older form": [chunk({"function_call": {"name": "f", "arguments": '{"x"'}})],
    "cut before arguments": [F[0]],
    "cut before the arguments of a custom call": [P[0]],
    "cut before a name": [call(0, "c1", None, '{"x"')],
    "cut before a call's id": [call(0, None, "f", None)],
    "cut behind a whole call": F,
    "cut behind a whole custom call": P,
    "cut in the second call": [*F, *P[:2]],
    "cut in two calls by turns": [F[0], P[0], F[1], P[1]],
    "cut in a call of arguments that are no object": [call(0, "c1", "f", "12")],
    "cut behind arguments that are no object": [call(0, "c1", "f", "12"), *P[:3]],
    "cut in the text behind a call that is not whole": [*F[:2], chunk({"content": "b"})],
}  # fmt: skip
CUT = {name for name in STREAMS if name.startswith("cut")}
NOT_WHOLE = {  # of how many calls nobody may hear that they are done: with functions alone, with a custom tool
    **dict.fromkeys([name for name in STREAMS if re.match("(cut|length|filtered|error|failed) (in|before)", name)], (1, 1)),
    "cut in the text behind a call that is not whole": (1, 1),
    "cut in two calls by turns": (2, 2),
    "cut behind arguments that are no object": (2, 2),
    "cut behind a whole custom call": (0, 1),  # its text may go on
    "length in the first of two calls": (1, 2),
    "two choices, of which one is cut in a call": (1, 1),
}  # fmt: skip

FUNCTION = {"type": "function", "name": "f", "description": None, "parameters": None, "strict": None}  # fmt: skip
CUSTOM = {"type": "custom", "name": "p", "format": {"type": "grammar", "syntax": "lark", "definition": "s: x"}}  # fmt: skip
REQUESTS: dict[str, dict[str, Any]] = {
    "no tools": {},
    "both tools": {
        "tools": [FUNCTION, {"type": "web_search"}, CUSTOM],
        "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}, {"type": "custom", "name": "p"}]},
    },
}  # fmt: skip
ENDS = {"completed", "incomplete", "failed"}


def make(request, *, strict):
    disclosure = Disclosure(strict, False, False)
    return ResponsesStream(skeleton(request), now=lambda: 107, disclosure=disclosure)


def is_whole_object(arguments):
    try:
        return type(json.loads(arguments)) is dict
    except ValueError:
        return False


def undone(events):
    kinds = Counter(event["type"] for event in events)
    return kinds["response.output_item.added"] - kinds["response.output_item.done"]


def told(events):
    """The items as the deltas tell them, checked on the way: one at a time, each text first in pieces and then whole.

    Each that was added is done, but for calls that are not whole: of those the last event holds what the deltas said.
    """
    items: list[Any] = []
    shown = events[-1]["response"]["output"]
    open_item: Any = None
    said: dict[Any, str] = {}
    parts: dict[bool, Any] = {}  # the open one of contents, and of summaries: lists of their own
    for event in events:
        kind = event["type"].removeprefix("response.")
        if open_item is not None and event.get("output_index") != len(items):
            item = shown[len(items)]
            assert item["status"] == "incomplete"
            assert item["type"] == open_item["type"]
            text = item["arguments" if item["type"] == "function_call" else "input"]
            assert item["type"] == "custom_tool_call" or not is_whole_object(text)
            assert said.pop((len(items), None, None), "") == text
            items.append(item)
            open_item = None
        if kind == "output_item.added":
            assert open_item is None
            assert event["output_index"] == len(items)
            assert event["item"]["status"] == "in_progress"
            open_item = event["item"]
            continue
        if "output_index" not in event:
            continue
        assert open_item is not None
        assert event.get("item_id", open_item["id"]) == open_item["id"]
        place = (event["output_index"], event.get("content_index"), event.get("summary_index"))
        if kind.endswith("part.added"):
            assert parts.setdefault("summary_index" in event, place) is place
        elif kind.endswith("part.done"):
            assert parts.pop("summary_index" in event) == place
        elif kind.endswith(".delta"):
            assert event["delta"]
            said[place] = said.get(place, "") + event["delta"]
        elif kind == "output_item.done":
            assert event["item"]["id"] == open_item["id"]
            assert event["item"]["type"] == open_item["type"]
            items.append(event["item"])
            open_item = None
        elif kind.endswith(("text.done", "refusal.done", "arguments.done", "input.done")):
            [whole] = [event[n] for n in ("text", "refusal", "arguments", "input") if n in event]
            assert said.pop(place, "") == whole
            if kind == "function_call_arguments.done":
                assert event["name"] == open_item["name"]
    assert (open_item, said, parts) == (None, {}, {})
    return items


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "open"])
@pytest.mark.parametrize("request_body", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_its_object_and_its_replay_are_right_and_the_same(name, request_body, strict):
    upstream = sse(STREAMS[name], done=name not in CUT)
    stream, out = drive(lambda: make(request_body, strict=strict), upstream)
    events = events_of(out)
    assert undone(events) == NOT_WHOLE.get(name, (0, 0))["tools" in request_body]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events][:2] == ["response.created", "response.in_progress"]
    first, last = events[0]["response"], events[-1]["response"]
    assert first == skeleton(request_body)
    assert events[-1]["type"] == f"response.{last['status']}"
    assert [e["type"].removeprefix("response.") in ENDS for e in events].count(True) == 1
    assert told(events) == last["output"] == stream.final["output"]
    assert {e["response"]["service_tier"] for e in events if "response" in e} == {"default"}
    check_response(last, sdk=last["status"] != "failed")
    if strict:
        again = events_of(replay(stream.final))
        assert told(again) == last["output"]
        assert undone(again) == undone(events)
        assert again[-1] == {**events[-1], "sequence_number": again[-1]["sequence_number"]}


ORDERED = [
    name
    for name in STREAMS
    if not name.startswith(("cut", "error", "failed", "two choices"))
    and name not in {"reasoning between texts", "reasoning between calls",
                          "text, refusal, text", "refusals of two choices by turns",
                          "text, call, text", "calls by turns, then text"}
]  # fmt: skip
"""What a complete answer says in the same order."""


@pytest.mark.parametrize("request_body", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("name", ORDERED)
def test_a_complete_answer_becomes_the_same_object_as_its_stream(name, request_body):
    stream, _ = drive(lambda: make(request_body, strict=True), sse(STREAMS[name]))
    assembler = Assembler(forms.CHAT)
    usage = None
    for part in deepcopy(STREAMS[name]):  # it grows what it is given
        assembler.add(part)
        usage = part.get("usage") or usage
    whole = assembler.answer(usage=usage)
    put_answer_right(whole, forms.CHAT, ID)
    assert resource.from_chat(skeleton(request_body), whole, completed_at=107) == stream.final

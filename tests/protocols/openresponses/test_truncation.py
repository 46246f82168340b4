import pytest

from dwctl.protocols.openresponses.truncation import fitting


def user(text):
    return {"role": "user", "content": text * 400}


def answer(text):
    return {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": text * 400}],
    }


def call(id):
    return {"type": "function_call", "call_id": id, "name": "f", "arguments": "{}"}


def result(id, text="r"):
    return {"type": "function_call_output", "call_id": id, "output": text * 400}


SYSTEM = {"role": "system", "content": "s" * 400}
PAIRS = [user("1"), answer("a"), user("2"), answer("b"), user("3")]
INTERRUPTED = [user("1"), call("c1"), user("2"), result("c1"), answer("b"), user("3")]

# A text of 400 characters is about 100 tokens.
CASES = {
    "all fits": (PAIRS, {}, 1000, PAIRS),
    "the oldest turn goes": (PAIRS, {}, 350, PAIRS[2:]),
    "more of them go": (PAIRS, {}, 250, PAIRS[4:]),
    "the last turn stays whatever its size": (PAIRS, {}, 10, PAIRS[4:]),
    "room for the answer": (PAIRS, {"max_output_tokens": 650}, 1000, PAIRS[2:]),
    "more room for the answer than there is": (PAIRS, {"max_output_tokens": 5000}, 1000, PAIRS[4:]),
    "instructions take room": (PAIRS, {"instructions": "i" * 400}, 450, PAIRS[2:]),
    "tools take room": (PAIRS, {"tools": [{"type": "function", "name": "f", "description": "d" * 400}]}, 460, PAIRS[2:]),
    "instructions at the front stay": ([SYSTEM, SYSTEM, *PAIRS], {}, 450, [SYSTEM, SYSTEM, user("3")]),
    "instructions later go with their turn": ([user("1"), SYSTEM, user("2")], {}, 150, [user("2")]),
    "calls go with their results": ([user("1"), call("c"), result("c"), user("2")], {}, 150, [user("2")]),
    "no result stays without its call": (INTERRUPTED, {}, 450, [user("2"), answer("b"), user("3")]),
    "a call that is there keeps its result": ([user("1"), call("c"), user("2"), call("c"), result("c")], {}, 250, [user("2"), call("c"), result("c")]),
    "a result that never had a call stays": ([user("1"), user("2"), result("x")], {}, 250, [user("2"), result("x")]),
    "what begins with an answer": ([answer("a"), user("1")], {}, 150, [user("1")]),
    "one turn of many calls": ([user("1"), *[call("c"), result("c")] * 9], {}, 150, [user("1"), *[call("c"), result("c")] * 9]),
    "nothing": ([], {}, 1, []),
    "only instructions": ([SYSTEM], {}, 1, [SYSTEM]),
    "stranger items": ([{"role": []}, {"type": [], "call_id": {}}, {"type": "function_call", "call_id": []}, user("1"), {"type": "function_call_output", "call_id": []}], {}, 50, [user("1"), {"type": "function_call_output", "call_id": []}]),
    "strange items": ([{}, {"role": 5}, {"role": []}, user("1")], {}, 50, [user("1")]),
}  # fmt: skip


@pytest.mark.parametrize(("items", "body", "context_length", "kept"), CASES.values(), ids=CASES)
def test_a_conversation_that_is_too_long_loses_its_oldest_turns(items, body, context_length, kept):
    before = repr(items)
    assert fitting(body, items, context_length) == kept
    assert repr(items) == before

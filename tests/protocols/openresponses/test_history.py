from uuid import UUID

import pytest

from dwctl.protocols.errors import InvalidRequest
from dwctl.protocols.openresponses import history, items
from dwctl.protocols.openresponses.items import Origin

HEX = "0190d5a200007000800000000000abcd"
ONE = UUID(HEX)
ID = f"resp_{ONE}"
OURS = f"msg_{HEX}_0"


@pytest.mark.parametrize(
    "kind", ["message", "reasoning", "function_call", "custom_tool_call", "riddle"]
)
@pytest.mark.parametrize(("place", "in_input"), [(0, False), (12, False), ("in0", True), ("in1234", True)])  # fmt: skip
def test_an_items_id_says_where_it_is(kind, place, in_input):
    assert items.origin_of(items.item_id(ID, kind, place)) == Origin(ONE, in_input)


OTHERS = ["", "msg_", "msg_1", f"msg_{HEX}", f"msg_{HEX}_", f"msg_{HEX}_x", f"msg_{HEX}_in", f"{HEX}_0", f"msg_{HEX[:-1]}_0", f"msg_{HEX.upper()}_0",
          f"msg_{HEX}_0\n", f" msg_{HEX}_0", f"msg_{HEX}_" + "1" * 9, f"msg_{HEX}a_0", "msg_68a1f0c0b1c481a0b8d5f6c2e3a4b5c60f1e2d3c4b5a6978", f"msg_{HEX}_١"]  # fmt: skip


@pytest.mark.parametrize("id", OTHERS, ids=range(len(OTHERS)))
def test_other_ids_say_nothing(id):
    assert items.origin_of(id) is None


REFERENCES = {
    "by type": ({"type": "item_reference", "id": "a"}, "a"),
    "by an id alone": ({"id": "a"}, "a"),
    "by an id and a type that is null": ({"type": None, "id": "a"}, "a"),
    "an id that is a number": ({"type": "item_reference", "id": 5}, None),
    "no id": ({"type": "item_reference"}, None),
    "a message without a type": ({"id": "a", "role": "user", "content": "x"}, None),
    "a message without content": ({"id": "a", "role": "user"}, None),
    "an item with an id": ({"type": "function_call", "id": "a"}, None),
    "nothing": ({}, None),
}


@pytest.mark.parametrize(("item", "id"), REFERENCES.values(), ids=REFERENCES)
def test_an_item_may_only_be_named(item, id):
    assert items.reference_of(item) == id


WANTED = {
    "a text": ({"input": "Hi"}, None),
    "items": ({"input": [{"role": "user", "content": "Hi"}, 5, None, []]}, None),
    "nulls": ({"input": None, "previous_response_id": None}, None),
    "a response": ({"input": "Hi", "previous_response_id": ID}, (ID, ONE, [])),
    "a response without its prefix": ({"input": "", "previous_response_id": str(ONE)}, (str(ONE), ONE, [])),
    "a response in capitals": ({"input": "", "previous_response_id": f"resp_{str(ONE).upper()}"}, (f"resp_{str(ONE).upper()}", ONE, [])),
    "a response of somebody else": ({"input": "", "previous_response_id": f"resp_{HEX}"}, (f"resp_{HEX}", None, [])),
    "an item": ({"input": [5, {"type": "item_reference", "id": OURS}]}, (None, None, [(1, OURS, (ONE, False))])),
    "an item of somebody else": ({"input": [{"id": "x"}]}, (None, None, [(0, "x", None)])),
}  # fmt: skip


@pytest.mark.parametrize(("content", "expected"), WANTED.values(), ids=WANTED)
def test_a_request_says_what_it_stands_on(content, expected):
    assert history.wanted(content) == expected


def test_what_the_model_reads_is_the_conversation_then_the_input():
    user, known = {"role": "user", "content": "a"}, {"type": "reasoning", "id": OURS, "summary": []}
    content = {
        "model": "m",
        "previous_response_id": ID,
        "input": [{"id": OURS}, {"id": "other"}, user],
    }
    before = repr(content)
    told = history.told(content, [{"id": OURS}], {OURS: known}, continued=True)
    assert told == {"model": "m", "input": [known, known, {"id": "other"}, user]}
    assert history.told(content, [], {}, continued=False)["previous_response_id"] == ID
    assert repr(content) == before


TURNS = {
    "a text": ({"input": "a"}, [{"type": "message", "role": "user", "content": "a"}]),
    "a chat": ({"messages": [{"role": "user", "content": "a"}]}, [{"type": "message", "role": "user", "content": "a"}]),
    "a completion": ({"prompt": "a"}, [{"type": "message", "role": "user", "content": "a"}]),
    "nonsense": ({"input": 5, "messages": "x"}, []),
    "nothing": ({}, []),
}  # fmt: skip


@pytest.mark.parametrize(("body", "expected"), TURNS.values(), ids=TURNS)
@pytest.mark.parametrize("output", [None, 5, [], [5, None]], ids=str)
def test_a_turn_is_what_went_in_and_what_came_out(body, expected, output):
    assert history.turn(body, {"output": output}) == expected
    whole = items.message("msg_1", [items.output_text("b")])
    assert history.turn(body, {"output": [whole]}) == [*expected, whole]


def test_other_servers_are_not_told_our_ids():
    assert history.without_our_id({"type": "reasoning", "id": OURS}) == {"type": "reasoning"}
    theirs = {"type": "reasoning", "id": "rs_theirs"}
    assert history.without_our_id(theirs) is theirs


@pytest.mark.parametrize("more", [0, 1], ids=["at the bound", "above it"])
def test_an_input_names_only_so_many_items(more):
    named = [{"role": "user", "content": "Hi"}]
    named += [{"type": "item_reference", "id": "msg_1"}] * (history.MOST_REFERENCES + more)
    if not more:
        assert len(history.wanted({"input": named}).references) == history.MOST_REFERENCES
        return
    with pytest.raises(InvalidRequest) as refused:
        history.wanted({"input": named})
    assert refused.value.code == "too_many_references"
    assert refused.value.param == f"input[{history.MOST_REFERENCES + 1}]"

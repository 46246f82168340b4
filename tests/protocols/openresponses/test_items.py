from uuid import UUID

import orjson
import pytest

from dwctl.protocols.openresponses import items
from tests.protocols.openresponses.schema import published

UUID_TEXT = "0190d5a2-0000-7000-8000-000000000001"


@pytest.mark.parametrize("text", [UUID_TEXT, f"resp_{UUID_TEXT}", f"resp_{UUID_TEXT.upper()}"])
def test_a_response_id_names_its_request(text):
    assert items.response_uuid(text) == UUID(UUID_TEXT)


@pytest.mark.parametrize("text", ["", "resp_", "nonsense", f"msg_{UUID_TEXT}"])
def test_anything_else_names_none(text):
    assert items.response_uuid(text) is None


def test_the_kind_of_an_item_shows_in_its_id():
    ids = [
        items.item_id("resp_1", kind, 0) for kind in ("message", "reasoning", "function_call", "x")
    ]
    assert [id.split("_")[0] for id in ids] == ["msg", "rs", "fc", "item"]


def test_a_responses_input_is_listed_with_ids_that_stay_the_same():
    body = {"input": [
        {"role": "user", "content": "Hi"},
        {"type": "message", "role": "assistant", "content": "Yes"},
        {"type": "message", "id": "msg_x", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "sunny", "status": "incomplete"},
    ]}  # fmt: skip
    listed = items.input_items(body, "resp_1")
    for item in listed:
        published("ItemField").validate(item)
    assert listed == items.input_items(body, "resp_1")
    assert len({item["id"] for item in listed}) == 5
    assert listed[0]["content"] == [{"type": "input_text", "text": "Hi"}]
    assert listed[1]["content"][0]["type"] == "output_text"
    assert listed[2]["id"] == "msg_x"
    assert listed[4]["status"] == "incomplete"


def test_a_text_is_one_message():
    [item] = items.input_items({"input": "Hi"}, "resp_1")
    assert (item["type"], item["role"], item["content"][0]["text"]) == ("message", "user", "Hi")


def test_a_chats_messages_are_items_too():
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    body = {"messages": [
        {"role": "system", "content": "S"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "sunny"},
        {"role": "assistant", "content": "Sun", "tool_calls": [call, 5]},
    ]}  # fmt: skip
    kinds = [item["type"] for item in items.input_items(body, "resp_1")]
    assert kinds == ["message", "function_call", "function_call_output", "message", "function_call"]


@pytest.mark.parametrize("body", [{}, {"input": 5}, {"input": [5, None]}, {"messages": {}}])
def test_a_strange_input_has_no_items(body):
    assert items.input_items(body, "resp_1") == []


@pytest.mark.parametrize("index", [1e300, 2**70, -1, "x", None, True])
def test_a_citation_can_be_written_wherever_its_server_says_it_stands(index):
    found = items.citation({"url": "u", "start_index": index, "end_index": index})
    assert orjson.dumps(found)
    assert found["start_index"] >= 0

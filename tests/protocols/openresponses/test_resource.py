import pytest

from dwctl.protocols.openresponses import resource
from tests.protocols.openresponses.samples import (
    COMPLETIONS,
    ID,
    REQUESTS,
    RESPONSE_USAGE,
    call,
    completion,
    skeleton,
)
from tests.protocols.openresponses.schema import check_response


@pytest.mark.parametrize("request_body", REQUESTS.values(), ids=REQUESTS)
def test_a_skeleton_is_complete_whatever_was_asked(request_body):
    response = skeleton(request_body)
    check_response(response)
    assert resource.is_complete(response)
    assert list(response)[:5] == ["id", "object", "created_at", "completed_at", "status"]


def test_a_skeleton_echoes_the_request():
    given = REQUESTS["in full"]
    response = skeleton(given, service_tier="flex", background=True, status="queued")
    for name in [
        "instructions",
        "previous_response_id",
        "store",
        "metadata",
        "temperature",
        "top_p",
        "presence_penalty",
        "frequency_penalty",
        "top_logprobs",
        "max_output_tokens",
        "max_tool_calls",
        "parallel_tool_calls",
        "truncation",
        "user",
        "tool_choice",
        "safety_identifier",
        "prompt_cache_key",
    ]:
        assert response[name] == given[name], name
    assert response["reasoning"] == {"effort": "low", "summary": None}
    assert response["text"] == {
        "format": {
            "type": "json_schema",
            "name": "n",
            "description": None,
            "schema": {"type": "object"},
            "strict": False,
        },
        "verbosity": "low",
    }
    assert response["tools"] == [
        {
            "type": "function",
            "name": "f",
            "description": None,
            "parameters": {"type": "object"},
            "strict": None,
        }
    ]
    assert (response["service_tier"], response["background"], response["status"]) == ("flex", True, "queued")  # fmt: skip


def test_a_skeleton_has_the_standards_defaults():
    assert skeleton() == {
        "id": ID,
        "object": "response",
        "created_at": 100,
        "completed_at": None,
        "status": "in_progress",
        "incomplete_details": None,
        "model": "m",
        "previous_response_id": None,
        "instructions": None,
        "output": [],
        "error": None,
        "tools": [],
        "tool_choice": "auto",
        "truncation": "disabled",
        "parallel_tool_calls": True,
        "text": {"format": {"type": "text"}},
        "top_p": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "top_logprobs": 0,
        "temperature": 1.0,
        "reasoning": None,
        "usage": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "store": True,
        "background": False,
        "service_tier": "default",
        "metadata": None,
        "safety_identifier": None,
        "prompt_cache_key": None,
    }


def test_a_chat_request_is_echoed_in_the_words_of_the_responses_api():
    response = skeleton(REQUESTS["chat"])
    assert response["max_output_tokens"] == 5
    assert response["reasoning"] == {"effort": "low", "summary": None}
    assert response["tool_choice"] == {"type": "function", "name": "f"}
    assert response["tools"][0]["name"] == "f"
    assert response["text"]["format"]["name"] == "n"


def finished(body, **members):
    return resource.from_chat(skeleton(**members), body, completed_at=107)


@pytest.mark.parametrize("body", COMPLETIONS.values(), ids=COMPLETIONS)
def test_every_completion_makes_a_response_that_both_judges_accept(body):
    check_response(finished(body))


STATUS = {
    "text": ("completed", None, 107),
    "tool calls": ("completed", None, 107),
    "length": ("incomplete", {"reason": "max_output_tokens"}, None),
    "content filter": ("incomplete", {"reason": "content_filter"}, None),
    "reasoning cut": ("incomplete", {"reason": "max_output_tokens"}, None),
    "two choices": ("completed", None, 107),
    "no choices": ("failed", None, None),
    "empty": ("failed", None, None),
}


@pytest.mark.parametrize(("name", "expected"), STATUS.items(), ids=STATUS)
def test_the_status_follows_from_the_first_finish_reason(name, expected):
    response = finished(COMPLETIONS[name])
    assert (response["status"], response["incomplete_details"], response["completed_at"]) == expected  # fmt: skip
    assert (response["error"] is None) is (response["status"] != "failed")


OUTPUT = {
    "text": [("message", "completed", ["Hello"])],
    "length": [("message", "incomplete", ["Hel"])],
    "tool calls": [("function_call", "completed", None), ("function_call", "completed", None)],
    "text and tool call": [("message", "completed", ["Let me"]), ("function_call", "completed", None)],
    "reasoning": [("reasoning", "completed", ["Hm"]), ("message", "completed", ["Yes"])],
    "reasoning cut": [("reasoning", "incomplete", ["Hm"])],
    "refusal": [("message", "completed", ["I can't"])],
    "text and refusal": [("message", "completed", ["Well", "no"])],
    "two choices": [("message", "completed", ["a"]), ("message", "incomplete", ["b"])],
    "nothing said": [],
    "text completion": [("message", "completed", ["Hi"])],
}  # fmt: skip


@pytest.mark.parametrize(("name", "expected"), OUTPUT.items(), ids=OUTPUT)
def test_the_output_has_reasoning_then_message_then_calls(name, expected):
    output = finished(COMPLETIONS[name])["output"]
    seen = [
        (i["type"], i["status"], [p.get("text", p.get("refusal")) for p in i["content"]] if "content" in i else None)
        for i in output
    ]  # fmt: skip
    assert seen == expected


def test_a_message_says_all_that_the_completion_said():
    [item] = finished(COMPLETIONS["citations"])["output"]
    assert item == {
        "type": "message",
        "id": item["id"],
        "status": "completed",
        "role": "assistant",
        "content": [
            {
                "type": "output_text",
                "text": "Yes",
                "annotations": [
                    {
                        "type": "url_citation",
                        "url": "u",
                        "title": "t",
                        "start_index": 0,
                        "end_index": 2,
                    }
                ],
                "logprobs": [],
            }
        ],
    }
    [item] = finished(COMPLETIONS["log probabilities"])["output"]
    assert item["content"][0]["logprobs"] == [
        {
            "token": "é",
            "logprob": -0.5,
            "bytes": [195, 169],
            "top_logprobs": [{"token": "e", "logprob": -1, "bytes": [101]}],
        }
    ]


def test_a_function_call_keeps_the_models_id_beside_its_own():
    item = finished(completion({"tool_calls": [call("call_9", "f", '{"x":1}')]}))["output"][0]
    assert item["id"].startswith("fc_")
    assert (item["call_id"], item["name"], item["arguments"]) == ("call_9", "f", '{"x":1}')


def test_arguments_that_are_an_object_become_its_text():
    item = finished(completion({"tool_calls": [call("call_9", "f", {"x": 1})]}))["output"][0]
    assert item["arguments"] == '{"x":1}'


REASONING = {
    "twice": ({"reasoning_content": "a", "reasoning": "a", "reasoning_details": [{"text": "a"}, {"text": "b"}]}, "", "a\nb"),
    "a summary": ({"reasoning_details": [{"type": "reasoning.summary", "summary": "s"}]}, "s", ""),
    "a summary that is there twice": ({"reasoning": "st", "reasoning_details": [{"summary": "s"}, {"summary": "t"}]}, "s\nt", ""),
    "both": ({"reasoning": "a", "reasoning_details": [{"summary": "s"}]}, "s", "a"),
}  # fmt: skip


@pytest.mark.parametrize(("message", "summary", "content"), REASONING.values(), ids=REASONING)
def test_reasoning_stands_once_as_what_the_upstream_calls_it(message, summary, content):
    item = finished(completion(message))["output"][0]
    assert "".join(part["text"] for part in item["summary"]) == summary
    assert "".join(part["text"] for part in item.get("content", [])) == content


def test_item_ids_are_unique_between_responses_and_the_same_for_one():
    body = COMPLETIONS["text and tool call"]
    first = [item["id"] for item in finished(body)["output"]]
    other = [item["id"] for item in finished(body, response_id="resp_2")["output"]]
    assert first == [item["id"] for item in finished(body)["output"]]
    assert len({*first, *other}) == 4


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (COMPLETIONS["text"]["usage"], RESPONSE_USAGE),
        (RESPONSE_USAGE, RESPONSE_USAGE),
        (None, None),
        ("x", None),
        ({}, None),
        ({"prompt_tokens": 1, "prompt_tokens_details": "x"}, {"input_tokens": 1, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0}, "output_tokens": 0, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 1}),
    ],
)  # fmt: skip
def test_usage_has_every_detail(given, expected):
    assert resource.usage(given) == expected


def test_a_failure_and_a_cancel_keep_what_was_said():
    spoken = {**skeleton(), "output": finished(COMPLETIONS["text"])["output"]}
    failed = resource.failed(spoken, code="server_error", message="No")
    check_response(failed)
    assert failed["error"] == {"code": "server_error", "message": "No", "type": "server_error"}
    assert (failed["status"], failed["output"]) == ("failed", spoken["output"])
    cancelled = resource.cancelled(spoken)
    check_response(cancelled)
    assert (cancelled["status"], cancelled["output"]) == ("cancelled", spoken["output"])
    assert spoken["status"] == "in_progress"

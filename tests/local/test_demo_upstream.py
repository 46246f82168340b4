"""The demo upstream over real sockets, as a provider's client would use it."""

import base64
import json
import math
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

JSON = dict[str, Any]

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
            "required": ["city", "days"],
        },
    },
}


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    """The address of a demo upstream in a process of its own, which a SIGTERM ends cleanly."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "dwctl.local.demo_upstream", str(port)])
    wait_for_port(port)
    yield f"http://127.0.0.1:{port}/v1"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 0


def wait_for_port(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise AssertionError("the demo upstream did not start")


@pytest.fixture(scope="module")
def post(base: str) -> Iterator[Callable[..., requests.Response]]:
    with requests.Session() as session:
        yield lambda path, **body: session.post(f"{base}/{path}", json=body, timeout=10)


@pytest.fixture(scope="module")
def chat(post: Callable[..., requests.Response]) -> Callable[..., JSON]:
    def send(text: str, **more: Any) -> JSON:
        messages = [{"role": "user", "content": text}]
        answer = post("chat/completions", model="demo-chat", messages=messages, **more)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    return send


@pytest.fixture(scope="module")
def stream(post: Callable[..., requests.Response]) -> Callable[..., list[JSON]]:
    def send(path: str, **body: Any) -> list[JSON]:
        answer = post(path, model="demo-chat", stream=True, **body)
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        *events, last, nothing = answer.text.split("\n\n")
        assert (last, nothing) == ("data: [DONE]", "")
        return [json.loads(event.removeprefix("data: ")) for event in events]

    return send


def test_models_are_listed_and_shown(base: str) -> None:
    listed = requests.get(f"{base}/models", timeout=10).json()
    assert [model["id"] for model in listed["data"]] == ["demo-chat", "demo-embed"]
    assert requests.get(f"{base}/models/demo-chat", timeout=10).json() == listed["data"][0]
    assert requests.get(f"{base}/models/other", timeout=10).status_code == 404


def test_chat_repeats_the_last_user_message_and_counts_words(chat: Callable[..., JSON]) -> None:
    answer = chat("Grüße from\n Oslo")
    (choice,) = answer["choices"]
    assert choice["message"]["content"].startswith('You said: "Grüße from Oslo".')
    assert choice["finish_reason"] == "stop"
    said = len(choice["message"]["content"].split())
    assert answer["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": said,
        "total_tokens": 3 + said,
    }


def test_the_same_request_gets_the_same_bytes(post: Callable[..., requests.Response]) -> None:
    body = {"model": "demo-chat", "messages": [{"role": "user", "content": "again"}], "n": 2}
    first, second = (post("chat/completions", **body) for _ in range(2))
    assert first.content == second.content
    assert len(first.json()["choices"]) == 2


def test_text_parts_are_read_and_half_a_surrogate_does_no_harm(
    post: Callable[..., requests.Response],
) -> None:
    parts = [
        {"type": "text", "text": "half \ud83d"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
    ]
    messages = [{"role": "user", "content": parts}]
    answer = post("chat/completions", model="demo-chat", messages=messages).json()
    assert 'You said: "half \ud83d"' in answer["choices"][0]["message"]["content"]


def test_a_limit_cuts_the_answer(chat: Callable[..., JSON]) -> None:
    answer = chat("Hello", max_completion_tokens=2)
    assert answer["choices"][0]["message"]["content"] == "You said:"
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 2


def test_a_streamed_chat_says_the_same_word_by_word(
    chat: Callable[..., JSON], stream: Callable[..., list[JSON]]
) -> None:
    whole = chat("Good morning")
    messages = [{"role": "user", "content": "Good morning"}]
    *chunks, last = stream(
        "chat/completions", messages=messages, stream_options={"include_usage": True}
    )
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0]["role"] == "assistant"
    text = "".join(delta.get("content") or "" for delta in deltas)
    assert text == whole["choices"][0]["message"]["content"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks][-2:] == [None, "stop"]
    assert all(chunk["usage"] is None for chunk in chunks)
    assert (last["choices"], last["usage"]) == ([], whole["usage"])


def test_a_stream_has_no_usage_unless_asked(stream: Callable[..., list[JSON]]) -> None:
    chunks = stream("chat/completions", messages=[{"role": "user", "content": "Hi"}])
    assert not any("usage" in chunk for chunk in chunks)


def test_talk_of_the_weather_calls_a_tool(chat: Callable[..., JSON]) -> None:
    (choice,) = chat("What is the weather in New York today?", tools=[WEATHER])["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"]) == {"city": "New York", "days": 1}
    assert choice["message"]["content"] is None
    assert choice["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(
    ("text", "choice", "called"),
    [
        ("Hello", "auto", False),
        ("Hello", "required", True),
        ("Hello", {"type": "function", "function": {"name": "get_weather"}}, True),
        ("The weather?", "none", False),
    ],
)
def test_tool_choice_is_heeded(
    chat: Callable[..., JSON], text: str, choice: Any, called: bool
) -> None:
    message = chat(text, tools=[WEATHER], tool_choice=choice)["choices"][0]["message"]
    assert ("tool_calls" in message) is called


def test_a_tool_call_can_be_streamed(stream: Callable[..., list[JSON]]) -> None:
    messages = [{"role": "user", "content": "The weather in Oslo, please"}]
    chunks = stream("chat/completions", messages=messages, tools=[WEATHER])
    calls = [
        call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", [])
    ]
    assert calls[0]["function"]["name"] == "get_weather"
    arguments = "".join(call["function"]["arguments"] for call in calls)
    assert json.loads(arguments) == {"city": "Oslo", "days": 1}
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_tools_answer_ends_the_talk(post: Callable[..., requests.Response]) -> None:
    call = {
        "id": "call-1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": "{}"},
    }
    messages = [
        {"role": "user", "content": "The weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call-1", "content": "7 degrees"},
    ]
    answer = post("chat/completions", model="demo-chat", messages=messages, tools=[WEATHER]).json()
    assert answer["choices"][0]["message"]["content"] == "The tool answered: 7 degrees"


def test_a_json_schema_is_answered_with_a_value_that_fits(chat: Callable[..., JSON]) -> None:
    schema = {
        "type": "object",
        "properties": {"score": {"type": "integer", "minimum": 3}},
        "required": ["score"],
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "rating", "schema": schema}}
    content = chat("Rate it", response_format=wanted)["choices"][0]["message"]["content"]
    assert json.loads(content) == {"score": 3}
    content = chat("Rate it", response_format={"type": "json_object"})["choices"][0]["message"]
    assert "Rate it" in json.loads(content["content"])["answer"]


def test_completions_answer_each_prompt(post: Callable[..., requests.Response]) -> None:
    answer = post("completions", model="demo-chat", prompt=["one", "two words"]).json()
    assert [choice["text"][:15] for choice in answer["choices"]] == [
        'You said: "one"',
        'You said: "two ',
    ]
    assert answer["usage"]["prompt_tokens"] == 3


def test_a_streamed_completion_says_the_same(
    post: Callable[..., requests.Response], stream: Callable[..., list[JSON]]
) -> None:
    whole = post("completions", model="demo-chat", prompt="one").json()
    *chunks, last = stream("completions", prompt="one", stream_options={"include_usage": True})
    text = "".join(chunk["choices"][0]["text"] for chunk in chunks)
    assert text == whole["choices"][0]["text"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert last["usage"] == whole["usage"]


def test_embeddings_depend_on_the_text_alone(post: Callable[..., requests.Response]) -> None:
    answer = post("embeddings", model="demo-embed", input=["cat", "dog", "cat"]).json()
    cat, dog, cat_again = (each["embedding"] for each in answer["data"])
    assert cat == cat_again != dog
    assert len(cat) == 16
    assert math.isclose(math.hypot(*cat), 1, rel_tol=1e-5)
    assert answer["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


def test_base64_carries_the_same_numbers(post: Callable[..., requests.Response]) -> None:
    body = {"model": "demo-embed", "input": "cat", "dimensions": 10}
    floats = post("embeddings", **body).json()["data"][0]["embedding"]
    encoded = post("embeddings", **body, encoding_format="base64").json()["data"][0]["embedding"]
    assert list(struct.unpack("<10f", base64.b64decode(encoded))) == floats


def test_token_numbers_are_accepted(post: Callable[..., requests.Response]) -> None:
    answer = post("embeddings", model="demo-embed", input=[[1, 2], [3]]).json()
    assert len(answer["data"]) == 2
    assert answer["usage"]["prompt_tokens"] == 3


HELLO = [{"role": "user", "content": "Hello"}]
NAMELESS = {"type": "function", "function": {"name": "x"}}


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("chat/completions", {"messages": HELLO}, 400, "model"),
        ("chat/completions", {"model": "gpt-9", "messages": HELLO}, 404, "model"),
        ("chat/completions", {"model": "demo-embed", "messages": HELLO}, 404, "model"),
        ("chat/completions", {"model": "demo-chat"}, 400, "messages"),
        ("chat/completions", {"model": "demo-chat", "messages": []}, 400, "messages"),
        ("chat/completions", {"model": "demo-chat", "messages": ["Hi"]}, 400, "messages[0]"),
        (
            "chat/completions",
            {"model": "demo-chat", "messages": [{"role": "robot", "content": "Hi"}]},
            400,
            "messages[0].role",
        ),
        ("chat/completions", {"model": "demo-chat", "messages": HELLO, "n": 9}, 400, "n"),
        (
            "chat/completions",
            {"model": "demo-chat", "messages": HELLO, "max_tokens": -1},
            400,
            "max_tokens",
        ),
        (
            "chat/completions",
            {"model": "demo-chat", "messages": HELLO, "tool_choice": NAMELESS},
            400,
            "tool_choice",
        ),
        (
            "chat/completions",
            {"model": "demo-chat", "messages": HELLO, "response_format": {"type": "json_schema"}},
            400,
            "response_format.json_schema.schema",
        ),
        ("completions", {"model": "demo-chat"}, 400, "prompt"),
        ("embeddings", {"model": "demo-embed", "input": ""}, 400, "input"),
        ("embeddings", {"model": "demo-embed", "input": ["a", 1]}, 400, "input"),
        ("embeddings", {"model": "demo-embed", "input": "a", "dimensions": 0}, 400, "dimensions"),
        (
            "embeddings",
            {"model": "demo-embed", "input": "a", "encoding_format": "hex"},
            400,
            "encoding_format",
        ),
        ("nothing/here", {}, 404, None),
    ],
)
def test_a_bad_request_gets_an_error_in_openais_shape(
    post: Callable[..., requests.Response], path: str, body: JSON, status: int, param: str | None
) -> None:
    answer = post(path, **body)
    error = answer.json()["error"]
    assert answer.status_code == status
    assert sorted(error) == ["code", "message", "param", "type"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert error["message"]


@pytest.mark.parametrize("raw", [b"{not json", b"[]", b"\xff"])
def test_a_body_that_is_no_json_object_is_refused(base: str, raw: bytes) -> None:
    answer = requests.post(f"{base}/chat/completions", data=raw, timeout=10)
    assert answer.status_code == 400
    assert "JSON" in answer.json()["error"]["message"]

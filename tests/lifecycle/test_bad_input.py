"""Requests that are wrong: refused before any work, in JSON that names the field; in open mode and in strict mode alike."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.gateway import Gateway, Json, assert_openai_error

MODES = ["open", "strict"]
TIERS = ["priority", "flex"]


@pytest.fixture(params=MODES)
def url(stage: Gateway, request: pytest.FixtureRequest) -> str:
    return stage.service.webs[MODES.index(request.param)].url


def input_of(*items: Any) -> Json:
    return {"input": list(items)}


def parts_of(*parts: Any) -> Json:
    return input_of({"role": "user", "content": list(parts)})


WRONG: list[tuple[Json, str]] = [
    # input
    ({"input": None}, "input"),
    ({"input": 5}, "input"),
    ({"input": {"role": "user"}}, "input"),
    (input_of("text"), "input[0]"),
    (input_of({"role": "user", "content": "a"}, None), "input[1]"),
    (input_of({"type": 7}), "input[0].type"),
    (input_of({"type": "message", "role": "wizard", "content": "a"}), "input[0].role"),
    (input_of({"type": "message", "role": "user"}), "input[0].content"),
    (input_of({"role": "user", "content": 5}), "input[0].content"),
    (input_of({"type": "function_call", "name": "f", "arguments": "{}"}), "input[0].call_id"),
    (input_of({"type": "function_call", "call_id": "c", "name": "f", "arguments": {}}), "input[0].arguments"),
    (input_of({"type": "function_call_output", "call_id": "c", "output": 5}), "input[0].output"),
    # parts
    (parts_of("text"), "input[0].content[0]"),
    (parts_of({"text": "a"}), "input[0].content[0].type"),
    (parts_of({"type": "riddle"}), "input[0].content[0].type"),
    (parts_of({"type": "input_text"}), "input[0].content[0].text"),
    (parts_of({"type": "input_text", "text": 5}), "input[0].content[0].text"),
    (parts_of({"type": "input_text", "text": "a"}, {"type": "input_image"}), "input[0].content[1].image_url"),
    (parts_of({"type": "input_image", "image_url": {"url": "http://a"}}), "input[0].content[0].image_url"),
    (parts_of({"type": "input_file"}), "input[0].content[0].file_data"),
    # tools
    ({"tools": "f"}, "tools"),
    ({"tools": ["f"]}, "tools[0]"),
    ({"tools": [{}]}, "tools[0].type"),
    ({"tools": [{"type": "function"}]}, "tools[0].name"),
    ({"tools": [{"type": "function", "name": "f", "parameters": "x"}]}, "tools[0].parameters"),
    ({"tool_choice": "sometimes"}, "tool_choice"),
    ({"tool_choice": {"type": "riddle"}}, "tool_choice.type"),
    # members
    ({"model": 5}, "model"),
    ({"instructions": 5}, "instructions"),
    ({"temperature": "hot"}, "temperature"),
    ({"top_p": []}, "top_p"),
    ({"max_output_tokens": "many"}, "max_output_tokens"),
    ({"max_output_tokens": -1}, "max_output_tokens"),
    ({"max_output_tokens": 1.5}, "max_output_tokens"),
    ({"metadata": "x"}, "metadata"),
    ({"metadata": {"a": 5}}, "metadata.a"),
    ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
    ({"store": "yes"}, "store"),
    ({"truncation": "middle"}, "truncation"),
    ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
    ({"text": {"format": {"type": "json_schema"}}}, "text.format.name"),
    ({"reasoning": "hard"}, "reasoning"),
    ({"include": "all"}, "include"),
    ({"background": "true"}, "background"),
    ({"stream": "true"}, "stream"),
    ({"service_tier": "turbo"}, "service_tier"),
    ({"previous_response_id": 5}, "previous_response_id"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "param"), WRONG, ids=[f"{n}-{p}" for n, (_, p) in enumerate(WRONG)])  # fmt: skip
def test_a_wrong_response_request_names_the_field(
    stage: Gateway, url: str, wrong: Json, param: str
) -> None:
    for tier in TIERS:
        body = {"model": stage.flexible("plain"), "input": "Hello", "service_tier": tier, **wrong}
        error = assert_openai_error(stage.post("/responses", body, url=url), 400)
        assert error["param"] == param
        assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize(
    "named", [{"conversation": "conv_1"}, {"conversation": {"id": "conv_1"}}, {"prompt": {"id": "pmpt_1"}}, {"context_management": [{"type": "compaction"}]}], ids=str
)  # fmt: skip
def test_what_only_the_provider_keeps_is_refused_by_name_and_never_ignored(
    stage: Gateway, url: str, named: Json, tier: str
) -> None:
    native = stage.flexible("plain", alias="native+plain", open_responses_adapter=False)
    for model in (stage.flexible("plain"), native):
        body = {"model": model, "input": "Hello", "service_tier": tier, **named}
        error = assert_openai_error(stage.post("/responses", body, url=url), 400)
        assert (error["param"], error["code"]) == (*named, "unsupported_parameter")


@pytest.mark.parametrize("missing", ["model", "input"])
@pytest.mark.parametrize("tier", TIERS)
def test_a_missing_member_is_named(stage: Gateway, url: str, missing: str, tier: str) -> None:
    body = {"model": stage.flexible("plain"), "input": "Hello", "service_tier": tier}
    del body[missing]
    error = assert_openai_error(stage.post("/responses", body, url=url), 400)
    assert error["param"] == missing
    assert error["code"] == "missing_required_parameter"


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[]", b'"text"', b"null", b"5", b"\xff\xfe", b'{"model": "plain", "input": "a"',
     b'{"model": NaN}', b"[" * 100_000, b'{"a":' * 100_000],
    ids=["empty", "half", "list", "text", "null", "number", "no text", "cut", "NaN", "deep list", "deep object"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/responses", "/chat/completions", "/embeddings"])
def test_what_is_no_json_object_is_refused(stage: Gateway, url: str, path: str, raw: bytes) -> None:
    assert_openai_error(stage.post(path, raw, url=url), 400)


@pytest.mark.parametrize("name", ["", " ", "a\x00b", "a\nb", "x" * 5000, "../../etc", "é" * 200])
@pytest.mark.parametrize("tier", TIERS)
def test_a_strange_model_name_is_no_model(stage: Gateway, url: str, name: str, tier: str) -> None:
    answer = stage.respond(name, service_tier=tier, url=url)
    assert answer.status_code in (400, 404), answer.text
    assert_openai_error(answer, answer.status_code)


@pytest.mark.parametrize("tier", TIERS)
def test_odd_texts_survive_unharmed(stage: Gateway, url: str, tier: str) -> None:
    """NUL, lone surrogates and numbers that no float holds are the caller's business."""
    model = stage.flexible("echo")
    raw = (
        b'{"model":"%s","input":"a\\u0000b \\ud83d\\ude00 \\u2028","service_tier":"%s","background":true,'
        b'"metadata":{"n":"1e400"},"x":1e999,"y":12345678901234567890123}'
    ) % (model.encode(), tier.encode())
    answer = stage.post("/responses", raw, url=url)
    if answer.status_code == 400:  # a parser may refuse numbers that it cannot hold
        assert_openai_error(answer, 400)
        raw = raw.replace(b'"x":1e999,', b"")
        answer = stage.post("/responses", raw, url=url)
    assert answer.status_code == 202, answer.text
    left = stage.of(answer.json()["id"])
    assert orjson.loads(left.template.body)["input"] == "a\x00b \U0001f600 \u2028"


def test_a_refused_request_leaves_no_row(stage: Gateway, url: str) -> None:
    before = len(stage.all("SELECT FROM fusillade.requests"))
    for wrong, _ in WRONG[:5]:
        stage.post("/responses", {"model": stage.flexible("plain"), "input": "a", **wrong}, url=url)
    assert len(stage.all("SELECT FROM fusillade.requests")) == before


@pytest.mark.parametrize("path", ["/responses/x/cancel/more", "/nothing", "/responses/x/y"])
def test_an_unknown_path_is_404(stage: Gateway, url: str, path: str) -> None:
    """But what is not the gateway's own is handed on in open mode, and wants a model."""
    handed_on = path == "/nothing" and url != stage.service.webs[MODES.index("strict")].url
    assert_openai_error(stage.post(path, {}, url=url), 400 if handed_on else 404)


def test_strict_answers_show_the_alias(stage: Gateway) -> None:
    """And our id, but for text completions."""
    url = stage.service.webs[MODES.index("strict")].url
    model = stage.flexible("plain", alias="plain+renamed")
    legacy = stage.post("/completions", {"model": model, "prompt": "Hello"}, url=url).json()
    assert (legacy["object"], legacy["model"]) == ("text_completion", model)
    assert legacy["id"].startswith("cmpl-")
    vectors = stage.post("/embeddings", {"model": model, "input": "Hello"}, url=url).json()
    assert (vectors["object"], vectors["model"]) == ("list", model)
    response = stage.respond(model, url=url).json()
    assert (response["object"], response["model"]) == ("response", model)
    completion = stage.converse(model, url=url).json()
    assert (completion["object"], completion["model"]) == ("chat.completion", model)
    assert completion["id"].startswith("resp_")


@pytest.mark.parametrize("mode", [{"background": True}, {"service_tier": "flex"}])
def test_what_somebody_else_tracks_has_no_row_here(stage: Gateway, url: str, mode: Json) -> None:
    """The header says that a row is there already: the call is answered at once, and leaves none."""
    before = len(stage.all("SELECT FROM fusillade.requests"))
    foreign = {"X-Fusillade-Request-Id": "7d3c9b1e-58a4-4f0a-9b0f-1d2e3c4b5a69"}
    answer = stage.respond(stage.flexible("plain"), headers=foreign, url=url, **mode)
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "completed"
    assert len(stage.all("SELECT FROM fusillade.requests")) == before

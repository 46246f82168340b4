"""OpenAI's own client against the lifecycle: what its users write must work unchanged."""

from __future__ import annotations

import time
from collections.abc import Iterator

import openai
import pytest
from openai import OpenAI
from openai.types.responses import Response
from pydantic import BaseModel

from tests.gateway import FLEX, HELLO, REALTIME, Account, Gateway, cost, marker
from tests.processes import eventually

TIERS = ["priority", "flex"]
SAID = "Hello there friend"
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


class City(BaseModel):
    """What structured output is asked for."""

    name: str
    people: int


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    """Costs are told: the library must not mind."""
    told = {"DWCTL_COSTS__HEADER": "true", "DWCTL_COSTS__STREAM_COMMENT": "true"}
    return environ | told


@pytest.fixture(scope="module")
def openai_client(stage: Gateway) -> Iterator[OpenAI]:
    with client_of(stage, stage.alice) as client:
        yield client


def client_of(stage: Gateway, account: Account) -> OpenAI:
    return OpenAI(base_url=f"{stage.url}/ai/v1", api_key=account.key, max_retries=0, timeout=20)


def until_over(client: OpenAI, response: Response) -> Response:
    """The loop of OpenAI's guide to background mode."""
    until = time.monotonic() + 15
    while response.status in ("queued", "in_progress"):
        assert time.monotonic() < until, response
        time.sleep(0.05)
        response = client.responses.retrieve(response.id)
    return response


# --- create


@pytest.mark.parametrize("tier", TIERS)
def test_create_gives_the_output_text(stage: Gateway, openai_client: OpenAI, tier: str) -> None:
    made = openai_client.responses.create(
        model=stage.flexible("plain"),
        input="Hello",
        instructions="Be brief.",
        service_tier=tier,
        metadata={"who": "sdk"},
        temperature=0.5,
        max_output_tokens=100,
    )
    assert made.output_text == SAID
    assert made.status == "completed"
    assert made.service_tier == tier
    assert made.metadata == {"who": "sdk"}
    assert made.instructions == "Be brief."
    assert (made.temperature, made.max_output_tokens) == (0.5, 100)
    assert made.usage is not None
    assert made.usage.total_tokens == 12
    assert openai_client.responses.retrieve(made.id) == made
    assert stage.charges(made.id) == [cost(FLEX if tier == "flex" else REALTIME)]


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("background", [False, True])
def test_create_with_stream_gives_events(
    stage: Gateway, openai_client: OpenAI, tier: str, background: bool
) -> None:
    stream = openai_client.responses.create(
        model=stage.flexible("chunks-5"),
        input="Hello",
        service_tier=tier,
        background=background,
        stream=True,
    )
    events = list(stream)
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert said == events[-1].response.output_text == "w0 w1 w2 w3 w4 "
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert openai_client.responses.retrieve(events[-1].response.id) == events[-1].response


@pytest.mark.parametrize("tier", TIERS)
def test_the_stream_helper_puts_the_response_together(
    stage: Gateway, openai_client: OpenAI, tier: str
) -> None:
    model = stage.flexible("chunks-5")
    with openai_client.responses.stream(model=model, input="Hello", service_tier=tier) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds[-1] == "response.completed"
    assert final.output_text == "w0 w1 w2 w3 w4 "
    assert final.usage is not None


@pytest.mark.parametrize("tier", TIERS)
def test_parse_gives_structured_output(stage: Gateway, openai_client: OpenAI, tier: str) -> None:
    parsed = openai_client.responses.parse(
        model=stage.flexible("echo"),
        input='{"name": "Oslo", "people": 717710}',
        text_format=City,
        service_tier=tier,
    )
    assert parsed.output_parsed == City(name="Oslo", people=717710)
    sent = stage.upstream.seen()[-1]["body"]
    assert sent["response_format"]["type"] == "json_schema"
    assert sent["response_format"]["json_schema"]["strict"] is True
    assert set(sent["response_format"]["json_schema"]["schema"]["properties"]) == {"name", "people"}
    assert openai_client.responses.retrieve(parsed.id).output_text == parsed.output_text


@pytest.mark.parametrize("tier", TIERS)
def test_the_stream_helper_parses_structured_output(
    stage: Gateway, openai_client: OpenAI, tier: str
) -> None:
    with openai_client.responses.stream(
        model=stage.flexible("echo"),
        input='{"name": "Rome", "people": 2748109}',
        text_format=City,
        service_tier=tier,
    ) as stream:
        final = stream.until_done().get_final_response()
    assert final.output_parsed == City(name="Rome", people=2748109)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("tier", TIERS)
def test_a_function_is_called_and_its_result_answered(
    stage: Gateway, openai_client: OpenAI, tier: str, stream: bool
) -> None:
    model = stage.flexible("tools")
    question = {"role": "user", "content": "What is the weather in Oslo?"}
    asked = {"model": model, "tools": [WEATHER], "tool_choice": "required", "service_tier": tier}
    if stream:
        with openai_client.responses.stream(input=[question], **asked) as events:
            first: Response = events.until_done().get_final_response()
    else:
        first = openai_client.responses.create(input=[question], **asked)
    (call,) = first.output
    assert call.type == "function_call"
    assert (call.name, call.arguments) == ("get_weather", '{"city":"Oslo"}')
    sent = stage.upstream.seen()[-1]["body"]
    assert sent["tool_choice"] == "required"
    assert sent["tools"][0]["function"]["name"] == "get_weather"

    # What came out goes back in, as OpenAI's guide has it.
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    second = openai_client.responses.create(
        model=model,
        input=[question, *(item.model_dump() for item in first.output), result],
        tools=[WEATHER],
        service_tier=tier,
    )
    assert second.output_text == SAID
    messages = stage.upstream.seen()[-1]["body"]["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool"]
    assert messages[1]["tool_calls"][0]["id"] == messages[2]["tool_call_id"] == call.call_id
    assert messages[2]["content"] == "rain"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("tier", TIERS)
def test_a_custom_tool_is_called_with_text_and_its_result_answered(
    stage: Gateway, openai_client: OpenAI, tier: str, stream: bool
) -> None:
    model = stage.flexible("tools")
    patch = {"type": "custom", "name": "patch", "description": "Edit files", "format": {"type": "grammar", "syntax": "regex", "definition": ".+"}}  # fmt: skip
    question = {"role": "user", "content": "Edit the file."}
    asked = {"model": model, "tools": [patch, {"type": "web_search"}], "tool_choice": {"type": "custom", "name": "patch"}, "service_tier": tier}  # fmt: skip
    if stream:
        kinds = []
        for event in openai_client.responses.create(input=[question], stream=True, **asked):
            kinds.append(event.type)
        first: Response = event.response
        assert kinds.count("response.custom_tool_call_input.done") == 1
    else:
        first = openai_client.responses.create(input=[question], **asked)
    (call,) = first.output
    assert call.type == "custom_tool_call"
    assert (call.name, call.input) == ("patch", "Oslo")
    result = {"type": "custom_tool_call_output", "call_id": call.call_id, "output": "done"}
    second = openai_client.responses.create(
        model=model,
        input=[question, *(item.model_dump() for item in first.output), result],
        tools=[patch],
        service_tier=tier,
    )
    assert second.output_text == SAID
    told = stage.upstream.seen()[-1]["body"]["messages"][1:]
    assert told[0]["tool_calls"][0]["function"]["arguments"] == '{"input":"Oslo"}'
    assert told[1] == {"role": "tool", "tool_call_id": call.call_id, "content": "done"}


@pytest.mark.parametrize("tier", TIERS)
def test_several_functions_are_called_at_once(
    stage: Gateway, openai_client: OpenAI, tier: str
) -> None:
    made = openai_client.responses.create(
        model=stage.flexible("tools-3"), input="Hello", tools=[WEATHER], service_tier=tier
    )
    calls = [item for item in made.output if item.type == "function_call"]
    assert len({call.call_id for call in calls}) == 3
    assert len({call.id for call in calls}) == 3
    assert openai_client.responses.retrieve(made.id) == made


@pytest.mark.parametrize("tier", TIERS)
def test_reasoning_comes_before_the_answer(
    stage: Gateway, openai_client: OpenAI, tier: str
) -> None:
    made = openai_client.responses.create(
        model=stage.flexible("reasoning"),
        input="Hello",
        reasoning={"effort": "low"},
        service_tier=tier,
    )
    assert [item.type for item in made.output] == ["reasoning", "message"]
    assert made.output_text == SAID
    assert stage.upstream.seen()[-1]["body"]["reasoning_effort"] == "low"


@pytest.mark.parametrize("tier", TIERS)
def test_an_image_reaches_the_model(stage: Gateway, openai_client: OpenAI, tier: str) -> None:
    parts = [
        {"type": "input_text", "text": "What is this?"},
        {"type": "input_image", "image_url": PIXEL, "detail": "low"},
    ]
    made = openai_client.responses.create(
        model=stage.flexible("plain"),
        input=[{"role": "user", "content": parts}],
        service_tier=tier,
    )
    assert made.output_text == SAID
    assert stage.upstream.seen()[-1]["body"]["messages"][-1]["content"] == [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
    ]


@pytest.mark.parametrize(
    ("model", "reason"), [("length", "max_output_tokens"), ("filter", "content_filter")]
)
@pytest.mark.parametrize("tier", TIERS)
def test_an_answer_that_was_cut_short_is_incomplete(
    stage: Gateway, openai_client: OpenAI, tier: str, model: str, reason: str
) -> None:
    made = openai_client.responses.create(
        model=stage.flexible(model), input="Hello", service_tier=tier
    )
    assert made.status == "incomplete"
    assert made.incomplete_details is not None
    assert made.incomplete_details.reason == reason
    assert openai_client.responses.retrieve(made.id) == made
    assert len(stage.charges(made.id)) == 1


# --- background


@pytest.mark.parametrize("tier", TIERS)
def test_a_background_response_is_polled_until_it_is_over(
    stage: Gateway, openai_client: OpenAI, tier: str
) -> None:
    made = openai_client.responses.create(
        model=stage.flexible("slow-300"), input="Hello", background=True, service_tier=tier
    )
    assert made.status == ("queued" if tier == "flex" else "in_progress")
    done = until_over(openai_client, made)
    assert done.status == "completed"
    assert done.output_text == SAID
    assert done.background is True


@pytest.mark.parametrize("tier", TIERS)
def test_a_background_response_is_cancelled(
    stage: Gateway, openai_client: OpenAI, tier: str
) -> None:
    said = marker()
    made = openai_client.responses.create(
        model=stage.flexible("hold"), input=said, background=True, service_tier=tier
    )
    eventually(lambda: stage.sent(said))
    cancelled = openai_client.responses.cancel(made.id)
    assert cancelled.status == "cancelled"
    assert openai_client.responses.cancel(made.id) == cancelled
    assert openai_client.responses.retrieve(made.id) == cancelled
    eventually(lambda: stage.sent(said)[0]["outcome"] == "left")


@pytest.mark.parametrize("tier", TIERS)
def test_a_response_is_deleted_once(stage: Gateway, openai_client: OpenAI, tier: str) -> None:
    made = openai_client.responses.create(
        model=stage.flexible("plain"), input="Hello", service_tier=tier
    )
    openai_client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        openai_client.responses.retrieve(made.id)
    with pytest.raises(openai.NotFoundError):
        openai_client.responses.delete(made.id)


@pytest.mark.parametrize(("tier", "status"), [("priority", 400), ("flex", 400)])
def test_a_background_response_that_fails_says_why(
    stage: Gateway, openai_client: OpenAI, tier: str, status: int
) -> None:
    made = openai_client.responses.create(
        model=stage.flexible(f"fail-{status}"), input="Hello", background=True, service_tier=tier
    )
    failed = until_over(openai_client, made)
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error.code == f"http_{status}"
    assert failed.error.message


# --- chat, embeddings and errors


@pytest.mark.parametrize("tier", TIERS)
def test_chat_completions_and_embeddings_take_the_tier(
    stage: Gateway, openai_client: OpenAI, tier: str
) -> None:
    model = stage.flexible("plain")
    hello = [{"role": "user", "content": "Hello"}]
    whole = openai_client.chat.completions.create(model=model, messages=hello, service_tier=tier)
    assert whole.choices[0].message.content == SAID
    stream = openai_client.chat.completions.create(
        model=model,
        messages=hello,
        service_tier=tier,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    said = "".join(c.delta.content or "" for chunk in chunks for c in chunk.choices)
    assert said == SAID
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 12
    vectors = openai_client.embeddings.create(
        model=model, input=["a", "b"], extra_body={"service_tier": tier}
    )
    assert [one.embedding for one in vectors.data] == [[0.25, -0.5]] * 2


@pytest.mark.parametrize("tier", TIERS)
def test_errors_are_those_that_the_client_knows(
    stage: Gateway, openai_client: OpenAI, tier: str
) -> None:
    create = openai_client.responses.create
    with pytest.raises(openai.NotFoundError) as unknown:
        create(model="nobody-has-heard-of-it", input="Hello", service_tier=tier)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        create(
            model=stage.flexible("plain"),
            input=[{"role": "riddle", "content": "Hi"}],
            service_tier=tier,
        )
    assert bad.value.param == "input[0].role"
    with pytest.raises(openai.BadRequestError):
        create(model=stage.flexible("fail-400"), input="Hello", service_tier=tier)
    with client_of(stage, stage.alice).with_options(api_key="sk-wrong") as stranger:
        with pytest.raises(openai.AuthenticationError):
            stranger.responses.create(model=stage.flexible("plain"), input="Hello")
    with client_of(stage, stage.account(credit=None)) as poor:
        with pytest.raises(openai.APIStatusError) as broke:
            poor.responses.create(model=stage.flexible("plain"), input="Hi", service_tier=tier)
    assert broke.value.status_code == 402


@pytest.mark.parametrize("tier", TIERS)
def test_a_stream_that_fails_upstream_ends_with_a_failed_response(
    stage: Gateway, openai_client: OpenAI, tier: str
) -> None:
    model = stage.flexible("error-in-stream" if tier == "priority" else "fail-400")
    stream = openai_client.responses.create(
        model=model, input="Hello", service_tier=tier, stream=True
    )
    last = list(stream)[-1]
    assert last.type == "response.failed"
    assert last.response.status == "failed"
    assert last.response.error is not None
    assert openai_client.responses.retrieve(last.response.id) == last.response


@pytest.mark.parametrize("tier", TIERS)
def test_a_conversation_with_tools_goes_on(
    stage: Gateway, openai_client: OpenAI, tier: str
) -> None:
    """OpenAI's guide to conversation state: each turn sends what is new, and the id of the turn before."""
    client, model = openai_client, stage.flexible("tools")
    mark = marker()
    more = {"model": model, "tools": [WEATHER], "service_tier": tier}
    first = client.responses.create(input=f"The weather? {mark}", **more)
    [call] = [item for item in first.output if item.type == "function_call"]
    second = client.responses.create(
        previous_response_id=first.id,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}],
        **more,
    )
    assert second.output_text
    assert second.previous_response_id == first.id
    with client.responses.stream(previous_response_id=second.id, input="Thanks", **more) as stream:
        third = stream.get_final_response()
    assert third.output[0].type == "function_call"
    said = stage.sent(mark)[-1]["body"]["messages"]
    assert [m["role"] for m in said] == ["user", "assistant", "tool", "assistant", "user"]
    items = list(client.responses.input_items.list(second.id, limit=1, order="asc"))
    assert [item.type for item in items] == ["function_call_output"]
    with pytest.raises(openai.NotFoundError) as refused:
        client.responses.create(previous_response_id="resp_none", input="a", **more)
    assert refused.value.code == "previous_response_not_found"


def test_its_input_tokens_can_be_counted(stage: Gateway, openai_client: OpenAI) -> None:
    model = stage.flexible("plain+tokenize")
    counted = openai_client.responses.input_tokens.count(model=model, input="How many?")
    assert counted.input_tokens > 0
    with pytest.raises(openai.NotFoundError):
        openai_client.responses.input_tokens.count(model=stage.flexible("plain"), input="How many?")


@pytest.mark.parametrize("surface", ["chat", "responses"])
def test_a_flex_call_says_what_it_cost(stage: Gateway, surface: str) -> None:
    model = stage.flexible("plain")
    wanted = f"{cost(FLEX):f}".rstrip("0")
    path, said = ("/chat/completions", {"messages": HELLO}) if surface == "chat" else ("/responses", {"input": "Hello"})  # fmt: skip
    body = {"model": model, "service_tier": "flex", **said}
    assert stage.post(path, body).headers["x-dwctl-cost"] == wanted
    streamed = stage.post(path, body | {"stream": True}, stream=True).text
    assert streamed.endswith(f"\n\n: cost {wanted}\n\ndata: [DONE]\n\n")
    assert streamed.count(": cost") == 1

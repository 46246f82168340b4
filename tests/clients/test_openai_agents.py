"""The OpenAI Agents SDK (Python), over Responses, which is its default, and over chat completions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from agents import (
    Agent,
    Model,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel

from tests.clients.conftest import CITY, SAID, Door

KINDS: dict[str, type[OpenAIResponsesModel] | type[OpenAIChatCompletionsModel]] = {
    "responses": OpenAIResponsesModel,
    "chat": OpenAIChatCompletionsModel,
}


class Weather(BaseModel):
    city: str
    degrees: int


@function_tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"{city}: 7 degrees"


@pytest.fixture(autouse=True)
def without_tracing() -> Iterator[None]:
    # Traces would go to OpenAI.
    set_tracing_disabled(True)
    yield
    set_tracing_disabled(False)


def model_of(kind: str, door: Door, name: str) -> Model:
    client = AsyncOpenAI(base_url=door.base_url, api_key=door.key, max_retries=0, timeout=20)
    return KINDS[kind](model=name, openai_client=client)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tool_loop(kind: str, door: Door) -> None:
    agent = Agent(name="helper", model=model_of(kind, door, door.tools), tools=[get_weather])
    result = Runner.run_sync(agent, "How is the weather in Oslo?")
    assert result.final_output == SAID
    kinds = [item.type for item in result.new_items]
    assert kinds == ["tool_call_item", "tool_call_output_item", "message_output_item"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_structured_output(kind: str, door: Door) -> None:
    agent = Agent(name="helper", model=model_of(kind, door, door.echo), output_type=Weather)
    assert Runner.run_sync(agent, CITY).final_output == Weather(city="Oslo", degrees=7)


async def _streamed(kind: str, door: Door, name: str) -> tuple[str, str]:
    agent = Agent(name="helper", model=model_of(kind, door, getattr(door, name)))
    result = Runner.run_streamed(agent, "Hello")
    said = ""
    async for event in result.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            said += event.data.delta
    return said, str(result.final_output)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["plain", "thinking"])
def test_a_stream(kind: str, name: str, door: Door) -> None:
    assert asyncio.run(_streamed(kind, door, name)) == (SAID, SAID)


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_turn(kind: str, door: Door) -> None:
    agent = Agent(name="helper", model=model_of(kind, door, door.tools), tools=[get_weather])
    first = Runner.run_sync(agent, "How is the weather in Oslo?")
    again = [*first.to_input_list(), {"role": "user", "content": "And tomorrow?"}]
    assert Runner.run_sync(agent, again).final_output == SAID


def test_a_second_turn_by_the_id_of_the_first(door: Door) -> None:
    agent = Agent(name="helper", model=model_of("responses", door, door.plain))
    first = Runner.run_sync(agent, "Hello")
    assert first.last_response_id is not None
    second = Runner.run_sync(agent, "And again", previous_response_id=first.last_response_id)
    assert second.final_output == SAID

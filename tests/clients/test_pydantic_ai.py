"""pydantic-ai, over Responses and over chat completions."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

from tests.clients.conftest import CITY, SAID, Door

KINDS: dict[str, type[OpenAIChatModel] | type[OpenAIResponsesModel]] = {
    "responses": OpenAIResponsesModel,
    "chat": OpenAIChatModel,
}
kinds = pytest.mark.parametrize("kind", KINDS)


class Weather(BaseModel):
    city: str
    degrees: int


class City(BaseModel):
    city: str


def model_of(kind: str, door: Door, name: str) -> OpenAIChatModel | OpenAIResponsesModel:
    return KINDS[kind](name, provider=OpenAIProvider(base_url=door.base_url, api_key=door.key))


def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"{city}: 7 degrees"


@kinds
def test_a_tool_loop(kind: str, door: Door) -> None:
    agent = Agent(model_of(kind, door, door.tools), tools=[get_weather])
    result = agent.run_sync("How is the weather in Oslo?")
    assert result.output == SAID
    assert [message.kind for message in result.all_messages()] == [
        "request",
        "response",
        "request",
        "response",
    ]


@kinds
def test_a_structured_output_by_schema(kind: str, door: Door) -> None:
    agent = Agent(model_of(kind, door, door.echo), output_type=NativeOutput(Weather))
    assert agent.run_sync(CITY).output == Weather(city="Oslo", degrees=7)


@kinds
def test_a_structured_output_by_a_tool(kind: str, door: Door) -> None:
    agent = Agent(model_of(kind, door, door.tools), output_type=City)
    assert agent.run_sync("Which city?").output == City(city="Oslo")


async def _streamed(kind: str, door: Door, name: str) -> str:
    agent = Agent(model_of(kind, door, name))
    async with agent.run_stream("Hello") as result:
        return "".join([piece async for piece in result.stream_text(delta=True)])


@kinds
@pytest.mark.parametrize("name", ["plain", "thinking"])
def test_a_stream(kind: str, name: str, door: Door) -> None:
    assert asyncio.run(_streamed(kind, door, getattr(door, name))) == SAID


@kinds
@pytest.mark.parametrize("name", ["tools", "thinking"])
def test_a_second_turn(kind: str, name: str, door: Door) -> None:
    agent = Agent(model_of(kind, door, getattr(door, name)), tools=[get_weather])
    first = agent.run_sync("How is the weather in Oslo?")
    second = agent.run_sync("And tomorrow?", message_history=first.all_messages())
    assert second.output == SAID

"""langchain's ChatOpenAI, over chat completions, which is its default, and over Responses."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr

from tests.clients.conftest import CITY, SAID, Door

kinds = pytest.mark.parametrize("responses", [False, True], ids=["chat", "responses"])


class Weather(BaseModel):
    """A city's weather."""

    city: str
    degrees: int


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"{city}: 7 degrees"


def model_of(door: Door, name: str, responses: bool, **more: Any) -> ChatOpenAI:
    return ChatOpenAI(
        model=name,
        base_url=door.base_url,
        api_key=SecretStr(door.key),
        use_responses_api=responses,
        max_retries=0,
        timeout=20,
        **more,
    )


@kinds
def test_a_tool_loop(responses: bool, door: Door) -> None:
    model = model_of(door, door.tools, responses).bind_tools([get_weather])
    messages: list[BaseMessage] = [HumanMessage("How is the weather in Oslo?")]
    asked = model.invoke(messages)
    assert isinstance(asked, AIMessage)
    assert [call["args"] for call in asked.tool_calls] == [{"city": "Oslo"}]
    messages += [asked, *(get_weather.invoke(call) for call in asked.tool_calls)]
    assert model.invoke(messages).text == SAID


@kinds
def test_a_structured_output(responses: bool, door: Door) -> None:
    model = model_of(door, door.echo, responses).with_structured_output(Weather)
    assert model.invoke(CITY) == Weather(city="Oslo", degrees=7)


@kinds
@pytest.mark.parametrize("name", ["plain", "thinking"])
def test_a_stream(responses: bool, name: str, door: Door) -> None:
    model = model_of(door, getattr(door, name), responses, stream_usage=True)
    whole = None
    for chunk in model.stream("Hello"):
        whole = chunk if whole is None else whole + chunk
    assert whole is not None
    assert whole.text == SAID
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["total_tokens"] == 12


@kinds
@pytest.mark.parametrize("name", ["plain", "thinking"])
def test_a_second_turn(responses: bool, name: str, door: Door) -> None:
    model = model_of(door, getattr(door, name), responses)
    first = model.invoke("Hello")
    second = model.invoke([HumanMessage("Hello"), first, HumanMessage("And again")])
    assert second.text == SAID


def test_a_second_turn_by_the_id_of_the_first(door: Door) -> None:
    model = model_of(door, door.plain, True, use_previous_response_id=True)
    first = model.invoke("Hello")
    second = model.invoke([HumanMessage("Hello"), first, HumanMessage("And again")])
    assert second.text == SAID


def test_embeddings(door: Door) -> None:
    # It counts tokens by itself unless told not to, with a vocabulary that it would fetch.
    made = OpenAIEmbeddings(
        model=door.plain,
        base_url=door.base_url,
        api_key=SecretStr(door.key),
        check_embedding_ctx_length=False,
    )
    assert made.embed_documents(["one", "two"]) == [[0.25, -0.5], [0.25, -0.5]]

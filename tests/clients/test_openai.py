"""The official library, sync and async: every method that it has for our routes, those too that are refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import Response
from pydantic import BaseModel

from tests.clients.conftest import CITY, SAID, Door

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]


class Weather(BaseModel):
    city: str
    degrees: int


@pytest.fixture
def client(door: Door) -> Iterator[OpenAI]:
    with OpenAI(base_url=door.base_url, api_key=door.key, max_retries=0, timeout=20) as made:
        yield made


def over(client: OpenAI, id: str) -> Response:
    """The response, once it is over."""
    for _ in range(200):
        found = client.responses.retrieve(id)
        if found.status not in ("queued", "in_progress"):
            return found
    raise AssertionError("it never ended")


def test_responses(door: Door, client: OpenAI) -> None:
    made = client.responses.create(model=door.plain, input="Hello")
    assert made.output_text == SAID
    assert client.responses.retrieve(made.id) == made

    asked = client.responses.parse(model=door.echo, input=CITY, text_format=Weather)
    assert asked.output_parsed == Weather(city="Oslo", degrees=7)

    with client.responses.stream(model=door.thinking, input="Hello") as stream:
        kinds = [event.type for event in stream]
        assert stream.get_final_response().output_text == SAID
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"

    background = client.responses.create(model=door.plain, input="Hello", background=True)
    assert over(client, background.id).output_text == SAID
    assert client.responses.cancel(background.id).status == "completed"

    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


def test_a_stream_is_taken_up_where_it_was_left(door: Door, client: OpenAI) -> None:
    stream = client.responses.create(model=door.plain, input="Hello", background=True, stream=True)
    first = [next(stream) for _ in range(3)]
    stream.close()
    id = first[0].response.id  # type: ignore[union-attr]
    after = first[-1].sequence_number
    rest = list(client.responses.retrieve(id, stream=True, starting_after=after))
    numbers = [event.sequence_number for event in (*first, *rest)]
    assert numbers == list(range(len(numbers)))
    assert rest[-1].type == "response.completed"
    assert rest[-1].response.output_text == SAID


def test_input_items_are_paged(door: Door, client: OpenAI) -> None:
    said = [{"role": "user", "content": f"Part {n}"} for n in range(5)]
    made = client.responses.create(model=door.plain, input=said)  # type: ignore[arg-type]
    listed = client.responses.input_items.list(made.id, limit=2, order="asc")
    assert [item.content[0].text for item in listed] == [f"Part {n}" for n in range(5)]  # type: ignore[union-attr]


def test_what_no_server_of_ours_has_is_not_found(door: Door, client: OpenAI) -> None:
    """Kept completions, counting, compacting, deleting models: a clear error each, of the kind that the library knows."""
    tries: dict[str, Callable[[], Any]] = {
        "compact": lambda: client.responses.compact(model=door.plain, input="Hello"),
        "count": lambda: client.responses.input_tokens.count(model=door.plain, input="Hello"),
        "list": lambda: client.chat.completions.list(),
        "retrieve": lambda: client.chat.completions.retrieve("chatcmpl-1"),
        "update": lambda: client.chat.completions.update("chatcmpl-1", metadata={}),
        "delete": lambda: client.chat.completions.delete("chatcmpl-1"),
        "messages": lambda: client.chat.completions.messages.list("chatcmpl-1"),
        "delete model": lambda: client.models.delete(door.plain),
    }
    for name, attempt in tries.items():
        with pytest.raises(openai.APIStatusError) as caught:
            attempt()
        error = caught.value
        assert error.status_code in (404, 405), (name, error)
        assert error.code, (name, error)
        assert error.body["message"], (name, error)  # type: ignore[index]


def test_models(door: Door, client: OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert listed[door.plain] == client.models.retrieve(door.plain)
    assert listed[door.plain].owned_by not in ("", "None")


def test_chat_completions(door: Door, client: OpenAI) -> None:
    made = client.chat.completions.create(model=door.plain, messages=HELLO)
    assert made.choices[0].message.content == SAID
    parsed = client.chat.completions.parse(
        model=door.echo, messages=[{"role": "user", "content": CITY}], response_format=Weather
    )
    assert parsed.choices[0].message.parsed == Weather(city="Oslo", degrees=7)
    with client.chat.completions.stream(
        model=door.tools, messages=HELLO, stream_options={"include_usage": True}
    ) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].finish_reason == "tool_calls"
    assert final.usage is not None
    raw = client.chat.completions.with_raw_response.create(model=door.plain, messages=HELLO)
    assert raw.headers["x-request-id"]
    assert raw.parse().choices[0].message.content == SAID
    with client.chat.completions.with_streaming_response.create(
        model=door.plain, messages=HELLO, stream=True
    ) as streamed:
        assert any("[DONE]" in line for line in streamed.iter_lines())


def test_a_retry_is_answered_and_billed_once(door: Door, client: OpenAI) -> None:
    headers = {"Idempotency-Key": "the-same-call"}
    first, second = (
        client.responses.create(model=door.plain, input="Hello", extra_headers=headers)
        for _ in range(2)
    )
    assert first == second


def test_completions_and_embeddings(door: Door, client: OpenAI) -> None:
    assert client.completions.create(model=door.plain, prompt="Hello").choices[0].text == SAID
    streamed = client.completions.create(model=door.plain, prompt="Hello", stream=True)
    assert "".join(choice.text for chunk in streamed for choice in chunk.choices) == SAID
    vectors = client.embeddings.create(model=door.plain, input=["one", "two"])
    assert [one.embedding for one in vectors.data] == [[0.25, -0.5]] * 2
    for wish in ({}, {"encoding_format": "float"}):
        turned = client.embeddings.create(model=door.turned, input=["one", "two"], **wish)  # type: ignore[arg-type]
        assert [one.embedding for one in turned.data] == [[0.25, -0.5]] * 2


async def _at_once(door: Door) -> list[str]:
    async with AsyncOpenAI(
        base_url=door.base_url, api_key=door.key, max_retries=0, timeout=20
    ) as client:

        async def streamed() -> str:
            stream = await client.responses.create(model=door.plain, input="Hello", stream=True)
            return "".join(
                [e.delta async for e in stream if e.type == "response.output_text.delta"]
            )

        async def chat() -> str:
            made = await client.chat.completions.create(model=door.plain, messages=HELLO)
            return made.choices[0].message.content or ""

        async def held() -> str:
            made = await client.responses.create(model=door.thinking, input="Hello")
            return made.output_text

        calls: list[Awaitable[str]] = [streamed(), chat(), held()]
        calls += [chat() for _ in range(20)]
        return await asyncio.gather(*calls)


def test_many_calls_at_once(door: Door) -> None:
    assert set(asyncio.run(_at_once(door))) == {SAID}

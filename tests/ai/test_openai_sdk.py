"""The official client library, unchanged, against the gateway: what it reads must make sense to it."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import openai
import pytest
from openai import OpenAI

from tests.gateway import HELLO, PRICE, Account, Gateway


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    told = {"DWCTL_COSTS__HEADER": "true", "DWCTL_COSTS__STREAM_COMMENT": "true"}
    return environ | {"DWCTL_ONWARDS__STRICT_MODE": "true"} | told


def client_of(gateway: Gateway, key: str) -> OpenAI:
    return OpenAI(base_url=f"{gateway.url}/ai/v1", api_key=key, max_retries=0, timeout=20)


@pytest.fixture
def client(seeded: Gateway) -> Iterator[OpenAI]:
    with client_of(seeded, seeded.alice.key) as made:
        yield made


def test_chat(seeded: Gateway, client: OpenAI) -> None:
    answer = client.chat.completions.create(model=seeded.model("ok"), messages=HELLO)
    assert answer.choices[0].message.content == "Hello there friend"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 12
    assert answer.id == f"resp_{answer._request_id}"


def test_chat_stream(seeded: Gateway, client: OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=seeded.model("ok"),
            messages=HELLO,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    said = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(said) == "Hello there friend"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 12


def test_chat_with_the_stream_helper(seeded: Gateway, client: OpenAI) -> None:
    with client.chat.completions.stream(model=seeded.model("tools"), messages=HELLO) as stream:
        final = stream.get_final_completion()
    calls = final.choices[0].message.tool_calls
    assert calls
    assert calls[0].function.arguments == '{"city":"Oslo"}'


@pytest.mark.parametrize("surface", ["chat", "responses"])
@pytest.mark.parametrize(
    ("model", "cost"),
    [("ok", "0.015"), ("json-anyway", "0.015"), ("usage-1-1+cut", None), ("free", "0")],
)
def test_what_a_stream_cost_stands_before_its_end(
    seeded: Gateway, surface: str, model: str, cost: str | None
) -> None:
    """All tests of this module run with it: the library reads over comments."""
    call = seeded.chat if surface == "chat" else seeded.respond
    answer = call(seeded.model(model, price=None if model == "free" else PRICE), stream=True)
    text = answer.text
    (log,) = seeded.left(answer).logs
    wanted = cost or f"{log.total_cost:f}".rstrip("0")
    assert text.endswith(f"\n\n: cost {wanted}\n\ndata: [DONE]\n\n")
    assert text.count(": cost") == 1
    assert (log.total_cost or 0) == Decimal(wanted)


@pytest.mark.parametrize(
    ("model", "status", "cost"),
    [("ok", 200, "0.015"), ("fail-500", 500, "0"), ("error-in-200+usage-5-5", 502, "0")],
)
def test_what_a_call_cost_stands_in_a_header(
    seeded: Gateway, model: str, status: int, cost: str
) -> None:
    answer = seeded.chat(seeded.model(model))
    assert (answer.status_code, answer.headers["x-dwctl-cost"]) == (status, cost)
    assert [charge.amount for charge in seeded.left(answer).charges] == ([Decimal(cost)] if status == 200 else [])  # fmt: skip


def test_completions(seeded: Gateway, client: OpenAI) -> None:
    model = seeded.model("ok")
    answer = client.completions.create(model=model, prompt="Hello")
    assert answer.choices[0].text == "Hello there friend"
    streamed = client.completions.create(model=model, prompt="Hello", stream=True)
    assert "".join(c.text for chunk in streamed for c in chunk.choices) == "Hello there friend"


def test_embeddings(seeded: Gateway, client: OpenAI) -> None:
    # The library asks for base64 by itself.
    answer = client.embeddings.create(model=seeded.model("ok"), input=["one", "two"])
    assert [row.embedding for row in answer.data] == [[0.25, -0.5], [0.25, -0.5]]
    assert answer.usage.total_tokens == 9


def test_responses(seeded: Gateway, client: OpenAI) -> None:
    made = client.responses.create(model=seeded.model("ok"), input="Hello")
    assert made.output_text == "Hello there friend"
    assert client.responses.retrieve(made.id).output_text == made.output_text
    kinds = [
        event.type for event in client.responses.create(model="ok", input="Hello", stream=True)
    ]
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"


def test_a_stored_response_is_streamed_again(seeded: Gateway, client: OpenAI) -> None:
    made = client.responses.create(model=seeded.model("ok"), input="Hello")
    *_, last = client.responses.retrieve(made.id, stream=True)
    assert last.type == "response.completed"
    assert (last.response.id, last.response.output_text) == (made.id, made.output_text)
    assert (
        client.responses.retrieve(made.id, include=["message.output_text.logprobs"]).id == made.id
    )


def test_models(seeded: Gateway, client: OpenAI) -> None:
    model = seeded.model("ok", alias="team/ok")
    assert model in [found.id for found in client.models.list()]
    found = client.models.retrieve(model)
    assert found.id == model
    assert found.created > 1_700_000_000


def test_refusals_are_the_exceptions_that_callers_catch(seeded: Gateway, client: OpenAI) -> None:
    ok = seeded.model("ok")
    with client_of(seeded, "sk-wrong") as stranger, pytest.raises(openai.AuthenticationError):
        stranger.models.list()
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="no-such-model", messages=HELLO)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no-such-model")
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model=ok, messages=HELLO, service_tier="gold")  # type: ignore[call-overload]
    assert wrong.value.param == "service_tier"
    with pytest.raises(openai.PermissionDeniedError):
        client.chat.completions.create(model=_blocked(seeded), messages=HELLO)
    with (
        client_of(seeded, _poor(seeded).key) as poor,
        pytest.raises(openai.APIStatusError) as owing,
    ):
        poor.chat.completions.create(model=ok, messages=HELLO)
    assert (owing.value.status_code, owing.value.type) == (402, "insufficient_quota")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (404, openai.NotFoundError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
def test_errors_of_the_upstream_are_the_exceptions_that_callers_catch(
    seeded: Gateway, client: OpenAI, status: int, error: type[openai.APIStatusError]
) -> None:
    for stream in (False, True):
        with pytest.raises(error) as raised:
            client.chat.completions.create(
                model=seeded.model(f"fail-{status}"), messages=HELLO, stream=stream
            )
        assert raised.value.status_code == status
        assert raised.value.request_id


def test_a_stream_that_breaks_raises(seeded: Gateway, client: OpenAI) -> None:
    for trait in ("cut", "error-in-stream", "cut-reset"):
        stream = client.chat.completions.create(
            model=seeded.model(trait), messages=HELLO, stream=True
        )
        with pytest.raises(openai.APIError):
            list(stream)


def _blocked(gateway: Gateway) -> str:
    rule = {"api_key_purpose": "realtime", "action": {"type": "deny"}}
    return gateway.model("ok", traffic_routing_rules=[rule])


def _poor(gateway: Gateway) -> Account:
    return gateway.account(None)

from decimal import Decimal
from uuid import UUID

import orjson
import pytest

from dwctl.billing.estimates import Estimate, estimate
from dwctl.billing.tariffs import TariffPrice
from dwctl.protocols.asked import Asked
from dwctl.protocols.bounds import most_read
from dwctl.protocols.forwarded import Forwarded
from dwctl.protocols.surfaces import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, Surface

PRICE = TariffPrice(Decimal("0.01"), Decimal("0.5"))
MESSAGES = [{"role": "user", "content": "x" * 400}]


def of(surface: Surface, price: TariffPrice | None = PRICE, *, length: int | None = None, **body: object) -> Estimate:  # fmt: skip
    asked = Asked(surface, orjson.dumps(body), body, "m", UUID(int=1), 0.0)
    return estimate(asked, price, context_length=length, output_tokens=1000)


def test_a_request_that_says_how_much_it_wants_is_bounded() -> None:
    found = of(CHAT, messages=MESSAGES, max_tokens=10)
    most_prompt = most_read({"messages": MESSAGES, "max_tokens": 10})
    assert found == Estimate(
        prompt_tokens=100,
        most_prompt_tokens=most_prompt,
        most_output_tokens=10,
        is_bounded=True,
        least=Decimal("1"),
        most=most_prompt * Decimal("0.01") + Decimal("5"),
    )


@pytest.mark.parametrize(("length", "expected"), [(None, 2000), (8192, 16384)])
def test_without_a_bound_the_model_decides_and_then_the_setting(
    length: int | None, expected: int
) -> None:
    found = of(CHAT, messages=MESSAGES, n=2, length=length)
    assert (found.most_output_tokens, found.is_bounded) == (expected, False)


@pytest.mark.parametrize(
    ("surface", "name"),
    [
        (CHAT, "max_output_tokens"),
        (COMPLETIONS, "max_completion_tokens"),
        (RESPONSES, "max_tokens"),
        (RESPONSES, "max_completion_tokens"),
        (Forwarded("POST", "images/generations", "application/json"), "max_tokens"),
    ],
)
def test_a_bound_of_another_protocol_bounds_nothing(surface: Surface, name: str) -> None:
    """Servers overlook it: whoever said 1 would hold next to nothing, for as many calls at once as they like."""
    found = of(surface, messages=MESSAGES, **{name: 1})
    assert (found.most_output_tokens, found.is_bounded) == (1000, False)


def test_messages_are_bounded_as_their_protocol_wants_it() -> None:
    surface = Forwarded("POST", "messages", "application/json")
    assert of(surface, messages=MESSAGES, max_tokens=7).most_output_tokens == 7


def test_embeddings_write_nothing() -> None:
    found = of(EMBEDDINGS, input="x" * 400, length=8192)
    assert (found.most_output_tokens, found.is_bounded) == (0, True)


def test_a_free_call_costs_nothing() -> None:
    found = of(CHAT, None, messages=MESSAGES)
    assert (found.least, found.most) == (0, 0)


@pytest.mark.parametrize(
    ("cached", "reasoning", "least", "most_output"),
    [("0.001", "2", "0.1", "20"), ("0.1", "0.1", "1", "5")],
    ids=["cheap cache, dear reasoning", "dear cache, cheap reasoning"],
)
def test_bounds_hold_whatever_is_cached_or_reasoned(
    cached: str, reasoning: str, least: str, most_output: str
) -> None:
    price = TariffPrice(Decimal("0.01"), Decimal("0.5"), Decimal(cached), Decimal(reasoning))
    found = of(CHAT, price, messages=MESSAGES, max_tokens=10)
    assert found.least == Decimal(least)
    dearest = max(Decimal(cached), Decimal("0.01"))
    assert found.most == found.most_prompt_tokens * dearest + Decimal(most_output)

"""Which limits a call must pass, and what it is expected to use."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from dwctl.ai.admission import Admitted, admit, component_demands, demands_of, tokens_of
from dwctl.catalog.routing import Key, Limits, Model, Rule
from dwctl.limits.demands import Whose
from tests.ai.values import a_key, a_model, a_request, a_routing

RATE, PLACES, TOKENS = (
    Limits(requests_per_second=2.0),
    Limits(capacity=3),
    Limits(tokens_per_minute=100),
)
NOTHING = Limits()
BURST_ALONE = Limits(burst_size=5)


def admitted(
    model: Model, key: Key, *others: Model, queued: bool = False, **content: Any
) -> Admitted:
    request = msgspec.structs.replace(a_request(alias=model.alias, **content), queued=queued)
    return admit(a_routing(model, *others, funded=(key,)), key, request, strict=False)


@pytest.mark.parametrize(
    ("of_model", "of_key", "queued", "whose"),
    [
        (NOTHING, NOTHING, False, []),
        (BURST_ALONE, BURST_ALONE, False, []),
        (RATE, NOTHING, False, ["model"]),
        (NOTHING, RATE, False, ["key"]),
        (PLACES, TOKENS, False, ["model", "key"]),
        (PLACES, TOKENS, True, ["model"]),
        (NOTHING, RATE, True, []),
    ],
)
def test_a_call_meets_the_models_limits_then_its_keys_and_queued_work_the_models_alone(
    of_model: Limits, of_key: Limits, queued: bool, whose: list[str]
) -> None:
    model, key = a_model(limits=of_model), replace(a_key(), limits=of_key)
    found = demands_of(admitted(model, key, queued=queued))
    assert [one.whose for one in found] == whose
    ids = {"model": model.id, "key": key.id}
    assert [one.subject for one in found] == [f"{each}:{ids[each]}" for each in whose]


def test_a_redirected_call_meets_the_limits_of_the_model_that_serves_it() -> None:
    other = a_model("other", limits=RATE)
    model = a_model("asked", limits=PLACES, rules={"realtime": Rule("other")})
    found = demands_of(admitted(model, a_key(), other))
    assert [one.subject for one in found] == [f"model:{other.id}"]


def test_a_component_is_counted_apart_from_its_own_alias() -> None:
    composite, component = a_model("both"), a_model("one", limits=PLACES)
    (found,) = component_demands(composite, component)
    assert found.whose is Whose.COMPONENT
    assert found.subject == f"component:{composite.id}/{component.id}"
    assert found.capacity == 3
    assert component_demands(composite, a_model("free", id=uuid4())) == []


@pytest.mark.parametrize(
    ("content", "above_the_prompt"),
    [
        ({}, 0),
        ({"max_tokens": 500}, 500),
        ({"max_completion_tokens": 500}, 500),
        ({"max_output_tokens": 500}, 0),
        ({"max_tokens": 5, "max_completion_tokens": 500}, 500),
        ({"max_tokens": 500, "n": 3}, 1500),
        ({"max_tokens": 500, "n": 0}, 500),
        ({"max_tokens": -500}, 0),
        ({"max_tokens": "500"}, 500),
        ({"max_tokens": 500.0, "n": "2"}, 1000),
        ({"max_tokens": True}, 0),
        ({"max_tokens": "many"}, 0),
        ({"max_tokens": 1e18}, 2**31),
        ({"max_tokens": None, "n": None}, 0),
        ({"max_tokens": 2**62}, 2**31),
        ({"max_tokens": 2**62, "n": 2**62}, 2**31),
    ],
    ids=str,
)
def test_the_estimate_is_the_prompt_and_as_much_of_an_answer_as_is_allowed(
    content: dict[str, Any], above_the_prompt: int
) -> None:
    model, key = a_model(limits=TOKENS), a_key()
    call = admitted(model, key, **content)
    estimate = tokens_of(call, demands_of(call))
    bare = admitted(model, key)
    prompt = tokens_of(bare, demands_of(bare))
    assert 0 < prompt < 20
    assert estimate == min(prompt + above_the_prompt, 2**31 - 1)


def test_what_a_call_continues_is_part_of_its_prompt() -> None:
    model, key = a_model(limits=TOKENS), a_key()
    call = admitted(model, key)
    asked = call.request.asked
    told = msgspec.structs.replace(asked, told={**asked.content, "input": "x" * 4000})
    request = msgspec.structs.replace(call.request, asked=told)
    continuing = msgspec.structs.replace(call, request=request)
    assert tokens_of(continuing, demands_of(call)) == tokens_of(call, demands_of(call)) + 1000


def test_nothing_is_estimated_where_no_limit_counts_tokens() -> None:
    call = admitted(a_model(limits=RATE), a_key(), max_tokens=500)
    assert tokens_of(call, demands_of(call)) == 0


def test_the_estimate_is_of_all_that_the_model_reads() -> None:
    call = admitted(a_model(limits=TOKENS), a_key(), max_tokens=500)
    turn = {"role": "user", "content": "something said before " * 100}
    told = call.request.asked.content | {"messages": [turn] * 10}
    asked = msgspec.structs.replace(call.request.asked, told=told)
    with_turns = msgspec.structs.replace(
        call, request=msgspec.structs.replace(call.request, asked=asked)
    )
    demands = demands_of(call)
    assert tokens_of(with_turns, demands) > tokens_of(call, demands) + 3000

from typing import Any

import pytest

from dwctl.catalog import metadata


@pytest.mark.parametrize(
    ("given", "length"),
    [
        ({"context_window": 8192}, 8192),
        ({"context_length": 4096, "context_window": 8192}, 4096),
        ({"max_model_len": 32768}, 32768),
        ({"max_context_length": 1}, 1),
        ({"extra": {"max_model_len": 2048}}, 2048),
        ({"context_window": 10, "extra": {"context_length": 20}}, 10),
        ({"context_length": 0, "max_model_len": 7}, 7),
        ({"context_window": 8192.0}, 8192),
        ({"context_window": 2**53}, 2**53),
        ({"context_window": 2**53 + 1}, None),
        ({"context_window": 8192.5}, None),
        ({"context_window": 1e300}, None),
        ({"context_window": float("inf")}, None),
        ({"context_window": float("nan")}, None),
        ({"context_window": -1}, None),
        ({"context_window": True}, None),
        ({"context_window": "8192"}, None),
        ({"context_window": [8192]}, None),
        ({"context_window": None}, None),
        ({"extra": [1]}, None),
        ({"extra": None}, None),
        ({}, None),
        ([], None),
        ("text", None),
        (None, None),
    ],
    ids=str,
)
def test_the_context_length_is_a_positive_whole_number(given: Any, length: int | None):
    assert metadata.context_length(given) == length


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"reasoning_input": "reasoning_content"}, "reasoning_content"),
        ({"extra": {"reasoning_input": "reasoning"}}, "reasoning"),
        ({"reasoning_input": "content"}, None),
        ({"reasoning_input": True}, None),
        ({"reasoning_input": ["reasoning"]}, None),
        ({}, None),
        (None, None),
    ],
    ids=str,
)
def test_reasoning_goes_back_under_a_known_name_or_not_at_all(given: Any, name: str | None):
    assert metadata.reasoning_input(given) == name


@pytest.mark.parametrize(
    ("given", "owner"),
    [
        ({"provider": "acme"}, "acme"),
        ({"provider": " acme "}, "acme"),
        ({"provider": " "}, "dwctl"),
        ({"provider": 5}, "dwctl"),
        ({"provider": None}, "dwctl"),
        ({}, "dwctl"),
        ([], "dwctl"),
        (None, "dwctl"),
    ],
    ids=str,
)
def test_an_owner_is_always_a_name(given: Any, owner: str):
    assert metadata.owner(given) == owner

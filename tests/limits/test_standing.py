"""What is set becomes demands; what is left becomes headers and refusals. Pure."""

from __future__ import annotations

from typing import Any

import pytest

from dwctl.limits.demands import Demand, Whose, demand
from dwctl.limits.standing import Kind, LimitReached, duration, headers_of

MADE: list[tuple[dict[str, Any], tuple[float | None, float | None, int | None, float | None]]] = [
    ({"requests_per_second": 5.0}, (5, 5, None, None)),
    ({"requests_per_second": 0.01}, (0.01, 1, None, None)),
    ({"requests_per_second": 2.5}, (2.5, 3, None, None)),
    ({"requests_per_second": 0.01, "burst_size": 5}, (0.01, 5, None, None)),
    ({"requests_per_second": 5.0, "burst_size": 1}, (5, 1, None, None)),
    ({"requests_per_second": 5.0, "burst_size": 0}, (5, 5, None, None)),
    ({"requests_per_second": 5.0, "burst_size": -3}, (5, 5, None, None)),
    ({"requests_per_second": 1e-300}, (1e-9, 1, None, None)),
    ({"requests_per_second": 1e15}, (1e9, 1e9, None, None)),
    ({"requests_per_second": 1.0, "burst_size": 2**53}, (1, 1e15, None, None)),
    ({"capacity": 1}, (None, None, 1, None)),
    ({"capacity": 2**53}, (None, None, 2**31 - 1, None)),
    ({"tokens_per_minute": 1000}, (None, None, None, 1000)),
    ({"tokens_per_minute": 2**53}, (None, None, None, 1e15)),
    (
        {"requests_per_second": 1.0, "capacity": 2, "tokens_per_minute": 3},
        (1, 1, 2, 3),
    ),
]
NO_LIMIT: list[dict[str, Any]] = [
    {},
    {"burst_size": 5},
    {"requests_per_second": 0.0},
    {"requests_per_second": -1.0, "burst_size": 5},
    {"capacity": 0},
    {"capacity": -1},
    {"tokens_per_minute": 0},
    {"tokens_per_minute": -5},
]


@pytest.mark.parametrize(("limits", "made"), MADE)
def test_what_is_set_becomes_a_demand(limits: dict[str, Any], made: tuple[Any, ...]) -> None:
    found = demand(Whose.KEY, "k", **limits)
    assert found == (Whose.KEY, "key:k", *made)


@pytest.mark.parametrize("limits", NO_LIMIT, ids=str)
def test_what_is_no_limit_is_no_demand(limits: dict[str, Any]) -> None:
    assert demand(Whose.MODEL, "m", **limits) is None


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (-1, "0s"),
        (0, "0s"),
        (0.0001, "1ms"),
        (0.012, "12ms"),
        (0.9991, "1s"),
        (1, "1s"),
        (1.5, "1.5s"),
        (59.999, "59.999s"),
        (60, "1m0s"),
        (90.2, "1m31s"),
        (360, "6m0s"),
        (3600, "1h0m0s"),
        (7400, "2h3m20s"),
        (1e30, "8760h0m0s"),
    ],
)
def test_a_duration_is_written_as_openai_does(seconds: float, written: str) -> None:
    assert duration(seconds) == written


def a(
    whose: Whose = Whose.MODEL,
    rate: float | None = None,
    burst: float | None = None,
    capacity: int | None = None,
    per_minute: float | None = None,
) -> Demand:
    return Demand(whose, "s", rate, burst, capacity, per_minute)


def test_headers_are_those_of_the_bucket_with_the_least_in_it() -> None:
    demands = [a(rate=10, burst=100, per_minute=600), a(Whose.KEY, rate=0.5, burst=5, capacity=3)]
    found = headers_of(demands, [40.5, 2.0], [60.0, None])
    assert dict(found) == {
        "x-ratelimit-limit-requests": "5",
        "x-ratelimit-remaining-requests": "2",
        "x-ratelimit-reset-requests": "6s",
        "x-ratelimit-limit-tokens": "600",
        "x-ratelimit-remaining-tokens": "60",
        "x-ratelimit-reset-tokens": "54s",
    }


def test_what_is_left_is_never_shown_below_nothing() -> None:
    found = dict(headers_of([a(per_minute=60)], [None], [-30.0]))
    assert found["x-ratelimit-remaining-tokens"] == "0"
    assert found["x-ratelimit-reset-tokens"] == "1m30s"


@pytest.mark.parametrize(
    "demands",
    [[], [a(capacity=5)], [a(Whose.COMPONENT, rate=1, burst=1, per_minute=5)]],
    ids=["none", "places", "component"],
)
def test_without_a_bucket_of_the_callers_there_are_no_headers(demands: list[Demand]) -> None:
    assert headers_of(demands, [1.0] * len(demands), [1.0] * len(demands)) == []


@pytest.mark.parametrize("whose", list(Whose))
@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("wait_s", [0.0, 0.2, 1.0, 12.3, 1e12])
def test_a_refusal_says_whose_limit_it_is_and_when_to_come_back(
    whose: Whose, kind: Kind, wait_s: float
) -> None:
    refusal = LimitReached(a(whose, 2.5, 7, 3, 900), kind, wait_s, [("x-a", "b")])
    assert refusal.status == 429
    assert (
        refusal.code
        == {1: "rate_limit", 2: "concurrency_limit_exceeded", 3: "tokens_per_minute"}[kind]
    )
    assert refusal.retry_after_s == {0.0: 1, 0.2: 1, 1.0: 1, 12.3: 13, 1e12: 31_536_000}[wait_s]
    assert {"model": "model", "key": "API key", "component": "component"}[whose] in refusal.message
    assert {1: "2.5 a second, and 7 at once", 2: "3 at once", 3: "900 a minute"}[
        kind
    ] in refusal.message
    assert refusal.headers == [("x-a", "b")]
    assert refusal.retryable

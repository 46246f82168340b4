"""Which target is tried next."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from dwctl.ai.selection import Selection, Standing, components_of
from dwctl.catalog.routing import Component, Fallback, Model, Strategy
from tests.ai.values import a_model, a_pool, a_target

READY, LEFT_OUT, RESTING = Standing.READY, Standing.LEFT_OUT, Standing.RESTING
WEIGHTED, PRIORITY = Strategy.WEIGHTED_RANDOM, Strategy.PRIORITY


def pool(names: str, weights: tuple[int, ...] = (), *, strategy: Strategy = PRIORITY, **how: object) -> Model:  # fmt: skip
    targets = [a_target(name) for name in names]
    return a_pool(*targets, weights=weights, strategy=strategy, fallback=Fallback(**how))  # type: ignore[arg-type]


def name(component: Component) -> str:
    assert component.model.target is not None
    return component.model.target.model_name


def order(model: Model, *, seed: int = 0, **standings: Standing) -> str:
    """The targets that a call tries whose attempts all fail; `standings` of those that do not stand ready."""
    selection = Selection(model, random.Random(seed))
    found = ""
    while chosen := selection.next(lambda one: standings.get(name(one), READY)):
        found += name(chosen)
        assert len(found) < 100
    return found


@pytest.mark.parametrize(
    ("how", "standings", "found"),
    [
        ({}, {}, "abc"),
        ({"enabled": False}, {}, "a"),
        ({"enabled": False, "max_attempts": 5}, {}, "a"),
        ({"max_attempts": 1}, {}, "a"),
        ({"max_attempts": 2}, {}, "ab"),
        ({"max_attempts": 3}, {}, "abc"),
        ({"max_attempts": 5}, {}, "abcab"),
        ({"max_attempts": 7}, {}, "abcabca"),
        ({"with_replacement": True}, {}, "abc"),
        ({}, {"a": LEFT_OUT}, "bca"),
        ({}, {"a": LEFT_OUT, "b": LEFT_OUT}, "cab"),
        ({}, {"a": LEFT_OUT, "b": LEFT_OUT, "c": LEFT_OUT}, "abc"),
        ({"enabled": False}, {"a": LEFT_OUT}, "b"),
        ({"enabled": False}, {"a": LEFT_OUT, "b": LEFT_OUT, "c": LEFT_OUT}, "a"),
        ({}, {"a": RESTING}, "bc"),
        ({}, {"a": RESTING, "b": RESTING, "c": RESTING}, ""),
        ({}, {"a": RESTING, "b": LEFT_OUT}, "cb"),
        ({"max_attempts": 5}, {"b": RESTING}, "acaca"),
        ({"max_attempts": 4}, {"b": LEFT_OUT}, "acba"),
    ],
)
def test_the_order_of_priority(
    how: dict[str, object], standings: dict[str, Standing], found: str
) -> None:
    assert order(pool("abc", **how), **standings) == found


def test_priority_is_by_order_then_by_weight_then_by_age() -> None:
    def part(name: str, weight: int, sort_order: int) -> Component:
        return Component(a_model(name, target=a_target(name)), weight, sort_order)

    parts = (part("a", 1, 2), part("b", 1, 1), part("c", 5, 1), part("d", 5, 1), part("e", 1, 0))
    model = a_model(is_composite=True, target=None, components=parts, strategy=PRIORITY)
    assert order(model) == "ecdba"


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        ((1, 1), (0.5, 0.5)),
        ((1, 3), (0.25, 0.75)),
        ((100, 1, 99), (0.5, 0.005, 0.495)),
        ((7,), (1.0,)),
        ((0, 5), (0.0, 1.0)),
        ((0, 0), (0.5, 0.5)),
    ],
    ids=str,
)
def test_weighted_random_is_random_in_proportion_to_weight(
    weights: tuple[int, ...], shares: tuple[float, ...]
) -> None:
    model = pool("abcd"[: len(weights)], weights, strategy=WEIGHTED)
    rng = random.Random(7)
    picked: Counter[str] = Counter()
    for _ in range(20_000):
        chosen = Selection(model, rng).next(lambda _one: READY)
        assert chosen is not None
        picked[name(chosen)] += 1
    for one, share in zip("abcd", shares, strict=False):
        assert picked[one] / 20_000 == pytest.approx(share, abs=0.012)


def test_a_later_choice_is_in_proportion_among_those_that_are_left() -> None:
    model = pool("abc", (8, 1, 1), strategy=WEIGHTED)
    seconds = Counter(order(model, seed=seed)[1] for seed in range(4000))
    # After a (8 in 10), b and c are as likely; after b or c, a is 8 in 9.
    assert seconds["b"] / 4000 == pytest.approx(0.8 / 2 + 0.1 / 9, abs=0.03)
    assert seconds["a"] / 4000 == pytest.approx(0.2 * 8 / 9, abs=0.03)


@pytest.mark.parametrize("seed", range(20))
def test_without_replacement_each_is_tried_once_in_a_round(seed: int) -> None:
    found = order(pool("abc", (9, 1, 1), strategy=WEIGHTED, max_attempts=6), seed=seed)
    assert sorted(found[:3]) == sorted(found[3:]) == ["a", "b", "c"]


def test_with_replacement_one_may_be_picked_again() -> None:
    model = pool("ab", (9, 1), strategy=WEIGHTED, with_replacement=True)
    found = {order(model, seed=seed) for seed in range(100)}
    assert found == {"aa", "ab", "ba", "bb"} or found == {"aa", "ab", "ba"}
    assert all(len(one) == 2 for one in found)


def test_what_cannot_be_called_is_no_component() -> None:
    model = pool("ab")
    dead = Component(a_model("dead", target=None))
    more = a_model(is_composite=True, target=None, components=(dead, *model.components))
    assert [name(one) for one in components_of(more)] == ["a", "b"]
    assert components_of(a_model(is_composite=True, target=None, components=(dead,))) == []
    assert components_of(a_model(target=None)) == ()
    assert order(a_model(is_composite=True, target=None)) == ""

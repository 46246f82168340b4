"""Which targets had better not be called now."""

from __future__ import annotations

import logging

import pytest

from dwctl.config import Circuit
from dwctl.upstream.health import LONGEST_REST_S, Health
from tests.ai.values import a_target


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(Circuit(failures=3, open_for=30.0), clock)


TARGET, OTHER = a_target("a"), a_target("b")


def fail(health: Health, times: int = 1) -> None:
    for _ in range(times):
        health.begins(TARGET)
        health.failed_with(TARGET, "upstream_unreachable")


def test_it_is_left_out_after_so_many_failures_in_a_row(health: Health) -> None:
    fail(health, 2)
    assert not health.is_left_out(TARGET)
    health.answered(TARGET)
    fail(health, 2)
    assert not health.is_left_out(TARGET)
    fail(health)
    assert health.is_left_out(TARGET)
    assert not health.is_left_out(OTHER)
    assert list(health.left_out()) == [(TARGET.endpoint_name, "a")]
    assert health.failed[TARGET.endpoint_name, "a", "upstream_unreachable"] == 5


def test_a_refusal_is_no_failure(health: Health) -> None:
    fail(health, 2)
    health.refused(TARGET, "http_429")
    fail(health, 2)
    assert not health.is_left_out(TARGET)


@pytest.mark.parametrize("after", ["answers", "fails", "gives up"])
def test_one_call_finds_out_whether_it_still_fails(
    health: Health, clock: Clock, after: str
) -> None:
    fail(health, 3)
    clock.now += 29.9
    assert health.is_left_out(TARGET)
    clock.now += 0.2
    assert not health.is_left_out(TARGET)
    health.begins(TARGET)
    assert health.is_left_out(TARGET)  # to all others
    if after == "answers":
        health.answers(TARGET)
        assert not health.is_left_out(TARGET)
        health.failed_with(TARGET, "stream_broken")  # one more is enough
        assert health.is_left_out(TARGET)
        clock.now += 31
        health.begins(TARGET)
        health.answered(TARGET)
        fail(health, 2)
        assert not health.is_left_out(TARGET)
    elif after == "fails":
        health.failed_with(TARGET, "upstream_unreachable")
        assert health.is_left_out(TARGET)
        clock.now += 31
        assert not health.is_left_out(TARGET)
    else:
        health.gave_up(TARGET)
        assert not health.is_left_out(TARGET)


def test_who_calls_it_all_the_same_is_no_probe(health: Health, clock: Clock) -> None:
    fail(health, 3)
    health.begins(TARGET)
    clock.now += 31
    assert not health.is_left_out(TARGET)


def test_no_number_of_failures_leaves_it_out_where_that_is_switched_off(clock: Clock) -> None:
    health = Health(Circuit(failures=0), clock)
    fail(health, 100)
    assert not health.is_left_out(TARGET)


def test_a_change_is_logged_once(
    health: Health, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dwctl.upstream.health")
    fail(health, 6)
    clock.now += 31
    health.begins(TARGET)
    health.answered(TARGET)
    health.answered(TARGET)
    assert [record.message for record in caplog.records] == [
        "target keeps failing",
        "target answers again",
    ]
    assert caplog.records[0].__dict__["endpoint"] == TARGET.endpoint_name


def test_it_rests_for_as_long_as_it_said(health: Health, clock: Clock) -> None:
    health.rests(TARGET, 7.0, 429)
    assert (health.rests_for(TARGET), health.asked_for_rest_with(TARGET)) == (7.0, 429)
    assert health.rests_for(OTHER) == 0.0
    clock.now += 6.9
    assert health.rests_for(TARGET) > 0
    clock.now += 0.2
    assert health.rests_for(TARGET) == 0.0
    health.rests(TARGET, 1e6, 503)
    assert health.rests_for(TARGET) == pytest.approx(LONGEST_REST_S)


def test_calls_that_end_meanwhile_do_not_end_its_rest(health: Health, clock: Clock) -> None:
    fail(health, 2)
    health.refused(TARGET, "http_429")
    health.rests(TARGET, 7.0, 429)
    health.answered(TARGET)
    health.refused(TARGET, "http_400")
    assert (health.rests_for(TARGET), health.asked_for_rest_with(TARGET)) == (7.0, 429)
    fail(health, 2)
    assert not health.is_left_out(TARGET)
    clock.now += 7
    health.answered(TARGET)
    assert health.rests_for(TARGET) == 0.0


def test_what_is_known_is_bounded(health: Health) -> None:
    for _ in range(3000):
        health.failed_with(a_target("a"), "x")
    assert len(health._states) <= 1000

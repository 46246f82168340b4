"""What accounts may hold at once, as values: no process, no database."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID, uuid4

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwctl.ai.holdings import Full, Holdings, Kind, TooMany
from dwctl.config import AccountLimits, ProcessLimits

ALICE, BOB = uuid4(), uuid4()


def holdings(
    account: AccountLimits | None = None,
    process: ProcessLimits | None = None,
    count: Callable[[UUID], int] = lambda _owner: 0,
) -> Holdings:
    return Holdings(account or AccountLimits(), process or ProcessLimits(), count)


@pytest.mark.parametrize("kind", [Kind.REALTIME, Kind.BACKGROUND])
def test_an_account_may_hold_as_much_as_its_limit_and_no_more(kind: Kind) -> None:
    here = holdings(AccountLimits(realtime=2, background=2))
    holds = [here.begin(ALICE) for _ in range(2)]
    for hold in holds:
        hold.take(kind)
    with pytest.raises(TooMany) as refused:
        here.begin(ALICE).take(kind)
    assert (refused.value.status, refused.value.code) == (429, "too_many_concurrent_requests")
    assert refused.value.retry_after_s
    assert "2" in refused.value.message
    here.begin(BOB).take(kind)
    holds[0].release()
    here.begin(ALICE).take(kind)


def test_a_full_process_refuses_everybody_with_503() -> None:
    here = holdings(process=ProcessLimits(realtime=1))
    hold = here.begin(ALICE)
    hold.take(Kind.REALTIME)
    with pytest.raises(Full) as refused:
        here.begin(BOB).take(Kind.REALTIME)
    assert (refused.value.status, refused.value.retry_after_s) == (503, 5)
    hold.release()
    here.begin(BOB).take(Kind.REALTIME)


def test_bytes_are_counted_by_their_number() -> None:
    here = holdings(AccountLimits(buffered_bytes=100))
    here.begin(ALICE).take(Kind.BYTES, 60)
    with pytest.raises(TooMany):
        here.begin(ALICE).take(Kind.BYTES, 41)
    here.begin(ALICE).take(Kind.BYTES, 40)


def test_what_was_refused_is_not_held() -> None:
    here = holdings(AccountLimits(buffered_bytes=10))
    hold = here.begin(ALICE)
    with pytest.raises(TooMany):
        hold.take(Kind.BYTES, 11)
    assert here.counts[Kind.BYTES].total == 0
    hold.take(Kind.BYTES, 10)


def test_zero_switches_a_limit_off() -> None:
    here = holdings(AccountLimits(realtime=0, queued=0), ProcessLimits(realtime=0), lambda _: 10**9)
    for _ in range(20_000):
        here.begin(ALICE).take(Kind.REALTIME)
    here.check_queued(ALICE)


def test_calls_that_count_at_the_same_moment_let_in_no_more_than_the_limit() -> None:
    def count(_owner: UUID) -> int:
        gevent.sleep(0.01)  # what the database takes
        return 0

    here = holdings(AccountLimits(queued=3), count=count)
    calls = [gevent.spawn(here.check_queued, ALICE) for _ in range(10)]
    gevent.joinall(calls)
    assert sum(call.successful() for call in calls) == 3


def test_queued_requests_are_counted_once_a_second_and_added_to_meanwhile() -> None:
    asked: list[UUID] = []

    def count(owner: UUID) -> int:
        asked.append(owner)
        return 3

    here = holdings(AccountLimits(queued=5), count=count)
    here.check_queued(ALICE)
    here.check_queued(ALICE)
    with pytest.raises(TooMany) as refused:
        here.check_queued(ALICE)
    assert (refused.value.status, refused.value.code) == (429, "too_many_queued_requests")
    assert asked == [ALICE]
    here.check_queued(BOB)
    assert asked == [ALICE, BOB]


@given(
    st.lists(
        st.tuples(st.sampled_from([ALICE, BOB]), st.sampled_from(Kind), st.integers(0, 50)),
        max_size=60,
    )
)
def test_whatever_is_taken_and_given_back_nothing_stays(
    taken: list[tuple[UUID, Kind, int]],
) -> None:
    here = holdings(AccountLimits(20, 20, 0, 200), ProcessLimits(30, 30, 300))
    holds = []
    for owner, kind, amount in taken:
        hold = here.begin(owner)
        holds.append(hold)
        try:
            hold.take(kind, amount)
        except (TooMany, Full):
            continue
    assert here.counts[Kind.BYTES].total <= 300
    for hold in holds:
        hold.release()
        hold.release()
    assert not any(count.total for count in here.counts.values())
    here.begin(ALICE).take(Kind.BYTES, 200)

"""Large bodies wait for room, and none is lost in waiting."""

from __future__ import annotations

import gevent

from dwctl.worker.large_bodies import LargeBodies


def never() -> bool:
    return False


def test_those_that_do_not_fit_wait_for_one_to_go() -> None:
    bodies, came = LargeBodies(10), []

    def run(size: int) -> None:
        assert bodies.take(size, never)
        came.append(size)

    waiting = [gevent.spawn(run, size) for size in (6, 4, 5, 3)]
    gevent.sleep(0.01)
    assert came == [6, 4]
    bodies.give_back(6)
    gevent.joinall(waiting[:3])
    gevent.sleep(0.01)
    assert came == [6, 4, 5]
    bodies.give_back(4)
    gevent.joinall(waiting)
    assert came == [6, 4, 5, 3]


def test_one_that_is_larger_than_all_gets_in_alone() -> None:
    bodies = LargeBodies(10)
    assert bodies.take(99, never)
    other = gevent.spawn(bodies.take, 1, never)
    gevent.sleep(0.01)
    assert not other.ready()
    bodies.give_back(99)
    assert other.get() is True


def test_who_gives_up_takes_nothing() -> None:
    bodies = LargeBodies(10)
    assert bodies.take(10, never)
    assert bodies.take(1, lambda: True) is False
    bodies.give_back(10)
    assert bodies.take(10, lambda: True)


def test_without_a_bound_all_get_in() -> None:
    bodies = LargeBodies(0)
    assert all(bodies.take(2**40, never) for _ in range(3))

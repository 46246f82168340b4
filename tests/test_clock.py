"""The clock that follows the database's where the two are far apart."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from copy import copy
from datetime import UTC, datetime
from functools import reduce
from operator import or_
from uuid import RFC_4122, UUID

import pytest

from dwctl import clock


@pytest.fixture(autouse=True)
def right_again() -> Iterator[None]:
    yield
    clock.follow(datetime.now(UTC))


def reference(ahead_s: float) -> datetime:
    return datetime.fromtimestamp(time.time() + ahead_s, UTC)


@pytest.mark.parametrize("ahead_s", [-4.0, -0.5, 0.0, 0.5, 4.0])
def test_small_differences_mean_nothing(ahead_s: float) -> None:
    assert not clock.follow(reference(ahead_s))
    assert clock.off_s() == 0


@pytest.mark.parametrize("ahead_s", [-1e7, -6.0, 6.0, 3600.0, 1e7])
def test_large_ones_are_followed_and_forgotten(ahead_s: float) -> None:
    assert clock.follow(reference(ahead_s))
    assert clock.time_s() == pytest.approx(time.time() + ahead_s, abs=1)
    assert clock.now().timestamp() == pytest.approx(time.time() + ahead_s, abs=1)
    assert clock.uuid7_seconds(clock.uuid7()) == pytest.approx(time.time() + ahead_s, abs=1)
    # It is not steered to and fro by how long a look takes.
    assert not clock.follow(reference(ahead_s + 1))
    assert clock.follow(reference(0))
    assert clock.off_s() == 0


def test_ids_are_version_7_and_each_its_own() -> None:
    ids = [clock.uuid7(at_s=1.7e9) for _ in range(10_000)]
    assert len(set(ids)) == len(ids)
    assert {(id.version, id.variant) for id in ids} == {(7, RFC_4122)}
    assert {clock.uuid7_seconds(id) for id in ids} == {1.7e9}
    # No bit but those of time, version and variant is the same in all of them.
    same = ~reduce(or_, (id.int ^ ids[0].int for id in ids)) & (1 << 80) - 1
    assert same == 0xF << 76 | 0x3 << 62


def test_ids_are_as_their_library_makes_them() -> None:
    for id in (clock.uuid7(), clock.uuid7(at_s=0.0), UUID(int=0), UUID(int=(1 << 128) - 1)):
        same = UUID(int=id.int)
        assert (id, hash(id), repr(id), id.is_safe, id.bytes) == (same, hash(same), repr(same), same.is_safe, same.bytes)  # fmt: skip
        assert pickle.loads(pickle.dumps(id)) == copy(id) == id
        assert clock.id_text(id) == str(id)


def test_a_process_that_was_forked_makes_ids_of_its_own() -> None:
    program = (
        "import os\nfrom dwctl.clock import uuid7\nuuid7(1.0)\n"
        "child = os.fork()\nos.write(1, f'{uuid7(1.0)}\\n'.encode())\nchild and os.waitpid(child, 0)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    first, second = told.stdout.split()
    assert first != second

"""A minute of fuzzing: a fixed seed and a fixed number of cases. `python -m tests.fuzz` sets other ones."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator

import pytest

from tests.cast import Cast
from tests.fuzz.answers import OddUpstream
from tests.fuzz.run import Fuzz
from tests.gateway import Gateway
from tests.processes import QUICK, Service

SEED, CASES = 7, 1500
AT_ONCE = 500
"""By hand, for hours: so many cases are sent before it is looked at what they left."""


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | QUICK | {
        "DWCTL_UPSTREAM__CONNECT_TIMEOUT": "3s",
        "DWCTL_UPSTREAM__FIRST_BYTE_TIMEOUT": "3s",
        "DWCTL_UPSTREAM__IDLE_TIMEOUT": "3s",
        "DWCTL_UPSTREAM__MAX_ANSWER_SIZE": "1000000",
        "DWCTL_LIMITS__REQUESTS__MAX_BODY_SIZE": "250000",
        "DWCTL_RESPONSES__KEEPALIVE": "1s",
        "DWCTL_RECORDER__OPEN_AFTER": "0.2s",
        "DWCTL_BACKGROUND_SERVICES__BATCH_DAEMON__MAX_RETRIES": "2",
        "DWCTL_BACKGROUND_SERVICES__BATCH_DAEMON__DEFAULT_MODEL_CONCURRENCY": "50",
    }  # fmt: skip


@pytest.fixture(scope="module")
def service(environ: dict[str, str], cast: Cast) -> Iterator[Service]:
    with Service(environ) as running:
        running.start_web()
        running.start_web(DWCTL_ONWARDS__STRICT_MODE="true")
        running.start_worker()
        yield running


@pytest.fixture
def odd_upstream() -> Iterator[OddUpstream]:
    with OddUpstream() as upstream:
        yield upstream


@pytest.mark.timeout(0)
def test_the_rules_hold_whatever_comes(stage: Gateway, odd_upstream: OddUpstream) -> None:
    seed = int(os.environ.get("FUZZ_SEED", SEED))
    if case := os.environ.get("FUZZ_CASE"):
        check(Fuzz(stage, odd_upstream, seed), [int(case)], explain=True)
    elif seconds := os.environ.get("FUZZ_SECONDS"):
        until = time.monotonic() + float(seconds)
        for round in itertools.count():
            if time.monotonic() > until:
                break
            check(Fuzz(stage, odd_upstream, seed + round), range(AT_ONCE), until=until)
    else:
        check(Fuzz(stage, odd_upstream, seed), range(CASES))


def check(fuzz: Fuzz, cases: range | list[int], *, until: float | None = None, explain: bool = False) -> None:  # fmt: skip
    found = fuzz.run(cases, until=until)
    if found:
        pytest.fail(fuzz.report(found), pytrace=False)
    for case in cases if explain else ():
        for line in fuzz.explain(case):
            print(line)  # noqa: T201 - asked for by hand, shown by -s

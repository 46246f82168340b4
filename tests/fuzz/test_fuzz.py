"""A minute of fuzzing: a fixed seed and a fixed number of cases. `python -m tests.fuzz` sets other ones."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator

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
        with running.at_once():
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
        fuzz = Fuzz(stage, odd_upstream, seed)
        reports = reports_of(fuzz, [int(case)])
        print(*fuzz.explain(int(case)), sep="\n")  # noqa: T201 - asked for by hand
    elif seconds := os.environ.get("FUZZ_SECONDS"):
        reports = []
        until = time.monotonic() + float(seconds)
        while time.monotonic() < until:
            reports += reports_of(Fuzz(stage, odd_upstream, seed), range(AT_ONCE), until)
            seed += 1
    else:
        reports = reports_of(Fuzz(stage, odd_upstream, seed), range(CASES))
    if reports:
        pytest.fail("\n\n".join(reports), pytrace=False)


def reports_of(fuzz: Fuzz, cases: Iterable[int], until: float | None = None) -> list[str]:
    """One, where a rule was broken."""
    found = fuzz.run(cases, until=until)
    return [fuzz.report(found)] if found else []

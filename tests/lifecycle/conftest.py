"""What most of these tests run on: two web processes (the second in strict mode) and two workers.

A module that needs other processes overrides `environ` or `service`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cast import Cast
from tests.processes import IMPATIENT, Service


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    """Workers are impatient, and try three times."""
    return environ | IMPATIENT | {"DWCTL_BACKGROUND_SERVICES__BATCH_DAEMON__MAX_RETRIES": "3"}


@pytest.fixture(scope="module")
def service(environ: dict[str, str], cast: Cast) -> Iterator[Service]:
    with Service(environ) as running:
        with running.at_once():
            running.start_web()
            running.start_web(DWCTL_ONWARDS__STRICT_MODE="true")
            running.start_worker()
            running.start_worker()
        yield running

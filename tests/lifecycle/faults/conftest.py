"""Processes that notice each other's death within a few seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cast import Cast
from tests.processes import Service

HEARTBEAT_S, DEAD_AFTER_S = 0.5, 3.0


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | {
        "DWCTL_DAEMONS__HEARTBEAT": f"{HEARTBEAT_S}s",
        "DWCTL_DAEMONS__DEAD_AFTER": f"{DEAD_AFTER_S}s",
        "DWCTL_BACKGROUND_SERVICES__BATCH_DAEMON__BACKOFF_MS": "50",
        "DWCTL_BACKGROUND_SERVICES__BATCH_DAEMON__MAX_BACKOFF_MS": "200",
    }


@pytest.fixture(scope="module")
def service(environ: dict[str, str], cast: Cast) -> Iterator[Service]:
    """One web process; each test starts the others that it needs."""
    with Service(environ) as running:
        running.start_web()
        yield running

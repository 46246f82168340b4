"""One gateway for most of these tests: two web processes (the second in strict mode) and two workers, on one database.

Modules that need processes of their own override `database_url`, `environ` and `service`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cast import Cast
from tests.fake_upstream import FakeUpstream
from tests.lifecycle.stage import Stage, clone_of
from tests.processes import Service


@pytest.fixture(scope="package")
def database_url(cluster: str, template: str) -> Iterator[str]:
    yield from clone_of(cluster, template)


@pytest.fixture(scope="package")
def environ(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Workers are impatient: a retry after about 50 ms, and only three."""
    return environ_of(database_url, tmp_path_factory.mktemp("spool")) | {
        "DWCTL_BACKGROUND_SERVICES__BATCH_DAEMON__MAX_RETRIES": "3",
    }


def environ_of(database_url: str, spool: Path) -> dict[str, str]:
    daemon = "DWCTL_BACKGROUND_SERVICES__BATCH_DAEMON__"
    return {
        "DATABASE_URL": database_url,
        "DWCTL_SECRET_KEY": "a-secret-key-for-tests-only",
        "DWCTL_AUTH__PROXY_HEADER__ENABLED": "true",
        "DWCTL_RECORDER__SPOOL_DIR": str(spool),
        f"{daemon}BACKOFF_MS": "50",
        f"{daemon}MAX_BACKOFF_MS": "100",
        f"{daemon}CLAIM_INTERVAL_MS": "200",
    }


@pytest.fixture(scope="package")
def cast(database_url: str) -> Cast:
    return Cast.create(database_url)


@pytest.fixture(scope="package")
def service(environ: dict[str, str], cast: Cast) -> Iterator[Service]:
    with Service(environ) as running:
        running.start_web()
        running.start_web(DWCTL_ONWARDS__STRICT_MODE="true")
        running.start_worker()
        running.start_worker()
        yield running


@pytest.fixture(scope="package")
def stage(
    service: Service, upstream: FakeUpstream, cast: Cast, database_url: str
) -> Iterator[Stage]:
    upstream.reset()
    made = Stage(service, upstream, cast, database_url)
    yield made
    made.close()

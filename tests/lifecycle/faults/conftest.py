"""One gateway for these tests: a web process that stays, and workers that each test starts, kills and stops.

Processes notice each other's death within a few seconds, and end within a few.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cast import Cast
from tests.fake_upstream import FakeUpstream
from tests.lifecycle.conftest import environ_of
from tests.lifecycle.stage import Stage, clone_of
from tests.processes import Process, Service

HEARTBEAT_S, DEAD_AFTER_S = 0.5, 3.0


@pytest.fixture(scope="package")
def database_url(cluster: str, template: str) -> Iterator[str]:
    yield from clone_of(cluster, template)


@pytest.fixture(scope="package")
def environ(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return environ_of(database_url, tmp_path_factory.mktemp("spool")) | QUICK


QUICK = {
    "DWCTL_DAEMONS__HEARTBEAT": f"{HEARTBEAT_S}s",
    "DWCTL_DAEMONS__DEAD_AFTER": f"{DEAD_AFTER_S}s",
    "DWCTL_SHUTDOWN__GRACE": "8s",
}


@pytest.fixture(scope="package")
def cast(database_url: str) -> Cast:
    return Cast.create(database_url)


@pytest.fixture(scope="package")
def service(environ: dict[str, str], cast: Cast) -> Iterator[Service]:
    with Service(environ) as running:
        running.start_web()
        yield running


@pytest.fixture(scope="package")
def stage(
    service: Service, upstream: FakeUpstream, cast: Cast, database_url: str
) -> Iterator[Stage]:
    upstream.reset()
    made = Stage(service, upstream, cast, database_url)
    yield made
    made.close()


def a_worker(stage: Stage) -> Process:
    """One that lives; started if there is none."""
    stage.service.workers = [worker for worker in stage.service.workers if worker.lives]
    return stage.service.workers[0] if stage.service.workers else stage.service.start_worker()

"""One web process and one worker on a database of the module's own, with the fake upstream behind them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cast import Cast
from tests.fake_upstream import FakeUpstream
from tests.lifecycle.stage import Stage
from tests.processes import Service


@pytest.fixture(scope="module")
def service(environ: dict[str, str], cast: Cast) -> Iterator[Service]:
    """A module that wants other processes overrides it."""
    with Service(environ) as running:
        running.start_web()
        running.start_worker()
        yield running


@pytest.fixture(scope="module")
def stage(
    service: Service, upstream: FakeUpstream, cast: Cast, database_url: str
) -> Iterator[Stage]:
    upstream.reset()
    made = Stage(service, upstream, cast, database_url)
    yield made
    made.close()

"""The stage of every test: one embedded PostgreSQL, a migrated template cloned for each module, one cast of users.

A module that needs processes asks for `service` (tests/processes.py); one that needs only routes asks for `app` and `client`.
"""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient

from dwctl.db import psycopg_url
from dwctl.local.postgres import EmbeddedPostgres
from tests import loopback
from tests.applications import application, migrate
from tests.cast import Cast
from tests.fake_upstream import SECRET as UPSTREAM_SECRET
from tests.fake_upstream import FakeUpstream
from tests.gateway import UPSTREAM_KEY, Gateway
from tests.processes import Service

loopback.install()

SECRET = "a-secret-key-for-tests-only"
# What the tests kill and restart on purpose needs fsync; the others need speed.
FAST = {"fsync": "off", "full_page_writes": "off", "max_connections": "300"}


# Twenty thousand tests stay until the end: looking for garbage among them takes half of the time that collecting them takes, and goes on with every look.
gc.disable()


def pytest_collection_finish() -> None:
    """From here on there is garbage, and the tests are none."""
    gc.freeze()
    gc.enable()


_LONGEST = (
    "dashboard/test_by_keyboard.py", "web/test_every_field.py", "faults/test_time_at_the_end.py", "dashboard/test_package.py", "web/test_reloading.py",
    "analytics/test_recorder.py", "faults/test_idempotency.py", "faults/test_batches.py", "commands/test_up.py", "faults/test_processes.py", "faults/test_killed_streams.py",
    "dashboard/test_models.py", "dashboard/test_playground.py", "operations/test_made_up_requests.py", "lifecycle/test_held.py", "faults/test_outage.py",
)  # fmt: skip
"""Modules that take most of a minute. Where several run at once they begin first: nobody waits for one of them alone at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spread the modules of faults, which mostly wait for something to be noticed, among those that compute: where several run at once, both cores have work."""
    modules: dict[str, list[pytest.Item]] = {}
    for item in items:
        modules.setdefault(item.path.relative_to(Path(__file__).parent).as_posix(), []).append(item)
    waiting = [name for name in modules if name.startswith("faults/")]
    computing = [name for name in modules if not name.startswith("faults/")]
    # Each at its place in its own kind, from 0 to 1: sorted by that, both kinds go on alike to the end.
    places = {
        name: -1.0 if name in _LONGEST else (place + 0.5) / len(kind)
        for kind in (waiting, computing)
        for place, name in enumerate(kind)
    }
    items[:] = [item for name in sorted(modules, key=places.__getitem__) for item in modules[name]]


def with_database(url: str, name: str) -> str:
    """The same server, another database."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"/{name}"))


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """A server for the whole session; its URL names an administrative database."""
    given = os.environ.get("DWCTL_TEST_DATABASE_URL")
    if given:
        yield psycopg_url(given)
        return
    folder = Path(tempfile.mkdtemp(prefix="dwctl-test-"))
    folder.chmod(0o755)
    server = EmbeddedPostgres(folder / "pg", settings=FAST)
    yield server.start()
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def template(cluster: str) -> Iterator[str]:
    """A migrated database that others are cloned from."""
    name = f"template_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(cluster, autocommit=True) as server:
        server.execute(f'CREATE DATABASE "{name}"')
    migrate(with_database(cluster, name))
    yield name
    with psycopg.connect(cluster, autocommit=True) as server:
        server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(scope="module")
def database_url(cluster: str, template: str) -> Iterator[str]:
    """A database of the module's own, already migrated."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(cluster, autocommit=True) as server:
        server.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    yield with_database(cluster, name)
    with psycopg.connect(cluster, autocommit=True) as server:
        server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def sql(database_url: str) -> Iterator[psycopg.Connection]:
    """A connection to the module's database, each statement committed at once."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def environment(database_url: str, spool: Path) -> dict[str, str]:
    """What processes run with."""
    return {
        "DATABASE_URL": database_url,
        "DWCTL_SECRET_KEY": SECRET,
        "DWCTL_AUTH__NATIVE__ALLOW_REGISTRATION": "true",
        "DWCTL_AUTH__NATIVE__SESSION__COOKIE_SECURE": "false",
        "DWCTL_AUTH__NATIVE__PASSWORD__ARGON2_MEMORY_KIB": "1024",
        "DWCTL_AUTH__NATIVE__PASSWORD__ARGON2_ITERATIONS": "1",
        "DWCTL_AUTH__NATIVE__THROTTLE__SIGN_INS_PER_MINUTE": "100000",
        "DWCTL_AUTH__NATIVE__THROTTLE__REGISTRATIONS_PER_MINUTE": "100000",
        "DWCTL_AUTH__NATIVE__THROTTLE__RESETS_PER_MINUTE": "100000",
        "DWCTL_AUTH__NATIVE__THROTTLE__RESETS_PER_ACCOUNT": "100000",
        "DWCTL_AUTH__PROXY_HEADER__ENABLED": "true",
        # The upstream's answers are short, and its prices are not.
        "DWCTL_CREDITS__ASSUMED_OUTPUT_TOKENS": "8",
        "DWCTL_RECORDER__SPOOL_DIR": str(spool),
    }


@pytest.fixture(scope="module")
def environ(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a process of this module runs with; a module overrides it to change settings."""
    return environment(database_url, tmp_path_factory.mktemp("spool"))


@pytest.fixture(scope="module")
def app(environ: dict[str, str]) -> Iterator[Flask]:
    """The application in this process, for the control plane's routes."""
    with application(environ) as made:
        yield made


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A browser without cookies."""
    return app.test_client()


@pytest.fixture(scope="module")
def cast(database_url: str) -> Cast:
    """The users that every test knows: see tests/cast.py."""
    return Cast.create(database_url)


@pytest.fixture(scope="session")
def upstream() -> Iterator[FakeUpstream]:
    """A real HTTP upstream; the model's name says how it behaves (tests/fake_upstream.py)."""
    with FakeUpstream() as server:
        yield server


@pytest.fixture(scope="module")
def is_warm() -> bool:
    """Whether processes of this module have their modules already (tests/warm.py); a module that tries how they begin and end says no."""
    return True


@pytest.fixture(scope="module")
def service(
    environ: dict[str, str], cast: Cast, upstream: FakeUpstream, is_warm: bool
) -> Iterator[Service]:
    """One real web process on the module's database."""
    with Service(environ, is_warm=is_warm) as running:
        running.start_web()
        yield running


@pytest.fixture(scope="module")
def stage(
    service: Service, upstream: FakeUpstream, cast: Cast, database_url: str
) -> Iterator[Gateway]:
    """The service with an endpoint on the fake upstream, ready for models and accounts (tests/gateway.py)."""
    upstream.reset()
    gateway = Gateway(service, upstream, cast, database_url)
    yield gateway
    gateway.close()


@pytest.fixture(scope="module")
def seeded(stage: Gateway) -> Gateway:
    """The stage, by the name that most modules with one web process use."""
    return stage


@pytest.fixture(scope="module")
def nothing_fell_over(stage: Gateway) -> Iterator[None]:
    """Whatever a module does to the gateway, nothing falls over inside, and no secret comes into the log."""
    yield
    for web in stage.service.webs:
        printed = web.output()
        assert "Traceback" not in printed, printed[-5000:]
        assert "unexpected error" not in printed, printed[-5000:]
        for secret in (stage.alice.key, UPSTREAM_KEY, UPSTREAM_SECRET):
            assert secret not in printed

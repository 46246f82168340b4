"""The stage of all tests of pages: one house and one browser for this folder, and a page of a test's own.

    def test_a_member_sees_no_people(page: Page) -> None: ...                       as admin, light, 1440 wide

    @pytest.mark.parametrize("person", ["member"])                                  any of `house.PEOPLE`, or None
    @pytest.mark.parametrize("theme", ["light", "dark"])
    @pytest.mark.parametrize("width", [browser.WIDE, browser.NARROW])

A module that must not share (it changes settings, or counts everything) has a fixture `house` of its own, of module scope.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from flask.testing import FlaskClient
from playwright.sync_api import Browser, Page, sync_playwright

from tests import browser as driving
from tests.cast import Cast
from tests.catalog.conftest import Admin
from tests.conftest import environment, with_database
from tests.dashboard.house import House, opened
from tests.fake_upstream import FakeUpstream
from tests.gateway import Gateway
from tests.processes import QUICK, Service


@pytest.fixture(scope="package")
def house(
    cluster: str, template: str, upstream: FakeUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    """People, models and calls on a web and a worker process, for all modules of this folder that a test process runs in a row."""
    name = f"house_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(cluster, autocommit=True) as server:
        server.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    url = with_database(cluster, name)
    cast = Cast.create(url)
    upstream.reset()
    with Service(QUICK | environment(url, tmp_path_factory.mktemp("spool"))) as service:
        with service.at_once():
            service.start_web()
            service.start_worker()
        with closing(Gateway(service, upstream, cast, url)) as gateway:
            yield opened(gateway)
    with psycopg.connect(cluster, autocommit=True) as server:
        server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Skips where there is none. Ended with the folder: while it runs, no other event loop can be started in this thread."""
    try:
        driving.executable()
    except driving.NoBrowser as reason:
        pytest.skip(f"browser tests are skipped: {reason}")
    with sync_playwright() as playwright, driving.launched(playwright) as running:
        yield running


@pytest.fixture
def admin(client: FlaskClient, cast: Cast) -> Admin:
    """The platform manager at the admin API, in this process."""
    return Admin(client)


@pytest.fixture
def person() -> str | None:
    """Who is signed in."""
    return "admin"


@pytest.fixture
def theme() -> str:
    return "light"


@pytest.fixture
def width() -> int:
    return driving.WIDE


@pytest.fixture
def page(
    browser: Browser, house: House, person: str | None, theme: str, width: int
) -> Iterator[Page]:
    """A page in a context of its own; the test fails if it does what no page may (tests/browser.py)."""
    with driving.browsing(browser, house.url, theme=theme, width=width) as page:
        if person:
            house.sign_in(page, person)
        yield page

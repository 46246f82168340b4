"""Behind a router that serves the product under a path: a person signs in, walks through every screen, changes something, and watches, and never leaves the path."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from tests import browser as driving
from tests.dashboard.house import LARGE, PASSWORD, House
from tests.gateway import unique

PREFIX = "/llm"
PATHS = (
    "/", "/requests", "/playground", "/batches", "/files", "/queue", "/models", f"/models/{LARGE}", "/endpoints", "/keys", "/usage", "/credits",
    "/people", "/people/groups", "/people/organizations", "/settings", "/settings/audit", "/account",
)  # fmt: skip
_HOPS = ("connection", "transfer-encoding", "keep-alive", "content-length")
_LINKS = r"""() => {
    const found = [];
    for (const element of document.querySelectorAll("*"))
        for (const { name, value } of element.attributes)
            if (value.startsWith("/") && !/^(d|title|value|placeholder|aria-label|pattern)$/.test(name)) found.push(value);
    return found;
}"""


class Router(ThreadingHTTPServer):
    """Passes on what is under the prefix, without it, as `X-Forwarded-Prefix` says; notes what is asked beside it."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        self.behind = port
        self.strays: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}{PREFIX}"


class _Passing(BaseHTTPRequestHandler):
    server: Router

    def _pass(self) -> None:
        if not self.path.startswith(f"{PREFIX}/"):
            self.server.strays.append(self.path)
            self.send_error(404)
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = dict(self.headers.items()) | {"X-Forwarded-Prefix": PREFIX, "Connection": "close"}
        with closing(HTTPConnection("127.0.0.1", self.server.behind, timeout=60)) as behind:
            behind.request(self.command, self.path.removeprefix(PREFIX), body, headers)
            answer = behind.getresponse()
            self.send_response_only(answer.status, answer.reason)
            for name, value in answer.getheaders():
                if name.lower() not in _HOPS:
                    self.send_header(name, value)
            self.end_headers()
            while piece := answer.read1(65536):
                self.wfile.write(piece)

    do_GET = do_POST = do_PATCH = do_DELETE = do_HEAD = _pass

    def log_message(self, format: str, *args: Any) -> None:
        """To nobody."""


@pytest.fixture(scope="module")
def router(house: House) -> Iterator[Router]:
    service = house.gateway.service
    web = service.start_web(DWCTL_FORWARDED_HEADERS="x-forwarded-for,x-forwarded-prefix")
    # The house goes on with its own.
    service.webs.remove(web)
    with Router(web.port) as router:
        Thread(target=router.serve_forever, daemon=True).start()
        yield router
        router.shutdown()
    web.stop()


@pytest.fixture
def page(browser: Browser, router: Router) -> Iterator[Page]:
    with driving.browsing(browser, router.url) as page:
        yield page
    assert router.strays == []


def sign_in(page: Page, router: Router, house: House, then: str) -> None:
    page.goto(f"{router.url}{then}")
    page.get_by_label("E-mail").fill(house.people["admin"].email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{router.url}{then}")


def test_every_address_of_every_screen_is_under_the_path(page: Page, router: Router, house: House) -> None:  # fmt: skip
    sign_in(page, router, house, "/requests?range=7d")
    for path in PATHS:
        page.goto(f"{router.url}{path}")
        expect(page.locator("main h1, h1").first).to_be_visible()
        outside = [link for link in page.evaluate(_LINKS) if not link.startswith(f"{PREFIX}/") and link != PREFIX]  # fmt: skip
        assert not outside, (path, outside)


def test_what_a_person_does_stays_under_the_path(page: Page, router: Router, house: House) -> None:
    sign_in(page, router, house, "/requests")
    page.get_by_role("form", name="Filters").get_by_label("Outcome").select_option("5xx")
    expect(page).to_have_url(f"{router.url}/requests?status=5xx")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(
        page.get_by_role("dialog", name="A call").get_by_role("link", name="Calls of this model")
    ).to_be_visible()
    page.goto(f"{router.url}/requests")
    with page.expect_response(re.compile("/requests/live")):
        page.keyboard.press("l")
    calls = page.locator("tr[data-row]")
    newest = calls.first.get_attribute("data-row")
    house.gateway.chat(LARGE, by=house.people["member"].account)
    expect(calls.first).not_to_have_attribute("data-row", newest or "")
    page.goto(f"{router.url}/keys/new")
    name = unique("key")
    page.get_by_label("Name required").fill(name)
    page.get_by_role("button", name="Create key").click()
    expect(page.get_by_role("heading", name="Key created")).to_be_visible()
    shown = page.locator("section[aria-labelledby=try] code", has_text="curl").first.inner_text()
    assert f"{router.url}/ai/v1/" in shown
    page.keyboard.press("g")
    page.keyboard.press("r")
    page.wait_for_url(f"{router.url}/requests")
    assert urlsplit(page.url).path.startswith(f"{PREFIX}/")

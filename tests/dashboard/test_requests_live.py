"""Requests in a browser: filters in the address, the drawer by keyboard, and a live view that respects its reader."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
import requests
from playwright.sync_api import Locator, Page, expect

from tests import browser
from tests.dashboard.house import BROKEN, House
from tests.request_log.conftest import Log

ROWS = "tr[data-row]"


@pytest.fixture
def log(house: House) -> Iterator[Log]:
    with psycopg.connect(house.gateway.database_url, autocommit=True) as sql:
        yield Log(sql)


def ids(page: Page) -> list[str]:
    found: list[str] = page.locator(ROWS).evaluate_all("rows => rows.map(row => row.dataset.row)")
    return found


def expect_calls(page: Page, wanted: list[str]) -> None:
    """Waits: an address going back changes before the list does."""
    expect(page.locator(ROWS)).to_have_count(len(wanted))
    for place, id in enumerate(wanted):
        expect(page.locator(ROWS).nth(place)).to_have_attribute("data-row", id)


def failures(log: Log, model: str | None = None, *, of: UUID | None = None) -> list[str]:
    """Those on the first page of calls that failed, newest first: other tests of this house make some, too. ``of``: an account's own alone."""
    found = log.sql.execute(
        "SELECT request_id FROM http_analytics WHERE status_code >= 500 AND (%(model)s::text IS NULL OR model = %(model)s)"
        " AND (%(of)s::uuid IS NULL OR user_id = %(of)s) ORDER BY timestamp DESC, request_id DESC LIMIT 50",
        {"model": model, "of": of},
    )
    return [str(row[0]) for row in found]


def filters(page: Page) -> Locator:
    return page.get_by_role("form", name="Filters")


def watch(page: Page) -> None:
    """Begin to watch, and wait until that has begun."""
    with page.expect_response(re.compile("/requests/live")):
        page.keyboard.press("l")


def test_a_filter_stands_in_the_address_and_holds(page: Page, log: Log) -> None:
    page.goto("/requests")
    everything = ids(page)
    filters(page).get_by_label("Outcome").select_option("5xx")
    expect(page).to_have_url(re.compile(r"/requests\?status=5xx$"))
    failed = failures(log)
    expect_calls(page, failed)
    filters(page).get_by_label("Model").fill(BROKEN)
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(rf"\?model={BROKEN}&status=5xx$"))
    page.reload()
    expect_calls(page, failures(log, BROKEN))
    expect(page.locator(".chip")).to_have_count(2)
    expect(page.locator("time-chart canvas").first).to_be_visible()
    page.go_back()
    expect(page).to_have_url(re.compile(r"\?status=5xx$"))
    expect_calls(page, failed)
    page.go_back()
    expect(page).to_have_url(re.compile(r"/requests$"))
    expect_calls(page, everything)
    expect(page.locator("time-chart canvas").first).to_be_visible()


def test_a_call_opens_beside_the_list_by_keyboard_alone(page: Page) -> None:
    page.goto("/requests?status=ok")
    calls = ids(page)
    drawer = page.get_by_role("dialog", name="A call")
    for key in ("j", "j", "Enter"):
        page.keyboard.press(key)
    expect(drawer).to_be_visible()
    expect(drawer.locator("[data-call]")).to_have_attribute("data-of", re.compile(calls[1]))
    page.keyboard.press("j")
    expect(drawer.locator("[data-call]")).to_have_attribute("data-of", re.compile(calls[2]))
    page.keyboard.press("k")
    page.keyboard.press("k")
    expect(drawer.locator("[data-call]")).to_have_attribute("data-of", re.compile(calls[0]))
    expect(drawer.get_by_role("button", name="Previous call")).to_be_disabled()
    expect(drawer.get_by_text("Served in")).to_be_visible()
    assert browser.axe(page, "dialog.drawer .drawer-head") == []
    page.keyboard.press("Escape")
    expect(drawer).not_to_be_visible()
    expect(page.locator(f'tr[data-row="{calls[0]}"] td.time a')).to_be_focused()
    with page.context.expect_page() as opened:
        page.locator(f'tr[data-row="{calls[1]}"] td.time a').click(button="middle")
    expect(opened.value).to_have_url(re.compile(calls[1]))


def test_rows_that_come_wait_while_somebody_reads(page: Page, log: Log) -> None:
    page.goto("/requests")
    # (What is above the list stands before positions are compared.)
    expect(page.locator("time-chart canvas").first).to_be_visible()
    before = ids(page)
    watch(page)
    expect(page).to_have_url(re.compile(r"\?live=1$"))
    first = log.call(model="<img src=x onerror=alert(1)>")
    expect(page.locator(ROWS).first).to_have_attribute("data-row", str(first))
    assert page.locator("td img").count() == 0
    row = page.locator(ROWS).nth(3)
    row.hover()
    reading, where = row.get_attribute("data-row"), row.bounding_box()
    for _ in range(3):
        log.call()
    expect(page.get_by_role("button", name="3 new")).to_be_visible()
    assert page.locator(ROWS).nth(3).get_attribute("data-row") == reading
    assert page.locator(f'tr[data-row="{reading}"]').bounding_box() == where
    page.get_by_role("button", name="3 new").click()
    assert ids(page)[4:] == before[: len(ids(page)) - 4]
    page.mouse.move(0, 0)
    page.keyboard.press("l")
    expect(page.locator("[data-live]")).to_have_attribute("aria-pressed", "false")
    expect(page).to_have_url(re.compile(r"/requests$"))


def test_a_flood_is_sampled_and_the_list_stays_short(page: Page, log: Log) -> None:
    page.goto("/requests")
    watch(page)
    until = time.monotonic() + 3
    for second in range(10):
        log.sql.execute(
            "INSERT INTO http_analytics (request_id, timestamp, method, uri, model, status_code, duration_ms) "
            "SELECT gen_random_uuid(), now(), 'POST', '/chat/completions', 'flood', 200, 1 FROM generate_series(1, 500)"
        )
        time.sleep(max(0.0, until - 3 + second + 1 - time.monotonic()))
        if time.monotonic() >= until:
            break
    expect(page.locator("[data-live]")).to_contain_text("a sample:")
    found = ids(page)
    assert len(found) <= 100
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [browser.WIDE, browser.NARROW])
def test_it_can_be_used_by_everybody(page: Page, theme: str, width: int) -> None:
    page.goto("/requests?range=7d&tier=realtime&min_ms=0")
    expect(page.locator(".chip")).to_have_count(2)
    assert browser.axe(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    browser.shot(page, f"requests-{theme}-{width}")


class TestWithoutScript:
    @pytest.fixture
    def page(self, browser: Any, house: House) -> Iterator[Page]:
        from tests.browser import browsing

        with browsing(browser, house.url, java_script_enabled=False) as page:
            house.sign_in(page, "member")
            yield page

    def test_it_reads_and_filters(self, page: Page, house: House, log: Log) -> None:
        page.goto(f"/requests?model={BROKEN}")
        everything = page.locator(ROWS).count()
        filters(page).get_by_label("Outcome").select_option("5xx")
        filters(page).get_by_role("button", name="Filter").click()
        expect(page).to_have_url(re.compile("status=5xx"))
        assert page.locator(ROWS).count() <= everything
        expect_calls(page, failures(log, BROKEN, of=house.people["member"].id))
        page.locator(f"{ROWS} td.time a").first.click()
        expect(page).to_have_url(re.compile(r"/requests/[0-9a-f-]{36}"))
        expect(page.get_by_role("link", name=BROKEN, exact=True)).to_be_visible()


def test_a_restart_of_the_server_loses_no_call_and_doubles_none(page: Page, house: House, log: Log) -> None:  # fmt: skip
    page.goto("/requests?model=steady")
    watch(page)
    made = [log.call(model="steady")]
    expect(page.locator(ROWS)).to_have_count(1)
    with page.expect_response(re.compile("/requests/live"), timeout=30_000):
        os.kill(house.gateway.service.webs[0].pid, signal.SIGHUP)
        made += [log.call(model="steady") for _ in range(3)]
    made.append(log.call(model="steady"))
    expect(page.locator(ROWS)).to_have_count(len(made))
    assert sorted(ids(page)) == sorted(map(str, made))


def test_a_member_is_told_of_own_calls_alone(house: House, log: Log) -> None:
    member, manager = (house.people[name] for name in ("member", "manager"))
    own, since = log.call(user_id=member.id, served_by="gpu"), int(time.time() * 1e6)
    log.call(user_id=manager.id)
    headers = {"Cookie": house.cookie("member"), "Last-Event-ID": str(since - 30_000_000)}
    with requests.get(f"{house.url}/requests/live?columns=served_by,model", headers=headers, stream=True, timeout=20) as stream:  # fmt: skip
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        told = ""
        for line in stream.iter_lines(decode_unicode=True):
            told += line + "\n"
            if str(own) in told and told.endswith("</tr>\n"):
                break
    assert "event: row" in told
    assert str(manager.id) not in told
    assert "gpu" not in told

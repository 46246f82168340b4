"""Forms of people, groups, organisations and tool sources by keyboard alone, and what members see: nothing that axe finds, nothing too wide."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
import pytest
from playwright.sync_api import Page, expect

from tests import browser
from tests.catalog.conftest import unique
from tests.dashboard.house import SMALL, House
from tests.request_log.conftest import Log


def fill(page: Page, first: str, texts: Sequence[str]) -> None:
    """Write into a field and those behind it, and send the form with Enter."""
    page.get_by_label(first, exact=True).focus()
    for number, text in enumerate(texts):
        if number:
            page.keyboard.press("Tab")
        page.keyboard.type(text)
    page.keyboard.press("Enter")


def test_a_group_is_made_and_gets_a_member(page: Page, house: House) -> None:
    name, member = unique("group"), house.people["member"]
    page.goto("/people/groups/new")
    fill(page, "Name required", [name, "By keyboard"])
    expect(page.get_by_role("heading", name=name, level=1)).to_be_visible()
    fill(page, "E-mail or user name required", [member.email])
    expect(page.get_by_role("main").get_by_text(member.email).first).to_be_visible()


def test_a_person_is_made(page: Page) -> None:
    name = unique("person")
    page.goto("/people/new")
    fill(page, "User name required", [name, f"{name}@house.example"])
    expect(page.get_by_role("heading", name=name, level=1)).to_be_visible()


def test_an_organisation_is_made_and_invites(page: Page) -> None:
    name = unique("organisation")
    page.goto("/people/organizations/new")
    fill(page, "Account name required", [name, f"{name}@house.example"])
    expect(page.get_by_role("heading", name=name, level=1)).to_be_visible()
    fill(page, "Invite by mail required", ["somebody@house.example"])
    expect(page.get_by_text("somebody@house.example").first).to_be_visible()


def test_a_tool_source_is_made(page: Page) -> None:
    name = unique("tool").replace("-", "_")
    page.goto("/tool-sources/new")
    page.get_by_label("Name required", exact=True).focus()
    for text in (name, "By keyboard", "http://127.0.0.1:9/tool"):
        page.keyboard.type(text)
        page.keyboard.press("Tab")
    page.get_by_label("Address required", exact=True).press("Enter")
    expect(page.get_by_role("link", name=name)).to_be_visible()


@pytest.mark.parametrize("person", ["member"])
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [browser.WIDE, browser.NARROW])
def test_a_members_pages_are_for_everybody(page: Page) -> None:
    for path in ("/", "/requests", "/playground", "/keys", "/keys/new", "/usage", "/models", f"/models/{SMALL}", f"/models/{SMALL}?tab=code", "/credits", "/account", "/batches", "/batches/new", "/files"):  # fmt: skip
        page.goto(path)
        assert browser.axe(page) == [], path
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{path} is {wide} px too wide"


def test_calls_of_long_names_fit_their_list(page: Page, house: House) -> None:
    model = unique("an-alias-that-is-rather-long-for-the-column-of-models")
    with psycopg.connect(house.gateway.database_url, autocommit=True) as sql:
        Log(sql).call(model=model, status_code=504, error_code="upstream_first_byte_timeout", user_id=house.people["member"].id)  # fmt: skip
    page.goto(f"/requests?model={model}")
    expect(page.get_by_text("upstream_first_byte_timeout")).to_be_visible()
    wide = page.locator("table.calls").evaluate("table => table.scrollWidth - table.parentElement.clientWidth")  # fmt: skip
    assert wide <= 0

"""API keys and people in a browser: a key's life by the keyboard, filters that stay in the address, nothing that axe finds."""

from __future__ import annotations

import re
import subprocess

import pytest
import requests
from playwright.sync_api import Page, expect

from dwctl.identity.tables import NIL
from tests import browser
from tests.dashboard.house import BROKEN, SMALL, House
from tests.gateway import unique
from tests.processes import eventually


def ask(house: House, secret: str) -> requests.Response:
    body = {"model": SMALL, "messages": [{"role": "user", "content": "Hello"}]}
    shown = {"Authorization": f"Bearer {secret}"}
    return requests.post(f"{house.url}/ai/v1/chat/completions", json=body, headers=shown, timeout=20)  # fmt: skip


def make(page: Page, name: str, **fields: str) -> str:
    """Make a key with the keyboard alone; gives its secret."""
    page.goto("/keys")
    page.get_by_role("link", name="Create key").press("Enter")
    expect(page.get_by_role("heading", name="Create an API key")).to_be_visible()
    expect(page.get_by_label("Name required")).to_be_focused()
    page.keyboard.type(name)
    for label, value in fields.items():
        page.get_by_label(label, exact=True).fill(value)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Key created")).to_be_visible()
    secret = page.locator("section[aria-labelledby=secret] code").first.inner_text()
    assert re.fullmatch(r"sk-[\w-]{43}", secret)
    return secret


@pytest.mark.parametrize("person", ["member"])
def test_a_keys_life(page: Page, house: House) -> None:
    name = unique("key")
    secret = make(page, name, Requests="0.001")
    shown = page.locator("section[aria-labelledby=try] code", has_text="curl").first.inner_text()
    # As it is printed: a shell runs it. (The first of the models is one that fails on purpose.)
    printed = shown.replace(BROKEN, SMALL).replace(
        "curl ", "curl -s -o /dev/null -w '%{http_code}' ", 1
    )
    ran = subprocess.run(["bash", "-c", printed], capture_output=True, text=True, timeout=30)
    assert ran.stdout == "200", ran
    # The address has become the key's own: a reload makes nothing, and shows no secret. (Asked of the page: a script that replaces it while
    # the page is being loaded may come before the driver knows that page.)
    eventually(lambda: re.fullmatch(r"/keys/[0-9a-f-]{36}", page.evaluate("location.pathname")))
    page.reload()
    expect(page.get_by_role("heading", name=name)).to_be_visible()
    assert secret not in page.content()
    assert len(house.gateway.all("SELECT 1 FROM api_keys WHERE name = %s", name)) == 1
    expect(page.get_by_text("3.6 requests an hour")).to_be_visible()
    expect(page.get_by_role("link", name=SMALL)).to_be_visible()
    # Used, and then over its limit; its requests are a link away.
    assert ask(house, secret).status_code == 429
    page.get_by_role("link", name="Its requests").click()
    expect(page.locator("td .status", has_text="429").first).to_be_visible()
    page.go_back()
    # Revoked, by the keyboard.
    page.get_by_text("Revoke key").first.press("Enter")
    page.get_by_label(f"Type {name}").fill(name)
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").filter(has_text="revoked")).to_be_visible()
    eventually(lambda: ask(house, secret).status_code == 401)
    assert secret not in str(page.context.cookies())
    assert secret not in page.evaluate("JSON.stringify([history.state, location.href, document.referrer, {...localStorage}, {...sessionStorage}])")  # fmt: skip


def test_a_double_click_makes_one_key_and_shows_its_secret(page: Page) -> None:
    """The answer to a second form would stand where the secret is shown, for the only time."""
    page.goto("/keys/new")
    page.get_by_label("Name required").fill(unique("key"))
    page.get_by_role("button", name="Create key").dblclick()
    expect(page.get_by_role("heading", name="Key created")).to_be_visible()


def test_back_from_the_next_page_shows_no_secret(page: Page) -> None:
    secret = make(page, unique("key"))
    page.get_by_role("link", name="I have copied it").click()
    expect(page.get_by_role("heading", name="Revoke")).to_be_visible()
    page.go_back()
    expect(page.locator("main")).to_be_visible()
    assert secret not in page.content()


def test_a_filter_is_in_the_address_and_holds(page: Page, house: House) -> None:
    page.goto("/keys")
    rows = page.locator("#keys tbody tr")
    everything = rows.count()
    page.get_by_label("Name, description or prefix").press_sequentially("laptop")
    expect(page).to_have_url(re.compile(r"/keys\?q=laptop$"))
    page.get_by_label("Whose keys").select_option(label="Yours")
    expect(page).to_have_url(re.compile(r"/keys\?q=laptop&user=[0-9a-f-]+$"))
    expect(rows).to_have_count(1)
    page.reload()
    expect(rows).to_have_count(1)
    expect(page.get_by_label("Whose keys")).to_have_value(str(house.people["admin"].id))
    page.go_back()
    expect(page).to_have_url(re.compile(r"/keys\?q=laptop$"))
    expect(rows).to_have_count(len(house.people))
    page.go_back()
    expect(rows).to_have_count(everything)
    page.goto("/people")
    page.get_by_label("Name or e-mail").press_sequentially("member@house")
    expect(page).to_have_url(re.compile(r"/people\?q=member%40house$"))
    expect(page.locator("#people tbody tr")).to_have_count(1)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [browser.WIDE, browser.NARROW])
def test_people_with_disabilities_can_use_these_pages(page: Page, house: House, theme: str, width: int) -> None:  # fmt: skip
    member = house.people["member"]
    organizations = house.gateway.admin("GET", "/organizations").json()["data"]
    made = organizations or [house.gateway.admin("POST", "/organizations", {"name": "acme.house", "email": "o@house.example"}).json()]  # fmt: skip
    for name, path in {
        "keys": "/keys",
        "new key": "/keys/new",
        "key": f"/keys/{member.account.key_id}",
        "people": "/people",
        "person": f"/people/{member.id}",
        "see as": f"/people/{member.id}/see-as",
        "group": f"/people/groups/{NIL}",
        "organisation": f"/people/organizations/{made[0]['id']}",
        "edit person": f"/people/{member.id}/edit",
    }.items():
        page.goto(path)
        assert browser.axe(page) == [], path
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{path} is {wide} px too wide"
        browser.shot(page, f"{name.replace(' ', '-')}-{theme}-{width}")


@pytest.mark.parametrize("name", ["two  spaces", " at its beginning", "tab-free end ", "a.b (c) [d] | e?"])  # fmt: skip
def test_a_key_is_revoked_by_its_name_as_the_page_shows_it(page: Page, house: House, name: str) -> None:  # fmt: skip
    person = house.people["member"]
    made = house.gateway.admin("POST", f"/users/{person.id}/api-keys", {"name": name}).json()
    page.goto(f"/keys/{made['id']}")
    shown = page.locator(".confirm code")
    page.locator(".confirm > summary").last.click()
    page.locator('input[name="confirm"]').fill(shown.inner_text().strip())
    page.locator(".confirm form button").last.click()
    expect(page).to_have_url(re.compile("/keys$"))
    expect(page.locator("#notice")).to_contain_text("revoked")

"""Assets in a real browser, on a real page, under its policy: fonts, icons, modules."""

from __future__ import annotations

from urllib.parse import urljoin

import pytest
from playwright.sync_api import Page, expect

from tests.browser import expect_status
from tests.dashboard.house import House

MODULES = {
    "vendor/uplot.js": "default",
    "vendor/marked.js": "marked",
    "vendor/purify.js": "default",
}


@pytest.fixture
def base(page: Page) -> str:
    """The address below which the assets of the page that is shown stand."""
    page.goto("/account")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    sheet = page.locator("link[href$='/app.css']").get_attribute("href")
    assert sheet
    return sheet.removesuffix("app.css")


def test_text_is_set_in_the_font_that_came_with_the_page(page: Page, base: str) -> None:
    loaded = "document.fonts.ready.then(all => [...all].filter(it => it.status == 'loaded').map(it => it.family))"
    assert page.evaluate(loaded) == ["Inter"]


def test_icons_are_drawn(page: Page, base: str) -> None:
    icon = page.locator("svg.icon:visible use").first
    expect(icon).to_be_attached()
    drawn = "use => { const box = use.getBBox(); return box.width > 0 && box.height > 0 }"
    assert icon.evaluate(drawn)


def test_libraries_are_modules(page: Page, base: str) -> None:
    for name, export in MODULES.items():
        found = f"import('{base}{name}').then(it => typeof it.{export})"
        assert page.evaluate(found) == "function", name
    cleaned = f"import('{base}vendor/purify.js').then(it => it.default.sanitize('<p>a<script>1</script></p>'))"
    assert page.evaluate(cleaned) == "<p>a</p>"
    assert page.evaluate("typeof htmx.process") == "function"


def test_all_that_a_page_loads_is_kept(page: Page, base: str, house: House) -> None:
    asked = page.evaluate("performance.getEntriesByType('resource').map(it => it.name)")
    loaded = [address for address in asked if "/assets/" in address]
    assert len(loaded) >= 4
    elsewhere = [one for one in loaded if not one.startswith(urljoin(house.url, base))]
    assert elsewhere == []
    for address in loaded:
        answer = house.gateway.session.get(address)
        assert "immutable" in answer.headers["Cache-Control"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("person", [None])
def test_strangers_have_assets_too(page: Page, base: str) -> None:
    expect_status(page, 401)
    assert page.evaluate("document.fonts.ready.then(all => all.size)") == 1

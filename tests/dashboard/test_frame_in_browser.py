"""The frame's script in a browser: nothing that stands in a cookie ends it."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect

from tests.dashboard.house import House


@pytest.mark.parametrize("left", ["100% mine deleted.", "50%zz and <b>more</b>"])
def test_a_notice_is_said_as_it_is_and_the_script_goes_on(page: Page, house: House, left: str) -> None:  # fmt: skip
    page.context.add_cookies([{"name": "dw_notice", "value": quote(left), "url": house.url}])
    page.goto("/account")
    expect(page.locator("#notice")).to_have_text(left)
    page.keyboard.press("?")
    expect(page.locator("#keys-help")).to_be_visible()


def test_a_cookie_of_somebody_else_does_not_end_the_script(page: Page, house: House) -> None:
    page.context.add_cookies([{"name": "dw_notice", "value": "100%", "url": house.url}])
    page.goto("/account")
    page.keyboard.press("?")
    expect(page.locator("#keys-help")).to_be_visible()

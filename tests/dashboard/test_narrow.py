"""The narrowest phone, and figures of many digits: no amount is cut, as the rest of a number is another number."""

from __future__ import annotations

from decimal import Decimal

import pytest
from playwright.sync_api import Page

from tests.dashboard.house import House

NARROWEST = 360
_CUT = """() => [...document.querySelectorAll(".tile-value, td.num, .money")]
    .filter((one) => one.checkVisibility() && one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).overflow !== "visible")
    .map((one) => one.textContent.trim())"""
_BROKEN = """() => [...document.querySelectorAll(".tile-value, td .money")]
    .filter((one) => one.checkVisibility())
    .filter((one) => { const range = document.createRange(); range.selectNodeContents(one); return new Set([...range.getClientRects()].map((box) => Math.round(box.top))).size > 1; })
    .map((one) => `on several lines: ${one.textContent.trim()}`)"""
_WIDE = """() => [document.documentElement, ...document.querySelectorAll(".fits, .scroll, .tabs")]
    .filter((one) => !one.closest("time-chart") && one.scrollWidth > one.clientWidth)
    .map((one) => `${one.className || "the page"}: ${one.scrollWidth} in ${one.clientWidth}`)"""


@pytest.fixture
def width() -> int:
    return NARROWEST


def test_no_amount_is_cut_or_broken(page: Page, house: House) -> None:
    rich = house.gateway.account()
    for _ in range(3):
        house.gateway.credit(rich.id, str(Decimal("999999999.123456789012345")))
    found = {}
    for path in (f"/credits?user={rich.id}", "/credits?of=accounts", f"/people/{rich.id}", "/people", "/", "/usage"):  # fmt: skip
        page.goto(path)
        found[path] = [line for found in (_CUT, _BROKEN, _WIDE) for line in page.evaluate(found)]
    assert not {path: what for path, what in found.items() if what}

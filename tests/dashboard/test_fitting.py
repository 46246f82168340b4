"""Pages fit: nothing is wider than the page, and what opens opens inside it, on a desktop and on a phone."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from tests import browser
from tests.dashboard.house import SMALL, House

PATHS = (
    "/", "/requests", "/playground", "/batches", "/files", "/queue", "/models", f"/models/{SMALL}", f"/models/{SMALL}?tab=prices",
    "/endpoints", "/keys", "/keys/new", "/usage", "/credits", "/people", "/people/groups", "/settings?all=1", "/settings/audit", "/account",
)  # fmt: skip
_OUTSIDE = r"""() => {
    const wide = document.documentElement.clientWidth;
    const found = document.documentElement.scrollWidth > wide ? [`the page is ${document.documentElement.scrollWidth} wide`] : [];
    for (const popup of document.querySelectorAll("details.popup:not(.up)")) {
        popup.open = true;
        const summary = popup.querySelector("summary");
        const { left, right, width } = popup.querySelector(".popup-body").getBoundingClientRect();
        if (summary.checkVisibility() && (width < 1 || left < 0 || right > wide)) found.push(`${summary.textContent.trim()} opens from ${Math.round(left)} to ${Math.round(right)}`);
        popup.open = false;
    }
    if (wide <= 720)
        for (const cell of document.querySelectorAll("table.two-lines tbody td")) {
            const text = cell.textContent.trim();
            if (cell.getBoundingClientRect().right > wide) found.push(`cut off: ${text.slice(0, 40)}`);
            // (Statuses are known by their colour and place.)
            if (/^\d+$/.test(text) && cell.checkVisibility() && !cell.dataset.label && !cell.querySelector(".status")) found.push(`a number of what? ${text}`);
        }
    return found;
}"""


@pytest.mark.parametrize("width", [browser.WIDE, browser.NARROW])
def test_pages_and_what_opens_on_them_are_no_wider_than_the_window(
    page: Page, house: House, width: int
) -> None:
    person = house.people["member"]
    found = {}
    for path in (*PATHS, f"/people/{person.id}", f"/keys/{person.account.key_id}"):
        page.goto(path)
        found[path] = page.evaluate(_OUTSIDE)
    assert not {path: outside for path, outside in found.items() if outside}

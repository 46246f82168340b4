"""Pages fit: nothing is wider than the page, and what opens opens inside it, on a desktop and on a phone."""

from __future__ import annotations

import json

import pytest
import requests
from playwright.sync_api import Page

from tests import browser
from tests.batches.desk import CHAT
from tests.dashboard.house import LARGE, SMALL, House
from tests.gateway import HELLO
from tests.processes import eventually

PATHS = (
    "/", "/requests", "/playground", "/batches", "/files", "/queue", "/models", f"/models/{SMALL}", f"/models/{SMALL}?tab=prices", f"/models/{SMALL}?tab=access", f"/models/{SMALL}?tab=code", "/models/-/new",
    "/endpoints", "/keys", "/keys/new", "/usage", "/usage?by=key", "/usage?by=status", "/credits", "/tool-sources", "/providers", "/people", "/people/groups", "/settings?all=1", "/settings/audit", "/account",
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
    // (The twin of a chart has a column for each of its series.)
    for (const box of document.querySelectorAll(".scroll, .fits, .tabs"))
        if (!box.closest("time-chart") && box.scrollWidth > box.clientWidth) found.push(`${box.className} is ${box.scrollWidth} wide in ${box.clientWidth}: ${box.textContent.trim().slice(0, 40)}`);
    if (wide <= 720)
        for (const cell of document.querySelectorAll("table.two-lines tbody td")) {
            const text = cell.textContent.trim();
            if (cell.getBoundingClientRect().right > wide) found.push(`cut off: ${text.slice(0, 40)}`);
            // (Statuses are known by their colour and place.)
            if (/^[\d,]+$/.test(text) && cell.checkVisibility() && !cell.dataset.label && !cell.querySelector(".status")) found.push(`a number of what? ${text}`);
        }
    return found;
}"""


@pytest.mark.parametrize("width", [browser.WIDE, browser.NARROW])
def test_pages_and_what_opens_on_them_are_no_wider_than_the_window(
    page: Page, house: House, width: int
) -> None:
    found = {}
    for path in (*PATHS, *_of_one_thing(house)):
        page.goto(path)
        found[path] = page.evaluate(_OUTSIDE)
    assert not {path: outside for path, outside in found.items() if outside}


def _of_one_thing(house: House) -> list[str]:
    """Pages of a person, a key, an endpoint, a composite model, a file and its batch, which has failed lines, and a call."""
    gateway, person = house.gateway, house.people["member"]
    pool = gateway.composite(SMALL, LARGE)
    name = "what-to-summarise-of-the-documents-of-the-last-quarter.jsonl"
    file, batch = _batch(house, name, (SMALL, gateway.model("fail-400", price=None)))
    call = gateway.log_of(gateway.chat(SMALL, by=person.account)).request_id
    return [
        f"/people/{person.id}", f"/people/{person.id}/access", f"/keys/{person.account.key_id}", f"/endpoints/{gateway.endpoint()}", f"/models/{pool}?tab=routing",
        f"/files/{file}", f"/batches/new?file={file}", "/batches/new", f"/batches/{batch}", f"/requests/{call}", f"/requests/{call}/compare",
    ]  # fmt: skip


def _batch(house: House, name: str, models: tuple[str, ...]) -> tuple[str, str]:
    """The ids of the file and of the batch, which is over."""
    gateway, account = house.gateway, house.people["member"].account
    lines = [
        {"custom_id": f"r{number}", "method": "POST", "url": CHAT, "body": {"model": model, "messages": HELLO}}
        for number, model in enumerate(models)
    ]  # fmt: skip
    content = "\n".join(map(json.dumps, lines))
    file = requests.post(f"{house.url}/ai/v1/files", files={"file": (name, content)}, headers=account.authorization, timeout=20).json()["id"]  # fmt: skip
    order = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h", "metadata": {"team": "support"}}  # fmt: skip
    batch = gateway.post("/batches", order, by=account).json()["id"]
    eventually(lambda: gateway.get(f"/batches/{batch}", by=account).json()["status"] == "completed", 30)  # fmt: skip
    return file, batch

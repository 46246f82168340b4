"""Batches, files and the queue in a browser: a batch from a file with a bad line to its download, and what people do by keyboard and on phones."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Page, expect

from tests import browser
from tests.dashboard.house import SMALL, House
from tests.processes import eventually

CHAT = "/v1/chat/completions"


def _line(number: int, model: str, **changed: Any) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
    line = {"custom_id": f"r{number}", "method": "POST", "url": CHAT, "body": body} | changed
    return json.dumps(line)


def _write(folder: Path, name: str, lines: list[str]) -> Path:
    path = folder / name
    path.write_text("\n".join(lines))
    return path


def _uploaded(house: House) -> str:
    """The id of a file with two lines."""
    content = "\n".join(_line(number, SMALL) for number in range(2))
    made = requests.post(
        f"{house.url}/ai/v1/files",
        files={"file": ("two.jsonl", content)},
        headers=house.people["member"].account.authorization,
        timeout=20,
    )
    id: str = made.json()["id"]
    return id


def _send(page: Page, file: Path) -> None:
    page.get_by_label("A file of requests").set_input_files(file)
    page.get_by_role("button", name="Upload and check").click()


@pytest.mark.parametrize("person", ["member"])
def test_a_batch_from_a_bad_line_to_its_download(page: Page, house: House, tmp_path: Path) -> None:
    fails = house.gateway.model("fail-400", price=None)
    lines = [_line(1, SMALL), _line(2, SMALL), _line(3, fails)]
    browser.expect_status(page, 422)
    page.goto("/batches/new")
    _send(page, _write(tmp_path, "bad.jsonl", [*lines, _line(4, SMALL, method="GET")]))
    row = page.get_by_role("row", name="Only POST is currently supported")
    expect(row).to_contain_text('{"custom_id": "r4"')
    expect(row.get_by_role("cell").first).to_have_text("4")
    expect(page.locator("[data-said]")).to_have_text("Nothing was kept of the file.")

    _send(page, _write(tmp_path, "mended.jsonl", lines))
    expect(page.get_by_role("heading", name="mended.jsonl")).to_be_visible()
    expect(page.locator("#estimate tfoot")).to_contain_text("3")
    page.get_by_label("Metadata").fill("journey: yes")
    page.get_by_role("button", name="Start").click()
    page.wait_for_url("**/batches/*-*")
    batch = page.url.rpartition("/")[2]
    # It refreshes itself to its end.
    page.get_by_role("link", name="See what came of it").click(timeout=20_000)
    expect(page.locator("main")).to_contain_text(
        "2 completed 1 failed 0 cancelled 0 not run = 3 lines"
    )

    charges = "SELECT sum(abs(amount)) AS sum FROM credits_transactions WHERE fusillade_batch_id = %s"  # fmt: skip
    charged = house.gateway.one(charges, batch).sum
    shown = page.locator("a.tile", has_text="Cost so far").locator(".tile-value")
    assert Decimal((shown.get_attribute("title") or "").removeprefix("$")) == charged > 0

    with page.expect_download() as download:
        page.get_by_role("link", name="Output").click()
    saved = Path(download.value.path()).read_text().splitlines()
    assert {json.loads(line)["custom_id"] for line in saved} == {"r1", "r2"}

    page.get_by_role("link", name="Failed", exact=True).click()
    page.get_by_label("Choose r3").check()
    page.get_by_role("button", name="Retry the chosen").click()
    expect(page.locator("#notice")).to_have_text("1 request runs again.")
    retried = "SELECT retried FROM fusillade.requests WHERE batch_id = %s AND custom_id = 'r3'"
    eventually(lambda: house.gateway.one(retried, batch).retried == 1)


@pytest.mark.parametrize("person", ["member"])
def test_a_batch_is_made_by_keyboard_alone(page: Page, house: House, tmp_path: Path) -> None:
    page.goto("/batches")
    page.keyboard.press("g")
    page.keyboard.press("f")
    page.wait_for_url("**/files")
    summary = page.locator("details.card > summary", has_text="Upload a file")
    if not page.locator("details.card[open]").count():
        summary.focus()
        page.keyboard.press("Enter")
    page.get_by_label("A file of requests").set_input_files(_write(tmp_path, "keys.jsonl", [_line(1, SMALL)]))  # fmt: skip
    page.get_by_role("button", name="Upload and check").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/batches/new?*")
    page.get_by_role("button", name="Start").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#notice")).to_have_text("Batch started.")


def test_filters_stand_in_the_address_and_hold(page: Page, house: House) -> None:
    page.goto("/files")
    page.get_by_label("Purpose").select_option("batch_output")
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url("**/files?purpose=batch_output")
    page.get_by_label("Part of the name").fill("no such name")
    page.get_by_role("button", name="Filter").click()
    expect(page.get_by_text("No file matches")).to_be_visible()
    page.reload()
    expect(page.get_by_text("No file matches")).to_be_visible()
    page.go_back()
    expect(page).to_have_url(f"{house.url}/files?purpose=batch_output")
    expect(page.get_by_label("Purpose")).to_have_value("batch_output")


def test_a_row_that_is_pointed_at_stays(page: Page, house: House) -> None:
    page.goto("/queue")
    part = page.locator("live-part")
    before = page.locator("tr[id^=process-]").first
    before.hover()
    page.evaluate("document.querySelector('tr[id^=process-]').id = 'process-another'")
    part.evaluate("async part => { await part.refresh() }")
    expect(page.locator("#process-another")).to_be_attached()
    page.locator("h1").hover()
    part.evaluate("async part => { await part.refresh() }")
    expect(page.locator("#process-another")).to_have_count(0)


@pytest.mark.parametrize(
    ("theme", "width"), [("light", browser.WIDE), ("dark", browser.NARROW)], ids=["wide", "narrow"]
)
def test_everybody_can_use_these_pages(page: Page, house: House, theme: str, width: int) -> None:
    file = _uploaded(house)
    order = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"}
    batch = house.gateway.post("/batches", order, by=house.people["member"].account).json()["id"]
    new, one_file, one_batch = f"/batches/new?file={file}", f"/files/{file}", f"/batches/{batch}"
    for path in ("/batches", "/batches/new", new, one_batch, "/files", one_file, "/queue"):
        page.goto(path)
        assert browser.axe(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path

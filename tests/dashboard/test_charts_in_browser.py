"""The chart element in a browser: its pixels, its values, what a drag does, and that it lives on after back."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from dwctl.dashboard import charts
from tests import browser
from tests.dashboard.house import LARGE, SMALL, House

BOTH_THEMES = pytest.mark.parametrize("theme", ["light", "dark"])


def opened(page: Page, path: str = "/usage?order=requests") -> Locator:
    """The page's chart, once it is drawn."""
    page.goto(path)
    chart = page.locator("time-chart")
    expect(chart.locator("canvas").first).to_be_visible()
    return chart


def color_of(page: Page, token: str) -> str:
    found: str = page.evaluate("name => getComputedStyle(document.documentElement).getPropertyValue(name)", f"--{token}")  # fmt: skip
    return found.strip()


def has_pixels(chart: Locator, color: str, place: int = 0) -> bool:
    """Whether a canvas of it has the colour, as near as smoothed lines come to it."""
    wanted = [int(part) for part in re.findall(r"\d+", color)[:3]]
    found: bool = chart.locator("canvas").nth(place).evaluate(
        """(canvas, wanted) => {
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            for (let at = 0; at < data.length; at += 4)
                if (data[at + 3] > 180 && wanted.every((part, of) => Math.abs(data[at + of] - part) < 24)) return true;
            return false;
        }""",
        wanted,
    )  # fmt: skip
    return found


def values(chart: Locator) -> dict[str, str]:
    """The legend as it stands."""
    items = chart.locator(".chart-legend li:has(b)")
    return {item.locator("span").inner_text(): item.locator("b").inner_text() for item in items.all()}  # fmt: skip


@BOTH_THEMES
def test_lines_and_errors_have_their_colours_also_after_back(page: Page, theme: str) -> None:
    chart = opened(page)
    names = values(chart)
    drawn = charts.colors(name if name != "No known model" else "" for name in names if name not in ("Errors", "Other"))  # fmt: skip
    assert has_pixels(chart, color_of(page, drawn[SMALL]))
    assert has_pixels(chart, color_of(page, "chart-bad"), place=1)
    page.goto("/credits")
    page.go_back()
    expect(chart.locator("canvas")).to_have_count(2)
    assert has_pixels(chart, color_of(page, drawn[SMALL]))


@BOTH_THEMES
@pytest.mark.parametrize("width", [browser.WIDE, browser.NARROW])
def test_the_list_of_calls_shows_how_long_they_took(page: Page, theme: str, width: int) -> None:
    page.goto(f"/requests?model={SMALL}")
    asked = page.locator("details.times")
    expect(asked.locator("time-chart")).to_have_count(0)
    asked.locator("summary").first.click()
    chart = asked.locator("time-chart")
    expect(chart.locator("canvas").first).to_be_visible()
    # (All calls are of one time: a point of each series, the last one on top.)
    assert has_pixels(chart, color_of(page, "series-3"))
    expect(chart.locator(".chart-legend")).to_contain_text("Whole answer, p95")
    assert browser.axe(page) == []
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_the_theme_is_changed_without_a_reload(page: Page) -> None:
    chart = opened(page)
    light = color_of(page, "chart-bad")
    page.locator("h1").click()
    page.keyboard.press("t")
    dark = color_of(page, "chart-bad")
    assert dark != light
    assert has_pixels(chart, dark, place=1)


def test_the_legend_says_what_the_api_says(page: Page, house: House) -> None:
    found: Any = house.gateway.admin("GET", "/requests/breakdown?order=requests").json()
    chart = opened(page)
    said = values(chart)
    rows = {row["id"] or "No known model": row["requests"] for row in found["rows"]}
    beyond = [rows.pop(name) for name in set(rows) - set(said)]
    assert {name: said[name] for name in rows} == {name: str(n) for name, n in rows.items()}
    assert said.get("Other", "0") == str(sum(beyond))
    assert said["Errors"] == str(found["total"]["errors"])


def test_arrow_keys_read_the_values(page: Page) -> None:
    chart = opened(page)
    chart.locator(".chart-plot").focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    expect(chart.locator("[aria-live]")).to_contain_text(re.compile(rf"\d\d:\d\d: .*{SMALL} \d"))
    expect(chart.locator(".chart-legend li").first).not_to_have_text("In all")


def test_a_drag_sets_the_range_and_a_double_click_goes_back(page: Page) -> None:
    chart = opened(page, "/usage?by=key&order=requests")
    box = chart.locator(".u-over").first.bounding_box()
    assert box
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.8, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.9, y, steps=3)
    page.mouse.move(box["x"] + box["width"] - 1, y, steps=3)
    page.mouse.up()
    page.wait_for_url(re.compile(r"range=[\d-]+T[\d:]+Z\.\.[\d-]+T[\d:]+Z"))
    assert "by=key" in page.url
    assert "%3A" not in page.url
    expect(page.locator("table").last).to_contain_text("laptop")
    page.reload()
    chart = page.locator("time-chart")
    expect(chart.locator("canvas").first).to_be_visible()
    over = chart.locator(".u-over").first
    over.dblclick()
    page.wait_for_url(re.compile(r"/usage\?by=key&order=requests$"))


def test_filters_stand_in_the_address_and_hold(page: Page) -> None:
    page.goto("/usage")
    page.locator("select[name=by]").select_option("user")
    page.wait_for_url("**/usage?by=user")
    page.locator("select[name=kind]").select_option("line")
    page.wait_for_url("**/usage?by=user&kind=line")
    page.reload()
    expect(page.locator("select[name=by]")).to_have_value("user")
    page.go_back()
    page.wait_for_url("**/usage?by=user")
    expect(page.locator("select[name=kind]")).to_have_value("stack")


@BOTH_THEMES
@pytest.mark.parametrize("width", [browser.WIDE, browser.NARROW])
def test_nothing_is_in_anybodys_way(page: Page, theme: str, width: int) -> None:
    for path in ("/", "/usage"):
        opened(page, path)
        if path == "/":
            expect(page.locator("#failed table")).to_be_visible()
        assert browser.axe(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        browser.shot(page, f"{'overview' if path == '/' else 'usage'}-{theme}-{width}")


@pytest.mark.parametrize("person", ["member"])
def test_a_members_overview_has_their_calls(page: Page) -> None:
    chart = opened(page, "/")
    assert LARGE in values(chart)
    expect(page.get_by_role("link", name="Balance")).to_be_visible()


def test_a_chart_that_cannot_be_loaded_says_so_and_tries_again(page: Page, house: House) -> None:
    opened(page, "/")
    browser.expect_status(page, 503)
    page.route("**/overview/calls.json*", lambda route: route.fulfill(status=503, body="{}"))
    page.evaluate(
        """() => {
            const chart = document.querySelector("time-chart");
            delete chart.dataset.points;
            chart.replaceWith(chart.cloneNode(true));
        }"""
    )
    chart = page.locator("time-chart")
    expect(chart.get_by_text("The chart could not be loaded.")).to_be_visible()
    page.unroute("**/overview/calls.json*")
    chart.get_by_role("button", name="Try again").click()
    expect(chart.locator("canvas").first).to_be_visible()
    expect(chart.get_by_text("The chart could not be loaded.")).to_be_hidden()

"""That a test of a page fails on each thing that no page may do: a fixture that cannot fail proves nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from dwctl.dashboard import assets
from tests.browser import (
    NARROW,
    SCREENSHOTS,
    WIDE,
    Misbehaved,
    axe,
    browsing,
    expect_status,
    forgive,
    shot,
)
from tests.dashboard.house import House

HEAD = '<!doctype html><html lang="en"><head><title>A page</title>'


def serve(page: Page, body: str, status: int = 200) -> None:
    """Show this page as if the service had answered it, with the policy of all pages."""
    headers = {"content-type": "text/html; charset=utf-8", "content-security-policy": assets.POLICY}

    def answer(route: Route) -> None:
        route.fulfill(status=status, headers=headers, body=HEAD + body)

    page.route("**/made-up", answer)
    page.goto("/made-up")


BAD = {
    "a console error": ("", "console.error('lost')", "console: lost"),
    "an error that escapes": ("", "setTimeout(() => { throw new Error('lost') })", "error: lost"),
    "a promise that nobody catches": ("", "Promise.reject(new Error('lost')); 0", "error: lost"),
    "an inline script": ("<script>1</script>", "", r"\[policy\] script-src-elem"),
    "an inline style": ('<p style="color:red">', "", r"\[policy\] style-src-attr"),
    "a handler": ('<p onclick="1">', "", r"\[policy\] script-src-attr"),
    "another host's script": ('<script src="https://cdn.example/x.js"></script>', "", r"\[policy\] script-src"),
    "another host": ("", "open('http://elsewhere.example/'); 0", "asked another host"),
    "another port": ("", "open('http://127.0.0.1:9/'); 0", "asked another host"),
    "an asset that is missing": ('<script src="/assets/0123456789abcdef/no.js"></script>', "", "answered 404: .*/no.js"),
    "a picture that is missing": ('<img src="/assets/none.svg" alt="">', "", "answered 404: .*/none.svg"),
    "an answer that is an error": ("", "fetch('/nowhere').then(it => it.text())", "answered 404: .*/nowhere"),
}  # fmt: skip


def test_all_that_no_page_may_do_is_noticed(browser: Browser, house: House) -> None:
    def visit() -> None:
        with browsing(browser, house.url) as page:
            for body, script, said in BAD.values():
                serve(page, body)
                if script:
                    page.evaluate(script)
                forgive(page, said)
            page.evaluate("console.error('and one more')")

    with pytest.raises(Misbehaved, match="and one more"):
        visit()


@pytest.mark.parametrize("bad", ["a console error", "an inline style"])
def test_a_test_fails_on_it(bad: str, browser: Browser, house: House) -> None:
    body, script, said = BAD[bad]

    def visit() -> None:
        with browsing(browser, house.url) as page:
            serve(page, body)
            if script:
                page.evaluate(script)

    with pytest.raises(Misbehaved, match=said):
        visit()


def test_a_page_that_does_nothing_of_it_passes(page: Page) -> None:
    serve(page, "<h1>Hello</h1>")
    expect(page.get_by_role("heading")).to_have_text("Hello")


def test_errors_that_a_test_expects_do_not_fail_it(page: Page) -> None:
    expect_status(page, 404)
    serve(page, "<h1>Gone</h1>", status=404)
    page.evaluate("fetch('/nowhere').then(it => it.text())")


def test_what_is_forgiven_must_have_happened(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(page, "")
    page.evaluate("console.error('one of a kind')")
    forgive(page, "one of a kind")
    monkeypatch.setattr("tests.browser._PATIENCE_S", 0)
    with pytest.raises(AssertionError, match="nothing like"):
        forgive(page, "one of a kind")


@pytest.mark.parametrize("person", ["member"])
def test_whoever_is_named_is_signed_in(page: Page, house: House) -> None:
    serve(page, "")
    found = page.evaluate("fetch('/admin/api/v1/users/current').then(it => it.json())")
    assert found["email"] == house.people["member"].email


@pytest.mark.parametrize("person", [None])
def test_nobody_need_be(page: Page) -> None:
    expect_status(page, 401)
    serve(page, "")
    assert page.evaluate("fetch('/admin/api/v1/users/current').then(it => it.status)") == 401


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_a_page_is_seen_in_a_theme_and_a_width(page: Page, theme: str, width: int) -> None:
    serve(page, "")
    assert page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") == (theme == "dark")
    assert page.evaluate("innerWidth") == width


def test_axe_finds_what_is_wrong_and_nothing_else(page: Page) -> None:
    serve(page, '<main><h1>Hello</h1><img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">')
    (found,) = axe(page)
    assert found.startswith("image-alt (critical)")
    serve(page, "<main><h1>Hello</h1><p>World</p></main>")
    assert axe(page) == []


def test_pictures_are_taken_where_a_folder_is_named(page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    serve(page, "<h1>Hello</h1><input autofocus>")
    shot(page, "nowhere")
    monkeypatch.setenv(SCREENSHOTS, str(tmp_path))
    shot(page, "hello")
    assert [file.name for file in tmp_path.iterdir()] == ["hello.png"]

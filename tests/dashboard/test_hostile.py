"""Pages against whoever means ill: keys that open what they are not for, addresses and cookies that nobody's form has made, hostile texts."""

from __future__ import annotations

import re
from typing import Any

import pytest
from flask.testing import FlaskClient
from playwright.sync_api import Page, expect

from dwctl.dashboard.forms import price_of_one
from tests.cast import Cast
from tests.dashboard import forms
from tests.gateway import unique


class TestKeys:
    """Pages make keys and sign people in and out: a key that opened them would be for everything."""

    @pytest.fixture(params=["realtime", "platform"])
    def bearer(self, request: pytest.FixtureRequest, client: FlaskClient, cast: Cast) -> dict[str, str]:  # fmt: skip
        body = {"name": unique("key"), "purpose": request.param}
        path = "/admin/api/v1/users/current/api-keys"
        made = client.post(path, json=body, headers=Cast.headers("bob")).json
        assert made is not None
        return {"Authorization": f"Bearer {made['key']}"}

    def test_open_no_page(self, client: FlaskClient, bearer: dict[str, str]) -> None:
        for path in ("/", "/account", "/keys/new", "/requests/export", "/badges"):
            answer = client.get(path, headers=bearer)
            assert answer.status_code == 303, path
            assert answer.headers["Location"].startswith("/sign-in"), path
        assert "Sign in" in client.get("/sign-in", headers=bearer).text

    def test_send_no_form(self, client: FlaskClient, bearer: dict[str, str]) -> None:
        token = forms.token(forms.get(client, "bob", "/keys/new").text)
        sent = {"_token": token, "name": "made of a key", "purpose": "platform"}
        answer = client.post("/keys/new", data=sent, headers=bearer)
        assert answer.status_code == 303
        assert "made of a key" not in forms.get(client, "bob", "/keys").text


@pytest.mark.parametrize("asked", ["_scheme=javascript&_external=1", "_scheme=x", "endpoint=x", "_anchor=x&_method=y", "self=x"])  # fmt: skip
@pytest.mark.parametrize("path", ["/usage", "/requests", "/requests/chart", "/settings/audit"])
def test_parameters_of_an_address_are_parameters_alone(client: FlaskClient, cast: Cast, path: str, asked: str) -> None:  # fmt: skip
    answer = forms.get(client, "admin", f"{path}?range=7d&{asked}")
    assert answer.status_code == 200
    links: list[Any] = re.findall(r'href="([^"]*)"', answer.text)
    assert links
    assert all(link.startswith(("/", "?", "#")) for link in links)


@pytest.mark.parametrize("path", ["/", "/usage", "/requests", "/requests/chart"])
@pytest.mark.parametrize("range", ["0001-01-01T00:00..0001-06-01T00:00", "9999-06-01..9999-12-31"])
def test_the_ends_of_the_calendar_are_no_range(client: FlaskClient, cast: Cast, path: str, range: str) -> None:  # fmt: skip
    client.set_cookie("dw_zone", "America/New_York")
    answer = forms.get(client, "admin", f"{path}?range={range}")
    assert answer.status_code == 400
    assert "years from 1970" in answer.text


@pytest.mark.parametrize("text", ["1e9999999", "1e999999", "-1e-999999", "NaN", "sNaN", "Infinity", "much"])  # fmt: skip
def test_what_is_no_price_goes_on_as_it_is(text: str) -> None:
    assert price_of_one(text) == text


def test_a_notice_says_what_was_done_whatever_the_names_in_it(page: Page) -> None:
    page.goto("/account")
    page.evaluate("document.cookie = 'dw_notice=Key%20100%25%20%2541%20revoked.; path=/'")
    page.evaluate("document.cookie = 'dw_zone=%E0%A4%A; path=/'")
    page.reload()
    expect(page.locator("#notice")).to_have_text("Key 100% %41 revoked.")
    page.keyboard.press("?")
    expect(page.locator("#keys-help")).to_be_visible()


def test_a_replayed_picture_is_a_link_only_to_the_web(page: Page) -> None:
    page.goto("/playground")
    source = page.locator('script[src*="elements/play-ground.js"]').get_attribute("src")
    urls = ["javascript:alert(1)", " JavaScript:alert(1)", "data:text/html,<script>1</script>", "/account", "https://pictures.example/a.png"]  # fmt: skip
    found = page.evaluate(
        """async ([source, urls]) => {
            const { pictures } = await import(source.replace("play-ground.js", "play-images.js"));
            return [...pictures(urls, () => {}).querySelectorAll("[href], [src]")].map((one) => one.href ?? one.src);
        }""",
        [source, urls],
    )
    assert found == urls[-1:]

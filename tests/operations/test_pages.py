"""The page at the root, and paths that nothing serves."""

import base64
import hashlib
from html.parser import HTMLParser

import pytest
from flask.testing import FlaskClient


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | {"DWCTL_METADATA__TITLE": "Models <b>& more</b>"}


def test_the_root_says_what_this_is_with_its_title_escaped(client: FlaskClient):
    page = client.get("/about")
    assert page.status_code == 200
    assert page.mimetype == "text/html"
    assert "<title>Models &lt;b&gt;&amp; more&lt;/b&gt;</title>" in page.text


def test_the_root_needs_no_script_and_may_not_be_framed(client: FlaskClient):
    page = client.get("/about")
    assert "<script" not in page.text
    assert "style=" not in page.text
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    # The page's own style is the one that is allowed.
    style = page.text.partition("<style>")[2].partition("</style>")[0]
    assert base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() in policy
    assert page.headers["Referrer-Policy"] == "same-origin"
    assert page.headers["X-Frame-Options"] == "DENY"


class Links(HTMLParser):
    found: list[str]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found.append(dict(attrs)["href"] or "")


def test_every_link_of_the_root_leads_somewhere(client: FlaskClient):
    links = Links()
    links.found = []
    links.feed(client.get("/about").text)
    assert links.found
    for path in links.found:
        # Whatever it answers (ready or not, signed in or not), the path is served.
        assert client.get(path).status_code != 404, path


@pytest.mark.parametrize(
    "path", ["/nothing", "/nothing/here", "/index.html", "/admin", "/internal"]
)
def test_an_unknown_path_is_404_in_json(client: FlaskClient, path: str):
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.mimetype == "application/json"
    assert answer.json["code"] == "not_found"


@pytest.mark.parametrize("path", ["/nothing", "/admin/api/v1/user", "/ai/nothing"])
def test_an_address_without_anything_says_so(client: FlaskClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert (answer.json.get("error") or answer.json)[
        "message"
    ] == "There is nothing under this path."

"""The files that pages load: which, how large, how they are served and kept, and what happens when one is missing."""

from __future__ import annotations

import gzip
import json
import logging
import posixpath
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import brotli
import pytest
from flask import Flask, url_for
from flask.testing import FlaskClient

from dwctl.dashboard import assets, vendoring
from dwctl.dashboard.assets import Shelf, Shelves
from tests.operations.documented import an_app

KB = 1024
PACKAGE = json.loads((vendoring.HERE / "package.json").read_text())
LOCKED = json.loads((vendoring.HERE / "package-lock.json").read_text())["packages"]
LATER = ("vendor/marked.js", "vendor/purify.js")
"""What pages `import()` when something is to be shown that needs it."""
TEMPLATES = assets.STATIC.parent / "templates"
PAGES = sorted(TEMPLATES.rglob("*.html"))
IN_BROWSERS = {"Accept-Encoding": "gzip, deflate, br, zstd"}

if vendoring.missing():
    pytest.skip(f"assets are missing: {vendoring.COMMAND}", allow_module_level=True)


@pytest.fixture
def client() -> FlaskClient:
    return an_app().test_client()


def address(name: str) -> str:
    with an_app().test_request_context():
        return assets.asset(name)


def on_the_shelf() -> Shelf:
    with an_app().test_request_context():
        return assets.shelf()


@pytest.fixture
def copies(tmp_path: Path) -> Shelves:
    """All files again, in folders that a test may change."""
    shutil.copytree(assets.STATIC, tmp_path / "static")
    shutil.copytree(vendoring.VENDOR, tmp_path / "vendor")
    return Shelves(tmp_path / "static", tmp_path / "vendor")


@pytest.fixture
def app_with(copies: Shelves) -> Iterator[Flask]:
    """An application that serves the copies."""
    app = an_app()
    usual = app.extensions["dwctl.assets"]
    app.extensions["dwctl.assets"] = copies
    yield app
    app.extensions["dwctl.assets"] = usual


# --- the lists


def test_nothing_is_missing_and_all_is_of_the_lock_file() -> None:
    assert vendoring.is_current()
    assert on_the_shelf().missing == ()


def test_versions_are_exact_and_locked_by_hash_at_no_address() -> None:
    wanted = PACKAGE["dependencies"] | PACKAGE["devDependencies"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in wanted.values())
    for name, locked in LOCKED.items():
        assert "resolved" not in locked, name
        if name:
            assert locked["integrity"].startswith("sha512-"), name
    assert {name: LOCKED[f"node_modules/{name}"]["version"] for name in wanted} == wanted


def test_the_list_of_third_party_software_is_that_of_the_lock_file() -> None:
    """`dwctl assets fetch` writes it."""
    assert vendoring.THIRD_PARTY.read_text() == vendoring.third_party()


def test_each_library_brings_its_licence() -> None:
    licences = {path.name: path.read_text() for path in vendoring.VENDOR.glob("LICENSE.*")}
    assert len(licences) == len(PACKAGE["dependencies"])
    assert all(len(text) > 500 for text in licences.values())


def test_icons_are_symbols_and_nothing_else() -> None:
    root = ElementTree.parse(vendoring.VENDOR / "icons.svg").getroot()
    svg = "{http://www.w3.org/2000/svg}"
    assert [symbol.get("id") for symbol in root] == sorted(PACKAGE["icons"])
    shapes = {"path", "circle", "rect", "line", "polyline", "polygon", "ellipse"}
    assert {shape.tag.removeprefix(svg) for symbol in root for shape in symbol} <= shapes


def test_templates_use_icons_that_there_are() -> None:
    written = re.compile(r"""icon\(\s*["']([\w-]+)["']""")
    used = {name for path in PAGES for name in written.findall(path.read_text())}
    assert used
    assert used - set(PACKAGE["icons"]) == set()


NAMED = re.compile(r"""asset\(\s*["']([\w./-]+)["']""")
STATIC_IMPORT = re.compile(
    r"""^(?:import|export)\b[^"'();]*["'](\.{1,2}/[\w./-]+)["']""", re.MULTILINE
)
ON_FIRST_USE = re.compile(r"""\bimport\(\s*["'](\.{1,2}/[\w./-]+)["']""")
URL = re.compile(r"""url\(\s*["']?(?!data:|#)([\w./-]+)""")


def named_in(name: str, *kinds: re.Pattern[str]) -> set[str]:
    """Assets that an asset of ours names, by their own names."""
    text = on_the_shelf().assets[name].content.decode()
    found = {reference for kind in kinds for reference in kind.findall(text)}
    return {posixpath.normpath(posixpath.join(posixpath.dirname(name), each)) for each in found}


def loaded_by(template: Path) -> set[str]:
    """Assets that a page of this template loads at once: its own and the frame's, with what they import."""
    frames = (TEMPLATES / "base.html", TEMPLATES / "macros" / "ui.html")
    waiting = {name for path in (template, *frames) for name in NAMED.findall(path.read_text())}
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        found.add(name)
        if name.endswith(".js") and not name.startswith("vendor/"):
            waiting |= named_in(name, STATIC_IMPORT) - found
    return found


def test_sources_name_files_that_there_are() -> None:
    """A template's `asset("…")`, a module's relative imports, a style sheet's `url()`."""
    shelf = on_the_shelf().assets
    for path in PAGES:
        assert set(NAMED.findall(path.read_text())) <= set(shelf), path
    for name in shelf:
        if name.endswith(".js") and not name.startswith("vendor/"):
            assert named_in(name, STATIC_IMPORT, ON_FIRST_USE) <= set(shelf), name
    assert named_in("app.css", URL) == {"vendor/inter.woff2"}


# --- sizes


def compressed_size(names: Iterable[str]) -> float:
    """In KB, as a browser gets them by gzip."""
    shelf = on_the_shelf().assets
    files = [(name, shelf[name].content) for name in names]
    sizes = [len(c) if n.endswith(".woff2") else len(gzip.compress(c, 9)) for n, c in files]
    return sum(sizes) / KB


def test_a_cold_page_is_at_most_120_kb_of_which_60_are_scripts() -> None:
    for path in PAGES:
        loaded = loaded_by(path)
        assert {"app.css", "app.js", "vendor/htmx.js", "vendor/inter.woff2"} <= loaded
        assert loaded.isdisjoint(LATER), path
        assert compressed_size(loaded) <= 120, path
        assert compressed_size({name for name in loaded if name.endswith(".js")}) <= 60, path


def test_what_is_loaded_on_first_use_is_weighed_too() -> None:
    assert compressed_size(LATER) <= 28
    some = named_in("elements/markdown.js", ON_FIRST_USE)
    assert some == set(LATER)


@pytest.mark.parametrize(
    ("name", "most"),
    [("htmx.js", 14), ("uplot.js", 22), ("uplot.css", 2), ("marked.js", 16), ("purify.js", 12.1), ("inter.woff2", 48), ("icons.svg", 8)],
)  # fmt: skip
def test_a_library_is_as_small_as_was_weighed(name: str, most: float) -> None:
    assert compressed_size([f"vendor/{name}"]) <= most


# --- serving


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("app.css", "text/css; charset=utf-8"),
        ("app.js", "text/javascript; charset=utf-8"),
        ("favicon.svg", "image/svg+xml"),
        ("vendor/htmx.js", "text/javascript; charset=utf-8"),
        ("vendor/inter.woff2", "font/woff2"),
    ],
)
def test_a_file_has_its_type_and_is_kept_for_ever(
    client: FlaskClient, name: str, kind: str
) -> None:
    answer = client.get(address(name))
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == kind
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert answer.data == on_the_shelf().assets[name].content
    head = client.head(address(name))
    assert (head.data, head.headers["Content-Length"]) == (b"", str(len(answer.data)))
    assert client.post(address(name)).status_code == 405


@pytest.mark.parametrize("name", ["app.css", "vendor/uplot.js"], ids=["ours", "brought"])
@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        (IN_BROWSERS["Accept-Encoding"], "br"),
        ("gzip", "gzip"),
        ("br;q=0, gzip;q=0.5", "gzip"),
        ("*", "br"),
        ("zstd", None),
        ("identity", None),
        ("", None),
    ],
)
def test_text_comes_in_a_coding_that_the_browser_reads(client: FlaskClient, name: str, accepted: str, coding: str | None) -> None:  # fmt: skip
    answer = client.get(address(name), headers={"Accept-Encoding": accepted})
    assert answer.headers.get("Content-Encoding") == coding
    assert answer.headers["Vary"] == "Accept-Encoding"
    read = {"br": brotli.decompress, "gzip": gzip.decompress, None: bytes}[coding]
    plain = on_the_shelf().assets[name].content
    assert read(answer.data) == plain
    assert coding is None or len(answer.data) < len(plain) / 2


def test_a_font_is_not_compressed_twice(client: FlaskClient) -> None:
    answer = client.get(address("vendor/inter.woff2"), headers=IN_BROWSERS)
    assert "Content-Encoding" not in answer.headers
    assert "Vary" not in answer.headers


def test_a_browser_that_has_a_file_is_told_so(client: FlaskClient) -> None:
    tags = set()
    for headers in ({}, IN_BROWSERS):
        tag = client.get(address("app.css"), headers=headers).headers["ETag"]
        again = client.get(address("app.css"), headers=headers | {"If-None-Match": tag})
        assert (again.status_code, again.data) == (304, b"")
        tags.add(tag)
    assert len(tags) == 2


def test_under_the_version_of_another_process_a_file_is_asked_for_again(client: FlaskClient) -> None:  # fmt: skip
    answer = client.get("/assets/0123456789abcdef/app.css")
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize(
    "name",
    ["nothing.js", "vendor/brought.json", "vendor/LICENSE.uplot", "vendor/htmx.js.br", "../assets.py", "..%2fassets.py", "vendor/../app.css", "/etc/passwd", "elements", ""],
)  # fmt: skip
def test_nothing_else_is_served(client: FlaskClient, name: str) -> None:
    version = on_the_shelf().version
    answer = client.get(f"/assets/{version}/{name}")
    assert answer.status_code == 404
    assert answer.mimetype == "application/json"


def test_addresses_stand_below_the_path_that_a_proxy_serves() -> None:
    with an_app().test_request_context("/", environ_overrides={"SCRIPT_NAME": "/a/b"}):
        assert assets.asset("app.css") == f"/a/b/assets/{assets.shelf().version}/app.css"


def test_a_template_cannot_name_what_is_not_there() -> None:
    with pytest.raises(LookupError, match=r"no asset 'no\.js'"):
        address("no.js")


# --- changes


def test_an_edit_shows_at_the_next_look_under_another_address(copies: Shelves, tmp_path: Path) -> None:  # fmt: skip
    before = copies.now()
    assert copies.now() is before
    (tmp_path / "static" / "app.css").write_text("body { margin: 0 }")
    after = copies.now()
    assert after.version != before.version
    assert after.assets["app.css"].content == b"body { margin: 0 }"
    (tmp_path / "static" / "elements").mkdir(exist_ok=True)
    (tmp_path / "static" / "elements" / "new.js").write_text("export {}")
    assert "elements/new.js" in copies.now().assets
    assert copies.now().version not in (before.version, after.version)


def test_the_same_files_have_the_same_addresses_in_every_process(copies: Shelves) -> None:
    assert copies.now().version == on_the_shelf().version


@pytest.mark.parametrize("name", ["vendor/htmx.js", "app.css"])
def test_a_missing_file_is_named_with_what_brings_it(name: str, app_with: Flask, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:  # fmt: skip
    (tmp_path / (name if "/" in name else f"static/{name}")).unlink()
    with caplog.at_level(logging.ERROR):
        assets.check(app_with)
    (record,) = caplog.records
    assert vars(record)["missing"] == (name,)
    assert vars(record)["command"] == "dwctl assets fetch"
    with app_with.test_request_context():
        path = url_for("ui_sign_in.show")
    page = app_with.test_client().get(path)
    assert page.status_code == 503
    assert name in page.text
    assert "dwctl assets fetch" in page.text


def test_when_all_are_there_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assets.check(an_app())
    assert caplog.records == []


def test_without_assets_the_apis_work(app_with: Flask, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "vendor")
    client = app_with.test_client()
    assert client.get("/healthz").status_code == 200
    assert client.get("/ai/openapi.json").status_code == 200


def test_the_policy_has_no_exceptions() -> None:
    rules = dict(rule.strip().split(" ", 1) for rule in assets.POLICY.split(";"))
    assert rules["default-src"] == "'none'"
    assert {rules[kind] for kind in ("script-src", "style-src", "font-src", "connect-src", "form-action")} == {"'self'"}  # fmt: skip
    assert "unsafe" not in assets.POLICY
    assert "*" not in assets.POLICY

"""A real browser for tests of pages: Debian's Chromium, driven by Playwright, in contexts that fail on whatever no page may do. (The one
without windows, where it is there: a window that nobody sees takes as long as the page in it.)

    with browsing(browser, url) as page:        # Misbehaved at the end, if something happened meanwhile
        page.goto("/requests")

No page may: log an error, let one escape, break its content security policy, ask for an asset that is not there, ask another host, or be
answered with an error that the test has not announced (`expect_status`). The browser itself can reach this machine only.

Use locators and `expect`, which wait. `page.wait_for_function` needs `eval` in the page, which the policy refuses; `page.evaluate` does not.
Playwright runs an event loop in the thread that starts it, so no test of its modules may start another, nor patch with gevent.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Error,
    Page,
    Playwright,
    Request,
    Response,
    expect,
)

from dwctl.dashboard import vendoring
from tests.processes import ROOT

HEIGHT = 900
WIDE, NARROW = 1440, 390
"""Widths, in CSS pixels, that every screen is looked at in."""
SCREENSHOTS = "DWCTL_SCREENSHOTS"
"""Names the folder for `shot`."""
_NAMES = (
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
)
_REACHES_THIS_MACHINE_ONLY = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"  # fmt: skip
_STATUS = re.compile(r"Failed to load resource: the server responded with a status of (\d+)")
_LEFT = "net::ERR_ABORTED"
"""Of what was being loaded when the page was left."""
_REPORT_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", violation => console.error(
    `[policy] ${violation.effectiveDirective} refused ${violation.blockedURI} ${violation.sourceFile}:${violation.lineNumber} ${violation.sample}`));
"""
_AXE = ROOT / "build" / "axe.min.js"
_PATIENCE_S = 30
"""How long a page may take for something. Long, as the machine may be busy: only what fails takes it."""


class Misbehaved(AssertionError):
    """A page did what no page may."""


class NoBrowser(Exception):
    """There is none on this machine; the text says how to get one."""


@dataclass
class Watch:
    """What has gone wrong in one context, and which statuses its test is prepared for."""

    origin: str
    expected: set[int] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    def follow(self, context: BrowserContext) -> None:
        """From now on, in every page of it."""
        context.add_init_script(_REPORT_VIOLATIONS)
        context.on("console", lambda said: self._heard(said.type, said.text))
        context.on("weberror", lambda found: self.problems.append(f"error: {found.error}"))
        context.on("request", self._asked)
        context.on("response", self._answered)
        context.on("requestfailed", self._failed)

    def _heard(self, kind: str, text: str) -> None:
        # Chromium repeats failed answers here; those are judged by `_answered`, which knows their addresses.
        if kind == "error" and not _STATUS.match(text):
            self.problems.append(f"console: {text}")

    def _asked(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and f"{parts.scheme}://{parts.netloc}" != self.origin:  # fmt: skip
            self.problems.append(f"asked another host: {request.url}")

    def _answered(self, response: Response) -> None:
        if response.status < 400:
            return
        if _is_asset(response.url) or response.status not in self.expected:
            self.problems.append(f"answered {response.status}: {response.url}")

    def _failed(self, request: Request) -> None:
        if _is_asset(request.url) and request.failure != _LEFT:
            self.problems.append(f"not loaded ({request.failure}): {request.url}")


_watches: dict[BrowserContext, Watch] = {}


def executable() -> str:
    """The browser's path. Raises NoBrowser."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        raise NoBrowser(
            "no Chromium on this machine (Debian and Ubuntu: apt-get install chromium-headless-shell, or chromium)"
        )
    return found


@contextmanager
def launched(playwright: Playwright) -> Iterator[Browser]:
    """A browser without windows. Raises NoBrowser."""
    options = [_REACHES_THIS_MACHINE_ONLY, "--disable-background-networking", "--disable-component-update"]  # fmt: skip
    expect.set_options(timeout=_PATIENCE_S * 1000)
    running = playwright.chromium.launch(
        executable_path=executable(), chromium_sandbox=os.geteuid() != 0, args=options
    )
    try:
        yield running
    finally:
        running.close()


@contextmanager
def browsing(
    browser: Browser, url: str, *, theme: str = "light", width: int = WIDE, **options: Any
) -> Iterator[Page]:
    """A page in a context of its own: no cookies, addresses relative to `url`. Raises Misbehaved at the end."""
    parts = urlsplit(url)
    context = browser.new_context(
        base_url=url,
        color_scheme=theme,  # type: ignore[arg-type]
        viewport={"width": width, "height": HEIGHT},
        has_touch=width <= NARROW,
        **options,
    )
    watch = _watches[context] = Watch(f"{parts.scheme}://{parts.netloc}")
    watch.follow(context)
    context.set_default_timeout(_PATIENCE_S * 1000)
    try:
        yield context.new_page()
        _hear_out(context)
    finally:
        context.close()
        del _watches[context]
    if watch.problems:
        raise Misbehaved("the page did what no page may:\n" + "\n".join(watch.problems))


def expect_status(page: Page, *statuses: int) -> None:
    """From now on answers with these errors are what the test wants; never those of assets."""
    _watches[page.context].expected |= set(statuses)


def forgive(page: Page, pattern: str) -> None:
    """Take back what was found and matches, waiting until something does; the test fails if nothing comes."""
    watch = _watches[page.context]
    until = time.monotonic() + _PATIENCE_S
    while not (found := [problem for problem in watch.problems if re.search(pattern, problem)]):
        assert time.monotonic() < until, f"nothing like {pattern!r} in {watch.problems}"
        page.wait_for_timeout(10)
    for problem in found:
        watch.problems.remove(problem)


def set_session(page: Page, cookie: str) -> None:
    """Sign in with a `name=value` that the real door gave (`Person.cookie`)."""
    name, _, value = cookie.partition("=")
    watch = _watches[page.context]
    page.context.add_cookies([{"name": name, "value": value, "url": watch.origin}])


def shot(page: Page, name: str) -> None:
    """A picture of the whole page as `name`.png, where DWCTL_SCREENSHOTS names a folder."""
    folder = os.environ.get(SCREENSHOTS)
    if folder:
        # Hiding the caret would need a style of Playwright's own, which the policy refuses.
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True, caret="initial")


def axe(page: Page, within: str = "body") -> list[str]:
    """What axe-core finds wrong with the page for people with disabilities: a line for each rule and element."""
    page.evaluate(_axe_source())
    found = page.evaluate(
        "within => axe.run(within, {resultTypes: ['violations']}).then(it => it.violations)", within
    )
    return [
        f"{violation['id']} ({violation['impact']}): {violation['help']}: {' '.join(map(str, node['target']))} {node['html'][:200]}"
        for violation in found
        for node in violation["nodes"]
    ]


@cache
def _axe_source() -> str:
    """Of the version that the lock file pins, fetched once by npm. Raises CannotFetch."""
    _AXE.parent.mkdir(exist_ok=True)
    locked = vendoring.HERE / "package-lock.json"
    with FileLock(_AXE.with_name(".installing-axe")):
        if not _AXE.exists() or _AXE.stat().st_mtime < locked.stat().st_mtime:
            with tempfile.TemporaryDirectory(prefix="dwctl-axe-") as folder:
                modules = vendoring.install(Path(folder), "--omit=optional")
                _AXE.write_bytes((modules / "axe-core" / "axe.min.js").read_bytes())
    return _AXE.read_text()


def _is_asset(url: str) -> bool:
    return "/assets/" in urlsplit(url).path


def _hear_out(context: BrowserContext) -> None:
    """What has happened until now is told before the answer to this."""
    for page in context.pages:
        # (A page that is closed or left meanwhile has told already.)
        with contextlib.suppress(Error):
            page.evaluate("0")

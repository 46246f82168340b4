"""What the pages load: our own sources in `static/` and the libraries in `vendor/`, and the policy that keeps pages to them.

All files stand below one address that is a hash of them all, `/assets/<version>/<name>`: a module that imports its neighbour by a relative
path, and a style sheet that names a font, ask below the same address, so each is kept by browsers for ever and none is ever stale. Files are
looked at (`stat`) by every page that names one, and read again when one has changed: an edit in a checkout shows at the next reload.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Final

from flask import Blueprint, Flask, Response, current_app, g, request, url_for
from flask.blueprints import BlueprintSetupState

from dwctl import threads
from dwctl.access import guard
from dwctl.dashboard import vendoring
from dwctl.errors import NotFound

log = logging.getLogger(__name__)

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""The content security policy of every page. Nothing inline, no exceptions: behaviour is in `elements/`, looks are in `app.css`."""

blueprint = Blueprint("assets", __name__)
guard.open_to_all(blueprint, reason="they are the same for everybody, and published")

STATIC = Path(__file__).resolve().parent / "static"
_OURS = ("app.css", "app.js", "favicon.svg")
_KINDS = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
_CODINGS = {"br": ".br", "gzip": ".gz"}
"""Those in which files are kept, the smaller first."""
_COMPRESSED_ALREADY = frozenset({".woff2"})
_KEPT = "public, max-age=31536000, immutable"
_NOT_KEPT = "no-cache"
_VERSION_LENGTH: Final = 16
_EXTENSION = "dwctl.assets"


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it was read. `coded` is what it is in each coding that has been made of it so far."""

    content: bytes
    kind: str
    tag: str
    coded: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shelf:
    """All files at one moment, by name."""

    version: str
    assets: dict[str, Asset]
    missing: tuple[str, ...]


_Look = tuple[tuple[str, int, int], ...]


class Shelves:
    """Of one application: the files as they are on the disk."""

    def __init__(self, static: Path = STATIC, vendor: Path = vendoring.VENDOR) -> None:
        self._folders = {
            "": str(static),
            "elements/": str(static / "elements"),
            "vendor/": str(vendor),
        }
        self._seen: _Look | None = None
        self._shelf = Shelf("", {}, ())

    def now(self) -> Shelf:
        """What is there now; read again, in a native thread, where something has changed."""
        seen = self._look()
        if seen != self._seen:
            self._shelf = threads.in_files(self._read)
            self._seen = seen
        return self._shelf

    def _look(self) -> _Look:
        return tuple(
            (name, status.st_mtime_ns, status.st_size)
            for name, entry in self._files()
            for status in (entry.stat(),)
        )

    def _files(self) -> list[tuple[str, os.DirEntry[str]]]:
        found = []
        for prefix, folder in self._folders.items():
            with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
                found += [(prefix + e.name, e) for e in entries if _kind(e.name) and e.name[0] != "."]  # fmt: skip
        return sorted(found, key=itemgetter(0))

    def _read(self) -> Shelf:
        assets = {name: _asset(Path(entry.path)) for name, entry in self._files()}
        every = "".join(f"{name} {asset.tag}\n" for name, asset in assets.items())
        needed = (*_OURS, *(f"vendor/{name}" for name in vendoring.names()))
        missing = tuple(name for name in needed if name not in assets)
        return Shelf(_digest(every.encode())[:_VERSION_LENGTH], assets, missing)


def shelf() -> Shelf:
    """The files that this request sees; the same to its end."""
    if "assets" not in g:
        g.assets = current_app.extensions[_EXTENSION].now()
    found: Shelf = g.assets
    return found


def asset(name: str) -> str:
    """The address of a file for this page: `app.css`, `elements/time-chart.js`, `vendor/htmx.js`. LookupError for one that is not there."""
    # (Each icon of a page asks for the same.)
    urls: dict[str, str] = g.setdefault("asset_urls", {})
    if name not in urls:
        seen = shelf()
        if name not in seen.assets:
            raise LookupError(f"there is no asset {name!r}")
        urls[name] = url_for("assets.show_asset", version=seen.version, name=name)
    return urls[name]


def missing() -> tuple[str, ...]:
    """Files that pages cannot do without, and that are not there."""
    return shelf().missing


def check(app: Flask) -> None:
    """Say in the log which assets are missing, and how they come: once, when a process starts."""
    with app.app_context():
        names = missing()
    if names:
        log.error(
            "pages cannot be shown: assets are missing",
            extra={"missing": names, "command": vendoring.COMMAND},
        )
    elif not vendoring.is_current():
        log.warning("assets are not those of the lock file", extra={"command": vendoring.COMMAND})


@blueprint.record_once
def _install(state: BlueprintSetupState) -> None:
    state.app.extensions[_EXTENSION] = Shelves()


@blueprint.get(f"/assets/<string(length={_VERSION_LENGTH}):version>/<path:name>")
def show_asset(version: str, name: str) -> Response:
    """A file. Kept for ever under the version that it belongs to; under another (of a process before or after this one) only until asked again."""
    seen = shelf()
    found = seen.assets.get(name)
    if found is None:
        raise NotFound("There is no such asset.")
    coding = _coding(name)
    response = Response(_in_coding(found, coding), content_type=found.kind)
    response.set_etag(f"{found.tag}-{coding}" if coding else found.tag)
    response.headers["Cache-Control"] = _KEPT if version == seen.version else _NOT_KEPT
    if coding:
        response.headers["Content-Encoding"] = coding
    if not name.endswith(tuple(_COMPRESSED_ALREADY)):
        response.headers["Vary"] = "Accept-Encoding"
    return response.make_conditional(request)  # type: ignore[return-value]


def _coding(name: str) -> str | None:
    """The one to answer in; None for the file as it is."""
    if name.endswith(tuple(_COMPRESSED_ALREADY)):
        return None
    return request.accept_encodings.best_match(_CODINGS)


def _in_coding(found: Asset, coding: str | None) -> bytes:
    if coding is None:
        return found.content
    if coding not in found.coded:
        found.coded.update(threads.in_hashes(_coded, found))
    return found.coded[coding]


def _coded(found: Asset) -> dict[str, bytes]:
    made = vendoring.compressed(found.content)
    return {coding: made[suffix] for coding, suffix in _CODINGS.items()}


def _kind(name: str) -> str:
    """The content type; empty for what is not served."""
    return _KINDS.get(name[name.rfind(".") :], "")


def _asset(path: Path) -> Asset:
    content = path.read_bytes()
    return Asset(content, _kind(path.name), _digest(content)[:32], _beside(path))


def _beside(path: Path) -> dict[str, bytes]:
    """What the build has compressed, where it has."""
    files = {coding: path.with_name(path.name + suffix) for coding, suffix in _CODINGS.items()}
    return {coding: file.read_bytes() for coding, file in files.items() if file.is_file()}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

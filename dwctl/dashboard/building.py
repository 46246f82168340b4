"""The build backend (`pyproject.toml`): setuptools', which fills `vendor/` first.

What the build needs for that is asked for only where it is needed: nothing where `vendor/` is current, and Node only where the machine has
none. A wheel is not built without the libraries. An editable installation is: pages say then what is missing, and the APIs work.
"""

from __future__ import annotations

import sys
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403 - hooks that are as they are

from dwctl.dashboard import vendoring

_BROTLI = "brotli>=1.2,<2"
_NODE = f"{vendoring.NODE_WHEEL}>=22,<25"


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    return [*build_meta.get_requires_for_build_wheel(config_settings), *_needed()]


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    return [*build_meta.get_requires_for_build_editable(config_settings), *_needed()]


def get_requires_for_build_sdist(config_settings: Any = None) -> list[str]:
    return [*build_meta.get_requires_for_build_sdist(config_settings), *_needed()]


def build_wheel(
    wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None
) -> str:
    _bring()
    name: str = build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)
    return name


def build_sdist(sdist_directory: str, config_settings: Any = None) -> str:
    _bring()
    name: str = build_meta.build_sdist(sdist_directory, config_settings)
    return name


def build_editable(
    wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None
) -> str:
    try:
        _bring()
    except vendoring.CannotFetch as error:
        sys.stderr.write(f"The dashboard's assets are missing: {error}\n")
    name: str = build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
    return name


def _needed() -> list[str]:
    if vendoring.is_current():
        return []
    return [_BROTLI] if vendoring.npm() else [_BROTLI, _NODE]


def _bring() -> None:
    if not vendoring.is_current():
        vendoring.bring()

"""What the Flask app at hand works with; filled by `app.create_app`, read inside requests and commands.

Settings may change while the process runs (`reloading`): read them here, at each request, and keep none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from flask import Flask, current_app, g

from dwctl.config import Settings
from dwctl.db import Connections
from dwctl.encryption import Sealer

_NAME = "dwctl.parts"


@dataclass(frozen=True, slots=True)
class Parts:
    """The pieces that every room may need."""

    settings: Settings
    connections: Connections
    sealer: Sealer


def install(app: Flask, parts: Parts) -> None:
    """Make the parts available in this app."""
    app.extensions[_NAME] = parts


def parts(app: Flask | None = None) -> Parts:
    """The parts of the app; by default of the current one, the same throughout a request whatever changes meanwhile."""
    found: Parts = (
        app.extensions[_NAME] if app else g.setdefault(_NAME, current_app.extensions[_NAME])
    )
    return found


def settings() -> Settings:
    """The settings of the current app."""
    return parts().settings


def in_force(app: Flask) -> Callable[[], Settings]:
    """For what runs beside requests: the settings at the moment of the call."""
    return lambda: parts(app).settings


def put_in_force(app: Flask, wanted: Settings) -> None:
    """From the next request on."""
    app.extensions[_NAME] = replace(parts(app), settings=wanted)

"""What the Flask app at hand was made with; filled by `app.create_app`, read inside requests and commands."""

from __future__ import annotations

from dataclasses import dataclass

from flask import Flask, current_app

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
    """The parts of the app (by default the current one)."""
    found: Parts = (app or current_app).extensions[_NAME]
    return found


def settings() -> Settings:
    """The settings of the current app."""
    return parts().settings

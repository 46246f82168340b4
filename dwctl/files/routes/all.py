"""The room's blueprints, for `urls`."""

from __future__ import annotations

from dwctl.files.routes import files, upload

AI = (files.blueprint, upload.blueprint)

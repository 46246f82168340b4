"""The room's blueprints, for `urls`."""

from __future__ import annotations

import dwctl.files.samples  # noqa: F401 - it wants to hear of newcomers
from dwctl.files.routes import files, upload

AI = (files.blueprint, upload.blueprint)

"""The room's blueprints, for `urls`."""

from __future__ import annotations

from dwctl.catalog.routes import endpoints, grants, models

ADMIN = (endpoints.blueprint, models.blueprint, grants.blueprint)

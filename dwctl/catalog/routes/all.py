"""The room's blueprints, for `urls`."""

from __future__ import annotations

from dwctl.catalog.routes import components, endpoints, grants, models, providers, usable

ADMIN = (
    endpoints.blueprint,
    models.blueprint,
    components.blueprint,
    grants.blueprint,
    providers.blueprint,
    usable.blueprint,
)

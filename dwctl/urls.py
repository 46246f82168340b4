"""Every blueprint and its prefix on one page: the map from URL to room."""

from __future__ import annotations

from flask import Flask
from flask_smorest import Api

from dwctl.billing import routes as billing
from dwctl.identity.routes import all as identity

ADMIN = "/admin/api/v1"
AI = "/ai/v1"


def register(app: Flask, api: Api) -> None:
    """Mount every room."""
    for blueprint in identity.AUTHENTICATION:
        api.register_blueprint(blueprint, url_prefix="/authentication")
    for blueprint in identity.ADMIN:
        api.register_blueprint(blueprint, url_prefix=ADMIN)
    api.register_blueprint(billing.blueprint, url_prefix=ADMIN)

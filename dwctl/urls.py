"""Every blueprint and its prefix on one page: the map from URL to room."""

from __future__ import annotations

from flask import Flask
from flask_smorest import Api

from dwctl.ai import playground
from dwctl.ai import routes as ai
from dwctl.audit import routes as audit
from dwctl.batches import routes as batches
from dwctl.billing import routes as billing
from dwctl.catalog.routes import all as catalog
from dwctl.dashboard import assets
from dwctl.dashboard.routes import all as dashboard
from dwctl.downloads import routes as downloads
from dwctl.files.routes import all as files
from dwctl.identity.routes import all as identity
from dwctl.monitoring import routes as monitoring
from dwctl.operations import health, metrics, pages, reference, system
from dwctl.organizations.routes import all as organizations
from dwctl.request_log import routes as request_log
from dwctl.sources import routes as sources
from dwctl.tools import routes as tools
from dwctl.usage import routes as usage
from dwctl.web import current

ADMIN = "/admin/api/v1"
AI = "/ai/v1"


def register(app: Flask, api: Api) -> None:
    """Mount every room."""
    for blueprint in identity.AUTHENTICATION:
        api.register_blueprint(blueprint, url_prefix="/authentication")
    for blueprint in (*identity.ADMIN, *organizations.ADMIN, *catalog.ADMIN):
        api.register_blueprint(blueprint, url_prefix=ADMIN)
    api.register_blueprint(billing.blueprint, url_prefix=ADMIN)
    api.register_blueprint(audit.blueprint, url_prefix=ADMIN)
    api.register_blueprint(usage.blueprint, url_prefix=ADMIN)
    api.register_blueprint(system.blueprint, url_prefix=ADMIN)
    api.register_blueprint(monitoring.admin, url_prefix=ADMIN)
    api.register_blueprint(request_log.blueprint, url_prefix=ADMIN)
    api.register_blueprint(sources.blueprint, url_prefix=ADMIN)
    api.register_blueprint(tools.blueprint, url_prefix=ADMIN)
    app.register_blueprint(ai.blueprint, url_prefix=AI)
    if current.parts(app).settings.batches.enabled:
        for blueprint in (*files.AI, batches.blueprint, downloads.blueprint, monitoring.ai):
            api.register_blueprint(blueprint, url_prefix=AI)
    app.register_blueprint(playground.blueprint, url_prefix=f"{ADMIN}/ai")
    app.register_blueprint(health.blueprint)
    app.register_blueprint(pages.blueprint)
    app.register_blueprint(reference.blueprint)
    app.register_blueprint(assets.blueprint)
    for screen in dashboard.SCREENS:
        app.register_blueprint(screen)
    if current.parts(app).settings.enable_metrics:
        app.register_blueprint(metrics.blueprint)

"""The Flask application: config, database, manners, doors - a list, no logic."""

from __future__ import annotations

from functools import partial

from flask import Flask
from flask_smorest import Api
from werkzeug.local import LocalProxy

import dwctl.ai.tables
import dwctl.analytics.tables
import dwctl.audit.tables
import dwctl.batches.tables
import dwctl.billing.tables
import dwctl.catalog.seeding
import dwctl.catalog.tables
import dwctl.files.tables
import dwctl.identity.tables
import dwctl.limits.tables
import dwctl.mail.tables
import dwctl.queue.tables
import dwctl.sources.tables
import dwctl.tools.tables
import dwctl.usage.tables  # noqa: F401 - the migrations compare every mapped table
from dwctl import __version__, config, logs, urls
from dwctl.ai.front import Front
from dwctl.ai.gateway import Gateway
from dwctl.audit import stamping
from dwctl.config import Settings
from dwctl.dashboard import pages
from dwctl.db import Connections, db, engine_options, sqlalchemy_url
from dwctl.encryption import Sealer
from dwctl.identity import authentication
from dwctl.operations import metrics
from dwctl.tracing.setup import tracer_for
from dwctl.web import (
    answer_headers,
    body_limits,
    current,
    errors,
    request_id,
    schemas,
)
from dwctl.web.cors import CrossOrigin
from dwctl.web.dumping import OrjsonProvider
from dwctl.web.entrance import Entrance
from dwctl.web.rules import LateRule

NO_DATABASE = "postgresql://localhost/nowhere"


def create_app(settings: Settings | None = None) -> Flask:
    """The web application. Reads the environment when no settings are given (ConfigError on a bad one)."""
    app, api = base_app(settings or config.load_or_remembered())
    parts = current.parts(app)
    gateway = Gateway(parts, {"type": "onwards"}, tracer_for(parts.settings, "web"))
    app.extensions["dwctl.gateway"] = gateway
    authentication.init_app(app)
    stamping.init_app(app)
    pages.init_app(app)
    urls.register(app, api)
    settings = gateway.settings
    front = Front(gateway, app.wsgi_app)
    app.wsgi_app = front  # type: ignore[method-assign]
    app.extensions["dwctl.door"] = front.direct
    cors = settings.auth.security.cors
    if cors.allowed_origins:
        app.wsgi_app = CrossOrigin(cors, app.wsgi_app)  # type: ignore[method-assign]
    app.wsgi_app = Entrance(app, settings, app.wsgi_app)  # type: ignore[method-assign]
    metrics.init_app(app)
    return app


def base_app(settings: Settings) -> tuple[Flask, Api]:
    """Database and manners without doors: what web and worker processes share."""
    app = Flask("dwctl", static_folder=None)
    app.config.update(
        SQLALCHEMY_DATABASE_URI=sqlalchemy_url(settings.database.url or NO_DATABASE),
        SQLALCHEMY_ENGINE_OPTIONS=engine_options(settings),
        API_TITLE="Admin API",
        API_VERSION=__version__,
        OPENAPI_VERSION="3.1.0",
    )
    app.url_rule_class = LateRule
    app.url_map.strict_slashes = False
    # Merging would answer `//users` with a redirection to `/users`; only one spelling is served (`web.paths`).
    app.url_map.merge_slashes = False
    # Members come in the order in which the schemas declare them.
    app.json = OrjsonProvider(app)
    app.json.sort_keys = False
    db.init_app(app)
    app.extensions["migrate"] = LocalProxy(partial(_migrate, app))
    with app.app_context():
        connections = Connections(db.engine)
    secrets = [settings.secret_key] if settings.secret_key else []
    sealer = Sealer([*secrets, *settings.secret_key_previous])
    current.install(app, current.Parts(settings, connections, sealer))
    api = Api(app)
    logs.init(settings)
    request_id.init_app(app)
    schemas.init_app(app, api)
    body_limits.init_app(app, settings.limits.requests)
    answer_headers.init_app(app, settings.auth.security)
    errors.init_app(app)
    return app, api


def _migrate(app: Flask) -> object:
    """Flask-Migrate, for whoever looks for it. It comes with Alembic, which is large."""
    from dwctl.identity import releasing

    found: object = app.extensions["migrate"]
    return releasing.init_app(app) if type(found) is LocalProxy else found

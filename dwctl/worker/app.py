"""What gunicorn serves in a worker process: health and metrics, nothing else. The work is in `claims` and `duties`."""

from __future__ import annotations

import dataclasses

from flask import Flask

from dwctl import config
from dwctl.ai.gateway import Gateway
from dwctl.app import base_app
from dwctl.config import Settings
from dwctl.mail.sending import Sending
from dwctl.operations import health, metrics
from dwctl.sources.syncing import Syncing
from dwctl.tracing.setup import tracer_for
from dwctl.web import current
from dwctl.web.entrance import Entrance
from dwctl.worker import readiness
from dwctl.worker.claims import Claims
from dwctl.worker.duties import DutyRunner
from dwctl.worker.metrics import collector


def create_worker_app(settings: Settings | None = None) -> Flask:
    """The worker's application, with a gateway, claims, duties and synchronisations that `process.start` sets going."""
    app, _api = base_app(settings or config.load_or_remembered())
    parts = current.parts(app)
    daemon = dataclasses.asdict(parts.settings.background_services.batch_daemon)
    tracer = tracer_for(parts.settings, "worker")
    gateway = Gateway(parts, {"type": "worker", **daemon}, tracer)
    app.extensions["dwctl.gateway"] = gateway
    claims = app.extensions["dwctl.claims"] = Claims(gateway)
    duties = app.extensions["dwctl.duties"] = DutyRunner(parts.connections, current.in_force(app))
    app.extensions["dwctl.syncing"] = Syncing(parts.connections, current.in_force(app))
    sending = app.extensions["dwctl.sending"] = Sending(
        parts.connections, current.in_force(app), parts.sealer
    )
    app.register_blueprint(health.blueprint)
    if parts.settings.enable_metrics:
        app.register_blueprint(metrics.blueprint)
    app.wsgi_app = Entrance(app, parts.settings, app.wsgi_app)  # type: ignore[method-assign]
    health.add_checks(app, readiness.checks(claims, parts.settings.daemons.dead_after))
    metrics.init_app(app, [collector(claims, duties, sending)])
    return app


app = create_worker_app()

"""Gunicorn's settings for worker processes. Imports nothing of ours at the top: gevent patches first, in each worker."""

import os

bind = f"0.0.0.0:{os.environ.get('PORT', '3002')}"
worker_class = "dwctl.web.server.Server"
worker_connections = 100
keepalive = 5
timeout = 60
preload_app = False
control_socket_disable = True
accesslog = None
loglevel = "warning"
forwarded_allow_ips = ""


def on_starting(server):
    import sys

    from dwctl import config
    from dwctl.analytics import spool_folder
    from dwctl.mail.templates import Templates

    try:
        settings = config.load()
        config.require_serving(settings)
        spool_folder.of(settings)
        Templates(settings)
    except config.ConfigError as error:
        sys.exit(f"dwctl: {error}")
    # We end by ourselves when our grace is over; after this gunicorn kills (and Heroku after 30 s).
    server.cfg.set("graceful_timeout", round(settings.shutdown.grace) + 3)


def post_worker_init(worker):
    from dwctl.operations import metrics
    from dwctl.web import current
    from dwctl.worker import process

    worker.prepare(current.parts(worker.wsgi).settings)
    process.start(worker)
    metrics.start(worker)


def worker_exit(server, worker):
    from dwctl.operations import metrics
    from dwctl.worker import process

    process.stop(worker)
    metrics.stop(worker)

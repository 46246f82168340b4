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

    try:
        settings = config.load()
        config.require_serving(settings)
        spool_folder.of(settings)
    except config.ConfigError as error:
        sys.exit(f"dwctl: {error}")
    _set_grace(server, settings)


def on_reload(server):
    """SIGHUP: gunicorn has forgotten what it knew of our settings."""
    from dwctl import config

    _set_grace(server, config.load_or_remembered())


def pre_fork(server, worker):
    """A process that begins while the file of settings has a mistake goes on with what was there before."""
    from dwctl import config

    try:
        config.remember()
    except config.ConfigError as error:
        server.log.error("settings not read again: %s", error)


def _set_grace(server, settings):
    # We end by ourselves when our grace is over; after this gunicorn kills (and Heroku after 30 s).
    server.cfg.set("graceful_timeout", round(settings.shutdown.grace) + 3)


def post_worker_init(worker):
    from dwctl.operations import metrics
    from dwctl.web import current, reloading
    from dwctl.worker import process

    worker.prepare(current.parts(worker.wsgi).settings)
    process.start(worker)
    metrics.start(worker)
    reloading.start(worker.wsgi)


def worker_exit(server, worker):
    from dwctl.operations import metrics
    from dwctl.worker import process

    process.stop(worker)
    metrics.stop(worker)

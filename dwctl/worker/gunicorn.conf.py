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
    from dwctl.web import master

    try:
        settings = config.load()
        config.require_serving(settings)
        spool_folder.of(settings)
        Templates(settings)
    except config.ConfigError as error:
        sys.exit(f"dwctl: {error}")
    master.set_log_form(server, settings)
    master.set_grace(server, settings)
    master.follow_settings(server)


def post_fork(server, worker):
    import gc

    # Nearly all that is loaded now stays: looking through all of it again and again takes a tenth of the start. What is young is looked at.
    gc.set_threshold(10_000, 50, 50)


def on_reload(server):
    from dwctl.web import master

    master.reload(server)


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

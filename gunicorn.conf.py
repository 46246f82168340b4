"""Gunicorn's settings for web processes. Imports nothing of ours at the top: gevent patches first, in each worker."""

import os

bind = f"0.0.0.0:{os.environ.get('PORT', '3001')}"
worker_class = "dwctl.web.server.Server"
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
# Above the number of held flex calls that one process may have.
worker_connections = 10_000
backlog = 2048
keepalive = 75
# Held calls last up to an hour: in the gevent class this is about the loop, not about requests.
timeout = 60
preload_app = False
control_socket_disable = True
accesslog = None
loglevel = "warning"
# Nobody's: what proxies say is judged in `dwctl.web.proxies`.
forwarded_allow_ips = ""


def on_starting(server):
    import sys

    from dwctl import config
    from dwctl.analytics import spool_folder
    from dwctl.web import master

    try:
        settings = config.load()
        config.require_serving(settings)
        spool_folder.of(settings)
    except config.ConfigError as error:
        sys.exit(f"dwctl: {error}")
    master.set_log_form(server, settings)
    master.set_grace(server, settings)
    master.follow_settings(server)
    # A held call is a descriptor here: take as many as the system lets this user have.
    import resource

    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def post_fork(server, worker):
    import gc

    # Nearly all that is loaded now stays: looking through all of it again and again takes a tenth of the start. What is young is looked at.
    gc.set_threshold(10_000, 50, 50)


def on_reload(server):
    from dwctl.web import master

    master.reload(server)


def post_worker_init(worker):
    from dwctl.ai import process
    from dwctl.dashboard import assets
    from dwctl.operations import metrics
    from dwctl.web import current, reloading

    worker.prepare(current.parts(worker.wsgi).settings, worker.wsgi.extensions["dwctl.door"])
    process.start(worker)
    metrics.start(worker)
    reloading.start(worker.wsgi)
    assets.check(worker.wsgi)


def worker_exit(server, worker):
    from dwctl.ai import process
    from dwctl.operations import metrics

    process.stop(worker)
    metrics.stop(worker)

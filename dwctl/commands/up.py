"""`dwctl up`: everything on this machine, in one terminal.

The database (its own PostgreSQL where none is named), migrations, the first administrator, then web and worker under one supervisor,
and with `--demo` a small upstream and models on it. When all of it answers, it says where to look and how to sign in. What was made at
the first start is kept in the data folder, so later starts go on where the last one stopped.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

import click

from dwctl import config
from dwctl.commands import output
from dwctl.commands.announcement import Announcement, Announcer
from dwctl.config import Settings
from dwctl.local import supervisor
from dwctl.local.home import Home, HomeUnavailable
from dwctl.local.postgres import PostgresUnavailable, default_data_dir
from dwctl.local.supervisor import Program

PORT = 3001
HERE = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where each process listens. Only the web process is anybody else's business."""

    host: str
    web: int
    worker: int
    demo: int | None

    @property
    def url(self) -> str:
        """Where a browser on this machine finds it."""
        name = "localhost" if self.host in (HERE, "0.0.0.0", "localhost") else self.host
        return f"http://{name}:{self.web}"


@click.command("up")
@click.option(
    "--demo",
    is_flag=True,
    help="With a small upstream and two models on it: no provider's key is needed.",
)
@click.option("--host", default=HERE, show_default=True, help="0.0.0.0 lets other machines in.")
@click.option(
    "--port", default=PORT, show_default=True, envvar="PORT", type=click.IntRange(1, 65535)
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help=f"What must outlive this command.  [default: {default_data_dir()}]",
)
@output.as_json
@click.pass_context
def command(
    context: click.Context, demo: bool, host: str, port: int, data_dir: Path | None, as_json: bool
) -> None:
    """Start everything on this machine: database, web, worker.

    Uses DATABASE_URL where it is set, else a PostgreSQL of its own. Ctrl-C stops everything. With --json, one line of JSON says when
    all is ready, and everything else goes to standard error.
    """
    for number in supervisor.STOP_SIGNALS:
        signal.signal(number, _leave)
    where = Addresses(host, port, _free_port(), _free_port() if demo else None)
    home = Home(data_dir or context.find_root().params.get("data_dir") or default_data_dir())
    out = _own_stdout() if as_json else sys.stdout
    try:
        with home.occupied(where.url):
            _require_free(where)
            with _database(home) as url:
                _set_environment(home, url, where)
                code = _run(home, where, out, as_json)
    except (HomeUnavailable, PostgresUnavailable) as error:
        raise click.ClickException(str(error)) from error
    context.exit(code)


def _run(home: Home, where: Addresses, out: IO[str], as_json: bool) -> int:
    settings = config.load()
    config.require_secret_key(settings)
    _say("Bringing the database's tables up to date")
    announcement = _release(settings, home, where)
    announcer = Announcer(announcement, out, as_json=as_json)
    _say("Starting web and worker")
    waiting = threading.Thread(target=announcer.wait_and_announce, daemon=True)
    waiting.start()
    try:
        return supervisor.run(_programs(where))
    finally:
        announcer.rescue_password()


def _release(settings: Settings, home: Home, where: Addresses) -> Announcement:
    """What the release command does, and what a newcomer needs beside it."""
    # Only now: these imports take longer than everything before them.
    import flask_migrate

    from dwctl.app import create_app
    from dwctl.commands import demo, demo_calls
    from dwctl.db import db
    from dwctl.identity import users
    from dwctl.identity.bootstrap import bootstrap

    api_key, is_quiet = None, False
    with create_app(settings).app_context():
        flask_migrate.upgrade()
        administrator = bootstrap(settings, invent_password=True)
        if where.demo is not None:
            session = db.session()
            api_key = demo.install(
                session,
                owner_id=users.with_email(session, administrator.email)[0].id,
                upstream_url=f"http://{HERE}:{where.demo}/v1",
                known_secret=home.kept("demo_api_key"),
            )
            home.keep("demo_api_key", api_key)
            is_quiet = demo_calls.are_wanted(session)
            session.commit()
        db.session.remove()
        db.engine.dispose()
    return Announcement(
        url=where.url,
        probe=f"http://{HERE if where.host == '0.0.0.0' else where.host}:{where.web}",
        data_dir=home.folder,
        email=administrator.email,
        password=administrator.password,
        api_key=api_key,
        is_quiet=is_quiet,
    )


def _programs(where: Addresses) -> list[Program]:
    """The lines of the Procfile, on the ports at hand."""
    from dwctl import revisions

    top = revisions.FOLDER.parent
    gunicorn = [sys.executable, "-m", "gunicorn", "--pythonpath", str(top)]
    web = [
        *gunicorn,
        "-c",
        f"{top}/gunicorn.conf.py",
        "--bind",
        f"{where.host}:{where.web}",
        "wsgi:app",
    ]
    worker = [*gunicorn, "-c", f"{top}/dwctl/worker/gunicorn.conf.py", "--workers", "1"]
    worker += ["--bind", f"{HERE}:{where.worker}", "dwctl.worker.app:app"]
    found = [
        Program("web", web, {"PORT": str(where.web)}),
        Program("worker", worker, {"PORT": str(where.worker)}),
    ]
    if where.demo is not None:
        demo = [sys.executable, "-m", "dwctl.local.demo_upstream", str(where.demo)]
        found.append(Program("demo", demo))
    return found


@contextmanager
def _database(home: Home) -> Iterator[str]:
    """The URL of the database: the one that is set, else that of our own PostgreSQL, which stops when everything else has."""
    if given := config.load().database.url:
        yield given
        return
    _say(f"Starting PostgreSQL in {home.folder}")
    try:
        yield home.postgres.start()
    finally:
        home.postgres.stop()


def _set_environment(home: Home, url: str, where: Addresses) -> None:
    """What the processes get beside what the user has set."""
    ours: dict[str, Callable[[], str]] = {
        "secret_key": home.secret_key,
        "recorder.spool_dir": lambda: str(home.spool),
        "dashboard_url": lambda: where.url,
        # A browser keeps no secure cookie from plain http.
        "auth.native.session.cookie_secure": lambda: "false",
    }
    os.environ["DATABASE_URL"] = url
    for name, value in ours.items():
        if not config.is_set(name):
            os.environ["DWCTL_" + name.upper().replace(".", "__")] = value()


def _require_free(where: Addresses) -> None:
    try:
        with socket.create_server((where.host, where.web)):
            pass
    except OSError as error:
        raise click.ClickException(
            f"Port {where.web} on {where.host} cannot be used ({os.strerror(error.errno or 0)}): another program may have it. "
            f"Choose another one with --port."
        ) from error


def _free_port() -> int:
    with socket.create_server((HERE, 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _own_stdout() -> IO[str]:
    """Standard output for us alone; what the processes print goes to standard error."""
    ours = os.dup(1)
    os.dup2(2, 1)
    return open(ours, "w")


def _say(text: str) -> None:
    click.echo(f"{text} ...", err=True)


def _leave(number: int, frame: FrameType | None) -> None:
    """Until the supervisor takes over: unwind, so that what was started is stopped."""
    sys.exit(128 + number)

"""Applications made inside the tests' own process, each with its pool closed at the end: what it leaves open falls on whichever test runs then."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from flask import Flask

from dwctl import config
from dwctl.app import create_app
from dwctl.commands.main import register
from dwctl.config import Settings


@contextmanager
def application(
    environ: Mapping[str, str], create: Callable[[Settings], Flask] = create_app
) -> Iterator[Flask]:
    """An application with the settings of that environment, and its commands (as `wsgi.py` makes it)."""
    made = create(config.load(environ))
    register(made)
    try:
        yield made
    finally:
        with made.app_context():
            made.extensions["sqlalchemy"].engine.dispose()


def migrate(url: str) -> None:
    """Bring the database there up to date, as a release does."""
    with application({"DATABASE_URL": url}) as app:
        done = app.test_cli_runner().invoke(args=["db", "upgrade"])
        assert done.exit_code == 0, done.output

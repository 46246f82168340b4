"""docs/metrics.md names every family of the pages of web and worker processes, with its type, its labels and how processes are merged."""

import re
from collections.abc import Iterable
from pathlib import Path

from flask import Flask

from dwctl.figures.families import Family, Kind, Merge
from dwctl.pace import Pace
from dwctl.worker.app import create_worker_app
from tests.applications import application

DOCS = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
_ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| (.*?) \| (\w+) \| (.*) \|$", re.MULTILINE)


def shown(app: Flask) -> list[Family]:
    with app.app_context():
        return list(app.extensions["dwctl.metrics"].families(Pace()))


def row(family: Family) -> tuple[str, ...]:
    labels = ", ".join(f"`{label}`" for label in family.labels) or "-"
    merge = family.merge if family.kind is Kind.GAUGE else Merge.SUM
    return (family.name, family.kind, labels, merge, family.text)


def rows(families: Iterable[Family]) -> set[tuple[str, ...]]:
    return {row(family) for family in families}


def test_what_is_documented_is_what_is_shown(app: Flask, environ: dict[str, str]) -> None:
    written = [tuple(found) for found in _ROW.findall(DOCS.read_text())]
    assert len(written) == len({name for name, *_ in written})
    with application(environ, create_worker_app) as worker:
        assert {*written} == rows(shown(app)) | rows(shown(worker))


def test_no_label_is_of_a_caller(app: Flask, environ: dict[str, str]) -> None:
    with application(environ, create_worker_app) as worker:
        labels = {label for family in (*shown(app), *shown(worker)) for label in family.labels}
    assert not labels & {"user", "user_id", "api_key", "api_key_id", "request_id", "path", "uri"}

"""One desk for each module."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from flask import Flask

from tests.batches.desk import Desk
from tests.cast import Cast


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    """A window that is longer than the others, one that is relaxed, one that is closed."""
    return environ | {
        "DWCTL_BATCHES__ALLOWED_COMPLETION_WINDOWS": "24h,1h,2h,7d",
        "DWCTL_BATCHES__WINDOW_RELAXATION_FACTORS": '{"1h": 1.5, "2h": 0}',
    }


@pytest.fixture(scope="module")
def desk(app: Flask, cast: Cast, database_url: str) -> Iterator[Desk]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield Desk(app, connection, cast)

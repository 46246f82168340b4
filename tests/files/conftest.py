from typing import Any

import psycopg
import pytest
from flask import Flask

from tests.cast import Cast
from tests.files.stage import Stage


@pytest.fixture
def stage(app: Flask, cast: Cast, sql: psycopg.Connection[Any]) -> Stage:
    return Stage(app, cast, sql)

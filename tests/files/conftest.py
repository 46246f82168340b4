from typing import Any

import psycopg
import pytest
from flask import Flask

from tests.cast import Cast
from tests.files.shelf import Shelf


@pytest.fixture
def shelf(app: Flask, cast: Cast, sql: psycopg.Connection[Any]) -> Shelf:
    return Shelf(app, cast, sql)

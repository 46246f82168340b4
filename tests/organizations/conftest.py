import pytest
from flask import Flask

from tests.cast import Cast
from tests.identity.doors import Doors


@pytest.fixture
def call(app: Flask, cast: Cast) -> Doors:
    return Doors(app)

import pytest
from flask import Flask

from tests import stand_in


@pytest.fixture(autouse=True)
def sign_in(app: Flask) -> None:
    stand_in.install(app)

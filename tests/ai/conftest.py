import pytest


@pytest.fixture(scope="module", autouse=True)
def quiet(nothing_fell_over: None) -> None:
    """Every module of the AI surface is watched."""

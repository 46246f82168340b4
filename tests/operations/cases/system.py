"""Settings in force, and the state of things."""

from requests import Response

from tests.operations.world import World


def list_settings(w: World) -> Response:
    return w.ask(query={"search": "auth."})


def get_system(w: World) -> Response:
    return w.ask()

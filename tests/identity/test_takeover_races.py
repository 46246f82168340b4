"""What is on its way while a proxy identity takes a registered account over."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from flask import Flask

from dwctl.identity import users
from tests.identity.doors import PASSWORD, unique
from tests.identity.test_trusted_headers import come


class Gate:
    """Stops the first call of a function until it is opened."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.reached, self.open = threading.Event(), threading.Event()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.reached.is_set():
            self.reached.set()
            assert self.open.wait(10)
        return self._real(*args, **kwargs)


@pytest.mark.parametrize("spelled", [str.upper, lambda name: name.replace("i", "İ")])
def test_a_registration_that_is_on_its_way_makes_no_second_account(
    app: Flask,
    sql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    spelled: Callable[[str], str],
) -> None:
    name = unique("mimi")
    email = f"{name}@people.example"
    gate = Gate(users.grant_initial_credits)
    monkeypatch.setattr(users, "grant_initial_credits", gate)
    body = {"username": name, "email": email, "password": PASSWORD}
    registering = threading.Thread(
        target=lambda: app.test_client().post("/authentication/register", json=body)
    )
    registering.start()
    assert gate.reached.wait(10)
    coming = threading.Thread(
        target=come, args=(app, unique("idp"), spelled(email).encode().decode("latin-1"))
    )
    coming.start()
    coming.join(0.5)
    assert coming.is_alive()
    gate.open.set()
    registering.join(10)
    coming.join(10)
    same = "SELECT count(*) FROM users WHERE lower(email) = lower(%s) AND user_type = 'individual'"
    assert sql.execute(same, (email,)).fetchone() == (1,)

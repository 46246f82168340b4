"""Guesses at one password through two web processes: together they verify as many as are allowed."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
import requests

from tests.identity.doors import PASSWORD, unique
from tests.processes import Service

ALLOWED = 10


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    limit = {"DWCTL_AUTH__NATIVE__THROTTLE__FAILURES_PER_ACCOUNT_PER_MINUTE": str(ALLOWED)}
    return environ | limit


@pytest.fixture(scope="module")
def webs(service: Service) -> list[str]:
    service.start_web()
    return [web.url for web in service.webs]


def register(url: str) -> str:
    """The e-mail of a new person with PASSWORD."""
    name = unique()
    body = {"username": name, "email": f"{name}@people.example", "password": PASSWORD}
    assert requests.post(f"{url}/authentication/register", json=body, timeout=20).ok
    return body["email"]


def guess(url: str, email: str, password: str) -> int:
    body = {"email": email, "password": password}
    return requests.post(f"{url}/authentication/login", json=body, timeout=60).status_code


def test_a_hundred_guesses_at_once_are_verified_as_often_as_allowed(
    webs: list[str], sql: psycopg.Connection
) -> None:
    email, other = register(webs[0]), register(webs[1])
    with ThreadPoolExecutor(100) as pool:
        tries = Counter(pool.map(lambda n: guess(webs[n % 2], email, f"wrong {n}"), range(100)))
    assert tries == {401: ALLOWED, 429: 100 - ALLOWED}
    # The right one comes too late on either, and nobody else is kept out.
    assert [guess(url, email, PASSWORD) for url in webs] == [429, 429]
    assert [guess(url, other, PASSWORD) for url in webs] == [200, 200]
    sql.execute("UPDATE sign_in_attempts SET began_at = began_at - interval '61 seconds'")
    assert [guess(url, email, PASSWORD) for url in webs] == [200, 200]


def test_the_right_password_among_a_hundred_guesses_is_found_within_the_allowed_ones_only(
    webs: list[str],
) -> None:
    email = register(webs[0])
    passwords = [PASSWORD if n % 10 == 5 else f"wrong {n}" for n in range(100)]
    with ThreadPoolExecutor(100) as pool:
        tries = Counter(pool.map(guess, webs * 50, [email] * 100, passwords))
    # What was right is taken back; what was wrong never is.
    assert tries[401] <= ALLOWED
    assert sum(tries.values()) == tries[200] + tries[401] + tries[429] == 100

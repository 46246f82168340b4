"""What the tests of pages share: a service with people, models and calls that have been made, so that every page has something to show."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

import requests
from playwright.sync_api import Page

from dwctl.roles import ROLES
from tests import browser
from tests.gateway import TERMINAL, Account, Gateway
from tests.processes import eventually

PASSWORD = "a-good-password"
PEOPLE = {
    "admin": ROLES,
    "manager": ("PlatformManager", "StandardUser"),
    "member": ("StandardUser", "BatchAPIUser"),
    "viewer": ("RequestViewer", "StandardUser"),
    "biller": ("BillingManager", "StandardUser"),
}
"""Name to roles. `admin` is the installation's administrator and may everything."""
SMALL, LARGE, SLOW, BROKEN = "chat-small", "chat-large", "chat-slow", "chat-broken"
"""Models: one with a price for each purpose, one that answers at length, one that takes its time, one that always fails."""


@dataclass(frozen=True)
class Person:
    """Somebody with a password, an API key and credit."""

    name: str
    email: str
    account: Account

    @property
    def id(self) -> UUID:
        return self.account.id


@dataclass(frozen=True)
class House:
    """A running service that people use. `gateway` makes and asks whatever a test needs beside."""

    gateway: Gateway
    people: dict[str, Person] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.gateway.url

    def sign_in(self, page: Page, name: str) -> None:
        """Give the page's browser a new session of that person."""
        browser.set_session(page, self.cookie(name))

    def cookie(self, name: str) -> str:
        """A new session of that person, from the real door: `name=value`."""
        body = {"email": self.people[name].email, "password": PASSWORD}
        answer = requests.post(f"{self.url}/authentication/login", json=body, timeout=20)
        assert answer.ok, answer.text
        (cookie,) = answer.cookies.items()
        return "=".join(cookie)

    def _move_in(self, name: str, roles: tuple[str, ...]) -> None:
        email = f"{name}@house.example"
        # (The cast has some of the names.)
        body = {"username": f"{name}.house", "email": email, "password": PASSWORD}
        made = requests.post(f"{self.url}/authentication/register", json=body, timeout=20)
        assert made.ok, made.text
        id = UUID(made.json()["user"]["id"])
        self.gateway.credit(id, "100")
        key = self.gateway.admin("POST", f"/users/{id}/api-keys", {"name": "laptop"}).json()
        self.gateway.admin("PATCH", f"/users/{id}", {"roles": list(roles)})
        if name == "admin":
            self.gateway.execute("UPDATE users SET is_admin = true WHERE id = %s", id)
        account = Account(id, email, key["key"], UUID(key["id"]))
        self.people[name] = Person(name, email, account)


def opened(gateway: Gateway) -> House:
    """A house on a service that has a web and a worker process, with everybody in it and some calls made."""
    house = House(gateway)
    for name, roles in PEOPLE.items():
        house._move_in(name, roles)
    furnish(house)
    return house


def furnish(house: House) -> None:
    """Models, and calls of two people: over at once, streamed, slow, failed, refused, through the queue."""
    gateway = house.gateway
    gateway.flexible("ok", alias=SMALL, wait=False)
    gateway.model("chunks-40", alias=LARGE, price=("0.00002", "0.00008"), wait=False)
    gateway.model("slow-300", alias=SLOW, wait=False)
    gateway.model("fail-500", alias=BROKEN)
    member, manager = (house.people[name].account for name in ("member", "manager"))
    queued = gateway.respond(SMALL, "Later, please", service_tier="flex", background=True, by=member)  # fmt: skip
    for by, alias, times in ((member, SMALL, 6), (manager, SMALL, 2), (member, SLOW, 1), (member, BROKEN, 2)):  # fmt: skip
        for _ in range(times):
            gateway.chat(alias, by=by)
    for _ in range(2):
        _ = gateway.chat(LARGE, by=member, stream=True).content
    gateway.chat("no-such-model", by=member)
    eventually(lambda: gateway.state(queued.json()["id"]) in TERMINAL)

"""What ends with a membership, or with an organisation, ends on every process within a second: two web processes and a worker."""

from __future__ import annotations

import os
import re
import subprocess
import time
from typing import Any

import pytest
import requests

from dwctl.identity.tokens import fingerprint
from tests.gateway import ADMIN, Account, Gateway, unique
from tests.processes import QUICK, ROOT, Service

AT_ONCE_S = 1.0


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | QUICK


@pytest.fixture(scope="module")
def service(service: Service) -> Service:
    service.start_web()
    return service


class Firm:
    """An organisation with credit and two members, each with a key for it, and a model for everybody."""

    def __init__(self, stage: Gateway) -> None:
        self.stage, self.alias = stage, stage.model("ok")
        self.owner, self.member = stage.account(None), stage.account(None)
        body = {"name": unique("firm"), "email": "x@y.example", "owner_id": str(self.owner.id)}
        self.id = stage.admin("POST", "/organizations", body).json()["id"]
        stage.credit(self.id, "100")
        self.path = f"/organizations/{self.id}"
        stage.admin("POST", f"{self.path}/members", {"user_id": str(self.member.id)})
        self.keys = {person.id: self.key(person) for person in (self.owner, self.member)}

    def ask(self, url: str, method: str, path: str, by: Account, **more: Any) -> requests.Response:
        headers = by.session | more.pop("headers", {})
        return requests.request(method, url + ADMIN + path, headers=headers, timeout=20, **more)

    def key(self, of: Account) -> str:
        body = {"name": unique("key")}
        made = self.ask(self.stage.url, "POST", f"/users/{self.id}/api-keys", of, json=body)
        assert made.status_code == 201, made.text
        return str(made.json()["key"])

    def chat(self, url: str, of: Account, **more: Any) -> requests.Response:
        return requests.post(
            f"{url}/ai/v1/chat/completions",
            json={"model": self.alias, "messages": [{"role": "user", "content": "x"}], **more},
            headers={"Authorization": f"Bearer {self.keys[of.id]}"},
            timeout=20,
        )

    def all_say(self, status: int, of: Account, within_s: float = AT_ONCE_S) -> None:
        """Every web process answers calls by that key so, from then on."""
        until = time.monotonic() + within_s
        urls = [web.url for web in self.stage.service.webs]
        while {self.chat(url, of).status_code for url in urls} != {status}:
            assert time.monotonic() < until, [self.chat(url, of).text for url in urls]
            time.sleep(0.05)


def test_a_member_who_is_removed_is_out_everywhere(stage: Gateway) -> None:
    firm = Firm(stage)
    here, there = (web.url for web in stage.service.webs)
    acting = {"X-Organization-Id": firm.id}
    cookie = {"Cookie": f"dw_active_org={firm.id}"}
    firm.all_say(200, firm.member, 5)
    assert firm.ask(there, "GET", "/users/current", firm.member, headers=acting).ok
    removed = firm.ask(here, "DELETE", f"{firm.path}/members/{firm.member.id}", firm.owner)
    assert removed.status_code == 204
    assert firm.ask(there, "GET", "/users/current", firm.member, headers=acting).status_code == 403
    seen = firm.ask(there, "GET", "/users/current", firm.member, headers=cookie)
    assert (seen.status_code, "active_organization_id" in seen.json()) == (200, False)
    firm.all_say(401, firm.member)
    firm.all_say(200, firm.owner)


def test_an_organization_that_is_deleted_calls_no_more(stage: Gateway) -> None:
    firm = Firm(stage)
    firm.all_say(200, firm.owner, 5)
    waiting = requests.post(
        f"{stage.url}/ai/v1/responses",
        json={"model": firm.alias, "input": "x", "background": True, "service_tier": "flex"},
        headers={"Authorization": f"Bearer {firm.keys[firm.owner.id]}"},
        timeout=20,
    )
    assert waiting.ok, waiting.text
    assert stage.admin("DELETE", firm.path).status_code == 204
    firm.all_say(401, firm.owner)
    firm.all_say(401, firm.member)
    # What waited for a worker is run for nobody.
    stage.service.worker()
    request = waiting.json()["id"].removeprefix("resp_")
    until = time.monotonic() + 60
    # (It is cancelled, or fails where a worker has taken it before.)
    while stage.one("SELECT state FROM fusillade.requests WHERE id = %s", request).state not in ("canceled", "failed"):  # fmt: skip
        assert time.monotonic() < until
        time.sleep(0.1)
    assert stage.one("SELECT count(*) FROM credits_transactions WHERE user_id = %s AND source_id LIKE %s", firm.id, f"%{request}%")[0] == 0  # fmt: skip


def test_the_examples_of_the_documentation_work_as_printed(stage: Gateway) -> None:
    ann, carol = stage.account(None, purpose="platform"), stage.account(None, purpose="platform")
    stage.execute("UPDATE users SET email = 'carol@example.org' WHERE id = %s", carol.id)
    page = (ROOT / "docs/organizations.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)[:-1]
    assert len(blocks) == 5
    api, first, invite, answer, key = blocks
    api = api.replace("http://localhost:3001", stage.url)
    api = "".join(line for line in api.splitlines(keepends=True) if "dwctl keys create" not in line)

    def run(*parts: str, **more: str) -> str:
        environ = {"PATH": os.environ["PATH"], "ADMIN_KEY": ann.key, **more}
        script = "set -eu\n" + "\n".join(parts)
        done = subprocess.run(["bash", "-c", script], env=environ, capture_output=True, text=True, check=False, timeout=30)  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = run(api, first, invite, key)
    (organization,) = stage.all("SELECT id::text FROM users WHERE username = 'acme.example'")[0]
    assert all(each in said for each in (organization, '"pending"', '"sk-'))
    # The token is in a mail.
    stage.execute("UPDATE user_organizations SET invite_token_hash = %s WHERE invite_email = 'carol@example.org'", fingerprint("known"))  # fmt: skip
    said = run(api, answer, TOKEN="known", CAROLS_KEY=carol.key)
    assert '"org_name":"Acme"' in said.replace(" ", "")
    assert "Invite accepted" in said

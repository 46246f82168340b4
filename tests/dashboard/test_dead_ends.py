"""No page leads its reader to where the reader may not go: every link on every page that somebody reaches is followed."""

from __future__ import annotations

import html
import json
import re
from collections import Counter, deque
from urllib.parse import parse_qsl, urljoin, urlsplit

import pytest
import requests

from tests.batches.desk import CHAT
from tests.dashboard.house import BROKEN, PASSWORD, SMALL, House
from tests.gateway import HELLO, unique
from tests.processes import eventually

STARTS = ("/", "/models", "/batches", "/credits", "/account", "/usage?by=key", "/usage?by=user", "/usage?by=group")  # fmt: skip
"""Beside what the bar offers."""
_ALIKE = 2
"""Pages of a kind that are looked at."""
_ID = re.compile(r"(?:batch_|file-)?[0-9a-f]{8}-[0-9a-f-]{27}")
_TELLING = frozenset({"tab", "by", "of", "show", "user", "key", "all"})
"""Parameters by which a page is another. (Filters, columns and places in a list make none.)"""
_SAYS_WHY = "Its calls stay in the log"
"""Of what has no page any more, or never had one."""
_NO_PAGES = ("/assets/", "/admin/", "/ai/", "/authentication/", "/requests/live", "/requests/export", "/usage/export")  # fmt: skip


@pytest.fixture(scope="module")
def organization(house: House) -> str:
    """The id of one of which the biller is the owner and the member a member, which has called and has a batch that is over."""
    gateway = house.gateway
    owner, member = (house.people[name] for name in ("biller", "member"))
    body = {"name": unique("dead-ends"), "email": f"{unique('office')}@house.example", "owner_id": str(owner.id)}  # fmt: skip
    id: str = gateway.admin("POST", "/organizations", body).json()["id"]
    gateway.admin("POST", f"/organizations/{id}/members", {"user_id": str(member.id), "role": "member"})  # fmt: skip
    gateway.credit(id, "5")
    key = gateway.admin("POST", f"/users/{id}/api-keys", {"name": "shared"}).json()["key"]
    for model in (SMALL, BROKEN):
        requests.post(f"{house.url}/ai/v1/chat/completions", json={"model": model, "messages": HELLO}, headers={"Authorization": f"Bearer {key}"}, timeout=20)  # fmt: skip
    line = {"custom_id": "r", "method": "POST", "url": CHAT, "body": {"model": SMALL, "messages": HELLO}}  # fmt: skip
    sent = {"file": ("lines.jsonl", json.dumps(line))}
    by = member.account
    file = requests.post(f"{house.url}/ai/v1/files", files=sent, headers=by.authorization, timeout=20).json()["id"]  # fmt: skip
    order = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"}
    batch = gateway.post("/batches", order, by=by).json()["id"]
    eventually(lambda: gateway.get(f"/batches/{batch}", by=by).json()["status"] == "completed", 30)
    return id


@pytest.mark.parametrize("name", ["manager", "member", "viewer", "biller", "member of it", "biller of it"])  # fmt: skip
def test_no_link_leads_to_a_refusal(house: House, organization: str, name: str) -> None:
    name, acts, _ = name.partition(" of it")
    with requests.Session() as session:
        body = {"email": house.people[name].email, "password": PASSWORD}
        assert session.post(f"{house.url}/authentication/login", json=body, timeout=20).ok
        if acts:
            chosen = {"organization_id": organization}
            answer = session.post(f"{house.url}/admin/api/v1/session/organization", json=chosen, timeout=20)  # fmt: skip
            assert answer.ok
        found = _refused(session, house.url)
    assert not found, "\n".join(found)


def _refused(session: requests.Session, root: str) -> list[str]:
    """The links, each with the page that has it."""
    looked_at: Counter[str] = Counter()
    waiting = deque((path, "the bar") for path in STARTS)
    found = []
    while waiting:
        path, page = waiting.popleft()
        kind = _kind(path)
        if looked_at[kind] >= _ALIKE or path.startswith(_NO_PAGES):
            continue
        looked_at[kind] += 1
        answer = session.get(root + path, headers={"Accept": "text/html"}, timeout=30)
        if answer.status_code >= 400 and path not in STARTS and _SAYS_WHY not in answer.text:
            found.append(f"{page} leads to {path}: {answer.status_code}")
        if not answer.headers.get("Content-Type", "").startswith("text/html"):
            continue
        for link in re.findall(r'(?:href|hx-get|data-src)="([^"#]+)', answer.text):
            parts = urlsplit(urljoin(answer.url, html.unescape(link)))
            if f"{parts.scheme}://{parts.netloc}" == root:
                waiting.append((f"{parts.path}?{parts.query}".rstrip("?"), path))
    assert len(looked_at) > 30
    return found


def _kind(path: str) -> str:
    """The same for pages that differ in what they are about."""
    parts = urlsplit(path)
    where = re.sub(r"^/models/(?!-)[^?]*", "/models/ALIAS", _ID.sub("ID", parts.path))
    names = sorted(f"{name}={value}" if name in ("tab", "by") else name for name, value in parse_qsl(parts.query) if name in _TELLING)  # fmt: skip
    return f"{where}?{names}"

"""A reset through real processes: the mail wakes a worker at once, and no secret of it is in any log."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from tests.identity.doors import PASSWORD, unique
from tests.processes import Service, eventually


@pytest.fixture(scope="module")
def environ(environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return environ | {"DWCTL_EMAIL__PATH": str(tmp_path_factory.mktemp("mails"))}


def test_a_mail_leaves_at_once_and_tells_no_log(service: Service) -> None:
    web, worker = service.webs[0], service.start_worker()
    email = f"{unique()}@people.example"
    body = {"username": email, "email": email, "password": PASSWORD}
    assert requests.post(f"{web.url}/authentication/register", json=body, timeout=20).ok
    asked = requests.post(f"{web.url}/authentication/password-resets", json={"email": email}, timeout=20)  # fmt: skip
    assert asked.status_code == 200
    folder = Path(service.environ["DWCTL_EMAIL__PATH"])
    (mail,) = eventually(lambda: list(folder.glob("*.eml")))
    text = mail.read_text().replace("=\n", "").replace("=3D", "=")
    link = re.search(r"\S+/reset-password\?\S+", text)
    assert link
    said = {name: values[0] for name, values in parse_qs(urlsplit(link[0]).query).items()}
    confirm = f"{web.url}/authentication/password-resets/{said['id']}/confirm"
    new = {"token": said["token"], "new_password": "another-good-password"}
    assert requests.post(confirm, json=new, timeout=20).status_code == 200
    page = requests.get(f"{worker.url}/internal/metrics", timeout=20).text
    assert 'dwctl_mails_sent_total{template="password_reset"} 1\n' in page
    assert "dwctl_mails_waiting_max 0\n" in page
    for process in (web, worker):
        printed = process.output()
        assert "Traceback" not in printed, printed[-3000:]
        assert email not in printed
        assert said["token"] not in printed

"""`dwctl up` as a newcomer runs it: real processes, a PostgreSQL of its own, and every printed line tried."""

import json
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from dwctl.local.home import Home
from tests.processes import ROOT, eventually, free_port

DWCTL = Path(sys.executable).with_name("dwctl")
FAST = {
    "WEB_CONCURRENCY": "1",
    "DWCTL_AUTH__NATIVE__PASSWORD__ARGON2_MEMORY_KIB": "1024",
    "DWCTL_AUTH__NATIVE__PASSWORD__ARGON2_ITERATIONS": "1",
}


class Up:
    """One `dwctl up`, in a process group of its own as in a terminal."""

    def __init__(self, folder: Path, *args: str, port: int = 0, **environ: str) -> None:
        self.port = port or free_port()
        self.url = f"http://localhost:{self.port}"
        self._out, self._err = (
            folder.parent / f"out-{self.port}",
            folder.parent / f"err-{self.port}",
        )
        kept = {
            k: v for k, v in os.environ.items() if not k.startswith(("DWCTL_", "DATABASE", "PORT"))
        }
        with self._out.open("w") as out, self._err.open("w") as err:
            self._popen = subprocess.Popen(
                [DWCTL, "up", "--data-dir", folder, "--port", str(self.port), *args],
                cwd=ROOT,
                env=kept | FAST | environ,
                stdout=out,
                stderr=err,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def wait_for(self, text: str) -> None:
        def there() -> bool:
            assert self._popen.poll() is None, self.out + self.err
            return text in self.out

        eventually(there, 60, 0.05)

    def interrupt(self) -> int:
        """Ctrl-C: the terminal sends it to the foreground group."""
        if self._popen.poll() is None:
            os.killpg(self._popen.pid, signal.SIGINT)
        return self.wait()

    def wait(self) -> int:
        return self._popen.wait(60)


def try_line(line: str) -> requests.Response:
    """What curl would do with a printed line."""
    words = shlex.split(line)
    assert words[0] == "curl"
    url = next(word for word in words if word.startswith("http"))
    headers = dict(words[i + 1].split(": ", 1) for i, word in enumerate(words) if word == "-H")
    if "-d" not in words:
        return requests.get(url, headers=headers, timeout=30)
    return requests.post(url, words[words.index("-d") + 1], headers=headers, timeout=30)


@pytest.fixture(scope="module")
def data() -> Iterator[Path]:
    """A data folder that every user can enter, for root's sake; gone when the module is done."""
    import shutil
    import tempfile

    parent = Path(tempfile.mkdtemp(prefix="dwctl-up-"))
    parent.chmod(0o755)
    yield parent / "data"
    Home(parent / "data").postgres.stop()
    shutil.rmtree(parent, ignore_errors=True)


@pytest.fixture(scope="module")
def first(data: Path) -> Iterator[Up]:
    """The very first start, with the demo."""
    up = Up(data, "--demo")
    up.wait_for("requests tail")
    yield up
    up.interrupt()


def printed(up: Up) -> dict[str, str]:
    """Each curl line by the title over it."""
    return dict(re.findall(r"^(\w[^\n]*):\n  (curl [^\n]*)$", up.out, re.MULTILINE))


def test_the_overview_opens_with_calls_of_every_kind(first: Up):
    """Before anything else is called: the demo made them itself."""
    key = re.search(r"sk-[\w-]+", first.out)
    assert key
    password = re.search(r"Password +(\S+)", first.out)
    assert password
    signed_in = requests.Session()
    body = {"email": "admin@example.com", "password": password[1]}
    assert signed_in.post(f"{first.url}/authentication/login", json=body, timeout=20).ok

    def total() -> dict[str, Any]:
        shown: dict[str, Any] = signed_in.get(f"{first.url}/admin/api/v1/requests/breakdown", timeout=20).json()  # fmt: skip
        return shown

    eventually(lambda: total()["total"]["requests"] == 9)
    assert total()["total"]["errors"] == 1
    assert {row["id"] for row in total()["rows"]} == {"demo-chat", "demo-embed", ""}
    page = signed_in.get(first.url, timeout=20).text
    assert "demo-chat" in page
    assert "First steps" not in page


def test_the_printed_curl_line_answers(first: Up):
    answer = try_line(printed(first)["Ask the demo model"])
    assert answer.status_code == 200
    assert "Hello" in answer.json()["choices"][0]["message"]["content"]


def test_the_printed_streaming_line_streams(first: Up):
    answer = try_line(printed(first)["Streaming"])
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.rstrip().endswith("data: [DONE]")


def test_the_printed_flex_line_is_answered_through_a_worker(first: Up):
    answer = try_line(printed(first)["Flex (waits for a worker)"])
    assert (answer.status_code, answer.json()["status"]) == (200, "completed")


def test_the_printed_background_line_can_be_fetched_as_printed(first: Up):
    background = try_line(printed(first)["In the background (answers at once, fetch it by its id)"])
    assert background.status_code == 202
    fetch = next(line for line in first.out.splitlines() if "/responses/ID" in line)
    line = fetch.replace("/ID", "/" + background.json()["id"])
    eventually(lambda: try_line(line).json()["status"] == "completed")


def test_the_password_of_the_first_start_signs_in_over_plain_http(first: Up):
    password = re.search(r"Password\s+(\S+)", first.out)[1]
    session = requests.Session()
    credentials = {"email": "admin@example.com", "password": password}
    answer = session.post(first.url + "/authentication/login", json=credentials, timeout=10)
    assert answer.status_code == 200
    assert "secure" not in answer.headers["set-cookie"].lower()
    assert session.get(first.url + "/admin/api/v1/users/current", timeout=10).status_code == 200


def test_the_way_to_a_first_call_over_http_works_as_printed_in_the_readme(
    first: Up, data: Path, tmp_path: Path
):
    section = (ROOT / "README.md").read_text().partition("## Using it")[2].partition("\n## ")[0]
    _credentials, *blocks = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    script = "".join(blocks)
    script = script.replace("http://localhost:3001", first.url)
    script = script.replace(".venv/bin/dwctl", f"{DWCTL} --data-dir {data}")
    environ = os.environ | {
        "EMAIL": "admin@example.com",
        "PASSWORD": re.search(r"Password\s+(\S+)", first.out)[1],
    }
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=90)  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert "Hello" in answer["choices"][0]["message"]["content"], done.stdout


def test_another_command_finds_the_database_by_the_data_folder(first: Up, data: Path):
    done = subprocess.run(
        [DWCTL, "--data-dir", data, "users", "list", "--json"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "admin@example.com" in [user["email"] for user in json.loads(done.stdout)]


def test_secrets_are_for_their_owner_alone(first: Up, data: Path):
    for name in ("secret_key", "demo_api_key", "lock", "postgres/password"):
        assert stat.S_IMODE((data / name).stat().st_mode) == 0o600, name


def test_a_second_start_on_the_same_folder_is_refused(first: Up, data: Path):
    second = Up(data)
    assert second.wait() == 1
    assert "is running on" in second.err
    assert first.url in second.err


def test_a_port_that_is_taken_is_named(first: Up, tmp_path: Path):
    second = Up(tmp_path / "other", port=first.port)
    assert second.wait() == 1
    assert f"Port {first.port}" in second.err
    assert "--port" in second.err


@pytest.fixture(scope="module")
def stopped(first: Up, data: Path) -> Up:
    """The first start after Ctrl-C. Tests from here on come after those above."""
    first.interrupt()
    return first


def test_ctrl_c_stops_everything_and_the_database_last(stopped: Up, data: Path):
    assert Home(data).postgres.pid is None
    with pytest.raises(requests.ConnectionError):
        requests.get(stopped.url, timeout=5)
    assert "traceback" not in (stopped.out + stopped.err).lower()


@pytest.fixture(scope="module")
def second(stopped: Up, data: Path) -> Iterator[tuple[Up, dict[str, Any]]]:
    """A later start, for a script."""
    up = Up(data, "--demo", "--json")
    up.wait_for("\n")
    yield up, json.loads(up.out)
    up.interrupt()


def test_a_script_gets_one_line_of_json(second: tuple[Up, dict[str, Any]]):
    up, told = second
    assert told["url"] == up.url
    assert up.out.count("\n") == 1


def test_a_later_start_keeps_key_and_data_and_shows_no_password(
    stopped: Up, second: tuple[Up, dict[str, Any]]
):
    up, told = second
    assert told["password"] is None
    assert told["api_key"] in printed(stopped)["Ask the demo model"]
    line = printed(stopped)["Ask the demo model"].replace(stopped.url, up.url)
    assert try_line(line).status_code == 200


def test_sigterm_stops_everything_too(second: tuple[Up, dict[str, Any]], data: Path):
    up, _ = second
    os.kill(up._popen.pid, signal.SIGTERM)
    assert up.wait() == 128 + signal.SIGTERM
    assert Home(data).postgres.pid is None


def test_a_named_database_is_used_and_left_running(database_url: str, tmp_path: Path):
    folder = tmp_path / "data"
    up = Up(folder, "--json", DATABASE_URL=database_url, DWCTL_ADMIN_PASSWORD="chosen-by-me")
    up.wait_for("\n")
    told = json.loads(up.out)
    assert told["password"] is None
    assert told["api_key"] is None
    assert not (folder / "postgres").exists()
    login = {"email": told["email"], "password": "chosen-by-me"}
    answer = requests.post(up.url + "/authentication/login", json=login, timeout=10)
    assert answer.status_code == 200
    up.interrupt()
    with psycopg.connect(database_url) as still_there:
        still_there.execute("SELECT 1")

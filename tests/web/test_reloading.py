"""Settings that change while processes run: what takes effect, when, for whom, and what a mistake does."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from flask import Flask

from dwctl import config
from dwctl.web import current
from dwctl.web.reloading import Reloading
from tests.applications import application
from tests.processes import Process, Service, eventually


class Mounted:
    """A file of settings as Kubernetes mounts it: a link to a link to a folder, which is swapped whole."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "config.yaml"
        self._folder = folder
        self._made = 0
        self.path.symlink_to("..data/config.yaml")

    def put(self, text: str) -> None:
        self._made += 1
        (new := self._folder / f"..{self._made}").mkdir()
        (new / "config.yaml").write_text(text)
        (link := self._folder / "..data_tmp").symlink_to(new.name)
        link.rename(self._folder / "..data")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (file := tmp_path / "config.yaml").write_text("metadata: {title: First}\n")
    return file


@pytest.fixture
def app(environ: dict[str, str], file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    """One that was made with the settings of that file."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DWCTL_CONFIG", str(file))
    with application(os.environ) as app:
        yield app
    logging.getLogger("dwctl").setLevel(logging.INFO)


@pytest.fixture
def reloading(app: Flask) -> Reloading:
    """With the first looks behind it."""
    made = Reloading(app)
    look(made)
    return made


def look(reloading: Reloading) -> None:
    """Twice: at what changed, and whether it rests."""
    reloading.look()
    reloading.look()


def title(app: Flask) -> str:
    return current.parts(app).settings.metadata.title


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, object]]:
    """What the log says, with the settings or the reason."""
    return [
        (record.message, getattr(record, "settings", None) or getattr(record, "reason", None))
        for record in caplog.records
        if record.name == "dwctl.web.reloading"
    ]


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Our log goes to pytest, too."""
    ours = logging.getLogger("dwctl")
    ours.addHandler(caplog.handler)
    yield
    ours.removeHandler(caplog.handler)


def test_nothing_is_said_where_nothing_changed(reloading: Reloading, caplog: pytest.LogCaptureFixture) -> None:  # fmt: skip
    look(reloading)
    assert told(caplog) == []


def test_a_change_is_in_force_when_the_file_rests(app: Flask, file: Path, reloading: Reloading, caplog: pytest.LogCaptureFixture) -> None:  # fmt: skip
    file.write_text("metadata:\n")
    reloading.look()
    assert title(app) == "First"
    file.write_text("metadata: {title: Second}\nlog_level: warning\n")
    reloading.look()
    assert title(app) == "First"
    reloading.look()
    assert title(app) == "Second"
    assert app.test_client().get("/about").text.count("Second") >= 1
    assert logging.getLogger("dwctl").level == logging.WARNING
    file.write_text("metadata: {title: Third}\n")
    look(reloading)
    assert told(caplog)[-1] == ("settings read again", ["log_level", "metadata.title"])


def test_a_change_before_the_first_look_is_not_missed(app: Flask, file: Path) -> None:
    file.write_text("metadata: {title: Second}\n")
    look(Reloading(app))
    assert title(app) == "Second"


def test_a_request_keeps_the_settings_that_it_began_with(app: Flask, file: Path, reloading: Reloading) -> None:  # fmt: skip
    with app.app_context():
        assert current.settings().metadata.title == "First"
        file.write_text("metadata: {title: Second}\n")
        look(reloading)
        assert title(app) == "Second"
        assert current.settings().metadata.title == current.parts().settings.metadata.title == "First"  # fmt: skip
    with app.app_context():
        assert current.settings().metadata.title == "Second"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("metadata: {title: [}\n", "FILE:1: not valid YAML"),
        ("metadata: {titel: Second}\n", "metadata.titel: unknown setting"),
        ("metadata: {title: Second}\nshutdown: {grace: 0}\n", "shutdown.grace: must be between"),
        ("metadata: {title: Second}\nauth: {default_user_roles: [Wizard]}\n", "auth.default_user_roles: "),
        (None, "FILE: the file is gone"),
    ],
)  # fmt: skip
def test_a_mistake_changes_nothing_and_is_told_once(app: Flask, file: Path, reloading: Reloading, caplog: pytest.LogCaptureFixture, text: str | None, reason: str) -> None:  # fmt: skip
    before = current.parts(app).settings
    file.unlink() if text is None else file.write_text(text)
    look(reloading)
    look(reloading)
    assert current.parts(app).settings is before
    ((event, why),) = told(caplog)
    assert event == "settings not read again"
    assert str(why).startswith(reason.replace("FILE", str(file)))
    file.write_text("metadata: {title: Mended}\n")
    look(reloading)
    assert title(app) == "Mended"


def test_what_waits_for_a_restart_is_named_once(app: Flask, file: Path, reloading: Reloading, caplog: pytest.LogCaptureFixture) -> None:  # fmt: skip
    text = "metadata: {title: Second}\nonwards: {strict_mode: true}\nauth:\n  security: {hsts_max_age: 5}\n  native: {allow_registration: true}\n"
    file.write_text(text)
    look(reloading)
    settings = current.parts(app).settings
    assert settings.auth.native.allow_registration
    assert not settings.onwards.strict_mode
    assert settings.auth.security.hsts_max_age == 0
    file.write_text(text.replace("Second", "Third"))
    look(reloading)
    assert [event for event in told(caplog) if event[0] == "settings wait for a restart"] == [
        ("settings wait for a restart", ["auth.security.hsts_max_age", "onwards.strict_mode"])
    ]


def test_a_secret_in_a_file_of_its_own_is_read_again(environ: dict[str, str], app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    (secret := tmp_path / "token").write_text("the-first-token-of-many")
    monkeypatch.setenv("DWCTL_METRICS_TOKEN_FILE", str(secret))
    reloading = Reloading(app)
    look(reloading)
    assert current.parts(app).settings.metrics_token == "the-first-token-of-many"
    secret.write_text("the-second-token-of-many")
    look(reloading)
    assert current.parts(app).settings.metrics_token == "the-second-token-of-many"


@pytest.fixture
def by_name(app: Flask, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is found by its usual name in the working folder: there it need not be."""
    monkeypatch.delenv("DWCTL_CONFIG")
    monkeypatch.chdir(file.parent)


@pytest.mark.usefixtures("by_name")
def test_a_file_that_is_gone_stays_what_was_in_force(app: Flask, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    (secret := tmp_path / "token").write_text("the-first-token-of-many")
    monkeypatch.setenv("DWCTL_METRICS_TOKEN_FILE", str(secret))
    config.remember()
    reloading = Reloading(app)
    look(reloading)
    file.unlink()
    look(reloading)
    # Something else changes meanwhile, and a process begins anew.
    secret.write_text("the-second-token-of-many")
    look(reloading)
    assert title(app) == "First"
    with pytest.raises(config.ConfigError, match="the file is gone"):
        config.remember()
    assert config.load_or_remembered().metadata.title == "First"
    look(Reloading(app))
    assert title(app) == "First"
    file.write_text("metadata: {title: Back}\n")
    look(reloading)
    config.remember()
    assert title(app) == config.load_or_remembered().metadata.title == "Back"


def test_only_what_is_live_is_merged() -> None:
    wanted = config.load({"DWCTL_METADATA__TITLE": "x", "DWCTL_DATABASE__POOL_SIZE": "9", "DWCTL_CONNECTIONS__SYNC__MAX_OPEN": "3", "DWCTL_CONNECTIONS__SYNC__LEASE": "9s"})  # fmt: skip
    from dwctl.settings import live

    merged = live.merged(config.Settings(), wanted)
    assert live.changed(config.Settings(), merged) == ["connections.sync.max_open", "metadata.title"]  # fmt: skip
    assert live.changed(merged, wanted) == ["database.pool_size", "connections.sync.lease"]


def shows(web: Process, title: str, times: int = 24) -> bool:
    """Whether that many new connections, which the system deals out to both processes, all show it."""
    found = [requests.get(web.url + "/about", timeout=60).text for _ in range(times)]
    return all(title in page for page in found)


def test_every_process_follows_and_none_is_stopped_by_a_mistake(environ: dict[str, str], tmp_path: Path) -> None:  # fmt: skip
    mounted = Mounted(tmp_path)
    mounted.put("metadata: {title: First title}\n")
    following = {"DWCTL_CONFIG": str(mounted.path), "DWCTL_RELOAD_INTERVAL": "0.1s", "WEB_CONCURRENCY": "2"}  # fmt: skip
    with Service(environ | following, is_warm=False) as service:
        web = service.start_web()
        eventually(lambda: shows(web, "First title"), 60)
        mounted.put("metadata: {title: Second title}\n")
        # (Says that each has read it, or has begun with it: the second process may have been slower than this test.)
        eventually(lambda: shows(web, "Second title"), 60)
        eventually(lambda: "settings read again" in web.output(), 60)
        # The master looks once a second, and starts others with what it has seen.
        time.sleep(2.5)
        mounted.put("metadata: {title: Third title, colour: red}\n")
        eventually(lambda: web.output().count("settings not read again") >= 2, 60)
        assert shows(web, "Second title")
        # Neither what takes a dead process's place nor what SIGHUP starts is stopped by the mistake.
        before = web.worker_pids()
        os.kill(before[0], signal.SIGKILL)
        os.kill(web.pid, signal.SIGHUP)
        eventually(lambda: len(now := web.worker_pids()) == 2 and not set(now) & set(before), 60)
        eventually(lambda: shows(web, "Second title", 1), 60)
        assert shows(web, "Second title")
        mounted.put("metadata: {title: Fourth title}\n")
        eventually(lambda: shows(web, "Fourth title"), 60)
        assert web.lives

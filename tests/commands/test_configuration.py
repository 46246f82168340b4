"""`dwctl config`: settings checked, shown with their places, and written as an example."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from dwctl import config
from dwctl.commands.main import cli
from dwctl.settings import shown
from dwctl.settings.live import LIVE

ROOT = Path(__file__).parents[2]
SECRET = "not-for-anybody-to-see"


@pytest.fixture
def dwctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs `dwctl config` in an empty folder, with these variables alone."""
    monkeypatch.chdir(tmp_path)
    import os

    for name in [each for each in os.environ if each.startswith(("DWCTL_", "DATABASE_"))]:
        monkeypatch.delenv(name)

    def run(*args: str, **environ: str) -> Result:
        return CliRunner().invoke(cli, ["config", *args], env=environ)

    return run


def read(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_check_lists_every_setting_with_its_place(dwctl: Any, tmp_path: Path):
    (tmp_path / "config.yaml").write_text("metadata:\n  title: Ours\nhost: x\n")
    result = dwctl("check", "--json", DWCTL_SHUTDOWN__GRACE="90s", DWCTL_ENABLE_METRICS="no")
    rows = {row["setting"]: row for row in read(result)}
    assert list(rows) == config.names()
    assert rows["metadata.title"] == {"setting": "metadata.title", "value": "Ours", "source": "config.yaml:2"}  # fmt: skip
    assert (rows["shutdown.grace"]["value"], rows["shutdown.grace"]["source"]) == ("90s", "DWCTL_SHUTDOWN__GRACE")  # fmt: skip
    assert rows["enable_metrics"]["value"] is False
    assert rows["log_level"] == {"setting": "log_level", "value": "info", "source": "default"}
    assert result.stderr == "warning: host: setting has no meaning here: gunicorn binds to $PORT (config.yaml:3)\n"  # fmt: skip


def test_check_for_people_lists_what_is_set(dwctl: Any):
    result = dwctl("check", "--set", DWCTL_LOG_LEVEL="debug", DWCTL_ENABLE_METRICS="no")
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["setting", "value", "source"],
        ["enable_metrics", "false", "DWCTL_ENABLE_METRICS"],
        ["log_level", "debug", "DWCTL_LOG_LEVEL"],
    ]
    assert dwctl("check", "--quiet").output == ""


def test_each_problem_is_a_line_and_the_exit_code_is_1(dwctl: Any, tmp_path: Path):
    (file := tmp_path / "new.yaml").write_text("metadata: {titel: x}\nshutdown: {grace: 0}\n")
    result = dwctl("check", "--file", str(file), DWCTL_LOG_LEVEL="loud")
    assert (result.exit_code, result.stdout) == (1, "")
    assert sorted(result.stderr.splitlines()) == [
        "dwctl: log_level: must be one of debug, info, warning, error (DWCTL_LOG_LEVEL)",
        f"dwctl: metadata.titel: unknown setting (is title meant?) ({file}:1)",
        f"dwctl: shutdown.grace: must be between 1s and 24h ({file}:2)",
    ]
    roles = dwctl("check", DWCTL_AUTH__DEFAULT_USER_ROLES="Wizard")
    assert (roles.exit_code, len(roles.stderr.splitlines())) == (1, 1)
    assert dwctl("check", "--file", "none.yaml").exit_code == 1


def test_serving_wants_what_processes_cannot_do_without(dwctl: Any):
    assert dwctl("check", "--quiet").exit_code == 0
    without = dwctl("check", "--serving")
    assert (without.exit_code, without.stderr.startswith("dwctl: secret_key is missing")) == (1, True)  # fmt: skip
    key = {"DWCTL_SECRET_KEY": SECRET}
    assert dwctl("check", "--serving", **key).stderr.startswith("dwctl: DATABASE_URL is not set")
    assert dwctl("check", "--serving", DATABASE_URL="postgresql://x", **key).exit_code == 0


SECRETS = {name: kind for name, kind in config.kinds().items() if shown.is_secret(name, kind)}


def test_secrets_are_known_by_their_names():
    assert {"secret_key", "secret_key_previous", "admin_password", "metrics_token", "connections.encryption_key"} <= set(SECRETS)  # fmt: skip
    assert "auth.native.session.cookie_name" not in SECRETS


@pytest.mark.parametrize("name", [*SECRETS, "database.url", "database.direct_url"])
def test_no_secret_is_shown(dwctl: Any, name: str):
    value = f"postgresql://user:{SECRET}@host/x" if name.startswith("database") else SECRET
    variable = {"DWCTL_" + name.upper().replace(".", "__"): value}
    if name == "email.password":
        variable["DWCTL_EMAIL__USERNAME"] = "dwctl"
    for args in (["check"], ["check", "--json"], ["show", name], ["show", name, "--json"]):
        result = dwctl(*args, **variable)
        assert result.exit_code == 0, result.output
        assert SECRET not in result.output
        assert "***" in result.stdout


@pytest.mark.parametrize(
    ("url", "told"),
    [
        (f"postgresql:///x?user=u&password={SECRET}&sslmode=require", "postgresql:///x?user=u&password=***&sslmode=require"),
        (f"postgresql://host/x?sslpassword={SECRET}", "postgresql://host/x?sslpassword=***"),
        (f"postgres://user:a/b#c@{SECRET}@host/x", "postgres://***@host/x"),
    ],
)  # fmt: skip
def test_a_password_is_masked_wherever_a_url_has_it(dwctl: Any, url: str, told: str):
    assert read(dwctl("show", "database.url", "--json", DATABASE_URL=url))["value"] == told


def test_a_url_that_hides_nothing_is_shown_as_it_is(dwctl: Any):
    url = "https://docs.example/@us/start?page=2"
    assert read(dwctl("show", "metadata.docs_url", "--json", DWCTL_METADATA__DOCS_URL=url))["value"] == url  # fmt: skip


def test_a_doubt_is_named_with_its_place(dwctl: Any):
    smtp = {"DWCTL_EMAIL__TYPE": "smtp", "DWCTL_EMAIL__HOST": "mail.example"}
    told = "warning: dashboard_url: links in mails lead to localhost: nobody who gets a mail finds us there (default)\n"
    assert dwctl("check", "--quiet", **smtp).stderr == told


def test_show_tells_what_a_setting_may_be(dwctl: Any):
    assert read(dwctl("show", "daemons.heartbeat", "--json", DWCTL_DAEMONS__HEARTBEAT="2s")) == {
        "setting": "daemons.heartbeat",
        "value": "2s",
        "source": "DWCTL_DAEMONS__HEARTBEAT",
        "default": "5s",
        "allowed": "between 50ms and 1h",
        "takes_effect": "after a restart",
    }
    assert read(dwctl("show", "metadata.title", "--json"))["takes_effect"] == "at once"
    assert [row["setting"] for row in read(dwctl("show", "daemons", "--json"))] == ["daemons.heartbeat", "daemons.dead_after"]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("metadata.titel", "Error: There is no setting metadata.titel; is metadata.title meant?"),
        ("port", "Error: port has no meaning here: gunicorn binds to $PORT"),
        ("", "Error: There is no setting "),
    ],
)
def test_an_unknown_setting_is_one_line(dwctl: Any, name: str, told: str):
    result = dwctl("show", name)
    assert (result.exit_code, result.stderr) == (1, told + "\n")


def test_the_example_is_complete_and_changes_nothing(dwctl: Any, tmp_path: Path):
    printed = dwctl("example").stdout
    (file := tmp_path / "example.yaml").write_text(printed)
    assert config.read({}, file).settings == config.Settings()
    filled = "\n".join(
        line.replace("#", "", 1)
        if line.lstrip().startswith("#") and not line.lstrip().startswith("# ")
        else line  # fmt: skip
        for line in printed.splitlines()
    )
    file.write_text(filled)
    loaded = config.read({}, file)
    assert loaded.settings == config.Settings()
    assert set(loaded.origins) == set(config.names())
    tree = yaml.safe_load(filled)
    assert tree["auth"]["native"]["password"]["min_length"] == 8
    assert "# E-mail of the first administrator" in printed


def test_what_takes_effect_at_once_exists():
    sections = {name[: name.rfind(".")] for name in config.names()} | set(config.names())
    sections |= {name.rpartition(".")[0] for name in sections}
    assert set(LIVE) <= sections

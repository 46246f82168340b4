"""Where settings are written: files and variables, which of them wins, and that each mistake is named with its place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dwctl import config

SECRET = "012345678901234567"


def in_file(folder: Path, text: str) -> Path:
    (file := folder / "config.yaml").write_text(text)
    return file


def problem(file: Path | None, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(config.ConfigError) as refused:
        config.load(environ or {}, file)
    return str(refused.value)


def test_each_value_knows_where_it_stands(tmp_path: Path):
    text = "metadata:\n  title: Ours\n  region: here\nauth: {native: {enabled: yes}}\n"
    file = in_file(tmp_path, text)
    (secret := tmp_path / "key").write_text(f"{SECRET}\n")
    environ = {"dwctl_metadata__region": "there", "DWCTL_SECRET_KEY_FILE": str(secret), "DATABASE_URL": "postgresql://x"}  # fmt: skip
    loaded = config.read(environ, file)
    assert loaded.origins == {
        "metadata.title": f"{file}:2",
        "metadata.region": "dwctl_metadata__region",
        "auth.native.enabled": f"{file}:4",
        "secret_key": f"DWCTL_SECRET_KEY_FILE ({secret})",
        "database.url": "DATABASE_URL",
    }
    assert (loaded.settings.metadata.region, loaded.settings.secret_key) == ("there", SECRET)
    assert loaded.files == (file, secret)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("auth:\n  native:\n    enabeld: true\n", "auth.native.enabeld: unknown setting (is enabled meant?) (FILE:3)"),
        ("shutdown: {grace: never}\n", "shutdown.grace: not a duration: 'never' (FILE:1)"),
        ("\nshutdown: 5\n", "shutdown: a mapping of settings is wanted (FILE:2)"),
        ("batches:\n  files:\n    min_expiry_seconds: 99999999\n", "batches.files: min_expiry_seconds, default_expiry_seconds and max_expiry_seconds must be ordered (FILE:2)"),
        ("log_level: info\nmetadata: {}\nlog_level: debug\n", "FILE:3: log_level stands here a second time, after line 1"),
        ("- a\n", "FILE: a mapping of settings is wanted"),
        ("? [a]\n: b\n", "FILE:1: a setting's name is a text"),
        ("model_sources:\n- {name: a}\n", "model_sources.url: Missing data for required field (FILE:1)"),
        ("secret_key:\n  a: b\n", "secret_key: Not a valid string (FILE:1)"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_file_is_named_with_its_line(tmp_path: Path, text: str, told: str):
    file = in_file(tmp_path, text)
    assert problem(file) == told.replace("FILE", str(file))


@pytest.mark.parametrize("text", ["a: [", "a: b: c", "\t- x", "a: *nowhere", "%", "a: !!python/object:os.system x"])  # fmt: skip
def test_what_is_no_yaml_is_named_with_its_file(tmp_path: Path, text: str):
    file = in_file(tmp_path, text)
    told = problem(file)
    assert re.match(re.escape(str(file)) + r":\d: not valid YAML: .|a: unknown setting", told)
    assert "\n" not in told


def test_a_line_with_a_secret_is_not_quoted(tmp_path: Path):
    told = problem(in_file(tmp_path, f"metadata: {{}}\nsecret_key: '{SECRET}\n"))
    assert SECRET not in told


def test_files_that_cannot_be_read_are_named(tmp_path: Path):
    assert problem(tmp_path / "none") == f"{tmp_path}/none: there is no such file"
    assert problem(tmp_path) == f"{tmp_path}: cannot be read: Is a directory"
    (odd := tmp_path / "odd").write_bytes(b"metadata: {title: \xff}")
    assert problem(odd).startswith(f"{odd}: not UTF-8")
    missing = {"DWCTL_SECRET_KEY_FILE": str(tmp_path / "gone")}
    assert problem(None, missing) == f"DWCTL_SECRET_KEY_FILE: {tmp_path}/gone cannot be read: No such file or directory"  # fmt: skip


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"DWCTL_AUTH": "x", "DWCTL_AUTH__NATIVE__ENABLED": "1"}, "auth.native.enabled: auth has a value as a whole already"),
        ({"DWCTL_LOG_LEVEL": "info", "dwctl_log_level": "debug"}, "log_level: set twice, by DWCTL_LOG_LEVEL and dwctl_log_level"),
        ({"DWCTL_LOG_LEVEL__DEEPER": "x"}, "log_level: "),
        ({"DWCTL_": "x"}, ": unknown setting (DWCTL_)"),
        ({"DWCTL_AUTH__": "x"}, "auth.: unknown setting (DWCTL_AUTH__)"),
        ({"DWCTL_DATABASE__URL": "mysql://user:password@host/x"}, "database.url: must be the URL of a PostgreSQL"),
    ],
)  # fmt: skip
def test_a_variable_that_makes_no_sense_is_named(environ: dict[str, str], told: str):
    assert problem(None, environ).startswith(told)
    assert "password" not in problem(None, environ)


def test_a_secret_of_digits_stays_what_it_is(tmp_path: Path):
    file = in_file(tmp_path, f"secret_key: {SECRET}\nadmin_password: 0x10\nmetadata: {{title: 1e3}}\n")  # fmt: skip
    settings = config.load({"DWCTL_METRICS_TOKEN": "0000000000000001"}, file)
    found = (settings.secret_key, settings.admin_password, settings.metadata.title, settings.metrics_token)  # fmt: skip
    assert found == (SECRET, "0x10", "1e3", "0000000000000001")


@pytest.mark.parametrize(
    "text", ["", "auth:\n", "auth:\n  native:\n", "# nothing\n", "---\n", "{}"]
)
def test_sections_with_nothing_in_them_set_nothing(tmp_path: Path, text: str):
    loaded = config.read({}, in_file(tmp_path, text))
    assert loaded.settings == config.Settings()
    assert loaded.origins == {}


def test_blank_variables_of_optional_texts_set_nothing():
    environ = {"DWCTL_ADMIN_PASSWORD": "", "DWCTL_AUTH__NATIVE__SESSION__COOKIE_DOMAIN": " "}
    assert config.load(environ) == config.Settings()


def test_aliases_without_end_are_refused(tmp_path: Path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    assert problem(in_file(tmp_path, "\n".join(lines))).endswith(": more than 100000 values")
    assert "not valid YAML" in problem(in_file(tmp_path, "a: &a [*a]"))
    deep = "[" * 300_000 + "]" * 300_000
    assert problem(in_file(tmp_path, f"a: {deep}")).endswith(":1: nested more than 100 deep")


def test_anchors_and_merges_are_understood(tmp_path: Path):
    text = "connections: &c\n  sync: {max_open: 3}\nbatches: {files: {reported_errors: 7}}\n"
    merged = text.replace("&c", "").replace("sync:", "<<: {read_timeout: 7s}\n  sync:")
    assert config.load({}, in_file(tmp_path, merged)).connections.read_timeout == 7
    assert config.load({}, in_file(tmp_path, text)).connections.sync.max_open == 3


def test_variables_win_over_the_file_one_by_one(tmp_path: Path):
    file = in_file(tmp_path, "batches:\n  window_relaxation_factors: {24h: 2, 1h: 3}\n")
    loaded = config.read({"DWCTL_BATCHES__WINDOW_RELAXATION_FACTORS__1H": "4"}, file)
    assert loaded.settings.batches.window_relaxation_factors == {"24h": 2, "1h": 4}


@pytest.mark.parametrize("name", sorted(config.OBSOLETE))
def test_settings_without_a_meaning_are_accepted_and_the_reason_is_told(name: str, tmp_path: Path):
    lines = [f"{'  ' * depth}{part}:" for depth, part in enumerate(name.split("."))]
    loaded = config.read({}, in_file(tmp_path, "\n".join(lines) + " {a: [1]}\n"))
    assert loaded.settings == config.Settings()
    assert [(each.setting, each.reason) for each in loaded.remarks] == [(name, config.OBSOLETE[name])]  # fmt: skip
    assert loaded.remarks[0].origin.endswith(f":{len(lines)}")


def test_former_places_are_understood(tmp_path: Path):
    file = in_file(tmp_path, "database_url: postgresql://there\n")
    assert config.load({}, file).database.url == "postgresql://there"
    assert config.load({"DATABASE_URL": "postgresql://here"}, file).database.url == "postgresql://here"  # fmt: skip
    told = config.read({"DATABASE_REPLICA_URL": "postgresql://copy"}).remarks
    assert [each.setting for each in told] == ["database.replica_url"]


def test_links_in_mails_that_lead_nowhere_are_told():
    smtp = {"DWCTL_EMAIL__TYPE": "smtp", "DWCTL_EMAIL__HOST": "mail.example"}
    (told,) = config.read(smtp).remarks
    assert (told.setting, told.origin) == ("dashboard_url", "default")
    assert config.read({**smtp, "DWCTL_DASHBOARD_URL": "https://console.example"}).remarks == ()

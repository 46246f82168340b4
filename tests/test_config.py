"""Settings that must fit together: a bad pair stops the start, and is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dwctl import config
from dwctl.protocols.surfaces import SURFACES


def _of(settings: config.Settings, name: str) -> object:
    value: object = settings
    for part in name.split("."):
        value = getattr(value, part)
    return value


@pytest.mark.parametrize("of", ["ACCOUNT", "PROCESS"])
def test_there_is_room_for_the_largest_body(of: str) -> None:
    name = f"DWCTL_LIMITS__{of}__BUFFERED_BYTES"
    with pytest.raises(config.ConfigError) as refused:
        config.load({name: "1000000"})
    assert f"limits.{of.lower()}.buffered_bytes" in str(refused.value)
    assert config.load({name: "0"}).limits
    assert config.load({name: "1000000", "DWCTL_LIMITS__REQUESTS__MAX_BODY_SIZE": "1000000"}).limits


@pytest.mark.parametrize("name", ["responses_days", "log_days", "rollups_days", "files_days"])
@pytest.mark.parametrize("days", ["-1", "36501"])
def test_a_retention_is_a_number_of_days_that_dates_can_hold(name: str, days: str) -> None:
    with pytest.raises(config.ConfigError) as refused:
        config.load({f"DWCTL_RETENTION__{name.upper()}": days})
    assert f"retention.{name}" in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "StandardUser, BatchAPIUser",
        '["StandardUser", "BatchAPIUser"]',
        ' [ "StandardUser","BatchAPIUser" ]',
    ],
)
def test_a_list_in_the_environment_is_comma_separated_or_a_json_array(text: str) -> None:
    loaded = config.load({"DWCTL_AUTH__DEFAULT_USER_ROLES": text})
    assert loaded.auth.default_user_roles == ("StandardUser", "BatchAPIUser")


@pytest.mark.parametrize("text", ['["A"', "[1]", '[["A"]]'])
def test_half_an_array_is_no_list(text: str) -> None:
    with pytest.raises(config.ConfigError) as refused:
        config.load({"DWCTL_AUTH__DEFAULT_USER_ROLES": text})
    assert "auth.default_user_roles" in str(refused.value)


LISTS = sorted(
    name
    for name in config.names()
    if isinstance(_of(config.Settings(), name), tuple) and name != "model_sources"
)
GOOD = {
    "trusted_proxies": ("10.0.0.0/8", "::1/128"),
    "forwarded_headers": ("x-forwarded-for", "x-forwarded-host"),
    "passed_headers": ("x-a", "x-b"),
    "allowed_completion_windows": ("24h", "1h 30m"),
    "retried_statuses": ("5", "429"),
    "default_user_roles": ("StandardUser", "RequestViewer"),
    "allowed_origins": ("https://a.example", "http://b.example:8080"),
    "allowed_url_paths": ("/v1/responses", "/v1/embeddings"),
}
NEVER_EMPTY = {"batches.allowed_url_paths", "batches.allowed_completion_windows"}


@pytest.mark.parametrize("name", [*LISTS, "auth.proxy_header.trusted_proxies"])
def test_every_list_is_read_in_each_of_its_spellings(name: str, tmp_path: Path) -> None:
    values = GOOD.get(name.rpartition(".")[2], ("a.example", "b"))
    variable = "DWCTL_" + name.upper().replace(".", "__")
    for text in (", ".join(values), ",".join(values) + ",", json.dumps(values), f"  {json.dumps(values, indent=1)}"):  # fmt: skip
        assert tuple(map(str, _of(config.load({variable: text}), name))) == values, text
    tree: object = list(values)
    for part in reversed(name.split(".")):
        tree = {part: tree}
    (file := tmp_path / "config.yaml").write_text(json.dumps(tree))
    assert tuple(map(str, _of(config.load({}, file), name))) == values
    if name not in NEVER_EMPTY:
        assert _of(config.load({variable: ""}), name) == ()
        assert _of(config.load({variable: "[]"}), name) == ()
    for bad in ('["a"', "[1]", '[["a"]]', '[{"a": 1}]', "[null]"):
        with pytest.raises(config.ConfigError, match=name.replace(".", r"\.")):
            config.load({variable: bad})


def test_the_former_name_of_trusted_proxies_still_means_both() -> None:
    former = {"DWCTL_AUTH__PROXY_HEADER__TRUSTED_PROXIES": "10.0.0.0/8"}
    both = config.load(former)
    assert tuple(map(str, both.trusted_proxies)) == ("10.0.0.0/8",) == tuple(map(str, both.identity_proxies))  # fmt: skip
    apart = config.load(former | {"DWCTL_TRUSTED_PROXIES": "192.168.0.0/16"})
    assert tuple(map(str, apart.trusted_proxies)) == ("192.168.0.0/16",)
    assert tuple(map(str, apart.identity_proxies)) == ("10.0.0.0/8",)
    assert config.load({}).identity_proxies == config.load({}).trusted_proxies


@pytest.mark.parametrize("host", ["*", "https://a.example", "*example", "a.*.example", "a/b", "a b", "a:"])  # fmt: skip
def test_a_host_that_no_request_could_name_stops_the_start(host: str) -> None:
    with pytest.raises(config.ConfigError, match=r"auth\.security\.allowed_hosts"):
        config.load({"DWCTL_AUTH__SECURITY__ALLOWED_HOSTS": json.dumps([host])})


def test_hosts_are_names_with_a_port_or_without() -> None:
    hosts = ("a.example", "a.example:8443", "*.b.example", "[::1]:80", "localhost")
    loaded = config.load({"DWCTL_AUTH__SECURITY__ALLOWED_HOSTS": json.dumps(hosts)})
    assert loaded.auth.security.allowed_hosts == hosts


@pytest.mark.parametrize("name", ["MAX_ADMIN_BODY_SIZE", "MAX_SIGN_IN_BODY_SIZE"])
def test_no_sign_in_fits_into_nothing(name: str) -> None:
    with pytest.raises(config.ConfigError, match="must be between 1024 and"):
        config.load({f"DWCTL_LIMITS__REQUESTS__{name}": "0"})


@pytest.mark.parametrize("text", ["24h", "7d", "1h 30m", "90s", "0.5h"])
def test_windows_are_durations_with_units(text: str) -> None:
    loaded = config.load({"DWCTL_BATCHES__ALLOWED_COMPLETION_WINDOWS": text})
    assert loaded.batches.allowed_completion_windows == (text,)


@pytest.mark.parametrize("text", ["soon", "24", "0s", "-1h", "1000000d", "1h x"])
def test_a_window_that_is_none_stops_the_start(text: str) -> None:
    with pytest.raises(config.ConfigError, match=r"batches\.allowed_completion_windows"):
        config.load({"DWCTL_BATCHES__ALLOWED_COMPLETION_WINDOWS": text})


def test_relaxation_is_a_number_for_each_window() -> None:
    name = "DWCTL_BATCHES__WINDOW_RELAXATION_FACTORS"
    one_by_one = config.load({f"{name}__24H": "1.25", f"{name}__1h": "0"})
    assert one_by_one.batches.window_relaxation_factors == {"24h": 1.25, "1h": 0}
    together = config.load({name: '{"24h": 1.25}'})
    assert together.batches.window_relaxation_factors == {"24h": 1.25}
    for bad in ('{"24h": -1}', '{"24h": Infinity}', '{"24h": "much"}', '{"99h": 1}', "[1]", "1.5"):
        with pytest.raises(config.ConfigError, match=r"batches\.window_relaxation_factors"):
            config.load({name: bad})


def test_a_setting_whose_own_name_ends_in_file_is_read_as_itself(tmp_path: Path):
    settings = config.load({"DWCTL_LIMITS__FILES__MAX_REQUESTS_PER_FILE": "7"})
    assert settings.limits.files.max_requests_per_file == 7
    (tmp_path / "most").write_text("8\n")
    named = {"DWCTL_LIMITS__FILES__MAX_REQUESTS_PER_FILE_FILE": str(tmp_path / "most")}
    assert config.load(named).limits.files.max_requests_per_file == 8


def test_a_path_that_no_line_can_be_run_at_stops_the_start() -> None:
    with pytest.raises(config.ConfigError, match=r"batches\.allowed_url_paths: must be some of"):
        config.load({"DWCTL_BATCHES__ALLOWED_URL_PATHS": "/v1/chat/completions,/v1/other"})
    assert {path.removeprefix("/v1/") for path in config.BATCH_PATHS} <= SURFACES.keys()


def test_a_throughput_of_null_is_the_default(tmp_path: Path) -> None:
    (file := tmp_path / "config.yaml").write_text("batches: {default_throughput: null}")
    assert config.load({}, file).batches.default_throughput == 100


def test_a_window_for_single_requests_that_nobody_may_use_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config.load({"DWCTL_BATCHES__ASYNC_REQUESTS__COMPLETION_WINDOW": "1h"})
    assert not caplog.records
    config.load({"DWCTL_BATCHES__ASYNC_REQUESTS__COMPLETION_WINDOW": "7h"})
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_worker_configured_for_the_rust_product_starts(tmp_path: Path) -> None:
    (file := tmp_path / "config.yaml").write_text(
        json.dumps(
            {
                "batches": {"files": {"upload_buffer_size": 100, "download_buffer_size": 100}},
                "background_services": {
                    "batch_daemon": {"enabled": "always", "inject_deadline_priority": False},
                    "notifications": {"enabled": True, "poll_interval": "30s"},
                },
            }
        )
    )
    assert config.load({}, file) == config.load({})


def test_expiries_of_files_must_be_ordered():
    with pytest.raises(config.ConfigError, match="must be ordered"):
        config.load({"DWCTL_BATCHES__FILES__MAX_EXPIRY_SECONDS": "60"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("connections.connect_timeout", "0"),
        ("connections.read_timeout", "0s"),
        ("connections.answer_timeout", "0"),
        ("connections.sync.default_completion_window", "soon"),
        ("connections.sync.look_interval", "0"),
        ("background_services.batch_daemon.claim_interval_ms", "0"),
        ("batches.expiry_grace", "nan"),
        ("batches.expiry_grace", "inf"),
    ],
)
def test_a_time_with_which_nothing_would_work_stops_the_start(name: str, value: str) -> None:
    with pytest.raises(config.ConfigError) as refused:
        config.load({f"DWCTL_{name.upper().replace('.', '__')}": value})
    assert str(refused.value).startswith(name)

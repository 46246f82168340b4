"""Settings that must fit together: a bad pair stops the start, and is named."""

from __future__ import annotations

import pytest

from dwctl import config


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


@pytest.mark.parametrize("text", ["A, B", '["A", "B"]', ' [ "A","B" ]'])
def test_a_list_in_the_environment_is_comma_separated_or_a_json_array(text: str) -> None:
    loaded = config.load({"DWCTL_AUTH__DEFAULT_USER_ROLES": text})
    assert loaded.auth.default_user_roles == ("A", "B")


@pytest.mark.parametrize("text", ['["A"', "[1]", '[["A"]]'])
def test_half_an_array_is_no_list(text: str) -> None:
    with pytest.raises(config.ConfigError) as refused:
        config.load({"DWCTL_AUTH__DEFAULT_USER_ROLES": text})
    assert "auth.default_user_roles" in str(refused.value)

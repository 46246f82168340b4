"""Every number among the settings has bounds, and what lies outside stops the start with its name and place."""

from __future__ import annotations

from decimal import Decimal

import pytest

from dwctl import config
from dwctl.settings import schema
from dwctl.settings.bounds import BOUNDS
from dwctl.settings.kinds import Duration, duration_text, seconds_of

_NUMBERS = (int, float, Decimal, Duration)
NUMBERS = [name for name, kind in config.kinds().items() if schema.plain(kind)[0] in _NUMBERS]
TEXTS = {
    "auth.default_user_roles": ["Wizard", "standarduser"],
    "admin_email": ["nobody", "a b@c", ""],
    "support_email": ["nobody", "Help <help@desk.example>", "a@b, c@d"],
    "email.from_email": ["nobody", "", f"{'a' * 65}@b", "a[b]@c", "a\x01@b"],
    "email.reply_to": ["nobody", "a@b;c@d"],
    "dashboard_url": ["example.com", "ftp://x", "http://", "/here", ""],
    "onboarding_url": ["javascript:alert(1)"],
    "metadata.docs_url": ["docs"],
    "metadata.docs_jsonl_url": ["docs"],
    "metadata.ai_api_base_url": ["//host"],
    "database.url": ["mysql://x/y", "localhost"],
    "database.direct_url": ["mysql://x/y"],
    "auth.native.session.cookie_name": ["", "a b", "a=b", "a;b", "ä"],
    "auth.native.session.cookie_domain": ["a b", "a;b", "a\nb", "https://a"],
    "auth.native.session.cookie_same_site": ["Strictly"],
    "auth.proxy_header.header_name": ["", "x user", "x:user"],
    "auth.proxy_header.email_header_name": [""],
    "auth.proxy_header.groups_field_name": [""],
    "auth.proxy_header.provider_field_name": [""],
    "auth.security.cors.allowed_origins": ["example.com", "https://a/b", "https://u@a", "null"],
    "auth.native.enabled": ["perhaps", ""],
    "batches.allowed_completion_windows": [""],
    "batches.async_requests.completion_window": ["soon", ""],
    "connections.sync.default_endpoint": ["/v1/nope", ""],
    "background_services.batch_daemon.retried_statuses": ["6", "99", "600", "0", "five"],
    "trusted_proxies": ["everybody"],
    "log_level": ["loud"],
}


def refusal(name: str, value: str) -> str:
    variable = "DWCTL_" + name.upper().replace(".", "__")
    with pytest.raises(config.ConfigError) as refused:
        config.load({variable: value})
    (problem,) = [each for each in str(refused.value).split("; ") if each.startswith(f"{name}: ")]
    assert problem.endswith(f"({variable})")
    return problem


def test_every_number_has_bounds_and_nothing_else_has():
    assert set(NUMBERS) == set(BOUNDS)


@pytest.mark.parametrize("name", NUMBERS)
def test_what_lies_outside_is_refused_and_named(name: str):
    within = BOUNDS[name]
    default = config.value_of(config.Settings(), name)
    assert default is None or within(default) == default
    assert within(within.low) == within.low
    assert within(within.high) == within.high
    whole = schema.plain(config.kinds()[name])[0] is int
    below = within.low - 1 if whole else within.low * 0.9
    if within.low > 0:
        assert within.text in refusal(name, f"{below:.0f}" if whole else repr(below))
    assert within.text in refusal(name, f"{within.high * 2:.0f}")
    for odd in ("", "many", "nan", "inf", "-1", "1e400", "[1]"):
        refusal(name, odd)


@pytest.mark.parametrize(
    ("name", "text"),
    [(name, text) for name, texts in TEXTS.items() for text in texts],
    ids=lambda each: repr(each),
)
def test_a_text_that_means_nothing_is_refused_and_named(name: str, text: str):
    refusal(name, text)


@pytest.mark.parametrize(
    "seconds",
    [
        0,
        0.00001,
        0.001,
        0.25,
        1,
        1.5,
        30,
        90,
        60,
        300,
        3600,
        5400,
        86400,
        604800,
        1_234_567,
        74_074_020,
    ],
)
def test_durations_are_written_as_they_are_read(seconds: float):
    assert seconds_of(duration_text(seconds)) == seconds

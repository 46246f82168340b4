"""Browsers by the names that people know. What they say of themselves is as of 2026, from their makers' documents."""

from __future__ import annotations

import pytest

from dwctl.dashboard.browsers import name_of

_KHTML = "AppleWebKit/537.36 (KHTML, like Gecko)"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (f"Mozilla/5.0 (X11; Linux x86_64) {_KHTML} Chrome/156.0.0.0 Safari/537.36", "Chrome 156 on Linux"),
        (f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {_KHTML} Chrome/156.0.0.0 Safari/537.36 Edg/156.0.3000.1", "Edge 156 on Windows"),
        (f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {_KHTML} Chrome/154.0.0.0 Safari/537.36 OPR/120.0.0.0", "Opera 120 on Windows"),
        (f"Mozilla/5.0 (Linux; Android 10; K) {_KHTML} Chrome/156.0.0.0 Mobile Safari/537.36", "Chrome 156 on Android"),
        (f"Mozilla/5.0 (Linux; Android 13; SAMSUNG SM-S918B) {_KHTML} SamsungBrowser/27.0 Chrome/125.0.0.0 Mobile Safari/537.36", "Samsung Internet 27 on Android"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.1 Safari/605.1.15", "Safari 26 on macOS"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.1 Mobile/15E148 Safari/604.1", "Safari 26 on iPhone"),
        ("Mozilla/5.0 (iPad; CPU OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/156.0.0.0 Mobile/15E148 Safari/604.1", "Chrome 156 on iPad"),
        ("Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0", "Firefox 145 on Linux"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:145.0) Gecko/20100101 Firefox/145.0", "Firefox 145 on macOS"),
        ("Mozilla/5.0 (PlayStation; PlayStation 5/6.50) AppleWebKit/605.1.15 (KHTML, like Gecko) Safari/605.1.15", "Safari"),
        ("Mozilla/5.0 (compatible; Somebot/1.0)", "Mozilla/5.0 (compatible; Somebot/1.0)"),
        ("Mozilla/5.0", "Mozilla/5.0"),
        ("python-requests/2.34.2", "python-requests/2.34.2"),
        ("<b>x</b>", "<b>x</b>"),
        ("", ""),
    ],
)  # fmt: skip
def test_a_browser_is_called_as_people_call_it(said: str, shown: str) -> None:
    assert name_of(said) == shown


def test_a_long_text_takes_no_time() -> None:
    said = "Mozilla/5.0 " + "(" * 50_000 + "a/" * 50_000 + "a" * 100_000
    assert name_of(said) == said

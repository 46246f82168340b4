"""When an upstream says that it may be asked again."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dwctl.upstream.retry_after import seconds_until

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0), (" 7 ", 7.0), ("0", 0.0), ("0.5", 0.5), ("1.25", 1.25), ("999999", 999999.0),
        ("Sun, 01 Mar 2026 12:00:30 GMT", 30.0),
        ("Sunday, 01-Mar-26 12:00:30 GMT", 30.0),
        ("Sun Mar  1 12:00:30 2026", 30.0),
        ("Sun, 01 Mar 2026 13:00:30 +0100", 30.0),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0.0),
        (None, None), ("", None), (" ", None), ("soon", None), ("-1", None), ("1e9", None), ("9" * 400, None), ("1.2.3", None),
        (".", None), ("٣", None), ("nan", None), ("Sun, 99 Mar 2026 12:00:30 GMT", None), ("Sun, 01 Mar 99999 12:00:30 GMT", None),
        ("\x00", None), ("Mon", None), ("0, 0", None),
    ],
)  # fmt: skip
def test_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert seconds_until(value, NOW) == seconds

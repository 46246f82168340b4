"""What is written by hand of models is what their schemas say."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from dwctl.billing.money import price_text
from dwctl.catalog import details, metrics
from dwctl.catalog.schemas import MetricsSchema, TariffSchema
from dwctl.web.schemas import rfc3339

NOW = datetime(2026, 1, 2, 3, 44, 5, 6, UTC)


@pytest.mark.parametrize(
    "counted",
    [
        metrics.Metrics([0] * metrics.POINTS),
        metrics.Metrics(range(metrics.POINTS), 3, 5, 7, 1.5, NOW),
    ],
    ids=["never called", "called"],
)
def test_metrics_are_written_as_their_schema_writes_them(counted: metrics.Metrics) -> None:
    steps = metrics.steps(NOW)
    assert (steps[-1], len(steps)) == (datetime(2026, 1, 2, 3, 40, tzinfo=UTC), metrics.POINTS)
    said: dict[str, Any] = {name: getattr(counted, name) for name in MetricsSchema().fields if name != "time_series"}  # fmt: skip
    said["time_series"] = [
        SimpleNamespace(timestamp=step, requests=calls)
        for step, calls in zip(steps, counted.series, strict=True)
    ]
    by_schema = MetricsSchema().dump(SimpleNamespace(**said))
    assert repr(details._metrics(counted, [rfc3339(s) for s in steps])) == repr(by_schema)


def test_a_tariff_says_only_what_is_set() -> None:
    price = Decimal("0.000000200000000")
    row = SimpleNamespace(
        input_price_per_token=price, reasoning_price_per_token=None, completion_window="1h"
    )
    assert TariffSchema().dump(row) == {
        "input_price_per_token": price_text(price),
        "completion_window": "1h",
    }

"""What a file would cost: values, then the route."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from dwctl.billing.tariffs import CurrentTariff
from dwctl.files.estimates import Asked, estimate
from tests.catalog.conftest import Admin, admin  # noqa: F401
from tests.files.shelf import Shelf, unique

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def priced(input: str, output: str, purpose: str = "realtime", window: str | None = None) -> CurrentTariff:  # fmt: skip
    return CurrentTariff(Decimal(input), Decimal(output), purpose, window, NOW)


REALTIME = priced("0.001", "0.002")
IN_24H = priced("0.0005", "0.001", "batch", "24h")
IN_1H = priced("0.0001", "0.0002", "batch", "1h")


@pytest.mark.parametrize(
    ("asked", "window", "input", "output", "cost"),
    [
        pytest.param(Asked("m", 2, 136), "24h", 34, 37, None, id="no history, no price"),
        pytest.param(Asked("m", 1, 67), "24h", 16, 17, None, id="rounded down"),
        pytest.param(Asked("m", 1, 0), "24h", 0, 0, None, id="nothing"),
        pytest.param(Asked("m", 2, 136, completion_tokens=9, calls=3), "24h", 34, 6, None, id="history"),
        pytest.param(Asked("m", 2, 136, completion_tokens=5, calls=2), "24h", 34, 6, None, id="average rounded"),
        pytest.param(Asked("m", 2, 136, completion_tokens=0, calls=3), "24h", 34, 0, None, id="history of silence"),
        pytest.param(Asked("m", 7, 136, "EMBEDDINGS", completion_tokens=9, calls=3), "24h", 34, 7, None, id="embeddings"),
        pytest.param(Asked("m", 1, 40, "CHAT", [REALTIME]), "24h", 10, 11, "0.032", id="realtime price"),
        pytest.param(Asked("m", 1, 40, "CHAT", [REALTIME, IN_24H, IN_1H]), "24h", 10, 11, "0.016", id="window's price"),
        pytest.param(Asked("m", 1, 40, "CHAT", [REALTIME, IN_24H]), "1h", 10, 11, "0.032", id="no price of another window"),
        pytest.param(Asked("m", 1, 40, "CHAT", [priced("0", "0")]), "24h", 10, 11, "0", id="free"),
        pytest.param(Asked("m", 10**9, 10**15, "CHAT", [REALTIME]), "24h", 25 * 10**13, 275 * 10**12, "800000000000", id="huge"),
    ],
)  # fmt: skip
def test_an_estimate(asked: Asked, window: str, input: int, output: int, cost: str | None) -> None:
    found = estimate(asked, window=window, at=NOW)
    assert (found.estimated_input_tokens, found.estimated_output_tokens) == (input, output)
    assert found.estimated_cost == (None if cost is None else Decimal(cost))


def test_a_file_is_estimated_by_its_models(shelf: Shelf, admin: Admin) -> None:  # noqa: F811
    def tariff(price: str, **more: str) -> dict[str, str]:
        return {
            "name": "p",
            "input_price_per_token": price,
            "output_price_per_token": price,
            "api_key_purpose": "realtime",
        } | more

    used, fresh = unique("a-used"), unique("b-fresh")
    admin.model(alias=used, tariffs=[tariff("0.001"), tariff("0.00025", api_key_purpose="batch", completion_window="24h")])  # fmt: skip
    admin.model(alias=fresh)
    shelf.sql.execute(
        "INSERT INTO model_rollups (of_all, grain, bucket, model, status_code, calls, prompt_tokens, completion_tokens, reasoning_tokens, cached_tokens, total_tokens,"
        " cost, duration_ms, ttfb_ms, timed, last_at)"
        " SELECT false, 3600, date_trunc('hour', now()) - n * interval '1 hour', %s, 200, 1, 0, CASE WHEN n <= 100 THEN 3 ELSE 1000000 END, 0, 0, 0, 0, 1, 0, 0, now()"
        " FROM generate_series(1, 150) n",
        (used,),
    )
    file = shelf.file(shelf.cast["alice"])
    for model, requests, size in (("c-gone", 1, 67), (fresh, 1, 64), (used, 1, 67)):
        shelf.asks(file, model, requests, size)
    shelf.asks(file, used, 1, 69, "/v1/responses")
    answer = shelf("alice", "GET", f"/{file}/cost-estimate")
    assert answer.status_code == 200
    assert answer.json == {
        "file_id": file,
        "total_requests": 4,
        "total_estimated_input_tokens": 66,
        "total_estimated_output_tokens": 40,
        "total_estimated_cost": "0.01",
        "models": [
            {"model": used, "request_count": 2, "estimated_input_tokens": 34,
             "estimated_output_tokens": 6, "estimated_cost": "0.01", "price_known": True},
            {"model": fresh, "request_count": 1, "estimated_input_tokens": 16,
             "estimated_output_tokens": 17, "estimated_cost": "0", "price_known": False},
            {"model": "c-gone", "request_count": 1, "estimated_input_tokens": 16,
             "estimated_output_tokens": 17, "estimated_cost": "0", "price_known": False},
        ],
    }  # fmt: skip
    hourly = shelf("alice", "GET", f"/{file}/cost-estimate?completion_window=1h").json
    assert hourly["total_estimated_cost"] == "0.04"  # type: ignore[index]
    assert shelf("alice", "GET", f"/{shelf.file(shelf.cast['alice'])}/cost-estimate").json["models"] == []  # type: ignore[index]  # fmt: skip


def test_a_file_that_was_written_by_hand_is_counted(shelf: Shelf) -> None:
    alice = shelf.cast["alice"]
    file = shelf.file(alice, lines=3)
    shelf.sql.execute("DELETE FROM fusillade.file_models WHERE file_id = %s", (file,))
    for _ in range(2):
        found = shelf("alice", "GET", f"/{file}/cost-estimate").json
        assert found["models"][0]["request_count"] == found["total_requests"] == 3  # type: ignore[index]

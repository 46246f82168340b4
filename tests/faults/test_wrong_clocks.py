"""A process whose machine's clock is wrong by months: its calls are recorded today, and can be found, like everybody else's."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from dwctl.clock import uuid7_seconds
from tests.gateway import Gateway
from tests.processes import eventually

MONTHS_S = 100 * 86_400


@pytest.mark.parametrize("skew_s", [-MONTHS_S, MONTHS_S], ids=["behind", "ahead"])
def test_calls_of_a_process_with_a_wrong_clock(stage: Gateway, skew_s: int) -> None:
    folder = Path(__file__).parent / "skewed"
    wrong = stage.service.start_web(PYTHONPATH=str(folder), SKEW_S=str(skew_s))
    try:
        check = stage.session.get(f"{wrong.url}/readyz", timeout=10).json()["checks"]["clock"]
        assert abs(check["off_s"] + skew_s) < 60
        assert "NTP" in check["problem"]

        answer = stage.chat(stage.model("ok"), url=wrong.url)
        assert answer.status_code == 200, answer.text
        left = stage.left(answer)
        assert len(left.logs) == len(left.charges) == 1
        (near,) = stage.one(
            "SELECT abs(extract(epoch FROM now() - timestamp)) FROM http_analytics WHERE request_id = %s",
            left.id,
        )
        minted_s = uuid7_seconds(UUID(str(left.id)))
        (now_s,) = stage.one("SELECT extract(epoch FROM now())::float8")
        assert near < 60
        assert minted_s is not None
        assert abs(minted_s - now_s) < 60
        held = stage.respond(stage.flexible("ok", alias="flexible"), url=wrong.url, background=True)
        eventually(lambda: stage.shown(held.json()["id"])["status"] == "completed", 20)
    finally:
        wrong.stop()


def test_a_right_clock_is_left_alone(stage: Gateway) -> None:
    check = stage.session.get(f"{stage.url}/readyz", timeout=10).json()["checks"]["clock"]
    assert check == {"ready": True, "off_s": 0.0}

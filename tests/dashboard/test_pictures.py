"""The pictures of docs/dashboard.md, made anew by `DWCTL_SCREENSHOTS=docs/pictures pytest tests/dashboard/test_pictures.py`; else nothing happens here.

They show a week of a small team: its calls are written down as the gateway would have done it, and the one that fails is real.
"""

from __future__ import annotations

import base64
import os
import random
import time
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from playwright.sync_api import Page, expect

from dwctl.analytics import writing
from tests import browser
from tests.analytics.made import Made, final
from tests.dashboard.house import House

pytestmark = pytest.mark.skipif(
    not os.environ.get(browser.SCREENSHOTS), reason=f"{browser.SCREENSHOTS} names no folder"
)

DAYS, CALLS, MOST_BYTES = 7, 900, 120_000
MODELS = {
    "qwen3-32b": ("0.0000004", "0.0000012"),
    "llama-3.3-70b": ("0.0000006", "0.0000018"),
    "mistral-small": ("0.0000002", "0.0000006"),
}
SIZE = {"width": 1200, "height": 900}


@pytest.fixture(scope="module", autouse=True)
def _week(house: House) -> None:
    gateway = house.gateway
    for alias, price in MODELS.items():
        gateway.model("chunks-40", alias=alias, price=price, wait=False)
    gateway.model("fail-500", alias="gemma-3-27b")
    chance, now = random.Random(13), time.time()
    daemon, records = uuid4(), []
    for _ in range(CALLS):
        at = now - chance.triangular(0, DAYS, 1) * 86_400
        person = house.people[chance.choice(("admin", "manager", "member"))].account
        made = Made(daemon, person.id, track=False, created_at=at, model=chance.choice([*MODELS]))
        inward, outward = chance.randrange(40, 4_000), chance.randrange(5, 900)
        prices = [Decimal(price) for price in MODELS[made.model]]
        took_ms = 180 + outward * chance.randrange(8, 14)
        failed = chance.random() < 0.02
        records.append(final(made, prompt_tokens=inward, completion_tokens=0 if failed else outward, total_tokens=inward + outward,
            input_price=prices[0], output_price=prices[1], cost=Decimal(0) if failed else inward * prices[0] + outward * prices[1],
            status_code=503 if failed else 200, error_code="upstream_unavailable" if failed else None,
            duration_ms=took_ms, ttfb_ms=chance.randrange(90, 400), api_key_id=person.key_id))  # fmt: skip
    with psycopg.connect(gateway.database_url, autocommit=True) as sql:
        sql.execute(f"SELECT make_log_partitions((now() AT TIME ZONE 'UTC')::date - {DAYS}, {DAYS + 1})")  # fmt: skip
        for start in range(0, CALLS, 100):
            writing.record(sql, records[start : start + 100])


_AS_WEBP = """async png => {
    const image = new Image();
    image.src = `data:image/png;base64,${png}`;
    await image.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.width, image.height];
    canvas.getContext("2d").drawImage(image, 0, 0);
    return canvas.toDataURL("image/webp", 0.8).split(",")[1];
}"""


def take(page: Page, name: str) -> None:
    """What the window shows, as `name`.webp: a third of the size, and only the browser can make it."""
    page.mouse.move(0, 0)
    # Hiding the caret would need a style of Playwright's own, which the policy refuses.
    shown = base64.b64encode(page.screenshot(caret="initial")).decode()
    picture = base64.b64decode(page.context.new_page().evaluate(_AS_WEBP, shown))
    assert len(picture) <= MOST_BYTES, f"{name} has {len(picture)} bytes"
    (Path(os.environ[browser.SCREENSHOTS]) / f"{name}.webp").write_bytes(picture)


@pytest.fixture(autouse=True)
def _sized(page: Page) -> None:
    page.set_viewport_size(SIZE)  # type: ignore[arg-type]


def test_overview(page: Page) -> None:
    page.goto("/?range=7d")
    expect(page.locator("time-chart canvas").first).to_be_visible()
    expect(page.locator("#failed table")).to_be_visible()
    take(page, "overview")


def test_requests(page: Page) -> None:
    page.goto("/requests?range=7d&model=qwen3-32b&columns=time,model,outcome,caller,input,output,duration,cost")  # fmt: skip
    expect(page.locator("time-chart canvas").first).to_be_visible()
    take(page, "requests")


def test_the_story_of_a_call(page: Page, house: House) -> None:
    answer = house.gateway.chat("gemma-3-27b", by=house.people["member"].account)
    log = house.gateway.log_of(answer)
    page.goto(f"/requests/{log.request_id}")
    take(page, "request")


@pytest.mark.parametrize("theme", ["dark"])
def test_usage(page: Page) -> None:
    page.goto("/usage?range=7d")
    expect(page.locator("time-chart canvas").first).to_be_visible()
    take(page, "usage-dark")


@pytest.mark.parametrize("width", [browser.NARROW])
def test_on_a_phone(page: Page) -> None:
    page.set_viewport_size({"width": browser.NARROW, "height": 760})
    page.goto("/models?range=7d")
    expect(page.locator("table.two-lines tbody tr").first).to_be_visible()
    take(page, "phone")

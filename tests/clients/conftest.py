"""Models that do what each client is put through, and the flows' expectations.

The upstream echoes the last text where a structured answer is wanted, so a prompt is itself the answer that is asked for.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.gateway import Gateway

HERE = Path(__file__).parent

SAID = "Hello there friend"
CITY = '{"city":"Oslo","degrees":7}'


@dataclass(frozen=True)
class Door:
    """Where a client calls, and what it may call there."""

    base_url: str
    key: str
    plain: str
    tools: str
    echo: str
    thinking: str
    turned: str  # its embeddings are in the format that was not asked for


@pytest.fixture(scope="module")
def door(stage: Gateway) -> Door:
    return Door(
        base_url=f"{stage.url}/ai/v1",
        key=stage.alice.key,
        plain=stage.model("ok"),
        tools=stage.model("tools"),
        echo=stage.model("echo"),
        thinking=stage.model("reasoning"),
        turned=stage.model("other-format"),
    )


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left_to_others() -> Iterator[None]:
    """What these libraries leave open is collected here, where nobody minds, and not in the middle of another module's test."""
    yield
    asyncio.set_event_loop(None)
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(3):
                gc.collect()
    finally:
        sys.unraisablehook = hook


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """These libraries leave sockets and event loops open, which is theirs to mend."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.filterwarnings("ignore::ResourceWarning"))
            item.add_marker(
                pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
            )

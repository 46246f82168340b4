"""The libraries of the JavaScript world: openai, the Vercel AI SDK, langchain, the OpenAI Agents SDK (tests/clients/node/flows.mjs);
and openai's on files and batches (batches.mjs).

Where Node or npm is missing, or npm's registry is out of reach, they are skipped, with a line that says so.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests.clients.conftest import SAID, Door
from tests.gateway import Gateway

HERE = Path(__file__).parent / "node"
LIBRARIES = (
    "openai-chat",
    "openai-responses",
    "ai-sdk-responses",
    "ai-sdk-chat",
    "ai-sdk-compatible",
    "langchain-chat",
    "langchain-responses",
    "agents-responses",
    "agents-chat",
)
PARSED = {"city": "Oslo", "degrees": 7}


@pytest.fixture(scope="module")
def node() -> str:
    """The interpreter, with the libraries of the lock file in place."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("Node or npm is missing: its clients are not tried")
    with FileLock(HERE / ".installing"):
        installed = HERE / "node_modules" / ".package-lock.json"
        locked = HERE / "package-lock.json"
        if not installed.exists() or installed.stat().st_mtime < locked.stat().st_mtime:
            made = subprocess.run(
                [npm, "ci", "--silent"], cwd=HERE, capture_output=True, text=True, timeout=150
            )
            if made.returncode:
                pytest.skip(f"npm could not install the clients: {made.stderr[-300:]}")
            os.utime(installed)
    return node


@pytest.fixture(scope="module", params=LIBRARIES)
def came(request: pytest.FixtureRequest, node: str, door: Door) -> dict[str, Any]:
    """What came of each flow of one library."""
    environment = {
        "PATH": os.environ["PATH"],
        "BASE_URL": door.base_url,
        "API_KEY": door.key,
        "PLAIN": door.plain,
        "TOOLS": door.tools,
        "ECHO": door.echo,
        "THINKING": door.thinking,
        "TURNED": door.turned,
        "AI_SDK_LOG_WARNINGS": "false",
    }
    ran = subprocess.run(
        [node, "flows.mjs", request.param],
        cwd=HERE,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def test_a_tool_loop(came: dict[str, Any]) -> None:
    assert came["tools"].get("said") == SAID, came["tools"]


def test_a_structured_output(came: dict[str, Any]) -> None:
    assert came["structured"].get("parsed") == PARSED, came["structured"]


def test_a_stream(came: dict[str, Any]) -> None:
    stream = came["stream"]
    assert stream.get("said") == SAID, stream
    assert stream.get("tokens", 12) == 12
    # Thinking is over before the answer begins.
    thinking = ["reasoning-start", "reasoning-end", "text-start", "text-end"]
    assert stream.get("order", thinking) in (thinking, thinking[2:])


def test_a_second_turn(came: dict[str, Any]) -> None:
    assert came["second"].get("said") == SAID, came["second"]
    after_tools = came.get("secondAfterTools", {"said": SAID})
    assert after_tools.get("said") == SAID, after_tools


def test_embeddings(came: dict[str, Any]) -> None:
    """The library asks for base64 by itself, and takes whatever comes for that."""
    expected = {"plain": [0.25, -0.5], "turned": [0.25, -0.5]}
    assert came.get("embeddings", expected) == expected


def test_files_and_batches(node: str, door: Door, stage: Gateway) -> None:
    stage.service.worker()
    ran = subprocess.run(
        [node, "batches.mjs"],
        cwd=HERE,
        env={
            "PATH": os.environ["PATH"],
            "BASE_URL": door.base_url,
            "API_KEY": stage.account().key,
            "ECHO": door.echo,
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert json.loads(ran.stdout) == {
        "filename": '世界 "1".jsonl',
        "lifetime": 3600,
        "status": "completed",
        "counts": {"total": 2, "completed": 2, "failed": 0},
        "team": "a",
        "listed": True,
        "twice": 0,
        "answers": ["one\u2028two", "Grüße, 世界"],
        "after": "completed",
        "deleted": True,
    }
